"""A site of FastAPI, as its users write it: it knows nothing of gateways."""

from fastapi import FastAPI, Request

app = FastAPI()


@app.get("/items/{number}")
async def item(number: int, request: Request, q: str = "") -> dict[str, object]:
    return {"number": number, "q": q, "url": str(request.url), "from": request.client and request.client.host}
