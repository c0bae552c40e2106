"""The certificate that a client has shown to its server."""

from gateways._model.dialects.small_web import normal_fingerprint

TYPE_CHECKING = False
if TYPE_CHECKING:
    import datetime
    from collections.abc import Mapping


class ClientCertificate:
    """The certificate of a client, as the server tells of it. Two with one fingerprint are equal.

    Most are signed by nobody but their owner, who has put any name in them that he liked: ``fingerprint`` is who it is,
    and the only thing to keep as a key or to grant anything to. ``common_name``, ``subject`` and ``issuer`` are for
    showing, escaped.
    """

    __slots__ = ("_not_after", "_not_before", "common_name", "fingerprint", "issuer", "subject")

    def __init__(
        self,
        fingerprint: str,
        *,
        common_name: "str | None" = None,
        subject: "str | None" = None,
        issuer: "str | None" = None,
        not_before: "str | None" = None,
        not_after: "str | None" = None,
    ) -> None:
        #: SHA-256 of the certificate (DER), 64 small hexadecimal digits.
        self.fingerprint = fingerprint
        #: The name that its owner has chosen.
        self.common_name = common_name
        #: The distinguished name of its owner, as the server writes it.
        self.subject = subject
        #: The distinguished name of whoever signed it, as the server writes it.
        self.issuer = issuer
        self._not_before = not_before
        self._not_after = not_after

    @property
    def not_before(self) -> "datetime.datetime | None":
        """When it begins to be valid, in UTC, where the server tells."""
        return _moment(self._not_before)

    @property
    def not_after(self) -> "datetime.datetime | None":
        """When it ends to be valid, in UTC, where the server tells."""
        return _moment(self._not_after)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ClientCertificate):
            return NotImplemented
        return self.fingerprint == other.fingerprint

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def __repr__(self) -> str:
        return f"<ClientCertificate {self.fingerprint} {self.common_name!r}>"


def _moment(text: "str | None") -> "datetime.datetime | None":
    """A time as ISO 8601, or in seconds since 1970 (opal)."""
    if not text:
        return None
    import datetime  # only for those who ask

    try:
        if text.isascii() and text.isdigit():
            return datetime.datetime.fromtimestamp(int(text), datetime.UTC)
        moment = datetime.datetime.fromisoformat(text)
    except (ValueError, OverflowError, OSError):
        return None
    return moment.astimezone(datetime.UTC) if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)


def client_certificate(scheme: str, environ: "Mapping[str, str]") -> "ClientCertificate | None":
    """The certificate that the variables tell of, where the client spoke through TLS."""
    if scheme not in ("gemini", "titan", "https"):
        return None
    fingerprint = normal_fingerprint(environ.get("TLS_CLIENT_HASH", ""))
    if not fingerprint:
        return None
    return ClientCertificate(
        fingerprint,
        common_name=environ.get("TLS_CLIENT_SUBJECT_CN"),
        subject=environ.get("TLS_CLIENT_SUBJECT"),
        issuer=environ.get("TLS_CLIENT_ISSUER"),
        not_before=environ.get("TLS_CLIENT_NOT_BEFORE"),
        not_after=environ.get("TLS_CLIENT_NOT_AFTER"),
    )
