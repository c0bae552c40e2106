"""What the same handler is asked through every server and protocol, and what the servers themselves change about it.

``REQUESTS`` is the one table of requests. ``DIFFERENCES`` names everything in which a request that a handler sees, or
the answer that a client gets, is not the same behind a web server as it is behind our own HTTP front end, and why. The
test holds both ways: what is not named here must not differ, and what is named must.

``python -m tests.interop.table`` writes docs/differences.rst.
"""

from __future__ import annotations

import attrs

from tests.interop import site


@attrs.frozen
class Asked:
    """One request; its ``target`` is below the mount."""

    name: str
    target: str
    method: str = "GET"
    headers: tuple[tuple[str, str], ...] = ()
    #: bytes go with a Content-Length; a tuple is sent chunked, with ``slowly`` a pause after each chunk.
    body: bytes | tuple[bytes, ...] | None = None
    slowly: bool = False
    version: str = "1.1"

    def target_below(self, mount: str) -> str | None:
        """The target for an application that is mounted there; None where the request would make no sense."""
        if "{mount}" in self.target:
            return self.target.replace("{mount}", mount)
        return mount + self.target if (mount + self.target).startswith("/") else None


_FORM = ("Content-Type", "application/x-www-form-urlencoded")
_BINARY = ("Content-Type", "application/octet-stream")

REQUESTS = [
    # paths; whatever is not a page of the site is answered by what the handler saw
    Asked("root", "/"),
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
    Asked("odd query", "/?&&=&%zz&a=b=c;d?e/..//"),
    Asked("NUL in the query", "/?%00"),
    Asked("query that is no UTF-8", "/?x=%E9"),
    Asked("plus in the query", "/?x=a+b%2B"),
    # methods
    Asked("HEAD", "/", "HEAD"),
    Asked("DELETE", "/", "DELETE"),
    Asked("OPTIONS", "/", "OPTIONS"),
    Asked("PUT", "/", "PUT", (_BINARY,), b"put"),
    Asked("PATCH", "/", "PATCH", (_BINARY,), b"patch"),
    Asked("PROPFIND", "/", "PROPFIND"),
    Asked("method of our own", "/", "FROBNICATE"),
    Asked("HTTP/1.0", "/", version="1.0"),
    # bodies
    Asked("POST", "/", "POST", (_FORM,), b"a=1&b=%C3%A9"),
    Asked("POST without a type", "/", "POST", (), b"text"),
    Asked("POST of nothing", "/", "POST", (_FORM,), b""),
    Asked("POST without a length", "/", "POST"),
    Asked("GET with a body", "/", "GET", (_BINARY,), b"body"),
    Asked("POST that waits to be told", "/", "POST", (_BINARY, ("Expect", "100-continue")), b"body"),
    Asked("chunked", "/", "POST", (_BINARY,), (b"one", b"two and three")),
    Asked("chunked, slow", "/", "POST", (_BINARY,), (b"one", b"two", b"three"), slowly=True),
    Asked("chunked, nothing", "/", "POST", (_BINARY,), ()),
    Asked("10 MiB up", "/", "PUT", (_BINARY,), site.BIG),
    Asked("10 MiB up, chunked", "/", "PUT", (_BINARY,), (site.BIG[:5_000_000], site.BIG[5_000_000:])),
    # header fields
    Asked("type with parameters", "/", "POST", (("Content-Type", 'multipart/form-data; boundary="a b"'),), b"--a b--"),
    Asked("type without a body", "/", "GET", (("Content-Type", "text/plain"),)),
    Asked("cookie", "/", headers=(("Cookie", 'a=1; b="2 3"; a=4'),)),
    Asked("two Cookie fields", "/", headers=(("Cookie", "a=1"), ("Cookie", "b=2"))),
    Asked("repeated field", "/", headers=(("X-One", "a"), ("X-Two", "b"), ("X-One", "c, d"))),
    Asked("UTF-8 field", "/", headers=(("X-Text", "Grüße, 世界"),)),
    Asked("field that is no UTF-8", "/", headers=(("X-Text", "caf\udce9"),)),
    Asked("quotes and tabs in a field", "/", headers=(("X-Text", 'a "b\\" \t c'),)),
    Asked("long field", "/", headers=(("X-Long", "x" * 6000),)),
    Asked("empty field", "/", headers=(("X-Empty", ""), ("X-Full", "1"))),
    Asked("underscore in a name", "/", headers=(("X_Under", "1"), ("X-Under", "2"))),
    Asked("Proxy", "/", headers=(("Proxy", "http://evil.test/"),)),
    Asked("names of variables", "/", headers=(("Remote-Addr", "1.2.3.4"), ("Script-Name", "/x"), ("Https", "on"))),
    Asked("credentials", "/", headers=(("Authorization", "Basic bTpt"),)),
    Asked("bearer token", "/", headers=(("Authorization", "Bearer abc"),)),
    Asked("another host", "/", headers=(("Host", "other.test"),)),
    Asked("host with a port", "/", headers=(("Host", "Gateways.test:8080"),)),
    Asked("forwarded", "/", headers=(("X-Forwarded-For", "1.2.3.4"), ("X-Forwarded-Proto", "https"))),
    Asked(
        "conditions", "/", headers=(("If-None-Match", '"one"'), ("If-Modified-Since", "Sun, 06 Nov 1994 08:49:37 GMT"))
    ),
    Asked("connection fields", "/", headers=(("Connection", "close, X-Hop"), ("X-Hop", "1"), ("TE", "trailers"))),
    # answers
    Asked("10 MiB down", "/big"),
    Asked("10 MiB down, HEAD", "/big", "HEAD"),
    Asked("push", "/push"),
    Asked("push, HEAD", "/push", "HEAD"),
    Asked("push, HTTP/1.0", "/push", version="1.0"),
    Asked("asynchronous generator", "/numbers"),
    Asked("file", "/file"),
    Asked("file, HEAD", "/file", "HEAD"),
    Asked("part of a file", "/file", headers=(("Range", "bytes=2-5"),)),
    Asked("nothing", "/empty"),
    Asked("streamed", "/stream"),
    Asked("streamed, unbuffered", "/stream?unbuffered"),
    Asked("redirect", "/redirect"),
    Asked("permanent redirect", "/moved"),
    Asked("redirected POST", "/redirect", "POST", (_FORM,), b"a=1"),
    Asked("two cookies", "/cookies"),
    Asked("header fields", "/headers"),
    Asked("conditions met", "/headers", headers=(("If-None-Match", '"one"'),)),
    Asked("long head", "/long_head"),
    Asked("204", "/no_content"),
    Asked("304", "/not_modified"),
    Asked("404", "/reject"),
    Asked("401", "/forbid"),
    Asked("418", "/odd_status"),
    Asked("500", "/boom"),
    Asked("500, HEAD", "/boom", "HEAD"),
    Asked("404, body unread", "/reject", "POST", (_BINARY,), site.BIG),
]
