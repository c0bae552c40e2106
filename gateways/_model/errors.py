"""The errors of the package, each with the answer it wants.

Local errors are bugs of our caller, remote errors are the peer's doing (the split of h11). Handlers raise only
:class:`Reject`; everything else here is raised to them or about them.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    Headers = Mapping[str, str] | Iterable[tuple[str, str]]


class GatewayError(Exception):
    """Base class of every error this package raises on its own account."""


class ProtocolError(GatewayError):
    """A rule of a protocol was broken: see the two subclasses for by whom.

    ``status`` is the HTTP status that answers it where an answer is still possible. Made by itself, and not as one of
    the two, it raises TypeError.
    """

    def __init__(self, message: str, *, status: int = 400) -> None:
        if type(self) is ProtocolError:
            raise TypeError("ProtocolError is abstract: raise LocalProtocolError or RemoteProtocolError")
        super().__init__(message)
        self.status = status


class LocalProtocolError(ProtocolError):
    """Our side asked for something that the protocol does not allow; nothing was sent."""

    def __init__(self, message: str, *, status: int = 500) -> None:
        super().__init__(message, status=status)


class RemoteProtocolError(ProtocolError):
    """The peer sent something that the protocol does not allow."""

    #: The meta-variables that no request could be made of; there where they are known.
    environ: "Mapping[str, str]"


class LimitExceeded(RemoteProtocolError):
    """The peer went over one of :class:`~gateways.Limits`; the message names which."""

    def __init__(self, message: str, *, status: int = 413) -> None:
        super().__init__(message, status=status)


class IncompleteBody(RemoteProtocolError):
    """The request body ended before CONTENT_LENGTH was met, and the peer is still there to be told.

    Answered with 400 when the handler does not catch it (RFC 3875 section 4.2, FastCGI section 6.2).
    """


class Reject(Exception):
    """Raised by a handler to answer with an error status instead of a Response.

    ``status`` is the HTTP status, 400 to 599; ``detail`` a short text for the client (by default the reason
    phrase); ``headers`` extra header fields, such as WWW-Authenticate. Raises ValueError for another status.
    """

    def __init__(self, status: int, detail: "str | None" = None, headers: "Headers" = ()) -> None:
        super().__init__(status, detail)
        if not 400 <= status <= 599:
            raise ValueError(f"Reject takes a status from 400 to 599, not {status!r}")
        self.status = status
        self.detail = detail
        self.headers = headers
