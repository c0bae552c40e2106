"""The doctor's eye: what is wrong with the meta-variables that a web server sent, and the line that mends it.

Looks at the variables as they came, before any repair, and judges the configuration behind them. Nothing here changes
a request. All is pure, and was written down from what the servers named here really send.
"""

from gateways._model import quirks as _quirks
from gateways._model.environ import is_http, scheme
from gateways._model.headers import as_pairs, is_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateways._model.environ import Rules, Variables

__all__ = ["SEVERITIES", "Advice", "front_end", "look", "unseen"]

#: From worst to least: requests are misread or refused; somebody may take advantage; worth a look, because it cannot
#: be seen from here whether it is mended; could be better.
SEVERITIES = ("wrong", "risk", "check", "hint")


class Advice:
    """One thing that is wrong with a configuration: its name, how bad it is (one of SEVERITIES), what was seen, why
    it matters, and the line that mends it for the web server that sent it (or several lines). Compared by value.
    """

    __slots__ = ("mend", "name", "severity", "what", "why")

    def __init__(self, name: str, severity: str, what: str, why: str, mend: str) -> None:
        self.name = name
        self.severity = severity
        self.what = what
        self.why = why
        self.mend = mend

    def __str__(self) -> str:
        return f"{self.what}; {self.why}; mend it with: {self.mend}".replace("\n", " ")

    def __repr__(self) -> str:
        return f"Advice({', '.join(repr(getattr(self, name)) for name in ('name', 'severity', 'what', 'why', 'mend'))})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Advice):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.__slots__)

    def __hash__(self) -> int:
        return hash((self.name, self.what))


#: How SERVER_SOFTWARE begins.
_SOFTWARE = {
    "nginx": "nginx",
    "Apache": "apache",
    "lighttpd": "lighttpd",
    "HAProxy": "haproxy",
    "Caddy": "caddy",
    "h2o": "h2o",
    "busybox": "busybox",
    "mini_httpd": "mini_httpd",
}


def front_end(environ: "dict[str, str]", protocol: str) -> str:
    """The web server that sent these: nginx, apache, mod_fcgid, lighttpd, haproxy, caddy, h2o, busybox, mini_httpd, or
    "" for one that cannot be told. By SERVER_SOFTWARE, and where that was hidden, by the variables that it alone sends.
    """
    software = environ.get("SERVER_SOFTWARE", "")
    named = [server for beginning, server in _SOFTWARE.items() if software.startswith(beginning)]
    if named:
        server = named[0]
    elif "DOCUMENT_URI" in environ:
        server = "caddy" if "REMOTE_IDENT" in environ else "nginx"
    elif "CONTEXT_DOCUMENT_ROOT" in environ or "SERVER_SIGNATURE" in environ:
        server = "apache"
    elif software and "REDIRECT_STATUS" in environ and "DOCUMENT_ROOT" in environ:
        server = "lighttpd"
    elif not software and "HTTP_HOST" in environ and "REQUEST_METHOD" not in environ:
        server = "nginx"  # without fastcgi_params it sends the fields of the client and nothing else
    else:
        server = ""
    if server == "apache" and protocol == "fastcgi" and not _is_proxied(environ):
        return "mod_fcgid"
    return server


def _is_proxied(environ: "dict[str, str]") -> bool:
    """Whether Apache's mod_proxy_fcgi or mod_proxy_scgi sent this: SCRIPT_FILENAME is an address, or with
    ProxyFCGIBackendType GENERIC the end of one, which no script is called.
    """
    filename = environ.get("SCRIPT_FILENAME", "")
    if filename.startswith("proxy:") or "proxy-nokeepalive" in environ or "proxy-sendchunked" in environ:
        return True
    return environ.get("SCRIPT_NAME", "").endswith(filename.strip("/"))


class _Seen:
    """One request, as the rules below look at it."""

    __slots__ = (
        "environ",
        "http",
        "keep_connection",
        "protocol",
        "repeated",
        "responder",
        "rules",
        "seconds",
        "server",
    )

    def __init__(
        self,
        variables: "Variables",
        protocol: str,
        rules: "Rules",
        role: str,
        seconds: "float | None",
        keep_connection: "bool | None",
    ) -> None:
        self.environ = dict(variables)
        #: The values of what came more than once.
        self.repeated: dict[str, list[str]] = {}
        if len(self.environ) != len(variables):
            for name, value in as_pairs(variables):
                self.repeated.setdefault(name, []).append(value)
            self.repeated = {name: values for name, values in self.repeated.items() if len(values) > 1}
        self.protocol = protocol
        self.rules = rules
        self.responder = role == "responder"
        self.seconds = seconds
        self.keep_connection = keep_connection
        self.http = is_http(self.environ)
        self.server = front_end(self.environ, protocol)

    def get(self, name: str) -> str:
        return self.environ.get(name, "")

    @property
    def behind_a_proxy(self) -> bool:
        """Whether the client that the web server names is on the machine of the web server itself. Any other client
        may be the visitor, who writes whatever X-Forwarded-... he likes.
        """
        address = self.get("REMOTE_ADDR")
        return address.startswith(("127.", "unix:")) or address == "::1"


def look(
    variables: "Variables",
    protocol: str,
    rules: "Rules",
    *,
    role: str = "responder",
    request_timeout: "float | None" = None,
    keep_connection: "bool | None" = None,
) -> "list[Advice]":
    """What there is to say about the variables of one request, the worst first; see :func:`gateways.doctor.examine`."""
    seen = _Seen(variables, protocol, rules, role, request_timeout, keep_connection)
    found = [advice for rule in _RULES for advice in rule(seen)]
    return sorted(found, key=lambda advice: SEVERITIES.index(advice.severity))


def _advice(seen: _Seen, name: str, what: str, **values: str) -> Advice:
    severity, why, mends = _TEXTS[name]
    mend = mends.get(seen.server) or mends[""]
    for key, value in (("param", "scgi_param" if seen.protocol == "scgi" else "fastcgi_param"), *values.items()):
        mend = mend.replace(f"@{key}@", value)
    return Advice(name, severity, what, why, mend)


# --- what requests are refused for


def _no_variables(seen: _Seen) -> "Iterator[Advice]":
    if seen.http and not seen.get("REQUEST_METHOD"):
        yield _advice(seen, "no-variables", "there is no REQUEST_METHOD")


def _content_length(seen: _Seen) -> "Iterator[Advice]":
    values = {value for value in seen.repeated.get("CONTENT_LENGTH", [seen.get("CONTENT_LENGTH")]) if value}
    if seen.protocol == "fastcgi":
        values.discard("-1")  # how Caddy says that it does not know
    if len(values) > 1 or not all(map(is_number, values)):
        yield _advice(seen, "content-length", f"CONTENT_LENGTH is {' and '.join(map(repr, sorted(values)))}")


def _split(seen: _Seen) -> "Iterator[Advice]":
    info, script = seen.get("PATH_INFO"), seen.get("SCRIPT_NAME")
    if seen.http and seen.rules.mount is None and script.strip("/") and info and not info.startswith("/"):
        what = f"PATH_INFO is {info[:80]!r} and does not begin with a slash"
        yield _advice(seen, "split", what, mount=script.rstrip("/"))


# --- paths


def _paths(seen: _Seen) -> "Iterator[Advice]":
    environ, script = seen.environ, seen.get("SCRIPT_NAME")
    if not seen.responder or seen.rules.mount is not None or not seen.http or not seen.get("REQUEST_METHOD"):
        return
    if _quirks.is_nginx(environ) and seen.protocol != "cgi" and "PATH_INFO" not in environ:
        info = "$document_uri" if seen.protocol == "scgi" else "$fastcgi_script_name"
        yield _advice(seen, "nginx-root", "there is no PATH_INFO", info=info)
    elif not script and not seen.get("PATH_INFO"):
        if "SCRIPT_NAME" not in environ and not seen.get("DOCUMENT_URI"):
            yield _advice(seen, "no-path", "there is neither SCRIPT_NAME nor PATH_INFO")
    elif _is_whole_path(seen, script):
        yield _advice(seen, "whole-path", f"SCRIPT_NAME is the whole path, {script[:80]!r}, and there is no PATH_INFO")
    elif script == "/":
        yield _advice(seen, "root-script-name", 'SCRIPT_NAME is "/"')
    elif "SCRIPT_NAME" not in environ:
        yield _advice(seen, "script-name", "there is no SCRIPT_NAME")


def _is_whole_path(seen: _Seen, script: str) -> bool:
    if not script or seen.get("PATH_INFO"):
        return False
    if seen.server == "apache" and seen.protocol != "cgi":
        # With SetHandler the address ends in a file below a folder that Apache knows, with ProxyPass in a path.
        filename = seen.get("SCRIPT_FILENAME")
        filename = filename.partition("://")[2].partition("/")[2] if filename.startswith("proxy:") else filename
        roots = [seen.get(name).strip("/") for name in ("DOCUMENT_ROOT", "CONTEXT_DOCUMENT_ROOT")]
        return not any(root and filename.lstrip("/").startswith(root + "/") for root in roots)
    if seen.server == "haproxy":
        # One segment may be where path-info says that the application is.
        return script.strip("/").count("/") > 0
    # Caddy sends an empty PATH_INFO with split, and the whole path as SCRIPT_NAME where nothing was split.
    return seen.server == "caddy" and "PATH_INFO" in seen.environ and "." not in script.rpartition("/")[2]


def _request_uri(seen: _Seen) -> "Iterator[Advice]":
    if seen.http and seen.responder and not seen.get("REQUEST_URI") and seen.get("REQUEST_METHOD"):
        yield _advice(seen, "request-uri", "there is no REQUEST_URI")


def _files(seen: _Seen) -> "Iterator[Advice]":
    filename = seen.get("SCRIPT_FILENAME")
    if filename.startswith(("proxy:fcgi://", "proxy:scgi://")):
        yield _advice(seen, "proxy-filename", "SCRIPT_FILENAME is an address and no file")
    elif filename and seen.server == "nginx" and seen.protocol != "cgi":
        yield _advice(seen, "script-filename", f"SCRIPT_FILENAME is {filename[:80]!r}")


# --- who the client is


def _client(seen: _Seen) -> "Iterator[Advice]":
    address = seen.get("REMOTE_ADDR")
    if not seen.http or not seen.responder or not seen.get("REQUEST_METHOD"):
        return
    if not address:
        yield _advice(seen, "remote-addr", "there is no REMOTE_ADDR")
    elif address.startswith("unix:"):
        yield _advice(seen, "remote-addr-unix", f"REMOTE_ADDR is {address[:80]!r}")


def _forwarded(seen: _Seen) -> "Iterator[Advice]":
    said = seen.get("HTTP_X_FORWARDED_FOR")
    if seen.rules.trust_forwarded:
        if not said and seen.http and seen.responder:
            what = "X-Forwarded-For is trusted (trust_forwarded), and this request had none"
            yield _advice(seen, "trust-forwarded", what)
        return
    address = seen.get("REMOTE_ADDR")
    last = said.rpartition(",")[2].strip(" \t")
    if not seen.behind_a_proxy or last == address:
        return
    if last:
        what = f"REMOTE_ADDR is {address[:80]!r}, a proxy, which says that the client is {last[:80]!r}"
        yield _advice(seen, "forwarded", what, proxy=address)
    if seen.get("HTTP_X_FORWARDED_PROTO").strip(" \t").lower() == "https" and scheme(seen.environ) == "http":
        what = "the proxy before the web server says that the client came by https, and HTTPS is not set"
        yield _advice(seen, "forwarded-proto", what)


def _https(seen: _Seen) -> "Iterator[Advice]":
    if seen.http and seen.get("SERVER_PORT") == "443" and scheme(seen.environ) == "http":
        yield _advice(seen, "https", "SERVER_PORT is 443, and HTTPS is not set")


def _users(seen: _Seen) -> "Iterator[Advice]":
    named = seen.get("REMOTE_USER")
    if named and not seen.rules.trust_remote_user and (seen.server == "haproxy" or _quirks.is_nginx(seen.environ)):
        yield _advice(seen, "remote-user", "REMOTE_USER is not believed: it came from credentials that nobody checked")
    if "Authorization" in seen.environ and "HTTP_AUTHORIZATION" not in seen.environ:
        yield _advice(seen, "authorization", "there is a variable Authorization and no HTTP_AUTHORIZATION")
    elif seen.server == "haproxy" and seen.get("AUTH_TYPE") and "HTTP_AUTHORIZATION" not in seen.environ:
        yield _advice(seen, "authorization-kept", "the client sent Authorization, and HAProxy kept it to itself")


# --- what a client may smuggle in

#: Fields by which one server tells another who the client is: what a client writes into them had better not arrive.
_TELLING = ("HTTP_X_FORWARDED_", "HTTP_X_REAL_IP", "HTTP_X_AUTH", "HTTP_REMOTE_", "HTTP_X_REMOTE_", "HTTP_X_SSL_")


def _header_twice(seen: _Seen) -> "Iterator[Advice]":
    for name in seen.repeated:
        # lighttpd joins what comes twice, so these had two names, X-User and X_User; others may repeat in earnest.
        # HAProxy drops names with "_", and its option forwardfor adds a field.
        telling = name.startswith(_TELLING) and seen.server in ("nginx", "h2o")
        if telling or (seen.server == "lighttpd" and name.startswith("HTTP_")):
            field = name.removeprefix("HTTP_").replace("_", "-").title()
            yield _advice(seen, "header-twice", f"{name} came twice", field=field, twin=field.replace("-", "_"))
            return


def _proxy_header(seen: _Seen) -> "Iterator[Advice]":
    if seen.get("HTTP_PROXY"):
        yield _advice(seen, "proxy-header", "the client's field Proxy came through as HTTP_PROXY")


def _code(seen: _Seen) -> "Iterator[Advice]":
    names = [name for name in seen.environ if name.startswith(("PHP_VALUE", "PHP_ADMIN_VALUE", "UWSGI_"))]
    if names and seen.protocol != "cgi":
        what = f"{', '.join(sorted(names))[:80]} is for another program"
        yield _advice(seen, "code-variables", what, variable=names[0])


# --- names, lengths, times


def _server_name(seen: _Seen) -> "Iterator[Advice]":
    if seen.get("SERVER_NAME") == "_":
        yield _advice(seen, "server-name", 'SERVER_NAME is "_"')
    host, port = seen.get("HTTP_HOST"), seen.get("SERVER_PORT")
    # A host in brackets has colons of its own.
    if seen.server == "nginx" and host and ":" not in host.rpartition("]")[2] and port not in ("", "80", "443"):
        yield _advice(seen, "host-port", f"HTTP_HOST is {host[:80]!r}, without the port {port[:8]}")


def _scgi_length(seen: _Seen) -> "Iterator[Advice]":
    if seen.protocol == "scgi" and _quirks.unbuffered_length(seen.environ):
        what = f"CONTENT_LENGTH is {seen.get('CONTENT_LENGTH')}, and the client said {seen.get('HTTP_CONTENT_LENGTH')}"
        yield _advice(seen, "nginx-scgi-length", what)


def _empty_name(seen: _Seen) -> "Iterator[Advice]":
    if "" in seen.environ:
        yield _advice(seen, "empty-name", "there is a variable without a name")


#: Seconds of silence after which a web server gives up, unless it is configured otherwise, and what configures it.
_PATIENCE = {
    "nginx": (60, "@protocol@_read_timeout @seconds@s;"),
    "apache": (60, "ProxyTimeout @seconds@"),
    "mod_fcgid": (40, "FcgidIOTimeout @seconds@"),
    "h2o": (30, "fastcgi.timeout.io: @milliseconds@"),
}


def _deadline(seen: _Seen) -> "Iterator[Advice]":
    patience, line = _PATIENCE.get(seen.server, (0, ""))
    if seen.seconds is None or seen.seconds <= patience or not patience or seen.protocol == "cgi":
        return
    line = line.replace("@protocol@", seen.protocol).replace("@seconds@", f"{seen.seconds:.0f}")
    what = (
        f"a request may take {seen.seconds:g} seconds (request_timeout), and this web server gives up after {patience} "
        "seconds of silence unless it is told otherwise"
    )
    yield _advice(seen, "deadline", what, line=line.replace("@milliseconds@", f"{seen.seconds * 1000:.0f}"))


def _keeping(seen: _Seen) -> "Iterator[Advice]":
    able = seen.server in ("nginx", "apache", "h2o")
    if seen.protocol == "fastcgi" and seen.keep_connection is False and able and seen.responder:
        yield _advice(seen, "keep-connection", "the web server makes a new connection for each request")


_RULES = (
    _no_variables, _content_length, _split, _paths, _request_uri, _files, _client, _forwarded, _https, _users,
    _header_twice, _proxy_header, _code, _server_name, _scgi_length, _empty_name, _deadline, _keeping,
)  # fmt: skip

_MOUNT = "gateways serve --mount /PATH  # where the application is; / for the root of the site"
_TRUST = "gateways serve --trust-forwarded  # if every request comes through that proxy"
# Apache takes no comments behind a directive.
_REMOTE_IP = "# with mod_remoteip:\nRemoteIPHeader X-Forwarded-For\nRemoteIPInternalProxy @proxy@"
_SET_HTTPS = '# if every request comes through that proxy:\nSetEnvIf X-Forwarded-Proto "^https$" HTTPS=on'

#: name -> (severity, why it matters, server -> what mends it; "" for all others). Names that repairs have too are
#: about the same thing.
_TEXTS: "dict[str, tuple[str, str, dict[str, str]]]" = {
    "no-variables": (
        "wrong",
        "every request is refused with 400",
        {"": "have the web server send the variables of RFC 3875 section 4.1", "nginx": "include @param@s;"},
    ),
    "content-length": (
        "wrong",
        "the request is refused with 400, because nobody can say where its body ends",
        {"": "look for CONTENT_LENGTH in the configuration of the web server: it is to send it once, as it is"},
    ),
    "split": (
        "wrong",
        "the path was split inside a segment, and such requests are refused with 404",
        {"": "gateways serve --mount @mount@", "caddy": "handle_path /app/*  # instead of /app*"},
    ),
    "nginx-root": (
        "wrong",
        'the application is taken to be mounted at "/"',
        {"": '@param@ SCRIPT_NAME "";\n@param@ PATH_INFO @info@;'},
    ),
    "no-path": (
        "wrong",
        "the path is taken from REQUEST_URI, which the client writes",
        {"": "have the web server send SCRIPT_NAME and PATH_INFO (RFC 3875 section 4.1)"},
    ),
    "whole-path": (
        "wrong",
        "where the application is mounted is not said, so path_info is empty",
        {"": _MOUNT, "caddy": "transport fastcgi  # without split"},
    ),
    "root-script-name": (
        "wrong",
        "no script is called so; the path is taken to be PATH_INFO",
        {"": _MOUNT, "lighttpd": '"fix-root-scriptname" => "enable"'},
    ),
    "script-name": (
        "hint",
        'RFC 3875 section 4.1.13 wants one; it is taken to be ""',
        {"": "have the web server send SCRIPT_NAME", "nginx": '@param@ SCRIPT_NAME "";'},
    ),
    "request-uri": (
        "hint",
        "raw_path is None, so an encoded slash is not to be told from a slash",
        {"": "nothing: this web server never says it", "nginx": "@param@ REQUEST_URI $request_uri;"},
    ),
    "proxy-filename": (
        "hint",
        "whoever opens it finds nothing",
        {"": "nothing: mod_proxy_scgi always sends one", "apache": "ProxyFCGIBackendType GENERIC"},
    ),
    "script-filename": (
        "hint",
        "it need not exist, and nothing here opens it or takes code from it: that is for PHP",
        {"": "include fastcgi_params;  # instead of fastcgi.conf"},
    ),
    "remote-addr": (
        "wrong",
        "who the client is is not known",
        {"": "have the web server send REMOTE_ADDR", "nginx": "@param@ REMOTE_ADDR $remote_addr;"},
    ),
    "remote-addr-unix": (
        "wrong",
        "a proxy before the web server connects to it by a unix socket, and who the client is is not known",
        {
            "": _TRUST,
            "nginx": "set_real_ip_from unix:;\nreal_ip_header X-Forwarded-For;",
        },
    ),
    "forwarded": (
        "wrong",
        "every client has the same address",
        {
            "": _TRUST,
            "nginx": "set_real_ip_from @proxy@;\nreal_ip_header X-Forwarded-For;",
            "apache": _REMOTE_IP,
            "mod_fcgid": _REMOTE_IP,
            "lighttpd": 'server.modules += ( "mod_extforward" )\nextforward.forwarder = ( "@proxy@" => "trust" )',
        },
    ),
    "forwarded-proto": (
        "wrong",
        "the application thinks that it is asked by http, and its links and redirects say so",
        {
            "": _TRUST,
            "nginx": "@param@ HTTPS $by_https if_not_empty;\n"
            "map $http_x_forwarded_proto $by_https { https on; }  # beside server; if every request comes through it",
            "apache": _SET_HTTPS,
            "mod_fcgid": _SET_HTTPS,
        },
    ),
    "trust-forwarded": (
        "risk",
        "the web server does not set it, so any client can, and be whom it likes",
        {
            "": "gateways serve  # without --trust-forwarded, or have the web server set X-Forwarded-For",
            "nginx": "@param@ HTTP_X_FORWARDED_FOR $remote_addr;  # or serve without --trust-forwarded",
            "haproxy": "option forwardfor",
        },
    ),
    "https": (
        "wrong",
        "the application thinks that it is asked by http, and its links and redirects say so",
        {"": "have the web server send HTTPS=on", "nginx": "@param@ HTTPS $https if_not_empty;"},
    ),
    "remote-user": (
        "hint",
        "this web server copies the name out of what the client sent",
        {"": "gateways serve --trust-remote-user  # if this web server checks passwords (nginx: auth_basic)"},
    ),
    "authorization": (
        "wrong",
        "the application does not see the credentials",
        {"": "CGIPassAuth On"},
    ),
    "authorization-kept": (
        "check",
        "an application that checks passwords by itself never sees any",
        {"": "pass-header Authorization  # in fcgi-app"},
    ),
    "header-twice": (
        "risk",
        'a client may add a field of his own to it by writing "_" for "-"; the values are joined with a comma',
        {
            "": "have the web server drop fields with an underscore in their names",
            "nginx": "underscores_in_headers off;",
            "lighttpd": '$REQUEST_HEADER["@twin@"] != "" { url.access-deny = ( "" ) }',
        },
    ),
    "proxy-header": (
        "risk",
        "other programs take that variable for the proxy of their own requests (httpoxy); here it is dropped",
        {
            "": "have the web server drop the field Proxy of requests",
            "nginx": '@param@ HTTP_PROXY "";',
            "caddy": "request_header -Proxy",
        },
    ),
    "code-variables": (
        "hint",
        "PHP and uWSGI let such a variable say which code is run; here none does, and it means nothing",
        {"": "take @variable@ out of the configuration of the web server"},
    ),
    "server-name": (
        "hint",
        "for a request without a Host field the URL of this site has that name",
        {"": "server_name example.org;  # the name of the site"},
    ),
    "host-port": (
        "hint",
        "URLs that are made of it lack the port, and Django refuses forms for that (unless a proxy maps the port)",
        {"": "@param@ HTTP_HOST $http_host;"},
    ),
    "nginx-scgi-length": (
        "wrong",
        "nginx counts what has arrived so far, so a body looks shorter than it is",
        {"": "scgi_request_buffering on;"},
    ),
    "empty-name": (
        "hint",
        "it is dropped",
        {"": "look for one in the configuration of the web server"},
    ),
    "deadline": (
        "check",
        "whoever waits longer gets the web server's 504 and never this program's answer",
        {"": "@line@  # or a shorter --timeout-request"},
    ),
    "keep-connection": (
        "hint",
        "that costs time",
        {
            "": "FastCGI connections that are kept",
            "nginx": "fastcgi_keep_conn on;  # and fastcgi_pass to an upstream with keepalive 8;",
            "apache": "ProxyPass ... enablereuse=on",
            "h2o": "fastcgi.timeout.keepalive: 5000",
        },
    ),
}

_BUFFERING = "Whether streamed answers are passed on piece by piece: that is not in any variable. Here it takes {}."
_CREDENTIALS = "Whether the field Authorization would come through: this request had none, or it was kept back. {}"
_TIME = "How long the web server waits for an answer. {}"

#: What the variables of a request cannot tell, and what to look for instead.
_UNSEEN = {
    "nginx": (
        _BUFFERING.format("fastcgi_buffering off; (scgi_buffering off;) or the field X-Accel-Buffering: no"),
        _TIME.format("fastcgi_read_timeout (scgi_read_timeout) is 60 seconds unless configured."),
        "Whether fields with an underscore in their names are let through: keep underscores_in_headers off;",
    ),
    "apache": (
        _BUFFERING.format("ProxyPass ... flushpackets=on"),
        _CREDENTIALS.format("It takes CGIPassAuth On."),
        _TIME.format("ProxyTimeout is that of Timeout, 60 seconds unless configured."),
    ),
    "mod_fcgid": (
        _BUFFERING.format("FcgidOutputBufferSize 0"),
        _CREDENTIALS.format("It takes CGIPassAuth On."),
        "How large a body may be: FcgidMaxRequestLen is 128 KiB unless configured.",
        _TIME.format("FcgidIOTimeout is 40 seconds unless configured."),
    ),
    "lighttpd": (
        _BUFFERING.format("server.stream-response-body = 1"),
        'Whether an application at "/" is told so: "fix-root-scriptname" => "enable". Without it the first segment of '
        "each path is SCRIPT_NAME.",
    ),
    "haproxy": (
        _CREDENTIALS.format("It takes pass-header Authorization."),
        _TIME.format("timeout server has no value unless configured."),
    ),
    "caddy": (
        _BUFFERING.format("flush_interval -1"),
        "Whether a client wrote X_User where X-User is meant: of the two, Caddy hands on one, by chance. "
        "request_header -*_* drops all such fields.",
    ),
    "h2o": (_TIME.format("fastcgi.timeout.io is 30 seconds unless configured."),),
}


def unseen(server: str) -> "tuple[str, ...]":
    """What cannot be told from the variables of a request, for a server as :func:`front_end` names it."""
    return _UNSEEN.get(server, (_BUFFERING.format("a setting of the web server"), _TIME.format("")))
