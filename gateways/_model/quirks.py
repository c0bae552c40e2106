"""The named repairs: what stock configurations get wrong, put right before the laws are applied.

Each repair looks at the merged meta-variables (empty values still in place), mends them and says whether it did.
``quirks="auto"`` applies :data:`AUTOMATIC`; the others are opt-in by name. All are pure and were written down from
what the servers named here really send.
"""

from gateways._model.headers import is_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


def is_nginx(environ: "dict[str, str]") -> bool:
    """Whether nginx sent this. Its stock scgi_params carry no SERVER_SOFTWARE, but DOCUMENT_URI, which no other
    server sends without SERVER_SOFTWARE.
    """
    software = environ.get("SERVER_SOFTWARE")
    return "DOCUMENT_URI" in environ if not software else software.startswith("nginx/")


def _nginx_root(environ: "dict[str, str]", protocol: str) -> bool:
    # A configuration that splits sends an empty PATH_INFO where there is no rest. Under CGI (fcgiwrap) the server
    # names a script file, so there SCRIPT_NAME is to be believed.
    if "PATH_INFO" in environ or protocol == "cgi" or not is_nginx(environ):
        return False
    environ["PATH_INFO"] = environ.get("SCRIPT_NAME") or environ.get("DOCUMENT_URI", "")
    environ["SCRIPT_NAME"] = ""
    return True


def _root_script_name(environ: "dict[str, str]", protocol: str) -> bool:
    if environ.get("SCRIPT_NAME") != "/":
        return False
    environ["SCRIPT_NAME"] = ""
    environ["PATH_INFO"] = environ.get("PATH_INFO") or "/"
    return True


def _proxy_filename(environ: "dict[str, str]", protocol: str) -> bool:
    filename = environ.get("SCRIPT_FILENAME", "")
    if not filename.startswith(("proxy:fcgi://", "proxy:scgi://")):
        return False
    host_and_path = filename.partition("://")[2]
    _, slash, path = host_and_path.partition("/")
    # ProxyPass to a target that ends in "/" doubles the slash.
    environ["SCRIPT_FILENAME"] = slash + path.removeprefix("/")
    return True


def _nginx_scgi_length(environ: "dict[str, str]", protocol: str) -> bool:
    if protocol != "scgi" or not unbuffered_length(environ):
        return False
    environ["CONTENT_LENGTH"] = environ["HTTP_CONTENT_LENGTH"]
    return True


def _authorization(environ: "dict[str, str]", protocol: str) -> bool:
    if "Authorization" not in environ:
        return False
    environ.setdefault("HTTP_AUTHORIZATION", environ.pop("Authorization"))
    return True


def _empty_name(environ: "dict[str, str]", protocol: str) -> bool:
    return environ.pop("", None) is not None


def unbuffered_length(environ: "dict[str, str]") -> "str | None":
    """The length of the body where nginx with ``scgi_request_buffering off`` announced less: it counts what has
    arrived so far, but passes the client's own Content-Length on (nginx 1.22.1).
    """
    announced = environ.get("CONTENT_LENGTH", "")
    real = environ.get("HTTP_CONTENT_LENGTH", "")
    if environ.get("SERVER_SOFTWARE") or not is_number(announced) or not is_number(real) or len(real) > 19:
        return None
    return real if len(announced) <= 19 and int(real) > int(announced) else None


#: name -> (repair, the configuration that makes it needless)
REPAIRS: "dict[str, tuple[Callable[[dict[str, str], str], bool], str]]" = {
    "nginx-root": (
        _nginx_root,
        'nginx sent no PATH_INFO, so the application is taken to be mounted at "/"; say so with '
        'fastcgi_param SCRIPT_NAME ""; fastcgi_param PATH_INFO $fastcgi_script_name; '
        '(scgi: scgi_param SCRIPT_NAME ""; scgi_param PATH_INFO $document_uri;)',
    ),
    "root-script-name": (
        _root_script_name,
        'SCRIPT_NAME was "/", which no CGI script is called; with lighttpd set "fix-root-scriptname" => "enable", '
        "with HAProxy path-info",
    ),
    "proxy-filename": (
        _proxy_filename,
        "Apache sent SCRIPT_FILENAME as a proxy: address; set ProxyFCGIBackendType GENERIC",
    ),
    "nginx-scgi-length": (
        _nginx_scgi_length,
        "nginx sent a CONTENT_LENGTH that is too small; set scgi_request_buffering on;",
    ),
    "empty-name": (
        _empty_name,
        "a variable without a name was dropped; look for one in the configuration of the web server",
    ),
    "authorization": (
        _authorization,
        "the variable Authorization was taken for HTTP_AUTHORIZATION; with mod_fcgid use CGIPassAuth On",
    ),
}

#: What a server speaks that does not say so, or the wrong thing; "speaks-cgi" is for one that wants header fields
#: although its clients know of none. Opt-in by name too.
DIALECTS = ("speaks-gemini", "speaks-spartan", "speaks-gopher", "speaks-cgi")

#: What quirks="auto" stands for.
AUTOMATIC = ("nginx-root", "root-script-name", "proxy-filename", "nginx-scgi-length", "empty-name")


def select(quirks: "str | Iterable[str]") -> "tuple[str, ...]":
    """The names of repairs that a ``quirks`` setting asks for: "auto", "none", or names ("auto" among them or not).

    Raises ValueError for a name that is none.
    """
    names = [quirks] if isinstance(quirks, str) else list(quirks)
    chosen: list[str] = []
    spoken: list[str] = []
    for name in names:
        if name == "auto":
            chosen += AUTOMATIC
        elif name in REPAIRS:
            chosen.append(name)
        elif name in DIALECTS:
            spoken.append(name)  # last, where they are easily found
        elif name != "none":
            known = ", ".join([*REPAIRS, *DIALECTS])
            raise ValueError(f"no repair is called {name!r}: take auto, none or one of {known}")
    return tuple(dict.fromkeys(chosen + spoken))


def apply(names: "tuple[str, ...]", environ: "dict[str, str]", protocol: str) -> "tuple[str, ...]":
    """Run the named repairs on merged meta-variables, in place; the names of those that mended something."""
    # Most requests need none. A new repair may want its sign added here.
    if (
        "PATH_INFO" in environ
        and environ.get("SCRIPT_NAME") != "/"
        and "SCRIPT_FILENAME" not in environ
        and "HTTP_CONTENT_LENGTH" not in environ
        and "Authorization" not in environ
        and "" not in environ
    ):
        return ()
    return tuple([name for name in names if REPAIRS[name][0](environ, protocol)])
