"""What servers of Gemini, Titan, Spartan and Gopher send, made to mean the same whichever of them sent it.

They share the names of CGI and little else: one sends a URL, the next the path of a file, a third neither; a
fingerprint has four spellings. ``settle`` writes the variables anew as the laws of the environment want them, before
those are applied; what was sent stays in ``environ_as_sent``. Loaded only where one of these protocols is spoken.
"""

import sys

from gateways._model.environ import USUAL_HTTP, is_http, unquote
from gateways._model.errors import RemoteProtocolError
from gateways._model.headers import is_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from gateways._model.environ import Rules
    from gateways._model.request import Request

#: What a client speaks, and what it is answered in.
_DIALECTS = {"gemini": "gemini", "titan": "gemini", "spartan": "spartan", "gopher": "gopher"}
_HEX = frozenset("0123456789abcdef")
_ADDRESS = frozenset("0123456789abcdefABCDEF.:%")


def dialect(environ: "Mapping[str, str]") -> str:
    """The form that an answer takes: "gemini" (for Titan as well), "spartan", "gopher", else "cgi"."""
    name = environ.get("SERVER_PROTOCOL", "").partition("/")[0].lower()
    if name not in _DIALECTS or environ.get("GATEWAYS_DIALECT") == "cgi":
        return "cgi"
    # It makes Gemini of the head that a CGI script gives.
    return "cgi" if environ.get("SERVER_SOFTWARE", "").startswith("GLV-1.12556") else _DIALECTS[name]


def find_voice(environ: "Mapping[str, str]", request: "Request | None", sink: "Any") -> None:
    """Have a sink know what speaks to its client, if that wants something else than the head of a CGI response.

    Not only the answer of a handler has to be said that way: so have the engine's own errors.
    """
    name = dialect(environ)
    if name != "cgi":
        from gateways._model.dialects.voice import voice_of  # which CGI has no use for

        sink.voice = voice_of(name, environ, request)


def settle(environ: "dict[str, str]", protocol: str, rules: "Rules") -> bool:
    """Write the variables of one request anew, in place, where the client spoke something else than HTTP; whether it
    did.

    Raises RemoteProtocolError for a path with a NUL in it.
    """
    if rules.dialect is not None:
        environ["GATEWAYS_DIALECT"] = rules.dialect
    by_hand = environ.get("GATEWAYS_DIALECT")
    sent = environ.get("SERVER_PROTOCOL", "")
    name = sent.partition("/")[0].lower()
    if by_hand is not None and by_hand in _DIALECTS and _DIALECTS.get(name) != by_hand:
        name = by_hand
    elif sent in USUAL_HTTP:
        return False
    elif name == "rfc1436" or environ.get("SERVER_SOFTWARE", "").startswith("Gophernicus"):
        name = "gopher"  # also where a browser asked: Gophernicus wants no head for HTTP/0.9 either
    elif not sent and "REQUEST_METHOD" not in environ and _is_gopher(environ):
        name = "gopher"
    if name not in _DIALECTS:
        return not is_http(environ)
    _settle(environ, name, protocol, rules)
    return True


def _is_gopher(environ: "dict[str, str]") -> bool:
    """pygopherd and motsognir do not say what they speak."""
    return "SELECTOR" in environ or environ.get("GATEWAY_INTERFACE") == "CGI/1.0"


def _settle(environ: "dict[str, str]", name: str, protocol: str, rules: "Rules") -> None:
    if environ.get("SERVER_PROTOCOL", "").partition("/")[0].lower() != name:
        environ["SERVER_PROTOCOL"] = name.upper()
    _address(environ)
    if name == "gopher":
        _gopher(environ)
        if rules.mount is None and environ["SCRIPT_NAME"] and not environ.get("PATH_INFO"):
            _path_in_query(environ)
        return
    if name == "spartan":
        _spartan(environ)
        whole = None
    else:
        whole = _url(environ, name)
        _certificate(environ)
        if not rules.trust_remote_user:
            # The name in a certificate is its owner's choice: whoever wants to be "admin" is.
            environ.pop("REMOTE_USER", None)
            environ.pop("AUTH_TYPE", None)
    _paths(environ, whole, protocol, rules.mount)


def _address(environ: "dict[str, str]") -> None:
    """REMOTE_ADDR is an address or is not there."""
    address = environ.get("REMOTE_ADDR", "")
    host, colon, port = address.rpartition(":")
    if colon and is_number(port) and (host.count(".") == 3 or host.endswith("]")):
        address = host.strip("[]")
    # What gmnisrv sends is made of the port and of what lies behind it in memory.
    garbage = environ.get("SERVER_SOFTWARE", "").startswith("gmnisrv")
    if garbage or not _ADDRESS.issuperset(address.partition("%")[0]) or not ("." in address or ":" in address):
        environ.pop("REMOTE_ADDR", None)
    else:
        environ["REMOTE_ADDR"] = address


# --- paths and the request line ----------------------------------------------------------------------------------


def _url(environ: "dict[str, str]", name: str) -> "str | None":
    """Take the request line apart where it was sent; the whole path, decoded, or None where nobody tells."""
    url = environ.get("TITAN_URL" if name == "titan" else "GEMINI_URL", "")
    if "://" in url:
        authority_and_rest = url.partition("://")[2].partition("#")[0]
        before, question, query = authority_and_rest.partition("?")
        _, slash, path = before.partition("/")
        path = slash + path or "/"
        if name == "titan":
            path = _titan_parameters(environ, path)
        environ["REQUEST_URI"] = path + question + query
        environ["QUERY_STRING"] = query
        whole = unquote(path)
        if "\0" in whole:
            raise RemoteProtocolError("a NUL in the path of the URL")
    elif "GEMINI_URL_PATH" in environ:
        whole = "/" + environ["GEMINI_URL_PATH"].removeprefix("/")  # gmid, which has decoded it
    else:
        whole = None
    if name == "titan":
        if "%" in environ.get("TITAN_TOKEN", ""):
            environ["TITAN_TOKEN"] = unquote(environ["TITAN_TOKEN"])
        length = environ.get("CONTENT_LENGTH")
        if "TITAN_EDIT" in environ or length is None:
            environ["REQUEST_METHOD"] = "GET"
        elif length.strip("0"):
            environ["REQUEST_METHOD"] = "PUT"
        else:
            environ["REQUEST_METHOD"] = "DELETE"
            environ["CONTENT_LENGTH"] = "0"  # GmCapsule sends it empty, which would be the same as none
    return whole


def _titan_parameters(environ: "dict[str, str]", path: str) -> str:
    """Take the parameters off a path that a server has left them on."""
    path, *parameters = path.split(";")
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        if key == "edit":
            environ["TITAN_EDIT"] = "1"
        variable = {"size": "CONTENT_LENGTH", "mime": "CONTENT_TYPE", "token": "TITAN_TOKEN"}.get(key)
        if variable is not None and not environ.get(variable):
            environ[variable] = value if key == "token" else unquote(value)
    return path


def _paths(environ: "dict[str, str]", whole: "str | None", protocol: str, mount: "str | None") -> None:
    """SCRIPT_NAME and PATH_INFO, so that they are the path of the URL together."""
    script, info = environ.get("SCRIPT_NAME", ""), environ.get("PATH_INFO", "")
    if _is_file(script, environ, protocol):
        script = ""
    if not script and "SCGI" in environ and "SCRIPT_PATH" in environ:
        # molly-brown cuts the beginning off a path, wherever that ends: "/app" off "/apple" too. Over CGI it is a file.
        script, whole = environ["SCRIPT_PATH"].rstrip("/"), environ["SCRIPT_PATH"] + info
        if not _is_below(whole, script):
            script, info = "", whole
    script = script.rstrip("/")
    if info and not info.startswith("/"):
        info = "/" + info
    if whole is not None:
        if mount is not None:
            script, info = "", whole
        elif script and _is_below(whole, script):
            info = whole[len(script) :]
        elif not script and "PATH_INFO" in environ and whole.endswith(info):
            script = whole[: len(whole) - len(info)]  # gmid's "strip"
        elif not script:
            info = whole
    elif mount and not script and not _is_below(info, mount):
        script = mount  # nobody else tells
    environ["SCRIPT_NAME"], environ["PATH_INFO"] = script, info


def _is_below(path: str, prefix: str) -> bool:
    return path == prefix or path.startswith(prefix.rstrip("/") + "/")


def _is_file(script: str, environ: "dict[str, str]", protocol: str) -> bool:
    """Whether a SCRIPT_NAME is the path of a file, as vger, kaori and hodhod have it."""
    names = ("SCRIPT_FILENAME", "PATH_TRANSLATED", "GEMINI_SCRIPT_FILENAME")
    return script in [environ.get(name) for name in names] or (protocol == "cgi" and script == sys.argv[0])


def _spartan(environ: "dict[str, str]") -> None:
    """An upload is a POST."""
    length = environ.get("CONTENT_LENGTH") or environ.get("DATA_LENGTH", "")
    if length:
        environ["CONTENT_LENGTH"] = length
    environ["REQUEST_METHOD"] = "POST" if length.strip("0") else "GET"


def _gopher(environ: "dict[str, str]") -> None:
    """The selector is path and query, the search text stands apart."""
    selector = environ.get("SELECTOR", "")
    search = _search(environ)
    if "QUERY_STRING_SEARCH" in environ or "QUERY_STRING_URL" in environ:  # motsognir
        environ["QUERY_STRING"] = environ.get("QUERY_STRING_URL", "")
    elif selector.startswith("/") and "?" in selector:
        environ["QUERY_STRING"] = selector.partition("?")[2]
    elif selector.startswith("/") and search is not None and environ.get("QUERY_STRING") == search:
        environ["QUERY_STRING"] = ""  # gophernicus has them in one
    for name in ("X_GOPHER_SEARCH", "QUERY_STRING_SEARCH", "SEARCHREQUEST"):
        environ.pop(name, None)
    if search is not None:
        environ["SEARCHREQUEST"] = search
    if not environ.get("SCRIPT_NAME"):
        environ["SCRIPT_NAME"] = environ.get("REQUEST", "")  # pygopherd
    if environ.get("PATH_INFO") == environ["SCRIPT_NAME"]:
        environ["PATH_INFO"] = ""  # geomyidae has the script in both, and no path behind it
    environ["REQUEST_METHOD"] = "GET"


def _path_in_query(environ: "dict[str, str]") -> None:
    """Servers of Gopher find a script by the whole of a path, so what is below it stands behind a question mark: that
    belongs to the mount, and links that begin with the mount lead there.
    """
    query = environ.get("QUERY_STRING", "")
    environ["SCRIPT_NAME"] += "?"
    if query.startswith("/"):
        environ["PATH_INFO"], _, environ["QUERY_STRING"] = query.partition("?")


def _search(environ: "dict[str, str]") -> "str | None":
    """What the client has typed in, without what Gopher+ adds to it."""
    for name in ("X_GOPHER_SEARCH", "QUERY_STRING_SEARCH", "SEARCHREQUEST"):
        text = environ.get(name)
        if text:
            text = text.partition("\t")[0]
            selector = environ.get("SELECTOR", "")
            # gophernicus repeats the query there.
            return None if "?" in selector and selector.partition("?")[2] == text else text
    return None


# --- certificates ------------------------------------------------------------------------------------------------


def _certificate(environ: "dict[str, str]") -> None:
    """One spelling of what is told about the client's certificate; nothing where its fingerprint is none."""
    fingerprint = normal_fingerprint(environ.get("TLS_CLIENT_HASH", ""))
    if not fingerprint:
        for name in [name for name in environ if name.startswith("TLS_CLIENT_")]:
            del environ[name]
        return
    environ["TLS_CLIENT_HASH"] = fingerprint
    user = environ.get("REMOTE_USER", "")
    if user.startswith("/"):
        environ.setdefault("TLS_CLIENT_SUBJECT", user)  # gmid
    elif user:
        environ.setdefault("TLS_CLIENT_SUBJECT_CN", user)  # jetforce, GmCapsule and most others
    for name in ("TLS_CLIENT_SUBJECT", "TLS_CLIENT_ISSUER"):
        if "\\x" in environ.get(name, ""):
            environ[name] = _unescape(environ[name])
    if "TLS_CLIENT_SUBJECT_CN" not in environ:
        environ["TLS_CLIENT_SUBJECT_CN"] = _common_name(environ.get("TLS_CLIENT_SUBJECT", ""))


def normal_fingerprint(text: str) -> str:
    """A SHA-256 in 64 small hexadecimal digits, however it was written; "" for what is none."""
    name, colon, digits = text.partition(":")
    if name.lower() != "sha256" or not colon:
        digits = text
    digits = digits.replace(":", "").lower()
    if len(digits) != 64 and len(digits) in (43, 44):
        digits = _from_base64(text.removeprefix("SHA256:"))
    return digits if len(digits) == 64 and _HEX.issuperset(digits) else ""


def _from_base64(text: str) -> str:
    import binascii

    try:
        return binascii.a2b_base64(text.rstrip("=").replace("-", "+").replace("_", "/") + "=").hex()
    except (binascii.Error, ValueError):
        return ""


def _unescape(text: str) -> str:
    """OpenSSL writes bytes outside ASCII as backslash, x and two digits."""
    first, *rest = text.split("\\x")
    data = first.encode("utf-8", "surrogateescape")
    for piece in rest:
        digits = piece[:2].lower()
        if len(digits) == 2 and _HEX.issuperset(digits):
            data += bytes([int(digits, 16)]) + piece[2:].encode("utf-8", "surrogateescape")
        else:
            data += ("\\x" + piece).encode("utf-8", "surrogateescape")
    return data.replace(b"\0", b"").decode("utf-8", "surrogateescape")


def _common_name(subject: str) -> str:
    """The CN of "/CN=bob/O=x" or of "CN=bob,O=x"."""
    if subject.startswith("/"):
        name, found, rest = subject.partition("/CN=")
        parts = rest.split("/")
        name = parts[0]
        for part in parts[1:]:
            if "=" in part:
                break
            name += "/" + part
        return name if found else ""
    for part in subject.split(","):
        key, _, value = part.strip().partition("=")
        if key == "CN":
            return value
    return ""


# --- input -------------------------------------------------------------------------------------------------------


async def read_input(request: "Request") -> "str | None":
    """What the user has typed in, wherever this protocol has it; None where nobody was asked yet."""
    scheme, query = request.scheme, request.query_string
    if scheme == "gopher":
        search = request.environ.get("SEARCHREQUEST")
        return search if search is not None else unquote(query) if query else None
    if scheme == "spartan":
        if request.content_length:
            return (await request.body.read()).decode("utf-8", "surrogateescape")
        return unquote(query) if query else None
    if scheme in ("gemini", "titan"):
        asked = query or request.environ.get("REQUEST_URI", "").endswith("?")
        return unquote(query) if asked else None
    if request.method == "POST":
        kind = (request.content_type or "").partition(";")[0].strip().lower()
        if kind == "application/x-www-form-urlencoded":
            return (await request.form()).get("input")
        return None
    if "input" in request.query:
        return request.query["input"]
    # Search words (RFC 3875 section 4.4), as links that were written for Gemini have them.
    return unquote(query) if query and "=" not in query else None
