import hashlib

from gateways import Reject, Request, Response


async def app(request: Request) -> Response:
    if request.method != "PUT":
        raise Reject(405, "Send me a file: curl -T FILE URL", headers={"Allow": "PUT"})
    digest, length = hashlib.sha256(), 0
    async for chunk in request.body:
        digest.update(chunk)
        length += len(chunk)
    return Response(f"{digest.hexdigest()} {length} bytes\n")
