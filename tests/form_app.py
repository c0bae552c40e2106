"""An application that says what is in a form. It loads nothing that a CGI script would not."""

import hashlib
import sys

from gateways import Request, Response


async def app(request: Request) -> Response:
    form = await request.form(max_fields=5, max_field_bytes=1000, max_file_bytes=2_000_000, max_bytes=3_000_000)
    if request.query.get("save"):
        await form.files["file"].save(request.query["save"])
    seen = {
        "fields": form.items(),
        "files": [
            (name, upload.filename, upload.content_type, upload.size, digest(upload.file.read()))
            for name, upload in form.files.items()
        ],
    }
    loaded = [name for name in ("trio", "multipart", "tempfile") if name in sys.modules]
    return Response.json(seen).with_header("X-Loaded", " ".join(loaded) or "-")


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
