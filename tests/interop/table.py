"""What one handler is asked through every server and protocol, and what the servers themselves change about it.

``REQUESTS`` is the one table of requests. ``DIFFERENCES`` names everything in which a request that a handler sees, or
the answer that a client gets, is not the same behind a web server as behind our own HTTP front end, and says why. The
tests hold both ways: what is not named must not differ, and what is named must. ``BREAKS`` is the same for answers
that break off.

``python -m tests.interop.table`` writes docs/differences.rst.
"""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from textwrap import dedent, indent

import attrs

from tests.interop import site
from tests.interop.configurations import CONFIGURATIONS

# --- the requests ----------------------------------------------------------------------------------------------------


@attrs.frozen
class Asked:
    """One request; its ``target`` is below the mount, except where "{mount}" says where that is."""

    name: str
    target: str = "/"
    method: str = "GET"
    headers: tuple[tuple[str, str], ...] = ()
    #: bytes are sent with a Content-Length; a tuple is sent chunked: in one write, or ``slowly``.
    body: bytes | tuple[bytes, ...] | None = None
    slowly: bool = False
    version: str = "1.1"

    @property
    def body_size(self) -> int:
        """Bytes of the body."""
        return sum(map(len, self.body)) if isinstance(self.body, tuple) else len(self.body or b"")

    def target_below(self, mount: str) -> str | None:
        """The target for an application that is mounted there; None where the request would make no sense."""
        if "{mount}" in self.target:
            return self.target.replace("{mount}", mount)
        return mount + self.target if (mount + self.target).startswith("/") else None


_FORM = ("Content-Type", "application/x-www-form-urlencoded")
_BINARY = ("Content-Type", "application/octet-stream")
_SINCE = "Sun, 06 Nov 1994 08:49:37 GMT"

#: What is asked. Whatever is no page of the site is answered with what the handler saw.
REQUESTS = [
    # paths
    Asked("root"),
    Asked("path", "/a/b.txt"),
    Asked("trailing slash", "/a/"),
    Asked("no path", ""),
    Asked("beside the mount", "lication/x"),
    Asked("encoded path", "/a%20b/%7Ec%3B/d%3Fe%23f%25g"),
    Asked("UTF-8 path", "/%E2%82%AC/%C3%A9"),
    Asked("path that is no UTF-8", "/caf%E9"),
    Asked("encoded slash", "/a%2Fb"),
    Asked("double slash", "/a//b"),
    Asked("dots in the path", "/a/./b/../c"),
    Asked("encoded dots", "/a/%2e%2e/c"),
    Asked("plus in the path", "/a+b"),
    Asked("other characters in the path", "/a;b=c,d/@:!$&'()*~-._"),
    Asked("absolute target", "http://gateways.test{mount}/absolute?x=1"),
    # queries
    Asked("query", "/?x=1&y=%C3%A9&x=2"),
    Asked("empty query", "/?"),
    Asked("query without a name", "/?foo+bar%21+-x"),
    Asked("odd query", "/?&&=&a=b=c;d?e/..//"),
    Asked("query that is not encoded", "/?%zz"),
    Asked("query that is no UTF-8", "/?x=%E9"),
    Asked("NUL in the query", "/?%00"),
    Asked("plus in the query", "/?x=a+b%2B"),
    # methods
    Asked("HEAD", method="HEAD"),
    Asked("DELETE", method="DELETE"),
    Asked("OPTIONS", method="OPTIONS"),
    Asked("PROPFIND", method="PROPFIND"),
    Asked("method of our own", method="FROBNICATE"),
    Asked("HTTP/1.0", version="1.0"),
    # bodies
    Asked("PUT", "/", "PUT", (_BINARY,), b"put"),
    Asked("PATCH", "/", "PATCH", (_BINARY,), b"patch"),
    Asked("POST", "/", "POST", (_FORM,), b"a=1&b=%C3%A9"),
    Asked("POST without a type", "/", "POST", (), b"text"),
    Asked("POST of nothing", "/", "POST", (_FORM,), b""),
    Asked("POST without a length", "/", "POST"),
    Asked("GET with a body", "/", "GET", (_BINARY,), b"body"),
    Asked("POST that waits to be told", "/", "POST", (_BINARY, ("Expect", "100-continue")), b"body"),
    Asked("chunked", "/", "POST", (_BINARY,), (b"one", b"two and three")),
    Asked("chunked, slow", "/", "POST", (_BINARY,), (b"one", b"two", b"three"), slowly=True),
    Asked("chunked, nothing", "/", "POST", (_BINARY,), ()),
    Asked("chunked, 10 MiB", "/", "PUT", (_BINARY,), (site.BIG[:5_000_000], site.BIG[5_000_000:])),
    Asked("10 MiB up", "/", "PUT", (_BINARY,), site.BIG),
    # header fields
    Asked("type with parameters", "/", "POST", (("Content-Type", 'multipart/form-data; boundary="a b"'),), b"--a b--"),
    Asked("type without a body", headers=(("Content-Type", "text/plain"),)),
    Asked("cookie", headers=(("Cookie", 'a=1; b="2 3"; a=4'),)),
    Asked("two Cookie fields", headers=(("Cookie", "a=1"), ("Cookie", "b=2"))),
    Asked("repeated field", headers=(("X-One", "a"), ("X-Two", "b"), ("X-One", "c, d"))),
    Asked("UTF-8 field", headers=(("X-Text", "Grüße, 世界"),)),
    Asked("field that is no UTF-8", headers=(("X-Text", "caf\udce9"),)),
    Asked("quotes and tabs in a field", headers=(("X-Text", 'a "b\\" \t c'),)),
    Asked("long field", headers=(("X-Long", "x" * 6000),)),
    Asked("empty field", headers=(("X-Empty", ""), ("X-Full", "1"))),
    Asked("underscore in a name", headers=(("X_Under", "1"), ("X-Under", "2"))),
    Asked("Proxy", headers=(("Proxy", "http://evil.test/"),)),
    Asked("names of variables", headers=(("Remote-Addr", "1.2.3.4"), ("Script-Name", "/x"), ("Https", "on"))),
    Asked("credentials", headers=(("Authorization", "Basic bTpt"),)),
    Asked("bearer token", headers=(("Authorization", "Bearer abc"),)),
    Asked("another host", headers=(("Host", "other.test"),)),
    Asked("host with a port", headers=(("Host", "Gateways.test:8080"),)),
    Asked("forwarded", headers=(("X-Forwarded-For", "1.2.3.4"), ("X-Forwarded-Proto", "https"))),
    Asked("conditions", headers=(("If-None-Match", '"one"'), ("If-Modified-Since", _SINCE))),
    Asked("connection fields", headers=(("Connection", "close, X-Hop"), ("X-Hop", "1"), ("TE", "trailers"))),
    # answers
    Asked("10 MiB down", "/big"),
    Asked("10 MiB down, HEAD", "/big", "HEAD"),
    Asked("pushed", "/push"),
    Asked("pushed, HEAD", "/push", "HEAD"),
    Asked("pushed, HTTP/1.0", "/push", version="1.0"),
    Asked("generated", "/numbers"),
    Asked("file", "/file"),
    Asked("file, HEAD", "/file", "HEAD"),
    Asked("part of a file", "/file", headers=(("Range", "bytes=2-5"),)),
    Asked("empty", "/empty"),
    Asked("streamed", "/stream"),
    Asked("streamed, unbuffered", "/stream?unbuffered"),
    Asked("redirect", "/redirect"),
    Asked("permanent redirect", "/moved"),
    Asked("redirected POST", "/redirect", "POST", (_FORM,), b"a=1"),
    Asked("two cookies", "/cookies"),
    Asked("response fields", "/headers"),
    Asked("conditions met", "/headers", headers=(("If-None-Match", '"one"'),)),
    Asked("long head", "/long_head"),
    Asked("204", "/no_content"),
    Asked("304", "/not_modified"),
    Asked("401", "/forbid"),
    Asked("404", "/reject"),
    Asked("404 for 10 MiB", "/reject", "POST", (_BINARY,), site.BIG),
    Asked("418", "/odd_status"),
    Asked("500", "/boom"),
    Asked("500, HEAD", "/boom", "HEAD"),
]

# --- the configurations ----------------------------------------------------------------------------------------------

#: ``gateways dev``: the protocol that requests take on their way, and the mount.
DEV = [(via, mount) for via in ("http", "fastcgi", "scgi", "cgi") for mount in ("", "/app")]


def dev_id(via: str, mount: str) -> str:
    """The id of ``gateways dev --via VIA --mount MOUNT`` ("http": without --via)."""
    return f"dev-{via}-{mount.strip('/') or 'root'}"


#: The ids of all configurations.
IDS = [configuration.id for configuration in CONFIGURATIONS] + [dev_id(via, mount) for via, mount in DEV]


def _matches(text: str, patterns: str) -> bool:
    """Whether one of the patterns, with blanks between them, fits; what fits one that begins with "-" does not."""
    fits = False
    for pattern in patterns.split(" "):
        if pattern.startswith("-"):
            fits = fits and not fnmatchcase(text, pattern[1:])
        else:
            fits = fits or fnmatchcase(text, pattern)
    return fits


# --- the differences -------------------------------------------------------------------------------------------------

ADDED, ABSENT, CHANGED, REFUSED = "added", "absent", "changed", "refused"


def _split(names: str) -> tuple[str, ...]:
    return tuple(names.split(", "))


@attrs.frozen
class Difference:
    """Something that web servers change.

    ``where`` has patterns of configuration ids. ``names`` are variables, or fields of the answer as "answer NAME"; a
    server that answers by itself has REFUSED and the status instead. ``requests`` has patterns of their names.
    """

    where: str
    kind: str
    names: tuple[str, ...] = attrs.field(converter=_split)
    reason: str
    requests: tuple[str, ...] = ("*",)

    def is_at(self, configuration: str) -> bool:
        """Whether it is to be seen in the configuration of this id."""
        return _matches(configuration, self.where)

    def is_in(self, request: str) -> bool:
        """Whether it may be seen in the request of this name."""
        return any(fnmatchcase(request, pattern) for pattern in self.requests)


def differences_at(configuration: str) -> list[Difference]:
    """The rows for the configuration of this id."""
    return [row for row in DIFFERENCES if row.is_at(configuration)]


_NOT_LITERAL = ("double slash", "dots in the path", "encoded dots")
_CHUNKED = ("chunked*",)
_CHUNKED_AT_ONCE = ("chunked", "chunked, nothing")
_STREAMED = ("streamed*",)
_HOSTS = ("another host", "host with a port")
_CHUNKED_AND_SHORT = ("chunked", "chunked, slow", "chunked, nothing")

DIFFERENCES = [
    # all
    Difference(
        "nginx-* apache2-* lighttpd-*",
        CHANGED,
        "SERVER_NAME",
        "Servers go by the name in their configuration (Apache with UseCanonicalName On). Our front end has none and "
        "takes the name that the client used.",
        _HOSTS,
    ),
    Difference(
        "nginx-* apache2-* lighttpd-*",
        CHANGED,
        "PATH_INFO",
        "Servers choose a location by the path with its dots resolved and double slashes merged, and hand that on; "
        "REQUEST_URI and raw_path keep what the client sent.",
        _NOT_LITERAL,
    ),
    # nginx
    Difference("nginx-*", ADDED, "DOCUMENT_ROOT, DOCUMENT_URI", "fastcgi_params and scgi_params say so."),
    Difference(
        "nginx-fastcgi-*", ADDED, "REDIRECT_STATUS", "fastcgi_params say so: PHP as a CGI program insists on it."
    ),
    Difference("nginx-scgi-*", ABSENT, "SERVER_ADDR", "scgi_params do not have it."),
    Difference(
        "nginx-*",
        CHANGED,
        "HTTP_HOST",
        "Debian's fastcgi_params and scgi_params set it to $host, which is in lower case and has no port.",
        ("host with a port",),
    ),
    Difference(
        "nginx-fastcgi-* -nginx-fastcgi-unbuffered-*",
        ADDED,
        "CONTENT_LENGTH",
        "With fastcgi_request_buffering on, a chunked body is read to its end first.",
        _CHUNKED,
    ),
    Difference(
        "nginx-*",
        REFUSED,
        "502",
        "A response head has to fit into fastcgi_buffer_size or scgi_buffer_size, 4 KiB unless configured; a warning "
        "in our log says so.",
        ("long head",),
    ),
    Difference(
        "nginx-fastcgi-stock-* nginx-fastcgi-split-* nginx-scgi-stock-* nginx-scgi-split-*",
        CHANGED,
        "answer first piece",
        "With fastcgi_buffering or scgi_buffering on, an answer is passed on by the buffer. X-Accel-Buffering: no "
        "turns that off for one answer.",
        ("streamed",),
    ),
    Difference(
        "nginx-*",
        ABSENT,
        "answer x-accel-buffering",
        "nginx acts on X-Accel fields and keeps them to itself.",
        ("streamed, unbuffered",),
    ),
    # SCGI, and others that announce a length where there is no body
    Difference("*-scgi-*", ADDED, "SCGI", "The protocol has every request say so."),
    Difference(
        "*-scgi-* lighttpd-* apache2-fastcgi-fcgid-*",
        ADDED,
        "CONTENT_LENGTH",
        "A request without a body has the length 0: SCGI demands it, lighttpd and mod_fcgid say it anyway.",
    ),
    Difference(
        "nginx-scgi-* dev-scgi-* lighttpd-* -lighttpd-*-unbuffered-* apache2-fastcgi-fcgid-*",
        ADDED,
        "CONTENT_LENGTH",
        "A chunked body is read to its end first, and then has a length.",
        _CHUNKED,
    ),
    Difference(
        "lighttpd-* -lighttpd-*-unbuffered-* apache2-fastcgi-fcgid-*",
        ABSENT,
        "HTTP_TRANSFER_ENCODING",
        "The chunks are gone, and with them the field that spoke of them.",
        _CHUNKED,
    ),
    Difference(
        "nginx-fastcgi-unbuffered-* apache2-fastcgi-* -apache2-fastcgi-fcgid-*",
        ADDED,
        "CONTENT_LENGTH",
        "A chunked body that is all there when the server looks for it is measured; others have no length.",
        _CHUNKED_AT_ONCE,
    ),
    Difference(
        "apache2-fastcgi-* -apache2-fastcgi-fcgid-* lighttpd-*-unbuffered-*",
        ABSENT,
        "HTTP_TRANSFER_ENCODING",
        "The same.",
        _CHUNKED_AT_ONCE,
    ),
    Difference("apache2-scgi-*", REFUSED, "411", "mod_proxy_scgi does not take chunked bodies.", _CHUNKED),
    Difference(
        "lighttpd-*-unbuffered-*",
        REFUSED,
        "411",
        "With server.stream-request-body, lighttpd cannot wait for the length of a chunked body, and would need it.",
        ("chunked, slow", "chunked, 10 MiB"),
    ),
    # Apache
    Difference("apache2-*", ADDED, "CONTEXT_DOCUMENT_ROOT, DOCUMENT_ROOT, SERVER_ADMIN", "Apache adds them."),
    Difference("apache2-*", ADDED, "PATH", "The search path that Apache was started with."),
    Difference("apache2-*", ADDED, "SCRIPT_FILENAME", "The file that Apache took the path for, or would have taken."),
    Difference(
        "apache2-cgi-* apache2-fastcgi-fcgid-*", ADDED, "CONTEXT_PREFIX", "The path that Alias or ScriptAlias maps."
    ),
    Difference(
        "apache2-fastcgi-sethandler-* apache2-fastcgi-fcgid-* apache2-cgi-*",
        ADDED,
        "PATH_TRANSLATED",
        "PATH_INFO as if it were a path below the document root (RFC 3875 section 4.1.6).",
    ),
    Difference("apache2-fastcgi-sethandler-*", ADDED, "proxy-nokeepalive", "A note of mod_proxy to itself, handed on."),
    Difference(
        "apache2-*",
        CHANGED,
        "REQUEST_URI",
        "Apache keeps scheme and host of an absolute target. raw_path is without them all the same.",
        ("absolute target",),
    ),
    Difference(
        "apache2-*",
        CHANGED,
        "HTTP_COOKIE",
        'Apache joins repeated fields with ", ", and Cookie too, where RFC 9113 section 8.2.3 wants "; ".',
        ("two Cookie fields",),
    ),
    Difference(
        "apache2-fastcgi-fcgid-*",
        ADDED,
        "Authorization",
        "FcgidPassHeader sends the variable under the name of the field, beside HTTP_AUTHORIZATION from CGIPassAuth.",
        ("credentials", "bearer token"),
    ),
    Difference(
        "apache2-fastcgi-fcgid-*",
        ADDED,
        "HTTP_CONNECTION",
        "mod_fcgid has no connections to keep and says so, whatever the client said.",
    ),
    Difference("apache2-fastcgi-fcgid-*", CHANGED, "HTTP_CONNECTION", "As above.", ("connection fields",)),
    Difference(
        "apache2-fastcgi-fcgid-*",
        ABSENT,
        "HTTP_TE",
        "mod_fcgid takes fields away that are about the connection to the client.",
        ("connection fields",),
    ),
    Difference(
        "apache2-* -apache2-fastcgi-fcgid-*",
        ABSENT,
        "answer content-length",
        "Apache drops the length of an answer that it may have to change, and keeps it from HEAD too.",
        ("HEAD", "file, HEAD", "10 MiB down, HEAD", "500, HEAD"),
    ),
    Difference(
        "apache2-*",
        CHANGED,
        "answer x-repeat",
        'Apache joins repeated fields with ", ", except Set-Cookie: the same by RFC 9110 section 5.3.',
        ("response fields", "conditions met"),
    ),
    Difference(
        "apache2-fastcgi-sethandler-*",
        CHANGED,
        "answer first piece",
        "Without a ProxyPass there is no flushpackets=on: pieces wait until there is enough of them.",
        _STREAMED,
    ),
    # lighttpd
    Difference("lighttpd-*", ADDED, "DOCUMENT_ROOT, SCRIPT_FILENAME, PATH_TRANSLATED", "lighttpd adds them."),
    Difference("lighttpd-*", ADDED, "REDIRECT_STATUS", "lighttpd adds it: PHP as a CGI program insists on it."),
    Difference(
        "lighttpd-*",
        ADDED,
        "REDIRECT_URI",
        "The target as lighttpd has normalized it, where that makes a difference.",
        (*_NOT_LITERAL, "encoded path", "encoded slash", "query that is not encoded"),
    ),
    Difference(
        "lighttpd-*",
        CHANGED,
        "QUERY_STRING",
        'lighttpd encodes a "%" that begins no escape (server.http-parseopts).',
        ("query that is not encoded",),
    ),
    Difference("lighttpd-*", CHANGED, "HTTP_HOST", "lighttpd puts it in lower case.", ("host with a port",)),
    Difference(
        "lighttpd-*",
        CHANGED,
        "HTTP_X_UNDER",
        "lighttpd takes X_Under for the same name as X-Under; others drop it for that reason.",
        ("underscore in a name",),
    ),
    Difference(
        "lighttpd-*",
        ABSENT,
        "HTTP_EXPECT",
        "lighttpd has answered that by itself.",
        ("POST that waits to be told",),
    ),
    Difference("lighttpd-*", REFUSED, "400", "lighttpd takes no body with GET.", ("GET with a body",)),
    Difference("lighttpd-*", REFUSED, "400", "lighttpd takes no NUL in a target.", ("NUL in the query",)),
    Difference("lighttpd-*", REFUSED, "411", "lighttpd demands a length with POST.", ("POST without a length",)),
    Difference("lighttpd-*", REFUSED, "501", "lighttpd knows its methods and takes no others.", ("method of our own",)),
    Difference(
        "lighttpd-*",
        ADDED,
        "answer accept-ranges",
        "lighttpd offers to send parts of what it has.",
    ),
    Difference(
        "lighttpd-* -lighttpd-*-unbuffered-*",
        CHANGED,
        "answer status, answer body",
        "lighttpd keeps an answer until it is whole, and cuts the part from it that the client wants.",
        ("part of a file",),
    ),
    Difference("lighttpd-* -lighttpd-*-unbuffered-*", ADDED, "answer content-range", "As above.", ("part of a file",)),
    Difference(
        "lighttpd-* -lighttpd-*-unbuffered-*",
        CHANGED,
        "answer first piece",
        "Without server.stream-response-body lighttpd keeps an answer until it is whole.",
        _STREAMED,
    ),
    # CGI
    Difference(
        "apache2-cgi-* lighttpd-cgi-*",
        ADDED,
        "LC_CTYPE",
        "Python sets it when it starts without a locale (PEP 538), and what is in its environment is in the request's.",
    ),
    Difference(
        "dev-cgi-*",
        ADDED,
        "CONTENT_LENGTH, LANG, PATH, REDIRECT_STATUS, SCRIPT_FILENAME",
        "A CGI program is told its own file and the length of any body, and inherits the environment.",
    ),
    # development
    Difference(
        "dev-*",
        CHANGED,
        "answer body, answer content-type, answer content-length",
        "In development, the page of an error shows the error.",
        ("500*",),
    ),
    # HAProxy
    Difference("haproxy-*", ADDED, "DOCUMENT_ROOT, SCRIPT_FILENAME", "What docroot says, and the path below it."),
    Difference(
        "haproxy-fastcgi-split-*",
        ADDED,
        "PATH_TRANSLATED",
        "PATH_INFO as if it were a path below the document root.",
    ),
    Difference(
        "haproxy-*",
        ABSENT,
        "REQUEST_SCHEME, SERVER_ADDR",
        "HAProxy says HTTPS=on where it is so, and never where it was connected to.",
    ),
    Difference(
        "haproxy-*", ADDED, "CONTENT_LENGTH", "A request without a body has the length 0. A chunked body is waited for."
    ),
    Difference("haproxy-*", ABSENT, "HTTP_TRANSFER_ENCODING", "The same: the chunks are gone.", _CHUNKED_AND_SHORT),
    Difference(
        "haproxy-*",
        REFUSED,
        "400",
        "A chunked body has to fit into one buffer (tune.bufsize, 16 KiB, less 1 KiB) while its end is waited for.",
        ("chunked, 10 MiB",),
    ),
    Difference(
        "haproxy-*",
        CHANGED,
        "SERVER_NAME",
        "It is the Host field, with the port. Any other value is for set-param to say.",
        ("host with a port",),
    ),
    Difference(
        "haproxy-*",
        CHANGED,
        "REQUEST_URI",
        "HAProxy keeps scheme and host of an absolute target. raw_path is without them all the same.",
        ("absolute target",),
    ),
    Difference(
        "haproxy-* -haproxy-fastcgi-split-*",
        ABSENT,
        "HTTP_AUTHORIZATION",
        "HAProxy keeps it to itself without pass-header Authorization, and sends REMOTE_USER from unverified Basic "
        "credentials instead, which is not passed on to the handler.",
        ("credentials", "bearer token"),
    ),
    Difference(
        "haproxy-*",
        ABSENT,
        "HTTP_CONNECTION, HTTP_TE",
        "HAProxy takes fields away that are about the connection to the client.",
        ("connection fields",),
    ),
    Difference(
        "haproxy-*",
        ABSENT,
        "HTTP_EXPECT",
        "HAProxy has answered that by itself.",
        ("POST that waits to be told",),
    ),
    Difference(
        "haproxy-*",
        CHANGED,
        "answer status",
        "A Location field makes it a 302, whatever status was before it.",
        ("permanent redirect",),
    ),
    # mounts
    Difference(
        "nginx-scgi-split-*-app apache2-*-app lighttpd-cgi-*-app",
        REFUSED,
        "404",
        "These match whole segments, and have nothing there. Others pass the request on, and the refusal is ours.",
        ("beside the mount",),
    ),
]

# --- answers that break off ------------------------------------------------------------------------------------------

VISIBLE, INVISIBLE = "visible", "invisible"


@attrs.frozen
class Break:
    """Whether the client can tell that an answer broke off after its first piece.

    ``where`` has patterns of configuration ids, as in Difference. ``streamed`` is for an answer without a length,
    ``announced`` for one with a Content-Length.
    """

    where: str
    streamed: str
    announced: str
    reason: str

    def is_at(self, configuration: str) -> bool:
        """Whether this is what happens in the configuration of this id."""
        return _matches(configuration, self.where)


def break_at(configuration: str) -> Break:
    """The row for the configuration of this id."""
    [row] = [row for row in BREAKS if row.is_at(configuration)]
    return row


BREAKS = [
    Break(
        "nginx-*-tcp-* apache2-scgi-*-tcp-*", VISIBLE, VISIBLE, "We reset the connection, and the server hands that on."
    ),
    Break(
        "nginx-fastcgi-*-unix-* apache2-fastcgi-* -apache2-fastcgi-fcgid-*",
        VISIBLE,
        VISIBLE,
        "The server minds that there was no FCGI_END_REQUEST, or (nginx without fastcgi_keep_conn) that an "
        "FCGI_UNKNOWN_TYPE came in its place.",
    ),
    Break(
        "lighttpd-*-unbuffered-*",
        VISIBLE,
        VISIBLE,
        "The server minds that there was no FCGI_END_REQUEST, and has not kept the answer back.",
    ),
    Break(
        "haproxy-*",
        VISIBLE,
        VISIBLE,
        "The server minds that there was no FCGI_END_REQUEST.",
    ),
    Break(
        "nginx-scgi-*-unix-*",
        INVISIBLE,
        VISIBLE,
        "The end of the connection is how an answer over SCGI ends, and a unix socket cannot be reset.",
    ),
    Break(
        "apache2-scgi-*-unix-*",
        INVISIBLE,
        INVISIBLE,
        "The same, and Apache has dropped the length.",
    ),
    Break(
        "apache2-fastcgi-fcgid-*",
        INVISIBLE,
        VISIBLE,
        "mod_fcgid appends a page about an internal error to what it has sent, ends the process and starts another, "
        "which may take it some seconds.",
    ),
    Break(
        "apache2-cgi-*",
        INVISIBLE,
        INVISIBLE,
        "All that CGI has is an exit status, which Apache does not look at; and it has dropped the length.",
    ),
    Break(
        "lighttpd-*-stock-* lighttpd-*-spawned-* lighttpd-cgi-*",
        INVISIBLE,
        VISIBLE,
        "lighttpd keeps the answer until it ends, takes any end for one, and gives it the length of what there is; one "
        "that was announced it leaves.",
    ),
]

# --- the page --------------------------------------------------------------------------------------------------------

#: What ``page`` is kept in.
PAGE = Path(__file__).parents[2] / "docs" / "differences.rst"

_INTRODUCTION = """\
What web servers change
=======================

.. Written by: python -m tests.interop.table

The same handler, asked the same, sees an equal :class:`~gateways.Request` and gives the client an equal answer,
whichever web server and protocol are between the two. What servers change by themselves is on this page, and nothing
else: the tests send {requests} requests through {configurations} configurations of real web servers, and of
``gateways dev``, and compare each with what happens without any, over our own HTTP front end. What differs and has no
row here fails, and so does a row that nothing differs by.

These are Debian 12's nginx 1.22, Apache 2.4, lighttpd 1.4 and HAProxy 2.6, configured as
:ref:`below <differences-configurations>`. Patterns of configurations are those of a shell; one that begins with "-"
takes some out again.

Equality leaves out REMOTE_PORT and SERVER_SOFTWARE. Fields of the answer that are about one connection (Connection,
Date, Keep-Alive, Server, Transfer-Encoding) are not compared, nor is a Content-Length with a body to it: whether that
has a length or comes in chunks is between client and server.
"""

_REQUESTS = """\
The requests
------------
"""

_BREAKS = """\
Answers that break off
----------------------

A handler that fails before the first byte of its answer makes a clean 500 everywhere. After that the client has got a
part of an answer, and all that can be done is to let it see that the rest is missing. "Streamed" is an answer without
a length, "announced" one with a Content-Length. A client that keeps its connection (the default of HTTP/1.1) learns of
it when the server gives up on that: with Apache after KeepAliveTimeout, 5 seconds unless configured.
"""

_CONFIGURATIONS = """\
.. _differences-configurations:

The configurations
------------------

@BACKEND@ is where the application listens, @PATH@ the mount, @SCRIPT@ a script that the server runs. Each comes with a
unix socket and TCP, at the root and below /app, where that makes a difference. "dev" is ``gateways dev``, with the
protocol of ``--via``.
"""


def page() -> str:
    """The text of docs/differences.rst."""
    parts = [_INTRODUCTION.format(requests=len(REQUESTS), configurations=len(IDS))]
    for title, rows in _by_server().items():
        parts.append(f"{title}\n{'-' * len(title)}\n")
        parts.append(_table(("What", "Where", "In the requests", "Why"), map(_cells, rows)))
    parts.append(_BREAKS)
    breaks = ((_literals(row.where), row.streamed, row.announced, _escape(row.reason)) for row in BREAKS)
    parts.append(_table(("Where", "Streamed", "Announced", "Why"), breaks))
    parts.append(_REQUESTS)
    parts.append(_table(("Name", "Request", "Fields", "Body"), map(_asked_cells, REQUESTS)))
    parts.append(_CONFIGURATIONS)
    for configuration in CONFIGURATIONS:
        name = configuration.id.rsplit("-", 2)[0]
        text = f"``{name}-*``\n\n.. code-block:: none\n\n{indent(dedent(configuration.site), '   ')}\n"
        if text not in parts:
            parts.append(text)
    return "\n".join(parts)


def _by_server() -> dict[str, list[Difference]]:
    """The differences by the one server that they are about, or together."""
    found: dict[str, list[Difference]] = {}
    titles = {
        "nginx": "nginx",
        "apache2": "Apache",
        "lighttpd": "lighttpd",
        "haproxy": "HAProxy",
        "dev": "gateways dev",
    }
    for row in DIFFERENCES:
        servers = {configuration.partition("-")[0] for configuration in IDS if row.is_at(configuration)}
        title = titles[servers.pop()] if len(servers) == 1 else "Several servers"
        found.setdefault(title, []).append(row)
    return found


def _cells(row: Difference) -> tuple[str, ...]:
    what = f"{row.kind}: {', '.join(f'``{name}``' for name in row.names)}"
    where = "all" if row.requests == ("*",) else "; ".join(row.requests).replace("*", "\\*")
    return what, _literals(row.where), where, _escape(row.reason)


def _asked_cells(asked: Asked) -> tuple[str, ...]:
    fields = ", ".join(f"``{name}: {value if len(value) < 80 else '...'}``" for name, value in asked.headers)
    body = "" if asked.body is None else f"{asked.body_size} bytes"
    if isinstance(asked.body, tuple):
        body += f", chunked{' slowly' if asked.slowly else ''}"
    version = "" if asked.version == "1.1" else f" HTTP/{asked.version}"
    target = asked.target.replace("{mount}", "/app") or "(the mount itself)"
    return asked.name, f"``{asked.method} {target}{version}``", _printable(fields), body


def _printable(text: str) -> str:
    return text.encode("ascii", "backslashreplace").decode() if "\udce9" in text else text.replace("\t", "(tab)")


def _literals(patterns: str) -> str:
    return ", ".join(f"``{pattern}``" for pattern in patterns.split(" "))


def _escape(text: str) -> str:
    return text.replace("*", "\\*").replace("`", "\\`")


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for row in (head, *rows):
        lines += [f"   {'* -' if number == 0 else '  -'} {cell}".rstrip() for number, cell in enumerate(row)]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
