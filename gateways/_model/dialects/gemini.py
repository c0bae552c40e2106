"""The dialect of Gemini and Titan: two digits, a blank, one line, and a body behind a 2.

Written for the strictest of its readers: gmid wants exactly this form, molly-brown ends at a line without a word in it.
"""

from gateways._model.asking import Asking
from gateways._model.dialects.voice import Phrase, Voice, retry_after, scheme_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from gateways._model.response import Response

#: HTTP's status -> Gemini's.
CODES = {
    **dict.fromkeys((400, 405, 406, 411, 413, 414, 415, 422), 59),
    401: 60,
    404: 51,
    410: 52,
    421: 53,
    429: 44,
    500: 42,
    501: 50,
    502: 43,
    503: 41,
    504: 43,
}
_ASKING = {"input": 10, "sensitive": 11, "required": 60, "refused": 61, "invalid": 62}
_PORT = "1965"


class Gemini(Voice):
    """Answers over Gemini and Titan."""

    __slots__ = ()

    def page(self, media_type: str, body: "Any") -> Phrase:
        return Phrase(line(20, media_type), body)

    def nothing(self) -> Phrase:
        return Phrase(line(20, "text/gemini"))

    def redirect(self, reference: str, *, permanent: bool) -> Phrase:
        host = self.environ.get("SERVER_NAME")
        if self.scheme == "titan" and host and not scheme_of(reference) and not reference.startswith("//"):
            # A relative reference would be one to another upload.
            port = self.environ.get("SERVER_PORT", _PORT)
            reference = f"gemini://{host}{'' if port == _PORT else ':' + port}{self.resolve(reference)}"
        return Phrase(line(31 if permanent else 30, reference))

    def error(self, status: int, message: str, response: "Response") -> Phrase:
        if status == 429:
            message = retry_after(response)
        return Phrase(line(CODES.get(status, 50 if status < 500 else 40), message))

    def ask(self, response: Asking) -> Phrase:
        if response.scope is not None and response.scope != self.path:
            return self.redirect(response.scope, permanent=False)
        return Phrase(line(_ASKING[response.kind], response.text))


def line(code: int, text: str) -> bytes:
    """A line of metadata. What is too long to be sent has been refused or cut before."""
    return f"{code} {text}\r\n".encode("utf-8", "replace")
