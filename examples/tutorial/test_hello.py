from gateways.testing import call
from hello import app


async def test_it_greets_by_name() -> None:
    result = await call(app, "GET", "/greeting?name=Ada")
    assert result.status == 200
    assert result.text.startswith("Hello, Ada!")


async def test_it_is_the_same_over_scgi() -> None:
    result = await call(app, "GET", "/", protocol="scgi")
    assert "scgi carried it" in result.text
