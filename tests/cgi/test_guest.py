"""The script's side of CGI: real processes, started as web servers start them."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import gateways

ROOT = str(Path(gateways.__file__).parents[1])
GET = {"REQUEST_METHOD": "GET", "SCRIPT_NAME": "/s.cgi", "SERVER_PROTOCOL": "HTTP/1.1", "GATEWAY_INTERFACE": "CGI/1.1"}
POST = {**GET, "REQUEST_METHOD": "POST", "CONTENT_LENGTH": "5"}

HELLO = """
async def app(request):
    body = await request.body.read()
    return Response(f"{request.path} {len(body)}")
"""


class Script:
    """A CGI script and what came of running it."""

    def __init__(self, path: Path, program: str, how: str = "gateways.cgi.run(app)") -> None:
        path.write_text(
            f"import sys\nsys.path.insert(0, {ROOT!r})\nimport gateways\n"
            f"from gateways import Reject, Response\n{program}\n{how}\n"
        )
        self.command = [sys.executable, str(path)]

    def run(
        self, environ: dict[str, str] | dict[bytes, bytes] = GET, stdin: bytes = b"", *arguments: str
    ) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [*self.command, *arguments], env=environ, input=stdin, capture_output=True, timeout=20, check=False
        )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "script.py"


def split(output: bytes) -> tuple[list[bytes], bytes]:
    head, _, body = output.partition(b"\r\n\r\n")
    return head.split(b"\r\n"), body


def test_a_whole_answer_and_exit_status_0(path: Path) -> None:
    done = Script(path, HELLO).run()
    assert split(done.stdout) == (
        [b"Status: 200 OK", b"Content-Type: text/plain; charset=utf-8", b"Content-Length: 8"],
        b"/s.cgi 0",
    )
    assert (done.returncode, done.stderr) == (0, b"")


def test_C02_the_body_is_read_up_to_its_length_and_not_beyond(path: Path) -> None:
    """python's http.server leaves the client's socket on stdin: what follows is not ours, and no end ever comes."""
    reading, writing = os.pipe()
    os.write(writing, b"hello and more")
    done = subprocess.run(Script(path, HELLO).command, env=POST, stdin=reading, capture_output=True, timeout=20)
    os.close(writing)
    assert split(done.stdout)[1] == b"/s.cgi 5"
    assert os.read(reading, 100) == b" and more"
    os.close(reading)


def test_C02_without_a_length_stdin_is_not_read(path: Path) -> None:
    reading, writing = os.pipe()
    done = subprocess.run(Script(path, HELLO).command, env=GET, stdin=reading, capture_output=True, timeout=20)
    os.close(writing)
    os.close(reading)
    assert split(done.stdout)[1] == b"/s.cgi 0"


def test_a_body_shorter_than_its_length_is_400(path: Path) -> None:
    done = Script(path, HELLO).run(POST, b"hel")
    assert split(done.stdout)[0][0] == b"Status: 400 Bad Request"
    assert b"2 bytes before its announced length of 5" in done.stderr


def test_E14_a_chunked_body_is_read_to_its_end_under_apache_and_refused_elsewhere(path: Path) -> None:
    chunked = {**GET, "REQUEST_METHOD": "POST", "HTTP_TRANSFER_ENCODING": "chunked"}
    script = Script(path, HELLO)
    assert split(script.run({**chunked, "SERVER_SOFTWARE": "Apache/2.4"}, b"hello!").stdout)[1] == b"/s.cgi 6"
    assert split(script.run(chunked, b"6\r\nhello!\r\n0\r\n\r\n").stdout)[0][0] == b"Status: 411 Length Required"


CHUNKED_BY_APACHE = {
    **GET,
    "REQUEST_METHOD": "POST",
    "HTTP_TRANSFER_ENCODING": "chunked",
    "SERVER_SOFTWARE": "Apache/2.4",
}


@pytest.mark.parametrize(
    "program",
    [
        HELLO,
        "import trio" + HELLO,
        "def app(request):\n    return Response(request.body.file.read())",
        "import trio\ndef app(request):\n    return Response(request.body.file.read())",
    ],
    ids=["without a loop", "under trio", "plain function", "plain function in a thread"],
)
@pytest.mark.parametrize("environ", [POST, CHUNKED_BY_APACHE], ids=["a length", "to the end"])
def test_C22_E14_a_body_that_does_not_come_is_given_up_at_its_deadline(
    path: Path, program: str, environ: dict[str, str]
) -> None:
    """uWSGI keeps stdin open behind the body; a client may stop in the middle of one."""
    how = "from gateways import Limits\ngateways.cgi.run(app, limits=Limits(body_timeout=0.1))"
    reading, writing = os.pipe()
    os.write(writing, b"hel")
    script = Script(path, program, how)
    done = subprocess.run(script.command, env=environ, stdin=reading, capture_output=True, timeout=20)
    os.close(writing)
    os.close(reading)
    assert split(done.stdout)[0][0] == b"Status: 408 Request Timeout"
    assert b"no body data for 0.1 seconds" in done.stderr


def test_E14_a_body_may_take_its_time_where_the_deadline_is_switched_off(path: Path) -> None:
    for load in ("", "import trio"):
        how = "from gateways import Limits\ngateways.cgi.run(app, limits=Limits(body_timeout=None))"
        assert split(Script(path, load + HELLO, how).run(POST, b"hello").stdout)[1] == b"/s.cgi 5"


def test_E05_what_nobody_reads_of_a_body_is_heard_out(path: Path) -> None:
    """fcgiwrap makes a 502 of an answer whose script leaves bytes in the pipe."""
    program = "async def app(request):\n    return Response('early')"
    child = subprocess.Popen(
        Script(path, program).command,
        env={**POST, "CONTENT_LENGTH": "1000000"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert split(os.read(child.stdout.fileno(), 1000))[1] == b"early"
        child.stdin.write(b"x" * 1_000_000)  # a pipe that broke would raise
        child.stdin.close()
    assert child.returncode == 0


def test_E14_what_nobody_reads_of_a_body_is_not_awaited_for_ever(path: Path) -> None:
    """Not if it stops coming."""
    program = "async def app(request):\n    return Response('early')"
    how = "from gateways import Limits\ngateways.cgi.run(app, limits=Limits(drain_timeout=0.1))"
    server, script = socket.socketpair()
    with server, script:
        server.sendall(b"hel")
        child = subprocess.Popen(
            Script(path, program, how).command, env=POST, stdin=script.fileno(), stdout=script.fileno()
        )
        script.close()
        assert child.wait(20) == 0
        assert split(server.recv(1000))[1] == b"early"


@pytest.mark.parametrize("environ", [POST, CHUNKED_BY_APACHE], ids=["a length", "to the end"])
def test_C22_a_body_over_the_limit_is_413(path: Path, environ: dict[str, str]) -> None:
    program = "async def app(request):\n    return Response(await request.body.read())"
    how = "from gateways import Limits\ngateways.cgi.run(app, limits=Limits(max_read=4))"
    done = Script(path, program, how).run(environ, b"hello")
    assert split(done.stdout)[0][0] == b"Status: 413 Content Too Large"
    assert done.returncode == 0


def test_C22_a_body_of_any_size_can_be_streamed(path: Path) -> None:
    program = """
async def app(request):
    return Response(str(sum([len(chunk) async for chunk in request.body])))
"""
    how = "from gateways import Limits\ngateways.cgi.run(app, limits=Limits(max_read=4))"
    done = Script(path, program, how).run({**POST, "CONTENT_LENGTH": "300000"}, b"x" * 300_000)
    assert split(done.stdout)[1] == b"300000"


def test_C22_what_a_client_keeps_secret_is_not_logged(path: Path) -> None:
    program = "async def app(request):\n    raise RuntimeError('secret')"
    environ = {**GET, "HTTP_AUTHORIZATION": "Basic bTpwYXNzd29yZA==", "HTTP_COOKIE": "session=key"}
    done = Script(path, program).run(environ)
    assert b"RuntimeError" in done.stderr
    assert b"bTpwYXNzd29yZA" not in done.stderr
    assert b"session=key" not in done.stderr


@pytest.mark.parametrize(("announced", "status"), [("5", b"411 Length Required"), ("0", b"200 OK"), ("", b"200 OK")])
def test_C02_E13_a_body_that_the_web_server_keeps_to_itself_is_no_empty_body(
    path: Path, announced: str, status: bytes
) -> None:
    """busybox hands the body of a POST on, and that of a PUT not."""
    done = Script(path, HELLO).run({**GET, "REQUEST_METHOD": "PUT", "HTTP_CONTENT_LENGTH": announced})
    assert split(done.stdout)[0][0] == b"Status: " + status


def test_C16_HEAD_has_the_head_and_no_body(path: Path) -> None:
    head, body = split(Script(path, HELLO).run({**GET, "REQUEST_METHOD": "HEAD"}).stdout)
    assert head[-1] == b"Content-Length: 8"
    assert body == b""


def test_C41_stray_prints_go_to_stderr(path: Path) -> None:
    program = """
import os, subprocess
async def app(request):
    print("stray", flush=True)
    os.write(1, b"straight to fd 1")
    subprocess.run(["echo", "from a child"])
    return Response("clean")
"""
    done = Script(path, program).run()
    assert split(done.stdout)[1] == b"clean"
    assert all(text in done.stderr for text in (b"stray", b"straight to fd 1", b"from a child"))


def test_C41_what_was_printed_before_the_script_began_to_answer_stays_out_as_well(path: Path) -> None:
    program = """
print("loading")
async def app(request):
    return Response("clean")
"""
    done = Script(path, program).run()
    assert done.stdout.startswith(b"Status: 200 OK\r\n")
    assert split(done.stdout)[1] == b"clean"
    assert b"loading" in done.stderr


def test_C41_a_body_is_octets_and_not_text(path: Path) -> None:
    program = "async def app(request):\n    return Response(bytes(range(256)) + b'\\r\\n\\n')"
    assert split(Script(path, program).run().stdout)[1] == bytes(range(256)) + b"\r\n\n"


def test_R24_a_failure_before_the_head_is_a_500_and_exit_status_0(path: Path) -> None:
    done = Script(path, "async def app(request):\n    raise RuntimeError('secret')").run()
    assert split(done.stdout) == (
        [b"Status: 500 Internal Server Error", b"Content-Type: text/plain; charset=utf-8", b"Content-Length: 22"],
        b"Internal Server Error\n",
    )
    assert b"RuntimeError: secret" in done.stderr
    assert done.returncode == 0


def test_R25_a_failure_after_the_head_is_exit_status_1(path: Path) -> None:
    program = """
async def app(request):
    async def body(send):
        await send("some")
        raise RuntimeError("secret")
    return Response(body)
"""
    done = Script(path, program).run()
    assert (split(done.stdout)[1], done.returncode) == (b"some", 1)
    assert b"RuntimeError: secret" in done.stderr


@pytest.mark.parametrize("load", ["", "import trio"])
def test_C30_a_handler_that_exits_is_a_500(path: Path, load: str) -> None:
    """Old scripts do; the web server would make an error page of its own of no output at all."""
    done = Script(path, f"{load}\nasync def app(request):\n    sys.exit(0)").run()
    assert split(done.stdout)[0][0] == b"Status: 500 Internal Server Error"
    assert b"SystemExit" in done.stderr
    assert done.returncode == 0


def test_C30_a_handler_that_exits_in_the_middle_of_its_answer_has_not_succeeded(path: Path) -> None:
    program = """
async def app(request):
    async def body(send):
        await send("some")
        sys.exit(0)
    return Response(body)
"""
    done = Script(path, program).run()
    assert (split(done.stdout)[1], done.returncode) == (b"some", 1)


def test_a_request_that_cannot_be_built_is_answered(path: Path) -> None:
    done = Script(path, HELLO).run({**GET, "REQUEST_METHOD": "GET X"})
    assert split(done.stdout)[0][0] == b"Status: 400 Bad Request"


def test_a_plain_function_runs_inline(path: Path) -> None:
    program = """
import threading
def app(request):
    assert threading.active_count() == 1
    return Response(request.body.file.read())
"""
    assert split(Script(path, program).run(POST, b"hello").stdout)[1] == b"hello"


def test_a_handler_that_waits_without_trio_is_told_what_to_do(path: Path) -> None:
    program = """
class Forever:
    def __await__(self):
        yield self
async def app(request):
    await Forever()
"""
    done = Script(path, program).run()
    assert split(done.stdout)[0][0] == b"Status: 500 Internal Server Error"
    assert b"gateways.cgi.run(app, trio=True)" in done.stderr


TRIO = """
async def app(request):
    await trio.sleep(0.001)
    body = await request.body.read()
    return Response(f"under trio {len(body)}")
"""


def test_an_application_that_imports_trio_runs_under_it(path: Path) -> None:
    assert split(Script(path, "import trio" + TRIO).run(POST, b"hello").stdout)[1] == b"under trio 5"


def test_trio_can_be_asked_for(path: Path) -> None:
    program = TRIO.replace("async def app(request):", "async def app(request):\n    import trio")
    done = Script(path, program, "gateways.cgi.run(app, trio=True)").run(POST, b"hello")
    assert split(done.stdout)[1] == b"under trio 5"


def test_a_push_body_that_imports_trio_in_its_handler_runs_under_it(path: Path) -> None:
    program = """
async def app(request):
    import trio
    async def body(send):
        for number in range(3):
            await send(str(number))
            await trio.sleep(0.001)
    return Response(body)
"""
    assert split(Script(path, program).run().stdout)[1] == b"012"


def test_a_plain_function_under_trio_runs_in_a_thread_and_may_read_the_body(path: Path) -> None:
    program = """
import threading, trio
def app(request):
    assert threading.current_thread() is not threading.main_thread()
    return Response(request.body.file.read())
"""
    assert split(Script(path, program).run(POST, b"hello").stdout)[1] == b"hello"


def test_an_application_with_a_life_of_its_own_starts_up_and_shuts_down(path: Path) -> None:
    program = """
from contextlib import asynccontextmanager
@asynccontextmanager
async def app():
    print("up")
    async def handler(request):
        return Response("between")
    yield handler
    print("down")
"""
    done = Script(path, program).run()
    assert (split(done.stdout)[1], done.stderr) == (b"between", b"up\ndown\n")


def test_an_application_that_cannot_start_is_a_500(path: Path) -> None:
    program = """
from contextlib import asynccontextmanager
@asynccontextmanager
async def app():
    raise RuntimeError("no database")
    yield
"""
    done = Script(path, program).run()
    assert split(done.stdout)[0][0] == b"Status: 500 Internal Server Error"
    assert b"no database" in done.stderr


def test_E01_HTTP_PROXY_reaches_neither_the_handler_nor_the_process_environment(path: Path) -> None:
    program = """
import os
async def app(request):
    found = [request.environ, dict(request.environ_as_sent), os.environ]
    return Response(str([("HTTP_PROXY" in each) for each in found]))
"""
    done = Script(path, program).run({**GET, "HTTP_PROXY": "http://evil.example/"})
    assert split(done.stdout)[1] == b"[False, False, False]"


def test_C18_arguments_are_ignored(path: Path) -> None:
    done = Script(path, HELLO).run(GET, b"", "-d", "foo", "--help")
    assert split(done.stdout)[1] == b"/s.cgi 0"


def test_C19_variables_are_decoded_whatever_the_locale(path: Path) -> None:
    program = """
async def app(request):
    return Response(request.path_info.encode("utf-8", "surrogateescape"))
"""
    environ = {name.encode(): value.encode() for name, value in GET.items()}
    environ |= {b"PATH_INFO": b"/\xe2\x82\xac/\xff", b"LC_ALL": b"C", b"PYTHONUTF8": b"0", b"PYTHONCOERCECLOCALE": b"0"}
    assert split(Script(path, program).run(environ).stdout)[1] == b"/\xe2\x82\xac/\xff"


def test_a_mount_splits_the_path_anew(path: Path) -> None:
    program = "async def app(request):\n    return Response(f'{request.script_name}|{request.path_info}')"
    script = Script(path, program, "gateways.cgi.run(app, mount='/app')")
    assert split(script.run({**GET, "SCRIPT_NAME": "/app/x"}).stdout)[1] == b"/app|/x"
    assert split(script.run({**GET, "SCRIPT_NAME": "/application"}).stdout)[0][0] == b"Status: 404 Not Found"


def test_E25_fd_0_and_1_may_be_one_socket(path: Path) -> None:
    """Apache's mod_cgid."""
    server, script = socket.socketpair()
    with server, script:
        server.sendall(b"hello")
        child = subprocess.Popen(Script(path, HELLO).command, env=POST, stdin=script.fileno(), stdout=script.fileno())
        script.close()
        server.settimeout(20)
        answer = b""
        while chunk := server.recv(1000):
            answer += chunk
        assert child.wait(20) == 0
    assert split(answer)[1] == b"/s.cgi 5"


def test_C41_E25_stderr_does_not_get_into_the_answer_where_it_shares_a_pipe_with_stdout(path: Path) -> None:
    """mini_httpd."""
    program = """
import sys
async def app(request):
    print("stray")
    request.log("logged")
    sys.stderr.write("more")
    return Response("clean")
"""
    command = Script(path, program).command
    done = subprocess.run(command, env=GET, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=20)
    assert split(done.stdout)[1] == b"clean"


@pytest.mark.parametrize("closed", [(1,), (0, 1), (1, 2), (0, 1, 2)])
def test_E25_E26_without_a_stdout_there_is_nobody_to_answer(
    path: Path, tmp_path: Path, closed: tuple[int, ...]
) -> None:
    program = f"""
async def app(request):
    with open({str(tmp_path / "seen")!r}, "w") as file:
        file.write(str(len(await request.body.read())))
    return Response("unheard")
"""
    redirections = " ".join(f"{number}>&-" for number in closed)
    command = ["sh", "-c", f'exec "$@" {redirections}', "sh", *Script(path, program).command]
    done = subprocess.run(command, env={**GET, "PATH": os.defpath}, capture_output=True, timeout=20)
    assert (tmp_path / "seen").read_text() == "0"
    assert (done.returncode, done.stdout, done.stderr) == (1, b"", b"")


def test_E25_stdin_may_be_dev_null(path: Path) -> None:
    """webfsd always, lighttpd where there is no body."""
    script = Script(path, HELLO)
    for environ, status in ((GET, b"Status: 200 OK"), (POST, b"Status: 400 Bad Request")):
        done = subprocess.run(
            script.command, env=environ, stdin=subprocess.DEVNULL, capture_output=True, timeout=20, check=True
        )
        assert split(done.stdout)[0][0] == status


@pytest.mark.parametrize("load", ["", "import trio"])
def test_E25_stdin_may_be_a_file(path: Path, tmp_path: Path, load: str) -> None:
    (tmp_path / "body").write_bytes(b"hello and more")
    with open(tmp_path / "body", "rb") as body:
        done = subprocess.run(
            Script(path, load + HELLO).command, env=POST, stdin=body, capture_output=True, timeout=20, check=True
        )
    assert split(done.stdout)[1] == b"/s.cgi 5"


@pytest.mark.parametrize("closed", [(0,), (2,), (0, 2)])
def test_E25_closed_descriptors_do_no_harm(path: Path, closed: tuple[int, ...]) -> None:
    program = """
import os, subprocess
async def app(request):
    opened = os.open("/dev/null", os.O_RDONLY)
    print("stray")
    child = subprocess.run(["sh", "-c", "test -e /dev/fd/0 && test -e /dev/fd/2"])
    return Response(str(opened > 2 and child.returncode == 0))
"""
    redirections = " ".join(f"{number}>&-" for number in closed)
    command = ["sh", "-c", f'exec "$@" {redirections}', "sh", *Script(path, program).command]
    done = subprocess.run(command, env={**GET, "PATH": os.defpath}, capture_output=True, timeout=20)
    assert split(done.stdout)[1] == b"True"
    assert done.returncode == 0


def test_E25_a_body_that_was_announced_on_a_closed_stdin_is_400(path: Path) -> None:
    command = ["sh", "-c", 'exec "$@" 0<&-', "sh", *Script(path, HELLO).command]
    done = subprocess.run(command, env={**POST, "PATH": os.defpath}, capture_output=True, timeout=20)
    assert split(done.stdout)[0][0] == b"Status: 400 Bad Request"


@pytest.mark.parametrize("load", ["", "import trio"])
def test_C20_E26_a_web_server_that_stopped_listening_ends_the_script_quietly(path: Path, load: str) -> None:
    program = f"""
{load}
async def app(request):
    def pieces():
        try:
            while True:
                yield b"x" * 100_000
        finally:
            import sys
            sys.stderr.write("cleaned up")
    return Response(pieces())
"""
    reading, writing = os.pipe()
    child = subprocess.Popen(Script(path, program).command, env=GET, stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    os.read(reading, 10)
    os.close(reading)
    _, stderr = child.communicate(timeout=20)
    assert (child.returncode, stderr) == (1, b"cleaned up")


@pytest.mark.parametrize("load", ["", "import trio"])
def test_C20_SIGTERM_ends_a_script_at_once_wherever_it_is(path: Path, load: str) -> None:
    """Web servers send it to scripts whose clients have left. Nothing of ours is to be tidied up."""
    program = f"""
{load}
import time
async def app(request):
    async def body(send):
        await send("some")
        time.sleep(60)
    return Response(body)
"""
    with subprocess.Popen(Script(path, program).command, env=GET, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        begun = os.read(child.stdout.fileno(), 1000)
        child.send_signal(signal.SIGTERM)
        rest = child.stdout.read()
    assert split(begun + rest)[1] == b"some"
    assert child.returncode == -signal.SIGTERM


# --- NPH ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("protocol", "version"),
    [("HTTP/1.1", b"HTTP/1.1"), ("HTTP/1.0", b"HTTP/1.0"), ("HTTP/2.0", b"HTTP/1.0"), ("INCLUDED", b"HTTP/1.0")],
)
def test_C43_a_script_whose_name_begins_with_nph_answers_in_HTTP(tmp_path: Path, protocol: str, version: bytes) -> None:
    done = Script(tmp_path / "nph-script.py", HELLO).run({**GET, "SERVER_PROTOCOL": protocol})
    head, body = split(done.stdout)
    date = head.pop(2)
    assert head == [
        version + b" 200 OK",
        b"Connection: close",
        b"Content-Type: text/plain; charset=utf-8",
        b"Content-Length: 8",
    ]
    assert re.fullmatch(rb"Date: [A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT", date)
    assert (body, done.returncode, done.stderr) == (b"/s.cgi 0", 0, b"")


def test_C43_an_NPH_script_answers_errors_and_HEAD_likewise(tmp_path: Path) -> None:
    script = Script(tmp_path / "nph-script.py", "async def app(request):\n    raise Reject(404)")
    assert split(script.run().stdout)[0][0] == b"HTTP/1.1 404 Not Found"
    assert split(script.run({**GET, "REQUEST_METHOD": "GET X"}).stdout)[0][0] == b"HTTP/1.1 400 Bad Request"
    head, body = split(script.run({**GET, "REQUEST_METHOD": "HEAD"}).stdout)
    assert (head[0], body) == (b"HTTP/1.1 404 Not Found", b"")


def test_C43_an_NPH_script_may_say_its_own_date(tmp_path: Path) -> None:
    program = "async def app(request):\n    return Response('x', headers={'Date': 'Sun, 06 Nov 1994 08:49:37 GMT'})"
    head, _ = split(Script(tmp_path / "nph-script.py", program).run().stdout)
    assert [line for line in head if line.startswith(b"Date:")] == [b"Date: Sun, 06 Nov 1994 08:49:37 GMT"]


@pytest.mark.parametrize(
    ("environ", "begins"),
    [({"SERVER_PROTOCOL": "GEMINI"}, b"20 text/plain"), ({"SERVER_SOFTWARE": "nginx/1.22.1"}, b"Status: 200 OK\r\n")],
)
def test_C43_where_nobody_knows_of_NPH_a_name_means_nothing(
    tmp_path: Path, environ: dict[str, str], begins: bytes
) -> None:
    done = Script(tmp_path / "nph-script.py", HELLO).run({**GET, **environ})
    assert done.stdout.startswith(begins)


def test_a_large_body_passes_both_ways_whole(path: Path) -> None:
    sent = os.urandom(3_000_000)
    program = "async def app(request):\n    return Response(request.body)"
    done = Script(path, program).run({**POST, "CONTENT_LENGTH": str(len(sent))}, sent)
    assert split(done.stdout)[1] == sent
