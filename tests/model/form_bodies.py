"""Forms as browsers and other programs send them, written down by hand, and what they mean."""

from __future__ import annotations

import attrs

__all__ = ["CLIENTS", "Sent", "encode"]

#: (field, filename, filename as sent, media type, bytes)
File = tuple[str, str, str, str | None, bytes]


@attrs.frozen
class Sent:
    """A body, its Content-Type, and the fields and files that are in it."""

    content_type: str
    body: bytes
    fields: list[tuple[str, str]] = attrs.field(factory=list)
    files: list[File] = attrs.field(factory=list)


def lines(*parts: bytes | str) -> bytes:
    return b"".join(part.encode() if isinstance(part, str) else part for part in parts)


PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\r\n--\r\n------WebKit\r\n"

CLIENTS = {
    "Chromium: texts, a file of many, an empty file input": Sent(
        "multipart/form-data; boundary=----WebKitFormBoundary7MA4YWxkTrZu0gW",
        lines(
            "------WebKitFormBoundary7MA4YWxkTrZu0gW\r\n",
            'Content-Disposition: form-data; name="name"\r\n\r\n',
            "Zoë\r\n",
            "------WebKitFormBoundary7MA4YWxkTrZu0gW\r\n",
            'Content-Disposition: form-data; name="letter"\r\n\r\n',
            "Dear A,\r\n\r\nyours\r\n\r\n",
            "------WebKitFormBoundary7MA4YWxkTrZu0gW\r\n",
            'Content-Disposition: form-data; name="tag"\r\n\r\n\r\n',
            "------WebKitFormBoundary7MA4YWxkTrZu0gW\r\n",
            'Content-Disposition: form-data; name="tag"\r\n\r\n',
            "b\r\n",
            "------WebKitFormBoundary7MA4YWxkTrZu0gW\r\n",
            'Content-Disposition: form-data; name="photo"; filename="na%22me ünd.png"\r\n',
            "Content-Type: image/png\r\n\r\n",
            PNG,
            "\r\n------WebKitFormBoundary7MA4YWxkTrZu0gW\r\n",
            'Content-Disposition: form-data; name="photo"; filename="empty.txt"\r\n',
            "Content-Type: text/plain\r\n\r\n\r\n",
            "------WebKitFormBoundary7MA4YWxkTrZu0gW\r\n",
            'Content-Disposition: form-data; name="unused"; filename=""\r\n',
            "Content-Type: application/octet-stream\r\n\r\n\r\n",
            "------WebKitFormBoundary7MA4YWxkTrZu0gW--\r\n",
        ),
        [("name", "Zoë"), ("letter", "Dear A,\r\n\r\nyours\r\n"), ("tag", ""), ("tag", "b")],
        [
            ("photo", 'na"me ünd.png', 'na"me ünd.png', "image/png", PNG),
            ("photo", "empty.txt", "empty.txt", "text/plain", b""),
        ],
    ),
    "Chromium: a folder": Sent(
        "multipart/form-data; boundary=----WebKitFormBoundaryAAAAAAAAAAAAAAAA",
        lines(
            "------WebKitFormBoundaryAAAAAAAAAAAAAAAA\r\n",
            'Content-Disposition: form-data; name="folder"; filename="notes/2024/a.txt"\r\n',
            "Content-Type: text/plain\r\n\r\n",
            "A\r\n",
            "------WebKitFormBoundaryAAAAAAAAAAAAAAAA--\r\n",
        ),
        files=[("folder", "a.txt", "notes/2024/a.txt", "text/plain", b"A")],
    ),
    "Firefox": Sent(
        "multipart/form-data; boundary=---------------------------9051914041544843365972754266",
        lines(
            "-----------------------------9051914041544843365972754266\r\n",
            'Content-Disposition: form-data; name="text"\r\n\r\n',
            "a ω b\r\n",
            "-----------------------------9051914041544843365972754266\r\n",
            'Content-Disposition: form-data; name="file"; filename="a.html"\r\n',
            "Content-Type: text/html\r\n\r\n",
            "<!DOCTYPE html><title>a</title>\n\r\n",
            "-----------------------------9051914041544843365972754266--\r\n",
        ),
        [("text", "a ω b")],
        [("file", "a.html", "a.html", "text/html", b"<!DOCTYPE html><title>a</title>\n")],
    ),
    "Firefox: a FormData with nothing in it": Sent(
        "multipart/form-data; boundary=----geckoformboundary0123456789abcdef",
        b"------geckoformboundary0123456789abcdef--\r\n",
    ),
    "Firefox: a Blob without a name": Sent(
        "multipart/form-data; boundary=----geckoformboundary0123456789abcdef",
        lines(
            "------geckoformboundary0123456789abcdef\r\n",
            'Content-Disposition: form-data; name="blob"; filename=""\r\n',
            "Content-Type: application/octet-stream\r\n\r\n",
            "\0\r\n",
            "------geckoformboundary0123456789abcdef--\r\n",
        ),
        files=[("blob", "", "", "application/octet-stream", b"\0")],
    ),
    "Safari: a page in ISO-8859-1": Sent(
        "multipart/form-data; boundary=----WebKitFormBoundaryBBBBBBBBBBBBBBBB",
        lines(
            "------WebKitFormBoundaryBBBBBBBBBBBBBBBB\r\n",
            'Content-Disposition: form-data; name="_charset_"\r\n\r\n',
            "ISO-8859-1\r\n",
            "------WebKitFormBoundaryBBBBBBBBBBBBBBBB\r\n",
            b'Content-Disposition: form-data; name="stra\xdfe"\r\n\r\n',
            b"M\xfcller\r\n",
            "------WebKitFormBoundaryBBBBBBBBBBBBBBBB--\r\n",
        ),
        [("_charset_", "ISO-8859-1"), ("stra\udcdfe", "M\udcfcller")],
    ),
    "Internet Explorer 6: a whole path": Sent(
        "multipart/form-data; boundary=---------------------------7d91191b100d2",
        lines(
            "-----------------------------7d91191b100d2\r\n",
            'Content-Disposition: form-data; name="file"; filename="C:\\Documents\\a b.txt"\r\n',
            "Content-Type: text/plain\r\n\r\n",
            "old\r\n",
            "-----------------------------7d91191b100d2--\r\n",
        ),
        files=[("file", "a b.txt", "a b.txt", "text/plain", b"old")],
    ),
    "curl -F": Sent(
        "multipart/form-data; boundary=------------------------d74496d66958873e",
        lines(
            "--------------------------d74496d66958873e\r\n",
            'Content-Disposition: form-data; name="person"\r\n\r\n',
            "anonymous\r\n",
            "--------------------------d74496d66958873e\r\n",
            'Content-Disposition: form-data; name="secret"; filename="file \\"1\\".txt"\r\n',
            "Content-Type: text/plain\r\n\r\n",
            "contents of the file\n\r\n",
            "--------------------------d74496d66958873e--\r\n",
        ),
        [("person", "anonymous")],
        [("secret", 'file "1".txt', 'file "1".txt', "text/plain", b"contents of the file\n")],
    ),
    "Python's requests": Sent(
        "multipart/form-data; boundary=0123456789abcdef0123456789abcdef",
        lines(
            "--0123456789abcdef0123456789abcdef\r\n",
            'Content-Disposition: form-data; name="a"\r\n\r\n1\r\n',
            "--0123456789abcdef0123456789abcdef\r\n",
            'Content-Disposition: form-data; name="f"; filename="f"\r\n\r\n',
            "bytes\r\n",
            "--0123456789abcdef0123456789abcdef--\r\n",
        ),
        [("a", "1")],
        [("f", "f", "f", None, b"bytes")],
    ),
    "okhttp: with the length of each part": Sent(
        "multipart/form-data; boundary=33b1e9a4-6b1f-4a73-a3a2-9a2c2f8d7e10",
        lines(
            "--33b1e9a4-6b1f-4a73-a3a2-9a2c2f8d7e10\r\n",
            'Content-Disposition: form-data; name="title"\r\nContent-Length: 5\r\n\r\n',
            "Plain\r\n",
            "--33b1e9a4-6b1f-4a73-a3a2-9a2c2f8d7e10\r\n",
            'Content-Disposition: form-data; name="image"; filename="logo.png"\r\n',
            "Content-Type: image/png\r\nContent-Length: 3\r\n\r\n",
            "\r\n\x01\r\n",
            "--33b1e9a4-6b1f-4a73-a3a2-9a2c2f8d7e10--\r\n",
        ),
        [("title", "Plain")],
        [("image", "logo.png", "logo.png", "image/png", b"\r\n\x01")],
    ),
    "Apache HttpClient: parts in encodings of their own": Sent(
        'multipart/form-data; boundary="x y"; charset=ISO-8859-1',
        lines(
            "--x y\r\n",
            'Content-Disposition: form-data; name="latin"\r\nContent-Type: text/plain; charset=ISO-8859-1\r\n',
            b"Content-Transfer-Encoding: 8bit\r\n\r\nM\xfcller\r\n",
            '--x y\r\ncontent-disposition: form-data; name="unicode"\r\n',
            'Content-Type: text/plain; charset="UTF-8"\r\n\r\nMüller\r\n',
            "--x y\r\ncontent-disposition: form-data; name=token\r\n",
            "content-type: text/plain; charset=utf-7\r\n\r\n+AGE-\r\n",
            "--x y--\r\n",
        ),
        [("latin", "Müller"), ("unicode", "Müller"), ("token", "+AGE-")],
    ),
    "a program: an empty line before, nothing after the end": Sent(
        "Multipart/Form-Data; BOUNDARY=b",
        b'\r\n--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--b--',
        [("a", "1")],
    ),
    "a program: a preamble": Sent(
        "multipart/form-data; boundary=b",
        b'This is a message in several parts.\r\n--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--b--',
        [("a", "1")],
    ),
    "a program: more after the end": Sent(
        "multipart/form-data; boundary=b",
        b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--b--\r\nbye\r\n--b\r\n\r\n',
        [("a", "1")],
    ),
    "a program: a head in two lines, RFC 5987, no name": Sent(
        "multipart/form-data; boundary=b",
        lines(
            "--b\r\nContent-Disposition: form-data;\r\n name=\"a\"; filename*=UTF-8''x.txt\r\n\r\n1\r\n",
            "--b\r\nContent-Disposition: form-data\r\n\r\n2\r\n--b--",
        ),
        [("a", "1"), ("", "2")],
    ),
    "a browser: urlencoded": Sent(
        "application/x-www-form-urlencoded",
        b"name=Zo%C3%AB&tag=a+b&tag=&flag&&a%26b=%2B%3D&q=%zz%&last=1",
        [
            ("name", "Zoë"),
            ("tag", "a b"),
            ("tag", ""),
            ("flag", ""),
            ("a&b", "+="),
            ("q", "%zz%"),
            ("last", "1"),
        ],
    ),
    "a browser: urlencoded, and the page is in ISO-8859-1": Sent(
        "Application/X-WWW-Form-Urlencoded ; charset=ISO-8859-1",
        b"stra%DFe=M%FCller&raw=\xc3\xab\xff",
        [("stra\udcdfe", "M\udcfcller"), ("raw", "ë\udcff")],
    ),
    "a browser: urlencoded, nothing": Sent("application/x-www-form-urlencoded", b""),
}


def encode(sent: Sent, boundary: bytes = b"fence") -> bytes:
    """The bytes that a browser sends for these fields and files."""
    body = b""
    for name, value in sent.fields:
        body += b'--%s\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n' % (
            boundary,
            escape(name),
            raw(value),
        )
    for name, _, filename, content_type, data in sent.files:
        body += b'--%s\r\nContent-Disposition: form-data; name="%s"; filename="%s"\r\n' % (
            boundary,
            escape(name),
            escape(filename),
        )
        body += (b"Content-Type: %s\r\n" % raw(content_type) if content_type else b"") + b"\r\n" + data + b"\r\n"
    return body + b"--" + boundary + b"--\r\n"


def escape(name: str) -> bytes:
    return raw(name).replace(b"\r", b"%0D").replace(b"\n", b"%0A").replace(b'"', b"%22")


def raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
