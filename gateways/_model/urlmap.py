"""URLMap: several handlers under one, by path."""

from gateways._model.environ import check_mount
from gateways._model.errors import Reject
from gateways._model.handler import awaitable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateways._model.handler import Handler
    from gateways._model.request import Request
    from gateways._model.response import Response


class URLMap:
    """A handler that passes each request on by the longest prefix of its ``path_info``.

    >>> app = URLMap({"/digest": digest, "": hello})  # doctest: +SKIP

    A prefix matches on a segment boundary only ("/app" takes "/app" and "/app/x", not "/application") and moves
    from ``path_info`` to ``script_name`` of the copy that the inner handler sees. No match is a 404. Raises
    ValueError for a prefix without its slash, or one given twice ("/a" and "/a/").
    """

    __slots__ = ("_handlers", "_routes")

    def __init__(self, routes: "Mapping[str, Handler]") -> None:
        checked = [(check_mount(prefix), handler) for prefix, handler in routes.items()]
        if len({prefix for prefix, _ in checked}) != len(checked):
            raise ValueError(f"a prefix is given twice in {sorted(routes)}")
        self._handlers = dict(sorted(checked, key=lambda route: len(route[0]), reverse=True))
        self._routes = [(prefix, awaitable(handler)) for prefix, handler in self._handlers.items()]

    async def __call__(self, request: "Request") -> "Response":
        info = request.path_info
        for prefix, handler in self._routes:
            inner = request.mounted(prefix) if info.startswith(prefix) else None
            if inner is not None:
                return await handler(inner)
        raise Reject(404)

    def __repr__(self) -> str:
        return f"URLMap({self._handlers!r})"
