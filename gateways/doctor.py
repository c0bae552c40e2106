"""The doctor: what is wrong with the configuration of a web server, told by the variables that it sends.

``examine`` looks at the variables of one request and gives advice, with the line of configuration that mends each. The
servers of this package do so with the first requests of every listener and log what is wrong or a risk. ``app`` is a
handler that shows what it was sent, as a page for people or as JSON; ``gateways env`` serves it.
"""

from gateways import Response
from gateways._model.advice import SEVERITIES, Advice, front_end, look, unseen
from gateways._model.environ import Rules

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from gateways import Handler, Request

__all__ = ["SEVERITIES", "Advice", "app", "examine", "handler"]


def examine(
    environ: "Mapping[str, str] | Iterable[tuple[str, str]]",
    *,
    protocol: str = "fastcgi",
    role: str = "responder",
    mount: "str | None" = None,
    trust_remote_user: bool = False,
    trust_forwarded: bool = False,
    request_timeout: "float | None" = None,
    keep_connection: "bool | None" = None,
) -> "list[Advice]":
    """What is wrong with the meta-variables that a web server sent, the worst first; empty if nothing is.

    ``environ`` is a mapping, or (name, value) pairs as they came, such as ``request.environ_as_sent``: repeats tell
    something too. ``mount``, ``trust_remote_user`` and ``trust_forwarded`` are what the listener was told,
    ``request_timeout`` that of its Limits, and ``keep_connection`` what FastCGI says of the connection, where known.

    Errors: ValueError for a mount that does not begin with a slash; none for variables, whatever they are. It does not
    wait, and looks at nothing but its arguments.
    """
    # Repeats are lost in a mapping, and in nothing else.
    variables: dict[str, str] | tuple[tuple[str, str], ...] = (
        dict(environ) if hasattr(environ, "keys") else tuple([(name, value) for name, value in environ])
    )
    rules = Rules(mount=mount, trust_remote_user=trust_remote_user, trust_forwarded=trust_forwarded)
    return look(variables, protocol, rules, role=role, request_timeout=request_timeout, keep_connection=keep_connection)


def handler(
    *,
    show_secrets: bool = False,
    mount: "str | None" = None,
    trust_remote_user: bool = False,
    trust_forwarded: bool = False,
    request_timeout: "float | None" = None,
) -> "Handler":
    """A handler that answers each request with what it was sent: a page, or JSON where the Accept field asks for
    application/json or the query is ``json``.

    Values that look like secrets (Authorization, Cookie, what has "token" or "password" in its name, the process
    environment of a CGI script) are masked unless ``show_secrets``. The other arguments are those of :func:`examine`.
    It tells much about a server: take it away when you have seen enough.
    """

    async def show(request: "Request") -> Response:
        sent = request.environ_as_sent
        found = examine(
            sent,
            protocol=request.protocol,
            role=request.role,
            mount=mount,
            trust_remote_user=trust_remote_user,
            trust_forwarded=trust_forwarded,
            request_timeout=request_timeout,
        )
        server = front_end(dict(sent), request.protocol)
        secret = _none_is_secret if show_secrets else _is_secret
        shown = [(name, _MASK if value and secret(name, request.protocol) else value) for name, value in sent]
        response = _json if _wants_json(request) else _page
        return response(request, server, found, shown)

    return show


def _wants_json(request: "Request") -> bool:
    return request.query_string == "json" or "application/json" in request.environ.get("HTTP_ACCEPT", "")


# --- secrets

_MASK = "(masked)"
_NONE = "(none)"
_SECRET_WORDS = ("AUTHORIZATION", "COOKIE", "PASSW", "SECRET", "TOKEN", "API_KEY", "APIKEY", "SESSION", "CLIENT_CERT")
#: Variables that a web server adds; any other is the process environment where it is mixed with the request's.
_ABOUT_THE_REQUEST = (
    "AUTH_TYPE", "CONTENT_", "CONTEXT_", "DOCUMENT_", "GATEWAY_INTERFACE", "GEMINI_", "HTTP_", "HTTPS", "PATH_INFO",
    "PATH_TRANSLATED", "QUERY_STRING", "REDIRECT_", "REMOTE_", "REQUEST_", "SCRIPT_", "SERVER_", "SSL_", "TLS_",
)  # fmt: skip


def _is_secret(name: str, protocol: str) -> bool:
    upper = name.upper().replace("-", "_")
    if any(word in upper for word in _SECRET_WORDS):
        return True
    return protocol == "cgi" and not name.startswith(_ABOUT_THE_REQUEST)


def _none_is_secret(_name: str, _protocol: str) -> bool:
    return False


# --- what is shown

_FIELDS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex",
}


def _seen(request: "Request") -> "list[tuple[str, object]]":
    """The request as a handler sees it."""
    names = (
        "method", "scheme", "url", "path", "script_name", "path_info", "raw_path", "query_string", "remote_addr",
        "remote_user", "server_name", "server_port", "server_software", "content_length", "protocol", "role",
    )  # fmt: skip
    return [(name, getattr(request, name)) for name in names]


def _json(request: "Request", server: str, found: "list[Advice]", shown: "list[tuple[str, str]]") -> Response:
    advice = [{field: getattr(each, field) for field in Advice.__slots__} for each in found]
    value = {
        "server": server or None,
        "advice": advice,
        "unseen": list(unseen(server)),
        "request": dict(_seen(request)),
        "environ": shown,
    }
    answer = Response.json(value)
    for name, field in _FIELDS.items():
        answer = answer.with_header(name, field)
    return answer


def _page(request: "Request", server: str, found: "list[Advice]", shown: "list[tuple[str, str]]") -> Response:
    worst = [each for each in found if each.severity != "hint"]
    title = (
        "Nothing is wrong" if not worst else "1 thing to mend" if len(worst) == 1 else f"{len(worst)} things to mend"
    )
    page = _PAGE.format(
        title=title,
        server=_escape(_NAMES.get(server, "A web server that is not known here")),
        protocol=_escape(_PROTOCOLS.get(request.protocol, request.protocol)),
        advice="".join(map(_section, found)),
        unseen="".join(f"<li>{_escape(text)}</li>\n" for text in unseen(server)),
        request="".join(_row(name, _NONE if value is None else str(value)) for name, value in _seen(request)),
        environ="".join(_row(name, value) for name, value in shown),
    )
    # Values may hold bytes that are no UTF-8 (surrogates); they are shown as what they are not.
    return Response.html(page.encode("utf-8", "backslashreplace").decode(), headers=_FIELDS)


def _section(advice: Advice) -> str:
    return _ADVICE.format(
        severity=_escape(advice.severity),
        name=_escape(advice.name),
        what=_escape(_sentence(advice.what)),
        why=_escape(_sentence(advice.why)),
        mend=_escape(advice.mend),
    )


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _row(name: str, value: str) -> str:
    # No value of a request is one of these two texts by accident and matters.
    note = {_MASK: "masked", _NONE: "none", "": "empty"}.get(value)
    shown = _escape(value) if note is None else f'<i class="note">{note}</i>'
    return f'<tr><th scope="row">{_escape(name) or "<i>no name</i>"}</th><td>{shown}</td></tr>\n'


def _escape(text: str) -> str:
    # As html.escape does, which loads re.
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")


_NAMES = {
    "nginx": "nginx",
    "apache": "Apache",
    "mod_fcgid": "Apache (mod_fcgid)",
    "lighttpd": "lighttpd",
    "haproxy": "HAProxy",
    "caddy": "Caddy",
    "h2o": "h2o",
    "busybox": "BusyBox httpd",
    "mini_httpd": "mini_httpd",
}
_PROTOCOLS = {"fastcgi": "FastCGI", "scgi": "SCGI", "cgi": "CGI", "http": "HTTP"}

_ADVICE = """\
<section class="{severity}">
<h2><span class="severity">{severity}</span> {what}</h2>
<p>{why}.</p>
<p class="label">Mend it with</p>
<pre><code>{mend}</code></pre>
<p class="name">{name}</p>
</section>
"""

_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title} - gateways env</title>
<style>
:root {{
  color-scheme: light dark;
  --paper: #fff; --ink: #1c2024; --faint: #5b6570; --line: #d5dae0; --box: #f3f5f7;
  --wrong: #b3261e; --risk: #8a4b00; --check: #0b57a4; --hint: #5b6570;
}}
@media (prefers-color-scheme: dark) {{
  :root {{
    --paper: #15181c; --ink: #e4e7eb; --faint: #9aa5b1; --line: #353c45; --box: #1f242a;
    --wrong: #ff8a80; --risk: #ffb95c; --check: #82b6ff; --hint: #9aa5b1;
  }}
}}
* {{ box-sizing: border-box; }}
body {{
  margin: 0 auto; padding: 1.25rem; max-width: 64rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere;
}}
h1 {{ font-size: 1.6rem; line-height: 1.25; margin: 0 0 .25rem; }}
h2 {{ font-size: 1.1rem; line-height: 1.35; margin: 2rem 0 .5rem; }}
p {{ margin: 0 0 .5rem; }}
.about, .name, .label, .note, footer {{ color: var(--faint); }}
.name, .label, footer {{ font-size: .875rem; }}
.label, .name {{ margin: 0 0 .2rem; }}
section {{
  --tone: var(--hint); border: 1px solid var(--line); border-left: .3rem solid var(--tone); border-radius: .3rem;
  padding: .8rem 1rem; margin: 1rem 0;
}}
section.wrong {{ --tone: var(--wrong); }}
section.risk {{ --tone: var(--risk); }}
section.check {{ --tone: var(--check); }}
section h2 {{ margin: 0 0 .35rem; }}
.severity {{
  display: inline-block; color: var(--tone); border: 1px solid; border-radius: .3rem; padding: 0 .4rem;
  font-size: .8rem; margin-right: .2rem;
}}
pre {{
  margin: 0 0 .5rem; padding: .6rem .75rem; background: var(--box); border-radius: .3rem; white-space: pre-wrap;
}}
code, td {{ font-family: ui-monospace, monospace; font-size: .9rem; }}
ul {{ padding-left: 1.2rem; margin: 0; }}
table {{ width: 100%; border-collapse: collapse; }}
th, td {{ text-align: left; vertical-align: top; padding: .3rem 0; border-top: 1px solid var(--line); }}
th {{ font-weight: 500; font-size: .9rem; width: 17rem; padding-right: 1rem; }}
.note {{ font-family: system-ui, sans-serif; }}
footer {{ margin-top: 2rem; }}
@media (max-width: 40rem) {{
  th, td {{ display: block; width: 100%; }}
  th {{ padding: .5rem 0 0; color: var(--faint); }}
  td {{ border-top: 0; padding: 0 0 .3rem; }}
}}
</style>
</head>
<body>
<h1>{title}</h1>
<p class="about">{server}, over {protocol}</p>
{advice}
<h2>What a handler sees</h2>
<table>
{request}</table>
<h2>What was sent</h2>
<table>
{environ}</table>
<h2>What cannot be seen from here</h2>
<ul>
{unseen}</ul>
<footer>
<p>The same as JSON: <a href="?json">?json</a>. This page tells much about a server: take it away when you have seen
enough.</p>
</footer>
</body>
</html>
"""

#: The handler with everything as it is by default.
app = handler()
