"""The laws of the CGI environment, in one place: from what a web server sent to what a handler may rely on.

RFC 3875 section 4, and what real servers made of it. ``build`` takes the meta-variables as they came and gives the
dictionary behind a Request; everything that can be wrong with them is a RemoteProtocolError with its status.
"""

from gateways._model import quirks as _quirks
from gateways._model.errors import LimitExceeded, RemoteProtocolError
from gateways._model.headers import as_pairs, is_number, is_token

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    #: The meta-variables as they came, in wire order: a mapping where no name was repeated, else (name, value) pairs.
    Variables = Mapping[str, str] | Sequence[tuple[str, str]]

#: Repeats of these do not add up, the last one counts; so it is with every name that does not begin with HTTP_,
#: because an nginx configuration overrides an included fastcgi_params that way.
_SINGLE_HEADERS = frozenset({"HTTP_HOST", "HTTP_AUTHORIZATION", "HTTP_REFERER", "HTTP_USER_AGENT"})

#: The framing of the message is CONTENT_LENGTH's and CONTENT_TYPE's word alone; HTTP_PROXY would be taken for the
#: proxy setting of outgoing requests (httpoxy, CVE-2016-5385 and kin). A variable without a name is none.
_NEVER = ("", "HTTP_CONTENT_LENGTH", "HTTP_CONTENT_TYPE", "HTTP_PROXY")

#: nginx sends these without a value where there is nothing to tell.
_OFTEN_EMPTY = ("CONTENT_TYPE", "CONTENT_LENGTH", "REMOTE_USER")

#: Names that need no look at their characters. A name that is missing here costs time and nothing else.
_USUAL_NAMES = frozenset({
    "AUTH_TYPE", "CONTENT_LENGTH", "CONTENT_TYPE", "CONTEXT_DOCUMENT_ROOT", "CONTEXT_PREFIX", "DOCUMENT_ROOT",
    "DOCUMENT_URI", "FCGI_ROLE", "GATEWAY_INTERFACE", "HTTPS", "PATH", "PATH_INFO", "PATH_TRANSLATED", "QUERY_STRING",
    "REDIRECT_STATUS", "REDIRECT_URI", "REMOTE_ADDR", "REMOTE_HOST", "REMOTE_PORT", "REMOTE_USER", "REQUEST_METHOD",
    "REQUEST_SCHEME", "REQUEST_URI", "SCGI", "SCRIPT_FILENAME", "SCRIPT_NAME", "SERVER_ADDR", "SERVER_ADMIN",
    "SERVER_NAME", "SERVER_PORT", "SERVER_PROTOCOL", "SERVER_SIGNATURE", "SERVER_SOFTWARE", "SSL_TLS_SNI",
    "HTTP_ACCEPT", "HTTP_ACCEPT_ENCODING", "HTTP_ACCEPT_LANGUAGE", "HTTP_AUTHORIZATION", "HTTP_CACHE_CONTROL",
    "HTTP_CONNECTION", "HTTP_CONTENT_LENGTH", "HTTP_CONTENT_TYPE", "HTTP_COOKIE", "HTTP_DNT", "HTTP_FORWARDED",
    "HTTP_FROM", "HTTP_HOST", "HTTP_IF_MATCH", "HTTP_IF_MODIFIED_SINCE", "HTTP_IF_NONE_MATCH", "HTTP_IF_RANGE",
    "HTTP_IF_UNMODIFIED_SINCE", "HTTP_ORIGIN", "HTTP_PRAGMA", "HTTP_PRIORITY", "HTTP_RANGE", "HTTP_REFERER",
    "HTTP_SEC_CH_UA", "HTTP_SEC_CH_UA_MOBILE", "HTTP_SEC_CH_UA_PLATFORM", "HTTP_SEC_FETCH_DEST", "HTTP_SEC_FETCH_MODE",
    "HTTP_SEC_FETCH_SITE", "HTTP_SEC_FETCH_USER", "HTTP_SEC_GPC", "HTTP_TE", "HTTP_TRANSFER_ENCODING",
    "HTTP_UPGRADE_INSECURE_REQUESTS", "HTTP_USER_AGENT", "HTTP_VIA", "HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_HOST",
    "HTTP_X_FORWARDED_PROTO", "HTTP_X_FORWARDED_SERVER", "HTTP_X_REAL_IP", "HTTP_X_REQUESTED_WITH",
    "HTTP_X_REQUEST_ID",
})  # fmt: skip

#: What most requests consist of: only the laws of the path, the method, the length and the user are about any of it, so
#: that no other needs to be applied.
_PLAIN_NAMES = _USUAL_NAMES - {"HTTP_CONTENT_LENGTH", "HTTP_CONTENT_TYPE", "SCRIPT_FILENAME"}

_USUAL_METHODS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})

#: Protocols whose requests are HTTP's; a SERVER_PROTOCOL that is missing or no token counts as HTTP, INCLUDED as
#: HTTP/1.0.
_HTTP_PROTOCOLS = ("http", "included")
USUAL_HTTP = frozenset({"HTTP/1.0", "HTTP/1.1", "HTTP/2.0", "HTTP/3.0"})

_MAX_METHOD = 1024
_MAX_DIGITS = 19
#: The end of the year 9999, in seconds since 1970: no calendar here goes further.
_LAST_SECOND = 253_402_300_799


class Rules:
    """How one listener reads what its web server says: the repairs, the mount and the trust.

    ``quirks`` is "auto", "none" or names of repairs; ``mount`` the path under which the application lives ("/app";
    "" and "/" are the root; None believes the server's own split). Raises ValueError for a setting that makes no
    sense.
    """

    __slots__ = ("dialect", "mount", "repairs", "trust_forwarded", "trust_remote_user")

    def __init__(
        self,
        *,
        quirks: "str | Iterable[str]" = "auto",
        mount: "str | None" = None,
        trust_remote_user: bool = False,
        trust_forwarded: bool = False,
    ) -> None:
        self.mount = None if mount is None else check_mount(mount)
        # Where the mount is known, a split that the server did not make need not be guessed, nor complained of.
        names = [name for name in _quirks.select(quirks) if mount is None or name != "nginx-root"]
        self.dialect: str | None = None
        while names and names[-1] in _quirks.DIALECTS:
            self.dialect = names.pop().removeprefix("speaks-")
        self.repairs = tuple(names)
        self.trust_remote_user = trust_remote_user
        self.trust_forwarded = trust_forwarded


def check_mount(mount: str) -> str:
    """A mount in its one form: "" or "/x". Raises ValueError for a path that does not begin with a slash."""
    if mount and not mount.startswith("/"):
        raise ValueError(f"a mount begins with a slash: {'/' + mount!r}, not {mount!r}")
    return mount.rstrip("/")


def build(variables: "Variables", protocol: str, rules: Rules) -> "tuple[dict[str, str], str, tuple[str, ...]]":
    """Apply every law to the meta-variables of one request: (environ, path, notes).

    ``protocol`` is the gateway protocol that carried them ("fastcgi", "scgi", "cgi", "http"). ``notes`` are the
    names of repairs that mended something. Raises RemoteProtocolError with the status that answers it: 400 for
    variables that mean nothing, 404 for a path outside the mount, 413 for a length beyond all numbers.
    """
    environ = _merge(variables)
    plain = _PLAIN_NAMES.issuperset(environ)
    if not plain:
        _check_names(environ)
    try:
        if environ.get("SERVER_PROTOCOL") in USUAL_HTTP and rules.dialect is None:
            http = True
        else:
            from gateways._model.dialects.small_web import settle  # few requests come this way

            http = not settle(environ, protocol, rules)
        if plain and "PATH_INFO" in environ and environ.get("SCRIPT_NAME") != "/":
            notes: tuple[str, ...] = ()
        else:
            notes = _quirks.apply(rules.repairs, environ, protocol)
        if notes and rules.mount is not None:
            notes = tuple([name for name in notes if name != "root-script-name"])  # the split is ours anyway
        path, script, info = _split_path(environ, http, rules.mount)
        query = environ.pop("QUERY_STRING", "")
        if not plain:
            for name in _NEVER:
                environ.pop(name, None)
        _drop_empty(environ)
        environ["SCRIPT_NAME"], environ["PATH_INFO"], environ["QUERY_STRING"] = script, info, query
        environ.setdefault("GATEWAY_INTERFACE", "CGI/1.1")
        _method(environ, http)
        _length(environ, protocol)
        if not plain:
            _filter(environ)
        _trust(environ, rules)
    except RemoteProtocolError as error:
        error.environ = environ
        raise
    return environ, path, notes


def _merge(variables: "Variables") -> "dict[str, str]":
    """One value a name. RFC 3875 section 4.1.18 for header fields, the last word for everything else."""
    environ = dict(variables)
    if "\0" in "".join(environ.values()):
        raise RemoteProtocolError("a NUL in a meta-variable")
    if len(environ) != len(variables):
        _join_repeats(environ, as_pairs(variables))
    return environ


def _check_names(environ: "dict[str, str]") -> None:
    """Refuse names that a process environment cannot hold, or only under another name."""
    unusual = [name for name in environ if name not in _USUAL_NAMES]
    together = "".join(unusual)
    if "=" in together or not together.isprintable():
        for name in unusual:
            if "=" in name or any(character < " " or character == "\x7f" for character in name):
                raise RemoteProtocolError(f"not the name of a meta-variable: {name[:80]!r}")


def _join_repeats(environ: "dict[str, str]", pairs: "Iterable[tuple[str, str]]") -> None:
    once: dict[str, str] = {}
    again: dict[str, list[str]] = {}
    for name, value in pairs:
        if name not in once:
            once[name] = value
        else:
            again.setdefault(name, [once[name]]).append(value)
    for name, several in again.items():
        if "\0" in "".join(several):
            raise RemoteProtocolError("a NUL in a meta-variable")
        if name == "CONTENT_LENGTH":
            environ[name] = _agreed_length(several)
        elif name.startswith("HTTP_") and name not in _SINGLE_HEADERS:
            separator = "; " if name == "HTTP_COOKIE" else ", "
            environ[name] = separator.join([value for value in several if value])


def _agreed_length(values: "Iterable[str]") -> str:
    """The one CONTENT_LENGTH that several say; two that differ are how requests are smuggled."""
    distinct = {value for value in values if value}
    if len(distinct) > 1:
        raise RemoteProtocolError(f"CONTENT_LENGTH is both {' and '.join(map(repr, sorted(distinct)))}")
    return distinct.pop() if distinct else ""


def is_http(environ: "dict[str, str]") -> bool:
    """Whether the client spoke HTTP, rather than Gemini, Spartan, Titan or Gopher (RFC 3875 section 4.1.16)."""
    sent = environ.get("SERVER_PROTOCOL", "")
    if sent in USUAL_HTTP:
        return True
    name = sent.partition("/")[0]
    return name.lower() in _HTTP_PROTOCOLS or not is_token(name)


# --- paths -------------------------------------------------------------------------------------------------------


def _split_path(environ: "dict[str, str]", http: bool, mount: "str | None") -> "tuple[str, str, str]":
    """Take SCRIPT_NAME and PATH_INFO out, and give (path, script name, path info) as they ought to be: the path is the
    concatenation of the two."""
    script, info = environ.pop("SCRIPT_NAME", ""), environ.pop("PATH_INFO", "")
    if not script and mount is None and info.startswith("/"):
        return info, script, info  # what most requests come to: the same as below
    if not http:
        # molly-brown and gmid leave out the leading slash.
        script, info = _slashed(script), _slashed(info)
    path = script + info
    if not path:
        path = environ.get("DOCUMENT_URI") or _request_path(environ)
    if path and not path.startswith("/"):
        raise RemoteProtocolError(f"the path does not begin with a slash: {path[:80]!r}", status=404)
    if mount is not None:
        # On a segment boundary: "/application" is not below "/app", whatever the server's pattern matched.
        if path != mount and not path.startswith(mount + "/"):
            raise RemoteProtocolError(f"{path[:80]!r} is not below the mount {mount!r}", status=404)
        script = mount
    else:
        script = script.rstrip("/")
    info = path[len(script) :]  # the path begins with it either way
    if info and not info.startswith("/"):
        raise RemoteProtocolError(
            f"the server split {path[:80]!r} inside a segment: mind the slash in its pattern, or set a mount",
            status=404,
        )
    return path, script, info


def _slashed(path: str) -> str:
    return "/" + path if path and not path.startswith("/") else path


def _request_path(environ: "dict[str, str]") -> str:
    path = unquote(raw_path(environ) or "")
    if "\0" in path:
        raise RemoteProtocolError("a NUL in the path of REQUEST_URI")
    return path


def raw_path(environ: "dict[str, str]") -> "str | None":
    """The path of REQUEST_URI as the client wrote it, still percent-encoded, or None where there is none.

    Apache and h2o keep the scheme and host of an absolute-form target (RFC 9112 section 3.2.2).
    """
    uri = environ.get("REQUEST_URI")
    if not uri:
        return None
    target = uri.partition("?")[0]
    if not target.startswith("/") and "://" in target:
        _, slash, path = target.partition("://")[2].partition("/")
        return slash + path or "/"
    return target


def unquote(text: str) -> str:
    """Percent-decode once; what is no escape stays as it is."""
    if "%" not in text:
        return text
    first, *rest = text.encode("utf-8", "surrogateescape").split(b"%")
    return (first + b"".join([_unescape(piece) for piece in rest])).decode("utf-8", "surrogateescape")


def _unescape(piece: bytes) -> bytes:
    digits = piece[:2]
    # int() would take " 1", "+1" and "1_" for numbers.
    if len(digits) == 2 and _HEX_DIGITS.issuperset(digits):
        return bytes([int(digits, 16)]) + piece[2:]
    return b"%" + piece


def quote(text: str) -> str:
    """Percent-encode a path: everything but unreserved characters, "/" and the sub-delims a path may hold."""
    raw = text.encode("utf-8", "surrogateescape")
    return "".join([chr(byte) if byte in _PATH_BYTES else f"%{byte:02X}" for byte in raw])


_HEX_DIGITS = frozenset(b"0123456789abcdefABCDEF")
_PATH_BYTES = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/!$&'()*+,;=:@")


# --- values, method, length, trust -------------------------------------------------------------------------------


def _drop_empty(environ: "dict[str, str]") -> None:
    """A variable without a value is the same as none (RFC 3875 section 4.1)."""
    for name in _OFTEN_EMPTY:
        if environ.get(name) == "":
            del environ[name]
    if "" in environ.values():
        for name in [name for name, value in environ.items() if not value]:
            del environ[name]


def _method(environ: "dict[str, str]", http: bool) -> None:
    method = environ.get("REQUEST_METHOD")
    if not method:
        if http:
            raise RemoteProtocolError("no REQUEST_METHOD")
        # Gemini servers send none.
        environ["REQUEST_METHOD"] = "GET"
    elif method not in _USUAL_METHODS and (len(method) > _MAX_METHOD or not is_token(method)):
        raise RemoteProtocolError(f"not a method: {method[:80]!r}")


def _length(environ: "dict[str, str]", protocol: str) -> None:
    value = environ.get("CONTENT_LENGTH")
    if value is None:
        return
    if value == "-1" and protocol == "fastcgi":
        # Caddy's chunked upload: the end of STDIN ends the body.
        del environ["CONTENT_LENGTH"]
        return
    parse_length(value)


def _filter(environ: "dict[str, str]") -> None:
    """What a filter is told of its file (FastCGI section 6.4)."""
    if "FCGI_DATA_LENGTH" in environ:
        parse_length(environ["FCGI_DATA_LENGTH"], "FCGI_DATA_LENGTH")
    changed = environ.get("FCGI_DATA_LAST_MOD")
    if changed is not None and not (
        is_number(changed) and len(changed) <= _MAX_DIGITS and int(changed) <= _LAST_SECOND
    ):
        raise RemoteProtocolError(f"FCGI_DATA_LAST_MOD is not a time in seconds: {changed[:40]!r}")


def parse_length(value: str, name: str = "CONTENT_LENGTH") -> int:
    """A length in bytes. Raises RemoteProtocolError for anything but ASCII digits, LimitExceeded for more digits than
    any length has; ``name`` is the variable that they tell of.
    """
    if not is_number(value):
        raise RemoteProtocolError(f"{name} is not a number: {value[:40]!r}")
    if len(value) > _MAX_DIGITS:
        raise LimitExceeded(f"{name} has {len(value)} digits")
    return int(value)


def scgi_length(variables: "Variables") -> int:
    """The number of body bytes that follow the header block of an SCGI request, 0 where nobody says.

    Takes the client's own number where nginx announced too small a one (``scgi_request_buffering off``). Raises
    RemoteProtocolError for what is no number or for two that differ, LimitExceeded for one beyond all lengths.
    """
    environ = variables if isinstance(variables, dict) else dict(variables)
    agreed = environ.get("CONTENT_LENGTH", "")
    if agreed == "0" and "HTTP_CONTENT_LENGTH" not in environ and len(environ) == len(variables):
        return 0  # most requests have no body
    if len(environ) != len(variables):
        agreed = _agreed_length([value for name, value in as_pairs(variables) if name == "CONTENT_LENGTH"])
    announced = parse_length(agreed) if agreed else 0
    real = _quirks.unbuffered_length(environ)
    return announced if real is None else int(real)


def _trust(environ: "dict[str, str]", rules: Rules) -> None:
    named = "REMOTE_USER" in environ or "AUTH_TYPE" in environ
    if named and not rules.trust_remote_user and _fills_remote_user_unverified(environ):
        environ.pop("REMOTE_USER", None)
        environ.pop("AUTH_TYPE", None)
    if rules.trust_forwarded:
        client = environ.get("HTTP_X_FORWARDED_FOR", "").rpartition(",")[2].strip(" \t")
        if client:
            environ["REMOTE_ADDR"] = client
            environ.pop("REMOTE_PORT", None)
        scheme = environ.get("HTTP_X_FORWARDED_PROTO", "").strip(" \t").lower()
        if scheme in ("http", "https"):
            environ["REQUEST_SCHEME"] = scheme
            environ.pop("HTTPS", None)
            if scheme == "https":
                environ["HTTPS"] = "on"


def _fills_remote_user_unverified(environ: "dict[str, str]") -> bool:
    """nginx and HAProxy copy the user out of Basic credentials that nobody has checked."""
    return environ.get("SERVER_SOFTWARE", "").startswith("HAProxy") or _quirks.is_nginx(environ)


def scheme(environ: "dict[str, str]") -> str:
    """The scheme of the request: from SERVER_PROTOCOL for the small web, from HTTPS and REQUEST_SCHEME for HTTP."""
    if not is_http(environ):
        return environ["SERVER_PROTOCOL"].partition("/")[0].lower()
    if environ.get("HTTPS", "").lower() in ("on", "1"):
        return "https"
    declared = environ.get("REQUEST_SCHEME", "").lower()
    return declared if declared in ("http", "https") else "http"
