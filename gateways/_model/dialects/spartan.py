"""The dialect of Spartan: one digit, a blank, one line, and a body behind a 2. Nothing in it is secret."""

from gateways._model.dialects.voice import Phrase, Voice, scheme_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from gateways._model.asking import Asking
    from gateways._model.response import Response


class Spartan(Voice):
    """Answers over Spartan."""

    __slots__ = ()

    def page(self, media_type: str, body: "Any") -> Phrase:
        essence, *parameters = media_type.split(";")
        kept = [each for each in parameters if each.partition("=")[0].strip().lower() != "lang"]
        return Phrase(_line(2, ";".join([essence, *kept])), body)

    def nothing(self) -> Phrase:
        return Phrase(_line(2, "text/gemini"))

    def redirect(self, reference: str, *, permanent: bool) -> Phrase:
        here = f"spartan://{self.environ.get('SERVER_NAME', '')}"
        if reference.lower().startswith(here.lower() + "/"):
            reference = reference[len(here) :]
        if scheme_of(reference) or reference.startswith("//"):
            # The protocol knows no way to another host but a link.
            return Phrase(_line(2, "text/gemini"), f"=> {reference}\n")
        return Phrase(_line(3, self.resolve(reference)))

    def error(self, status: int, message: str, response: "Response") -> Phrase:
        return Phrase(_line(4 if status < 500 else 5, message))

    def ask(self, response: "Asking") -> Phrase:
        if response.kind == "input":
            return Phrase(_line(2, "text/gemini"), f"=: {self.path} {response.text}\n")
        if response.kind == "sensitive":
            return Phrase(_line(4, "This cannot be asked for without encryption"))
        return Phrase(_line(4, response.text))


def _line(code: int, text: str) -> bytes:
    return f"{code} {text}\r\n".encode("utf-8", "replace")
