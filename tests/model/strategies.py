"""What hypothesis draws for the tests of the model."""

from __future__ import annotations

from hypothesis import strategies as st

from gateways._model.headers import HOP_BY_HOP, INTERNAL, TOKEN_CHARACTERS

#: Any bytes at all, as the text they are decoded to.
wire_text = st.binary(max_size=20).map(lambda raw: raw.decode("utf-8", "surrogateescape"))

#: Paths that servers send and attackers write: short, and made of the pieces that have meaning.
paths = st.lists(
    st.sampled_from(
        ["/", "//", "/.", "/..", "/app", "/application", "app", "a b", "€", "\udcff", "%2F", "%00", "?", "x"]
    )
).map("".join)

tokens = st.text(sorted(TOKEN_CHARACTERS), min_size=1, max_size=12)

_LENGTHS = st.sampled_from(["", "0", "5", "05", "-1", "+3", "1_0", "٣", "5, 5", "1e3", "9" * 19, "9" * 20])
_KNOWN = (
    st.tuples(st.sampled_from(["SCRIPT_NAME", "PATH_INFO", "DOCUMENT_URI", "REQUEST_URI", "SCRIPT_FILENAME"]), paths)
    | st.tuples(st.just("REQUEST_METHOD"), st.sampled_from(["GET", "POST", "get", "", "GET X", "M" * 1025]))
    | st.tuples(st.sampled_from(["CONTENT_LENGTH", "HTTP_CONTENT_LENGTH"]), _LENGTHS)
    | st.tuples(st.just("SERVER_PROTOCOL"), st.sampled_from(["HTTP/1.1", "GEMINI", "INCLUDED", "", "/1.1", "titan/1"]))
    | st.tuples(st.just("SERVER_SOFTWARE"), st.sampled_from(["", "nginx/1.22.1", "HAProxy 2.6.12", "Apache/2.4.71"]))
    | st.tuples(st.sampled_from(["REMOTE_USER", "AUTH_TYPE", "HTTPS", "REQUEST_SCHEME", "HTTP_PROXY"]), wire_text)
    | st.tuples(st.sampled_from(["HTTP_COOKIE", "HTTP_ACCEPT", "HTTP_HOST", "HTTP_X_FORWARDED_FOR"]), wire_text)
)

#: (name, value) pairs as a peer may send them: mostly likely ones, some not.
any_pairs = st.lists(_KNOWN | st.tuples(wire_text, wire_text) | st.tuples(tokens, wire_text), max_size=12)

protocols = st.sampled_from(["fastcgi", "scgi", "cgi", "http"])

#: (name, value) of header fields that a Response takes.
header_fields = st.lists(
    st.tuples(
        tokens.filter(lambda name: name.lower() not in HOP_BY_HOP | INTERNAL | {"status", "content-length"}),
        # Cleaned as bytes: taken out of decoded text, what is left could decode to something else.
        st.binary(max_size=20).map(
            lambda raw: raw.translate(None, b"\r\n\0").strip(b" \t").decode("utf-8", "surrogateescape")
        ),
    ),
    max_size=6,
    unique_by=lambda field: field[0].lower(),
)
