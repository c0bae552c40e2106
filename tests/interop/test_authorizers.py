"""Authorizers in front of files and of applications: who is let pass, and that nobody else ever is."""

from __future__ import annotations

import json
import re
import tempfile
import textwrap
from collections.abc import AsyncGenerator, Generator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path

import attrs
import pytest
import trio

import gateways
from gateways import Application, Limits, Listen, Request, Response, Roles
from gateways.fastcgi import wire
from tests.interop import authorizers
from tests.interop.authorizers import NO, SECRET, guard, page
from tests.interop.client import Answer, fetch
from tests.interop.configurations import Configuration
from tests.interop.servers import SOCKET_MODE, FrontEnd, front_end, python_script, require

#: Seconds for what takes time at no time, but may on a busy machine.
PATIENCE = 30.0
#: Seconds that a guard may take where it never answers.
DEADLINE = 0.5

HOWTO = Path(__file__).parents[2] / "docs" / "howto" / "authorizer.rst"
_MODULES = "/usr/lib/apache2/modules"
_NEEDED = [f"{_MODULES}/mod_{name}.so" for name in ("authnz_fcgi", "auth_basic", "authn_core", "authz_user")]

_LOAD = """
LoadModule authn_core_module @MODULES@/mod_authn_core.so
LoadModule authz_user_module @MODULES@/mod_authz_user.so
LoadModule auth_basic_module @MODULES@/mod_auth_basic.so
LoadModule authnz_fcgi_module @MODULES@/mod_authnz_fcgi.so
"""

# --- answers that no application of ours gives -----------------------------------------------------------------------


def _stdout(text: str) -> bytes:
    return wire.encode_stream(wire.STDOUT, 1, text.encode()) + wire.encode_record(wire.STDOUT, 1)


#: What a backend that is no authorizer, or is broken, may send before it closes the connection.
MUTE = {
    "unknown-role": wire.encode_end(1, 0, wire.UNKNOWN_ROLE),
    "cant-mpx-conn": wire.encode_end(1, 0, wire.CANT_MPX_CONN),
    "overloaded": wire.encode_end(1, 0, wire.OVERLOADED),
    "empty": _stdout("") + wire.encode_end(1),
    "text": _stdout("no header at all") + wire.encode_end(1),
    "location": _stdout("Location: /login\r\n\r\n") + wire.encode_end(1),
    "half-a-head": _stdout("Status: 403 Forb"),
    "closed": b"",
}
#: The beginning of the last record of a request's variables, however it is padded.
_END_OF_PARAMS = wire.encode_record(wire.PARAMS, 1)[:6]

# --- the web servers -------------------------------------------------------------------------------------------------

_LIGHTTPD = """
fastcgi.server = (
  "/file.txt" => ((
    @BACKEND@, "mode" => "authorizer", "docroot" => "@FOLDER@/htdocs", "check-local" => "disable" )),
  "/app" => (
    ( @BACKEND@, "mode" => "authorizer", "check-local" => "disable" ),
    ( "socket" => "@FOLDER@/page.sock", "check-local" => "disable" )),
  "/impatient" => (
    ( @BACKEND@, "mode" => "authorizer", "check-local" => "disable", "read-timeout" => 1 ),
    ( "socket" => "@FOLDER@/page.sock", "check-local" => "disable" )),
  "/down" => (
    ( "socket" => "@FOLDER@/nobody.sock", "mode" => "authorizer", "check-local" => "disable" ),
    ( "socket" => "@FOLDER@/page.sock", "check-local" => "disable" ))
)
"""

_APACHE = (
    _LOAD
    + """
AliasMatch "^/[^/]+/file.txt$" "@FOLDER@/htdocs/file.txt"
<LocationMatch "/app$">
  SetHandler "proxy:unix:@FOLDER@/page.sock|fcgi://localhost"
</LocationMatch>

# mod_fcgid, which starts the guard. Where Basic is asked for, the name tells whose question reached the client.
FcgidIOTimeout 4
<Location "/checker">
  FcgidAccessChecker "@SCRIPTS@/guard.fcgi"
</Location>
<Location "/authenticator">
  AuthType Basic
  AuthName "apache"
  AuthBasicAuthoritative Off
  FcgidAuthenticator "@SCRIPTS@/guard.fcgi"
  Require valid-user
</Location>
<Location "/authorizer">
  AuthType Basic
  AuthName "apache"
  AuthBasicAuthoritative Off
  FcgidAuthenticator "@SCRIPTS@/consents.fcgi"
  FcgidAuthorizer "@SCRIPTS@/guard.fcgi"
  Require valid-user
</Location>
<Location "/checker-off">
  FcgidAccessChecker "@SCRIPTS@/guard.fcgi"
  FcgidAccessCheckerAuthoritative Off
</Location>
<Location "/authenticator-off">
  AuthType Basic
  AuthName "apache"
  AuthBasicAuthoritative Off
  FcgidAuthenticator "@SCRIPTS@/guard.fcgi"
  FcgidAuthenticatorAuthoritative Off
  Require valid-user
</Location>
<Location "/nobody-asks">
  AuthType Basic
  AuthName "apache"
  AuthBasicAuthoritative Off
  FcgidAuthenticator "@SCRIPTS@/guard.fcgi"
  FcgidAuthorizer "@SCRIPTS@/guard.fcgi"
  Require all granted
</Location>
"""
    + "".join(
        f'<Location "/{name}">\n  FcgidAccessChecker "@SCRIPTS@/{name}.fcgi"\n</Location>\n'
        for name in ("no-authorizer", "impatient", "patient", "down", *MUTE)
    )
    + """
# mod_authnz_fcgi, which connects to it
AuthnzFcgiDefineProvider authnz Guard @BACKEND@/
AuthnzFcgiDefineProvider authn GuardWho @BACKEND@/
AuthnzFcgiDefineProvider authz GuardWhat @BACKEND@/
<Location "/hook">
  AuthnzFcgiCheckAuthnProvider Guard Authoritative On RequireBasicAuth Off UserExpr "%{reqenv:REMOTE_USER}"
  Require Guard
</Location>
<Location "/basic">
  AuthType Basic
  AuthName "apache"
  AuthBasicProvider Guard
  Require Guard
</Location>
<Location "/separate">
  AuthType Basic
  AuthName "apache"
  AuthBasicProvider GuardWho
  Require GuardWhat
</Location>
"""
)

_NGINX = """
location = /guard {
  internal;
  fastcgi_pass_request_body off;
  fastcgi_param REQUEST_METHOD $request_method;
  fastcgi_param REQUEST_URI $request_uri;
  fastcgi_param SERVER_NAME $server_name;
  fastcgi_param SERVER_PORT $server_port;
  fastcgi_param SERVER_PROTOCOL $server_protocol;
  fastcgi_read_timeout 2s;
  fastcgi_keep_conn on;
  fastcgi_pass kept;
}
location /file.txt { auth_request /guard; }
location /app {
  auth_request /guard;
  auth_request_set $user $upstream_http_variable_remote_user;
  auth_request_set $mixed $upstream_http_variable_mixed_case;
  auth_request_set $saw $upstream_http_variable_guard_saw;
  include /etc/nginx/fastcgi_params;
  fastcgi_param REMOTE_USER $user;
  fastcgi_param Mixed_Case $mixed;
  fastcgi_param GUARD_SAW $saw;
  fastcgi_pass unix:@FOLDER@/page.sock;
}
"""


def _configuration(server: str, site: str, name: str = "authorizers", transport: str = "tcp") -> Configuration:
    return Configuration(
        id=f"{server}-{name}",
        server=server,
        protocol="fastcgi",
        transport=transport,
        mount="",
        mount_option=None,
        script=None,
        site=site,
    )


SITES = {
    "lighttpd": _configuration("lighttpd", _LIGHTTPD),
    "apache2": _configuration("apache2", _APACHE),
    "nginx": _configuration("nginx", _NGINX),
}


@attrs.frozen
class Way:
    """One way to have pages guarded: those below ``prefix``, where ``server`` is set up as above."""

    id: str
    server: str
    prefix: str = ""

    @property
    def starts_it(self) -> bool:
        """Whether the web server starts the guard."""
        return self.id.startswith("fcgid")

    @property
    def guard(self) -> Application:
        return guard if self.server == "nginx" else authorizers.app

    def __str__(self) -> str:
        return self.id


WAYS = [
    Way("lighttpd", "lighttpd"),
    Way("fcgid-checker", "apache2", "/checker"),
    Way("fcgid-authenticator", "apache2", "/authenticator"),
    Way("fcgid-authorizer", "apache2", "/authorizer"),
    Way("authnz-hook", "apache2", "/hook"),
    Way("authnz-basic", "apache2", "/basic"),
    Way("authnz-separate", "apache2", "/separate"),
    Way("nginx", "nginx"),
]
#: mod_fcgid has one piece of code three times: what has no verdict is asked of the first alone.
DISTINCT = [way for way in WAYS if way.id not in ("fcgid-authenticator", "fcgid-authorizer", "authnz-separate")]


def through(ways: Iterable[Way]) -> pytest.MarkDecorator:
    """Run a test with each of these ways."""
    return pytest.mark.parametrize("way", list(ways), ids=str)


_RUN = "\nimport gateways\nfrom gateways import Limits, Roles\n"
_SOURCE = Path(authorizers.__file__).read_text() + _RUN


def _scripts() -> dict[str, str]:
    mute = {
        name: python_script(authorizers.MUTE.format(answer=answer, end_of_params=_END_OF_PARAMS))
        for name, answer in MUTE.items()
    }
    consent = "async def consent(request): return Response.authorize()\ngateways.run(Roles(authorizer=consent))"
    return {
        "guard": python_script(f"{_SOURCE}gateways.run(app)\n"),
        "patient": python_script(f"{_SOURCE}gateways.run(app)\n"),
        "impatient": python_script(f"{_SOURCE}gateways.run(app, limits=Limits(request_timeout={DEADLINE}))\n"),
        "consents": python_script(f"from gateways import Response{_RUN}{consent}\n"),
        "no-authorizer": python_script(f"{_SOURCE}gateways.run(page)\n"),
        "down": python_script("raise SystemExit(1)\n"),
        **mute,
    }


@contextmanager
def _running(server: str) -> Generator[FrontEnd]:
    """A running web server, with a secret to guard."""
    configuration = SITES[server]
    with tempfile.TemporaryDirectory(prefix="gw") as name:
        if server == "apache2":
            require(*_NEEDED)
            _write_scripts(Path(name))
        with front_end(attrs.evolve(configuration, site=configuration.site.replace("@SCRIPTS@", name))) as web:
            (web.folder / "htdocs" / "file.txt").write_text(SECRET)
            (web.folder / "htdocs" / "login").write_text("Who are you?\n")
            yield web


def _write_scripts(folder: Path) -> None:
    folder.chmod(0o755)
    for name, text in _scripts().items():
        program = folder / f"{name}.fcgi"
        program.write_text(text)
        program.chmod(0o755)


@pytest.fixture(scope="module")
def lighttpd() -> Iterator[FrontEnd]:
    with _running("lighttpd") as web:
        yield web


@pytest.fixture(scope="module")
def apache2() -> Iterator[FrontEnd]:
    with _running("apache2") as web:
        yield web


@pytest.fixture(scope="module")
def nginx() -> Iterator[FrontEnd]:
    with _running("nginx") as web:
        yield web


@pytest.fixture
def web(request: pytest.FixtureRequest, way: Way) -> FrontEnd:
    """The web server of this way, which is started once for all tests of the module."""
    running: FrontEnd = request.getfixturevalue(way.server)
    return running


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    """No pages of tracebacks beside a failure: this guard is there to fail."""
    caplog.set_level("CRITICAL", "gateways")


@asynccontextmanager
async def _serving(web: FrontEnd, app: Application | None, limits: Limits | None = None) -> AsyncGenerator[None]:
    """Serve the page, and a guard where the web server connects to one (None: nobody listens)."""
    async with trio.open_nursery() as nursery:
        # Behind nginx REMOTE_USER is believed only on request: it copies the name out of unchecked credentials.
        behind = Listen(f"unix:{web.folder}/page.sock", mode=SOCKET_MODE, trust_remote_user=True)
        await nursery.start(partial(gateways.fastcgi.serve, page, behind))
        if app is not None:
            await nursery.start(partial(gateways.fastcgi.serve, app, Listen(str(web.address)), limits=limits))
        yield
        nursery.cancel_scope.cancel()


async def _ask(web: FrontEnd, path: str, method: str = "GET", body: bytes | None = None) -> Answer:
    # Three of the ways ask no guard before the client has said who it is.
    headers = [("Authorization", "Basic YWxpOnNlc2FtZQ=="), ("Cookie", "theirs=2")]
    return await fetch(web.port, method, path, headers, body, timeout=PATIENCE)


def _assert_let_pass(answer: Answer) -> None:
    assert (answer.status, answer.complete) == (200, True)
    assert SECRET.encode() in answer.body


def _assert_turned_away(answer: Answer, status: int) -> None:
    assert SECRET.encode() not in answer.body
    assert SECRET not in str(answer.headers)
    assert answer.status == status


# --- let pass --------------------------------------------------------------------------------------------------------


@through(WAYS)
async def test_F39_a_file_is_served_to_whom_the_guard_lets_pass(web: FrontEnd, way: Way) -> None:
    async with _serving(web, way.guard):
        answer = await _ask(web, f"{way.prefix}/file.txt?pass")
    _assert_let_pass(answer)
    assert answer.body == SECRET.encode()
    # mod_fcgid shows the variables to the client as well.
    assert answer.header("Variable-REMOTE_USER") == ("ali" if way.starts_it else None)


@through(WAYS)
async def test_F39_the_variables_of_the_guard_reach_the_application(web: FrontEnd, way: Way) -> None:
    async with _serving(web, way.guard):
        answer = await _ask(web, f"{way.prefix}/app?pass")
    _assert_let_pass(answer)
    environ = json.loads(answer.body)["environ"]
    assert environ["REMOTE_USER"] == "ali"
    # lighttpd spells variables in capitals; what nginx hands on, and how, is for its configuration to say.
    assert environ["MIXED_CASE" if way.server == "lighttpd" else "Mixed_Case"] == "kept"
    # What is named like a field of the request does not replace the client's own.
    assert environ["HTTP_COOKIE"] == ("theirs=2; ours=1" if way.server == "lighttpd" else "theirs=2")


@through(WAYS)
async def test_F39_a_body_is_for_the_application_alone(web: FrontEnd, way: Way) -> None:
    async with _serving(web, way.guard):
        answer = await _ask(web, f"{way.prefix}/app?pass", "POST", b"x" * 50_000)
        refused = await _ask(web, f"{way.prefix}/app?401", "POST", b"x" * 50_000)
    _assert_let_pass(answer)
    seen = json.loads(answer.body)
    assert (seen["environ"]["GUARD_SAW"], seen["body"]) == ("0 bytes, length none", 50_000)
    _assert_turned_away(refused, 401)


@through(way for way in WAYS if way.server == "nginx")
async def test_F39_verdicts_over_a_kept_connection_are_not_mixed_up(web: FrontEnd, way: Way) -> None:
    async with _serving(web, way.guard):
        for _ in range(5):
            _assert_let_pass(await _ask(web, "/file.txt?pass"))
            _assert_turned_away(await _ask(web, "/file.txt?403"), 403)


#: What each sends to a guard: the role, and the records of STDIN for a request without a body and for one with.
_SENT: dict[str, tuple[str, dict[str, list[bytes]]]] = {
    "lighttpd": ("authorizer", {"GET": [b""], "POST": []}),
    "authnz-hook": ("authorizer", {"GET": [], "POST": []}),
    "nginx": ("responder", {"GET": [b""], "POST": [b""]}),
}


@pytest.mark.parametrize("method", ["GET", "POST"])
@through(way for way in WAYS if way.id in _SENT)
async def test_F39_what_a_guard_is_sent(web: FrontEnd, way: Way, method: str) -> None:
    received: list[wire.Record] = []
    over = trio.Event()

    async def listen(stream: trio.SocketStream) -> None:
        scanner = wire.RecordScanner()
        async with stream:
            async for data in stream:
                received.extend(scanner.scan(bytes(data)))
                if any(kind == wire.PARAMS and not content for kind, _, content, _ in received):
                    break
            await stream.send_all(_stdout("Status: 403 Forbidden\r\n\r\n") + wire.encode_end(1))
            await stream.send_eof()
            async for data in stream:
                received.extend(scanner.scan(bytes(data)))
        over.set()

    async with trio.open_nursery() as nursery:
        port = int(str(web.address).rpartition(":")[2])
        await nursery.start(partial(trio.serve_tcp, listen, port, host="127.0.0.1"))
        answer = await _ask(web, f"{way.prefix}/app", method, b"x" * 1000 if method == "POST" else None)
        with trio.fail_after(PATIENCE):
            await over.wait()
        nursery.cancel_scope.cancel()
    _assert_turned_away(answer, 403)
    contents: dict[int, list[bytes]] = {}
    for kind, _, content, _ in received:
        contents.setdefault(kind, []).append(content)
    role, _ = wire.decode_begin(contents[wire.BEGIN_REQUEST][0])
    names = {name for name, _ in wire.decode_pairs(b"".join(contents[wire.PARAMS]))}
    expected, stdin = _SENT[way.id]
    assert (wire.ROLES[role], contents.get(wire.STDIN, [])) == (expected, stdin[method])
    assert {"REQUEST_METHOD", "REQUEST_URI", "HTTP_AUTHORIZATION"} <= names
    assert not {"CONTENT_LENGTH", "PATH_INFO", "PATH_TRANSLATED", "SCRIPT_NAME"} & names


# --- turned away -----------------------------------------------------------------------------------------------------

#: Stands for a status where everyone is let pass.
PASSES = 200
#: Verdicts other than ours to let pass, and what the client sees, by the ways in their order. mod_fcgid makes every
#: refusal a 401, as mod_authnz_fcgi does where it only checks a password. nginx takes any 2xx for consent.
REFUSALS = {
    "401": (401, 401, 401, 401, 401, 401, 401, 401),
    "403": (403, 401, 401, 401, 403, 401, 401, 403),
    "302": (302, 401, 401, 401, 302, 401, 401, 500),
    "302-local": (302, 401, 401, 401, 302, 401, 401, 500),
    "204": (204, 401, 401, 401, 204, 401, 401, PASSES),
    "200": (403, 401, 401, 401, 403, 401, 401, PASSES),
    "200-variable": (403, 401, 401, 401, 403, 401, 401, PASSES),
    "200-local": (403, 401, 401, 401, 403, 401, 401, 500),
    "None": (500, 401, 401, 401, 500, 500, 500, 500),
    "True": (500, 401, 401, 401, 500, 500, 500, 500),
    "crash": (500, 401, 401, 401, 500, 500, 500, 500),
    "crash-later": (403, 401, 401, 401, 500, 500, 500, PASSES),
}


@pytest.mark.parametrize("verdict", REFUSALS)
@through(WAYS)
async def test_F39_W13_whom_the_guard_does_not_let_pass_sees_nothing(web: FrontEnd, way: Way, verdict: str) -> None:
    status = REFUSALS[verdict][WAYS.index(way)]
    async with _serving(web, way.guard):
        answer = await _ask(web, f"{way.prefix}/file.txt?{verdict}")
        at_app = await _ask(web, f"{way.prefix}/app?{verdict}")
    if status == PASSES:
        _assert_let_pass(answer)
    else:
        _assert_turned_away(answer, status)
        _assert_turned_away(at_app, status)


@through(WAYS)
async def test_F39_a_refusal_asks_who_the_client_is(web: FrontEnd, way: Way) -> None:
    async with _serving(web, way.guard):
        answer = await _ask(web, f"{way.prefix}/file.txt?401")
    _assert_turned_away(answer, 401)
    # Where Apache's own question is meant, it is Apache's name that the client hears.
    asks = "apache" if way.prefix in ("/authenticator", "/authorizer", "/basic", "/separate") else "guard"
    assert answer.header("WWW-Authenticate") == f'Basic realm="{asks}"'
    if way.server == "lighttpd":
        assert answer.body.decode() == f"{NO}\n"


@through(way for way in WAYS if way.id in ("lighttpd", "authnz-hook"))
async def test_F39_a_redirect_reaches_the_client_where_refusals_do(web: FrontEnd, way: Way) -> None:
    async with _serving(web, way.guard):
        far = await _ask(web, f"{way.prefix}/file.txt?302")
        near = await _ask(web, f"{way.prefix}/file.txt?302-local")
    assert far.header("Location") == "http://gateways.test/login"
    assert near.header("Location") == "/login"


@through(
    way for way in WAYS if way.id in ("fcgid-authenticator", "fcgid-authorizer", "authnz-basic", "authnz-separate")
)
async def test_F39_where_Apache_asks_for_a_name_nobody_passes_without(web: FrontEnd, way: Way) -> None:
    async with _serving(web, way.guard):
        answer = await fetch(web.port, "GET", f"{way.prefix}/file.txt?pass", timeout=PATIENCE)
    _assert_turned_away(answer, 401)


# --- no verdict ------------------------------------------------------------------------------------------------------


@through(way for way in DISTINCT if way.server != "nginx")
async def test_W13_an_application_without_an_authorizer_lets_nobody_pass(web: FrontEnd, way: Way) -> None:
    prefix = "/no-authorizer" if way.starts_it else way.prefix
    async with _serving(web, page):
        answer = await _ask(web, f"{prefix}/file.txt?pass")
    _assert_turned_away(answer, {"lighttpd": 403, "authnz-hook": 403}.get(way.id, 401))


@through(DISTINCT)
async def test_W13_a_guard_that_is_too_late_lets_nobody_pass(web: FrontEnd, way: Way) -> None:
    prefix = "/impatient" if way.starts_it else way.prefix
    async with _serving(web, way.guard, Limits(request_timeout=DEADLINE)):
        answer = await _ask(web, f"{prefix}/file.txt?silence")
    _assert_turned_away(answer, {"lighttpd": 504, "authnz-hook": 504, "nginx": 500}.get(way.id, 401))


# mod_authnz_fcgi waits half a minute, and cannot be told otherwise.
@through(way for way in DISTINCT if not way.id.startswith("authnz"))
async def test_W13_a_guard_that_never_answers_lets_nobody_pass(web: FrontEnd, way: Way) -> None:
    path = {"lighttpd": "/impatient", "nginx": "/app"}.get(way.id, "/patient/file.txt")
    async with _serving(web, way.guard):
        answer = await _ask(web, f"{path}?silence")
    _assert_turned_away(answer, {"lighttpd": 504}.get(way.id, 500))


@through(DISTINCT)
async def test_W13_where_nobody_listens_nobody_passes(web: FrontEnd, way: Way) -> None:
    # lighttpd, and mod_fcgid whose program ends at once, would miss the next guard if it were missed at this address.
    path = {"lighttpd": "/down", "fcgid-checker": "/down/file.txt"}.get(way.id, f"{way.prefix}/file.txt")
    async with _serving(web, None):
        answer = await _ask(web, f"{path}?pass")
    _assert_turned_away(answer, {"lighttpd": 503}.get(way.id, 500))


@through(way for way in DISTINCT if not way.starts_it)
async def test_W13_a_guard_that_is_stopped_lets_nobody_pass(web: FrontEnd, way: Way) -> None:
    asked = trio.Event()
    answers: list[Answer] = []

    async def waiting(request: Request) -> Response:
        asked.set()
        await trio.sleep_forever()
        return Response.authorize()

    async def ask() -> None:
        answers.append(await _ask(web, f"{way.prefix}/file.txt?pass"))

    app = waiting if way.server == "nginx" else Roles(authorizer=waiting)
    async with trio.open_nursery() as nursery, _serving(web, app):
        nursery.start_soon(ask)
        with trio.fail_after(PATIENCE):
            await asked.wait()
    _assert_turned_away(answers[0], {"lighttpd": 503, "authnz-hook": 503, "nginx": 500}.get(way.id, 401))


@through(way for way in DISTINCT if not way.starts_it)
async def test_W13_a_request_that_is_over_a_limit_is_not_let_pass(web: FrontEnd, way: Way) -> None:
    async with _serving(web, way.guard, Limits(max_params=3)):
        answer = await _ask(web, f"{way.prefix}/file.txt?pass")
    _assert_turned_away(answer, {"lighttpd": 431, "authnz-hook": 431, "nginx": 500}.get(way.id, 401))


#: What each makes of an answer that is none. Those that let pass are why an application of ours answers an authorizer's
#: request with a whole response and never with FCGI_UNKNOWN_ROLE or the like.
CONSENTS = {
    "lighttpd": {"unknown-role", "cant-mpx-conn", "overloaded", "empty", "text", "location"},
    "fcgid-checker": set[str](),
    "authnz-hook": set[str](),
    "authnz-basic": {"location"},
    "nginx": set[str](),
}


@pytest.mark.parametrize("answer", MUTE)
@through(DISTINCT)
async def test_W13_what_a_web_server_takes_for_consent(web: FrontEnd, way: Way, answer: str) -> None:
    async def speak(stream: trio.SocketStream) -> None:
        received = b""
        async with stream:
            async for data in stream:
                received += data
                if _END_OF_PARAMS in received:
                    break
            await stream.send_all(MUTE[answer])

    prefix = f"/{answer}" if way.starts_it else way.prefix
    async with trio.open_nursery() as nursery:
        if not way.starts_it:
            port = int(str(web.address).rpartition(":")[2])
            await nursery.start(partial(trio.serve_tcp, speak, port, host="127.0.0.1"))
        got = await _ask(web, f"{prefix}/file.txt")
        nursery.cancel_scope.cancel()
    if answer in CONSENTS[way.id]:
        _assert_let_pass(got)
    else:
        _assert_turned_away(got, 401 if (way.id, answer) == ("fcgid-checker", "location") else 500)


@through(way for way in WAYS if way.id == "fcgid-checker")
async def test_W13_where_mod_fcgid_does_not_turn_away(web: FrontEnd, way: Way) -> None:
    async with _serving(web, None):
        # Nobody is asked for a name where all is granted, nor are the programs that would judge it.
        _assert_let_pass(await _ask(web, "/nobody-asks/file.txt?403"))
        # "Authoritative Off" leaves it to others. Everyone may come in here, and gets the page with the guard's status.
        shown = await _ask(web, "/checker-off/file.txt?403")
        assert (shown.status, shown.body) == (403, SECRET.encode())
        # Nobody else knows the client's name.
        _assert_turned_away(await _ask(web, "/authenticator-off/file.txt?403"), 500)


# --- what the documentation shows ------------------------------------------------------------------------------------

_LANGUAGES = {"lighttpd": "lighttpd", "apache": "apache2", "nginx": "nginx"}
#: The paths and addresses of the documentation -> what stands for them in a private folder.
_PLACES = {
    "/run/guard.sock": "@FOLDER@/app.sock",
    "fcgi://127.0.0.1:4000": "@BACKEND@",
    "/srv/app/guard.fcgi": "@SCRIPT@",
    "/srv/www": "@FOLDER@/htdocs",
}

_PAGE = HOWTO.read_text(encoding="utf-8")


def _shown() -> list[Configuration]:
    """The blocks that have a name beginning with guard-."""
    blocks = re.finditer(r"^\.\. code-block:: (\w+)\n   :name: (guard-\w+)\n\n((?:   .*\n|\n)+)", _PAGE, re.MULTILINE)
    return [_stand_in(block[2], _LANGUAGES[block[1]], textwrap.dedent(block[3])) for block in blocks]


def _stand_in(name: str, server: str, text: str) -> Configuration:
    site = text
    for place, stand_in in _PLACES.items():
        site = site.replace(place, stand_in)
    if server == "apache2":
        site = _LOAD + site
    transport = "tcp" if "4000" in text else "unix"
    configuration = _configuration(server, site, name, transport)
    return attrs.evolve(configuration, script="guard.fcgi" if "guard.fcgi" in text else None)


SHOWN = _shown()


def test_the_documentation_shows_every_web_server() -> None:
    names = {str(configuration) for configuration in SHOWN}
    assert names == {"lighttpd-guard-lighttpd", "apache2-guard-authnz", "apache2-guard-fcgid", "nginx-guard-nginx"}


@pytest.mark.parametrize("configuration", SHOWN, ids=str)
async def test_F39_a_guard_of_the_documentation_works(configuration: Configuration) -> None:
    require(*(_NEEDED if configuration.server == "apache2" else ()))
    block = re.search(r"^\.\. code-block:: python\n(?:   :.*\n)*\n((?:   .*\n|\n)+)", _PAGE, re.MULTILINE)
    source = textwrap.dedent(block[1]) if block else ""
    module: dict[str, Application] = {}
    exec(source, module)
    script = python_script(f"{source}\nimport gateways\ngateways.run(app)\n") if configuration.script else None
    with front_end(configuration, script) as web:
        (web.folder / "htdocs" / "private").mkdir()
        (web.folder / "htdocs" / "private" / "page").write_text(SECRET)
        async with trio.open_nursery() as nursery:
            if web.address is not None:
                listen = Listen(web.address, mode=SOCKET_MODE)
                await nursery.start(partial(gateways.fastcgi.serve, module["app"], listen))
            refused = await fetch(web.port, "GET", "/private/page", timeout=PATIENCE)
            sesame = [("Authorization", "Bearer sesame")]
            passed = await fetch(web.port, "GET", "/private/page", sesame, timeout=PATIENCE)
            nursery.cancel_scope.cancel()
    _assert_turned_away(refused, 401)
    assert refused.header("WWW-Authenticate") == "Bearer"
    _assert_let_pass(passed)
