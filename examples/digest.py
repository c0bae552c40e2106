"""The SHA-256 of whatever is uploaded, read as it comes, however long it is: curl -T FILE URL"""

import hashlib

from gateways import Reject, Request, Response


async def app(request: Request) -> Response:
    if request.method not in ("POST", "PUT"):
        raise Reject(405, "Send me a file: curl -T FILE URL", headers={"Allow": "POST, PUT"})
    digest, length = hashlib.sha256(), 0
    async for chunk in request.body:
        digest.update(chunk)
        length += len(chunk)
    return Response(f"{digest.hexdigest()} {length} bytes\n")
