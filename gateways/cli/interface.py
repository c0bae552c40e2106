"""What an application is, native, WSGI or ASGI: told by how it can be called, and never by calling it."""

from gateways import Response
from gateways.cli.loading import LoadError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import inspect
    from collections.abc import Collection
    from typing import Any

    from gateways import Application, Limits

__all__ = ["INTERFACES", "adapted", "detect", "made"]

#: What can be asked for.
INTERFACES = ("native", "wsgi", "asgi")

#: (whether a call is awaited, how many arguments it takes) -> what it is then. An ASGI application may be a plain
#: function, as long as what it returns can be awaited.
_BY_CALL = {
    (True, 1): "native", (True, 3): "asgi",
    (False, 1): "native", (False, 2): "wsgi", (False, 3): "asgi",
}  # fmt: skip

#: The first parameter, where the number of arguments leaves it open.
_BY_NAME = {"request": "native", "environ": "wsgi", "scope": "asgi"}

#: Modules whose wrappers take any arguments, or look like something else.
_BY_MODULE = {"wsgiref.validate": "wsgi", "werkzeug.wrappers.request": "wsgi", "webob.dec": "wsgi"}

#: inspect.CO_VARARGS, CO_VARKEYWORDS, CO_COROUTINE and CO_ASYNC_GENERATOR.
_VARIADIC, _COROUTINE, _ASYNC_GENERATOR = 0x04 | 0x08, 0x80, 0x200

_SAY = "say which it is with --interface native, wsgi or asgi"


def adapted(
    application: object,
    name: str,
    *,
    interface: str = "auto",
    threads: "int | None" = None,
    limits: "Limits | None" = None,
    multiprocess: bool = False,
) -> "tuple[Application, str]":
    """An object as an application of this package, and which of INTERFACES it has (or is said to have).

    ``name`` is what messages call it, ``multiprocess`` what a WSGI application is told of other processes. Raises
    LoadError for what is no application, or could be of several kinds.
    """
    found: Any = application
    if interface == "auto":
        interface = detect(application, name)
    elif interface == "asgi" and callable(application):
        _refuse_double(application, _shape(application), name)
    elif not callable(application) and (interface != "native" or not _starts_up(application)):
        raise _not_callable(application, name)
    if interface == "wsgi":
        from gateways.wsgi import from_wsgi

        settings: dict[str, Any] = {"multiprocess": multiprocess}
        if threads is not None:
            settings["threads"] = threads
        if limits is not None:
            settings["max_spool"] = limits.max_spool
        found = from_wsgi(found, **settings)
    elif interface == "asgi":
        from gateways.asgi import from_asgi

        found = from_asgi(found)
    return found, interface


def made(factory: object, name: str) -> object:
    """What a factory gives: the application. What it raises passes; LoadError is for what is no factory."""
    if not callable(factory):
        raise _not_callable(factory, name)
    shape = _shape(factory)
    if 0 not in shape.counts:
        raise LoadError(f"{name}{shape.text} takes arguments; without --factory it may be the application itself")
    if shape.is_async:
        raise LoadError(f"{name} is async, and no --factory; what has to wait while it starts is @asynccontextmanager")
    return factory()


def detect(application: object, name: str) -> str:
    """Which of INTERFACES an object has. Raises LoadError if none, or if that cannot be told."""
    if _starts_up(application):
        return "native"
    if not callable(application):
        raise _not_callable(application, name)
    known = _BY_MODULE.get(_written_in(application))
    if known:
        return known
    shape = _shape(application)
    is_class = isinstance(application, type)
    if shape.yields:
        raise LoadError(f"{name} is an async generator; to start up and yield a handler it takes @asynccontextmanager")
    if not is_class and shape.counts == {0}:
        raise LoadError(f"{name} takes no arguments; if it makes the application, say --factory")
    _refuse_double(application, shape, name)
    named = _BY_NAME.get(shape.first, "")
    possible = {count: kind for count in shape.counts if (kind := _BY_CALL.get((shape.is_async, count)))}
    if is_class:
        possible = {count: kind for count, kind in possible.items() if _answers(application, kind)}
    elif 0 in shape.counts and not shape.variadic and named not in possible.values():
        raise LoadError(
            f"{name}{shape.text} needs no arguments; if it makes the application, say --factory, otherwise {_SAY}"
        )
    if len(possible) > 1:
        if named in possible.values():
            return named
        if not shape.variadic and shape.required in possible:
            return possible[shape.required]
        raise LoadError(f"{name}{shape.text} could be {' or '.join(possible.values())}; {_SAY}")
    if possible:
        return next(iter(possible.values()))
    if is_class:
        raise LoadError(
            f"{name} is a class and no application by itself; name an instance of it, or say --factory for one made "
            f"without arguments; if it is one, {_SAY}"
        )
    kind = "an async callable" if shape.is_async else "a callable"
    raise LoadError(f"{name}{shape.text or '(...)'} is {kind}, but not as a handler, WSGI or ASGI has it; {_SAY}")


def _not_callable(application: object, name: str) -> LoadError:
    kind = type(application).__name__
    return LoadError(f"{name} is of type {kind} and cannot be called: no application, whatever the --interface")


def _starts_up(application: object) -> bool:
    """Whether it is an async context manager, or a function made by ``@asynccontextmanager``."""
    code = getattr(getattr(application, "__wrapped__", None), "__code__", None)
    if code is not None and code.co_flags & _ASYNC_GENERATOR:
        return True
    return hasattr(type(application), "__aenter__")


def _written_in(application: object) -> str:
    """The module whose code is run by a call; ``__module__`` of a wrapper is that of what it wraps."""
    variables: dict[str, Any] | None = getattr(application, "__globals__", None)
    return type(application).__module__ if variables is None else str(variables.get("__name__"))


def _answers(kind: object, interface: str) -> bool:
    """Whether the instances of a class, made by a call, can be what that interface wants of a call."""
    if interface == "wsgi":
        return hasattr(kind, "__iter__")
    return hasattr(kind, "__await__") or (interface == "native" and issubclass(kind, Response))  # type: ignore[arg-type]


def _refuse_double(application: object, shape: "_Shape", name: str) -> None:
    """Raise LoadError for ASGI 2, where a call with the scope gives what is called with receive and send."""
    doubled = 1 in shape.counts and not shape.is_async
    if doubled and isinstance(application, type):
        call: Any = application.__call__  # where the class has none, what makes its instances
        inner = _shape(call) if hasattr(call, "__code__") else None
        doubled = shape.first == "scope" or (inner is not None and inner.is_async and inner.counts == {3})  # and self
    elif doubled:
        doubled = shape.first == "scope" and not shape.counts & {2, 3}
    if doubled:
        raise LoadError(
            f"{name} has the interface of ASGI 2; make ASGI 3 of it with "
            "asgiref.compatibility.guarantee_single_callable"
        )


# --- how it can be called


class _Shape:
    """How something can be called."""

    def __init__(
        self,
        counts: "Collection[int]",
        *,
        is_async: bool,
        yields: bool = False,
        required: int = 0,
        variadic: bool = False,
        first: str = "",
        text: str = "",
    ) -> None:
        #: With how many positional arguments, of 0 to 3.
        self.counts = {*counts}
        self.is_async = is_async
        #: Whether a call gives an async generator.
        self.yields = yields
        #: How many have no default.
        self.required = required
        self.variadic = variadic
        #: The name of the first parameter.
        self.first = first
        #: What the parameters are, for messages.
        self.text = text


def _shape(application: object) -> _Shape:
    """How something callable can be called."""
    return _plain_shape(application) or _inspected_shape(application)


def _plain_shape(application: object) -> "_Shape | None":
    """The same for the usual case, some parameters and nothing special: a CGI script need not load inspect for it.

    None where there is more to it.
    """
    bound = not hasattr(application, "__code__")
    kind: Any = type(application)
    function: Any = kind.__call__ if bound else application
    code = getattr(function, "__code__", None)
    if (
        code is None
        or isinstance(application, type)
        or hasattr(function, "__self__")
        or vars(function)  # __wrapped__, __signature__, the marks of decorators
        or function.__defaults__
        or code.co_flags & _VARIADIC
        or code.co_kwonlyargcount
    ):
        return None
    names = code.co_varnames[bound : code.co_argcount]
    return _Shape(
        [len(names)],
        is_async=bool(code.co_flags & _COROUTINE),
        yields=bool(code.co_flags & _ASYNC_GENERATOR),
        required=len(names),
        first=names[0] if names else "",
        text=f"({', '.join(names)})",
    )


def _inspected_shape(application: object) -> _Shape:
    import inspect
    from functools import partial

    called: Any = application
    if not (inspect.isclass(application) or inspect.isroutine(application) or isinstance(application, partial)):
        called = called.__call__  # as the instance has it
    is_async, yields = inspect.iscoroutinefunction(called), inspect.isasyncgenfunction(called)
    try:
        signature = inspect.signature(called, follow_wrapped=False)
        if _is_variadic(signature):  # a wrapper passes on what it gets to what it wraps
            signature = inspect.signature(called)
    except (ValueError, TypeError):  # what is written in C need not say
        return _Shape(range(4), is_async=is_async, yields=yields, variadic=True)
    positional = [each for each in signature.parameters.values() if each.kind <= each.POSITIONAL_OR_KEYWORD]
    return _Shape(
        [count for count in range(4) if _can_bind(signature, count)],
        is_async=is_async,
        yields=yields,
        required=sum(each.default is each.empty for each in positional),
        variadic=_is_variadic(signature),
        first=positional[0].name if positional else "",
        text=str(signature),
    )


def _is_variadic(signature: "inspect.Signature") -> bool:
    return any(each.kind is each.VAR_POSITIONAL for each in signature.parameters.values())


def _can_bind(signature: "inspect.Signature", count: int) -> bool:
    try:
        signature.bind(*range(count))
    except TypeError:
        return False
    return True
