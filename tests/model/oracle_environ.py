"""The laws of the environment, one small step after another: slow and plain, to hold the quick ones to.

It shares with them what is not quick: the repairs themselves, how percent-encoding is undone, and what is made of the
variables of servers that do not speak HTTP.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gateways import LimitExceeded, RemoteProtocolError
from gateways._model.dialects.small_web import settle
from gateways._model.environ import Rules, raw_path, unquote
from gateways._model.quirks import REPAIRS, is_nginx

Variables = Mapping[str, str] | Sequence[tuple[str, str]]

_TOKEN = "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_LAST_WINS = ("HTTP_HOST", "HTTP_AUTHORIZATION", "HTTP_REFERER", "HTTP_USER_AGENT")


def slow_build(variables: Variables, protocol: str, rules: Rules) -> tuple[dict[str, str], str, tuple[str, ...]]:
    """What ``environ.build`` gives, and a RemoteProtocolError of the same status where it raises one."""
    environ = merged(pairs_of(variables))
    http = not settle(environ, protocol, rules)
    notes = tuple([name for name in rules.repairs if REPAIRS[name][0](environ, protocol)])
    if rules.mount is not None:
        notes = tuple([name for name in notes if name != "root-script-name"])
    script, info = split(environ, http, rules.mount)
    kept: dict[str, str] = {"QUERY_STRING": "", "GATEWAY_INTERFACE": "CGI/1.1"}
    for name, value in environ.items():
        if name not in ("", "HTTP_CONTENT_LENGTH", "HTTP_CONTENT_TYPE", "HTTP_PROXY") and value != "":
            kept[name] = value
    kept["SCRIPT_NAME"] = script
    kept["PATH_INFO"] = info
    if "REQUEST_METHOD" not in kept:
        if http:
            raise RemoteProtocolError("no method")
        kept["REQUEST_METHOD"] = "GET"
    if not is_token(kept["REQUEST_METHOD"]) or len(kept["REQUEST_METHOD"]) > 1024:
        raise RemoteProtocolError("no token")
    if protocol == "fastcgi" and kept.get("CONTENT_LENGTH") == "-1":
        del kept["CONTENT_LENGTH"]
    for name in ("CONTENT_LENGTH", "FCGI_DATA_LENGTH"):
        if name in kept:
            number(kept[name])
    if "FCGI_DATA_LAST_MOD" in kept and int_or_none(kept["FCGI_DATA_LAST_MOD"]) not in range(253_402_300_800):
        raise RemoteProtocolError("no time")
    trust(kept, rules)
    return kept, script + info, notes


def slow_scgi_length(variables: Variables) -> int:
    """What ``environ.scgi_length`` gives, or an error of the same status."""
    environ = dict(pairs_of(variables))
    agreed = agreed_length([value for name, value in pairs_of(variables) if name == "CONTENT_LENGTH"])
    if agreed != "":
        number(agreed)
    # The repair goes by the last CONTENT_LENGTH, be it empty.
    announced, real = (
        int_or_none(environ.get("CONTENT_LENGTH", "")),
        int_or_none(environ.get("HTTP_CONTENT_LENGTH", "")),
    )
    if not environ.get("SERVER_SOFTWARE") and announced is not None and real is not None and real > announced:
        return real
    return 0 if agreed == "" else int(agreed)


def pairs_of(variables: Variables) -> list[tuple[str, str]]:
    return list(variables.items()) if isinstance(variables, Mapping) else list(variables)


def merged(pairs: list[tuple[str, str]]) -> dict[str, str]:
    environ: dict[str, str] = {}
    lengths: list[str] = []
    for name, value in pairs:
        for character in name:
            if character in "=\x7f" or ord(character) < 32:
                raise RemoteProtocolError("an impossible name")
        for character in value:
            if character == "\0":
                raise RemoteProtocolError("a NUL")
        if name == "CONTENT_LENGTH":
            lengths.append(value)
        if name in environ and name.startswith("HTTP_") and name not in _LAST_WINS:
            both = [each for each in (environ[name], value) if each != ""]
            environ[name] = ("; " if name == "HTTP_COOKIE" else ", ").join(both)
        else:
            environ[name] = value
    if lengths:
        environ["CONTENT_LENGTH"] = agreed_length(lengths)
    return environ


def agreed_length(lengths: list[str]) -> str:
    said = [length for length in lengths if length != ""]
    for length in said:
        if length != said[0]:
            raise RemoteProtocolError("two lengths")
    return said[0] if said else ""


def is_token(text: str) -> bool:
    return text != "" and all(character in _TOKEN for character in text)


def split(environ: dict[str, str], http: bool, mount: str | None) -> tuple[str, str]:
    script, info = environ.get("SCRIPT_NAME", ""), environ.get("PATH_INFO", "")
    if not http and script != "" and script[0] != "/":
        script = "/" + script
    if not http and info != "" and info[0] != "/":
        info = "/" + info
    path = script + info
    if path == "":
        path = environ.get("DOCUMENT_URI", "")
    if path == "":
        path = unquote(raw_path(environ) or "")
        if "\0" in path:
            raise RemoteProtocolError("a NUL")
    if path != "" and path[0] != "/":
        raise RemoteProtocolError("no path", status=404)
    if mount is not None:
        script = mount
        if not (path + "/").startswith(mount + "/"):
            raise RemoteProtocolError("not below the mount", status=404)
    while mount is None and script.endswith("/"):
        script = script[:-1]
    info = path.removeprefix(script)
    if info != "" and info[0] != "/":
        raise RemoteProtocolError("split inside a segment", status=404)
    return script, info


def int_or_none(text: str) -> int | None:
    """A number of at most 19 ASCII digits."""
    if text == "" or len(text) > 19 or any(character not in "0123456789" for character in text):
        return None
    return int(text)


def number(text: str) -> None:
    if any(character not in "0123456789" for character in text):
        raise RemoteProtocolError("no number")
    if len(text) > 19:
        raise LimitExceeded("too many digits")


def trust(environ: dict[str, str], rules: Rules) -> None:
    unverified = is_nginx(environ) or environ.get("SERVER_SOFTWARE", "").startswith("HAProxy")
    if unverified and not rules.trust_remote_user:
        environ.pop("REMOTE_USER", None)
        environ.pop("AUTH_TYPE", None)
    if not rules.trust_forwarded:
        return
    client = environ.get("HTTP_X_FORWARDED_FOR", "").split(",")[-1].strip(" \t")
    if client != "":
        environ["REMOTE_ADDR"] = client
        environ.pop("REMOTE_PORT", None)
    scheme = environ.get("HTTP_X_FORWARDED_PROTO", "").strip(" \t").lower()
    if scheme == "http" or scheme == "https":
        environ["REQUEST_SCHEME"] = scheme
        environ.pop("HTTPS", None)
    if scheme == "https":
        environ["HTTPS"] = "on"
