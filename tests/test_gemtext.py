"""Pages of gemtext: what is written is what is read again, and no text of a visitor becomes more than text."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateways import Request
from gateways.gemtext import SCHEMES, Line, Page
from tests.model.memory import ask

EXAMPLE = """\
# Guest book

Be <welcome>.
=> /sign Sign it
=> gemini://example.org/
## Who was here
* Zoë & co
* Bob
> So it goes.
```a cat
 /\\_/\\
( o.o )
```
"""


def example() -> Page:
    page = Page()
    page.heading("Guest book")
    page.text("\nBe <welcome>.")
    page.link("/sign", "Sign it")
    page.link("gemini://example.org/")
    page.heading("Who was here", 2)
    page.item("Zoë & co")
    page.item("Bob")
    page.quote("So it goes.")
    page.preformatted(" /\\_/\\\n( o.o )\n", alt="a cat")
    return page


# --- writing and reading -----------------------------------------------------------------------------------------


def test_a_page_is_written_line_by_line() -> None:
    assert str(example()) == EXAMPLE


def test_gemtext_is_read_into_the_lines_it_is_made_of() -> None:
    page = Page.parse(EXAMPLE)
    assert page == example()
    assert [line.kind for line in page] == [
        "heading", "text", "text", "link", "link", "heading", "item", "item", "quote", "preformatted",
    ]  # fmt: skip
    assert page.title == "Guest book"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("=>/a", Line("link", url="/a")),
        ("=>\t /a\t b\tc ", Line("link", "b c", url="/a")),
        ("=>", Line("text", "=>")),
        ("=> ", Line("text", "=> ")),
        ("#no blank", Line("heading", "no blank", level=1)),
        ("###three", Line("heading", "three", level=3)),
        ("####", Line("heading", "#", level=3)),
        ("*no item", Line("text", "*no item")),
        ("*", Line("text", "*")),
        (">quote", Line("quote", "quote")),
        ("text\r", Line("text", "text ")),
        ("``", Line("text", "``")),
        ("```alt\n# x", Line("preformatted", "# x", alt="alt")),
        ("```\n```ignored", Line("preformatted")),
        (" => /a", Line("text", " => /a")),
    ],
)
def test_a_line_is_what_the_specification_says(text: str, line: Line) -> None:
    assert Page.parse(text).lines == [line]


def test_ends_of_lines_may_be_those_of_the_network() -> None:
    assert Page.parse(EXAMPLE.replace("\n", "\r\n")) == example()


TEXTS = st.text(max_size=40) | st.text(alphabet="=># *>`\n\r\t/a.<\"&'é\u2028", max_size=12)
URLS = st.text(alphabet="abc:/?#%20.<>\"'&=é", min_size=1, max_size=12) | st.sampled_from(
    ["javascript:alert(1)", "JaVaScript:x", "data:text/html,x", "/a%09b%0D%0Ax", "gopher://h:70/1/x", "?q", "../x.txt"]
)
LINES = st.one_of(
    st.builds(Line, st.sampled_from(["text", "item", "quote"]), TEXTS),
    st.builds(lambda text, url: Line("link", text, url=url), TEXTS, URLS),
    st.builds(lambda text, level: Line("heading", text, level=level), TEXTS, st.integers(1, 3)),
    st.builds(lambda text, alt: Line("preformatted", text, alt=alt), TEXTS, TEXTS),
)
PAGES = st.builds(Page, st.lists(LINES, max_size=8))


@given(PAGES)
def test_what_is_written_is_read_again(page: Page) -> None:
    assert Page.parse(str(page)) == page


@given(TEXTS)
def test_reading_anything_and_writing_it_changes_nothing_more(text: str) -> None:
    page = Page.parse(text)
    assert Page.parse(str(page)) == page


@given(TEXTS)
def test_a_text_stays_text_whatever_a_visitor_types(text: str) -> None:
    page = Page()
    page.text(text)
    page.item(text)
    page.quote(text)
    page.heading(text)
    page.preformatted(text)
    kinds = [line.kind for line in Page.parse(str(page))]
    count = text.replace("\r\n", "\n").count("\n") + 1
    assert kinds == ["text"] * count + ["item"] + ["quote"] * count + ["heading", "preformatted"]


@pytest.mark.parametrize("url", ["", "a b", "a\nb", "a\tb", "a\x00", "a\u00a0b", "\ud800"])
def test_a_url_that_is_not_encoded_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="URL"):
        Page().link(url, "x")


@pytest.mark.parametrize("level", [0, 4])
def test_a_heading_has_one_of_three_levels(level: int) -> None:
    with pytest.raises(ValueError, match="level"):
        Page().heading("x", level)


def test_a_line_of_no_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="not 'table'"):
        Line("table")


def test_a_line_cannot_be_changed() -> None:
    line = Line("text", "x")
    with pytest.raises(AttributeError, match="cannot be changed"):
        line.text = "# y"
    assert {line: 1}[Line("text", "x")] == 1


# --- HTML --------------------------------------------------------------------------------------------------------


def test_html_of_the_example() -> None:
    assert example().to_html(whole=False) == (
        "<h1>Guest book</h1>\n"
        "<p>Be &lt;welcome&gt;.</p>\n"
        '<p><a href="/sign">Sign it</a></p>\n'
        '<p><a href="gemini://example.org/">gemini://example.org/</a></p>\n'
        "<h2>Who was here</h2>\n"
        "<ul>\n<li>Zoë &amp; co</li>\n<li>Bob</li>\n</ul>\n"
        "<blockquote>\n<p>So it goes.</p>\n</blockquote>\n"
        '<pre aria-label="a cat">\n /\\_/\\\n( o.o )\n</pre>\n'
    )


def test_a_whole_document_has_the_first_heading_for_its_title() -> None:
    html = example().to_html(language="en")
    assert html.startswith('<!doctype html>\n<html lang="en">\n')
    assert "<title>Guest book</title>" in html
    assert "<title>Other</title>" in example().to_html(title="Other")


class Tags(HTMLParser):
    """The tags and attributes of a document, and what is text in it."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.words = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in {"h1", "h2", "h3", "p", "a", "ul", "li", "blockquote", "pre"}
        assert [name for name, _ in attrs] in ([], ["href"], ["aria-label"])
        self.open.append(tag)
        self.links += [value or "" for name, value in attrs if name == "href"]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


@given(PAGES)
def test_nothing_in_html_but_tags_of_ours_is_not_escaped(page: Page) -> None:
    tags = Tags()
    tags.feed(page.to_html(whole=False))
    tags.close()
    assert tags.open == []
    for line in page:
        if line.kind != "text" and "\n" not in line.text:
            assert line.text in tags.words
    for link in tags.links:
        scheme, colon, _ = link.partition("/")[0].partition("?")[0].partition("#")[0].partition(":")
        assert not (colon and scheme) or scheme.lower() in SCHEMES


@pytest.mark.parametrize("url", ["javascript:alert(1)", "JAVASCRIPT:x", "data:text/html,x", "vbscript:x", ":x"])
def test_a_link_of_another_scheme_leads_nowhere(url: str) -> None:
    page = Page([Line("link", "look", url=url)])
    html = page.to_html(whole=False)
    assert ("<a" in html) == (url == ":x")
    assert "look" in html


# --- Gopher and plain text ---------------------------------------------------------------------------------------


def test_gophermap_of_the_example() -> None:
    rows = [
        "iGuest book\tfake\t(NULL)\t0",
        "i\tfake\t(NULL)\t0",
        "iBe <welcome>.\tfake\t(NULL)\t0",
        "1Sign it\t/sign\texample.org\t7070",
        "hgemini://example.org/\tURL:gemini://example.org/\texample.org\t7070",
        "iWho was here\tfake\t(NULL)\t0",
        "i* Zoë & co\tfake\t(NULL)\t0",
        "i* Bob\tfake\t(NULL)\t0",
        "i> So it goes.\tfake\t(NULL)\t0",
        "i /\\_/\\\tfake\t(NULL)\t0",
        "i( o.o )\tfake\t(NULL)\t0",
    ]
    assert example().to_gophermap("example.org", 7070) == "".join([row + "\r\n" for row in rows])


@pytest.mark.parametrize(
    ("url", "item"),
    [
        ("/a%20b/c.txt", "0x\t/a b/c.txt\th\t70"),
        ("d", "1x\t/app/d\th\t70"),
        ("../e.PNG", "Ix\t/e.PNG\th\t70"),
        ("?query%20text", "1x\t/app/page?query%20text\th\t70"),
        ("#part", "1x\t/app/page\th\t70"),
        ("/a%09b", "1x\t/a%09b\th\t70"),
        ("/a%0D%0A1y%09", "1x\t/a%0D%0A1y%09\th\t70"),
        ("/%FF", "1x\t/%FF\th\t70"),
        ("gopher://other:7070/0/a%20b.txt", "0x\t/a b.txt\tother\t7070"),
        ("gopher://other", "1x\t\tother\t70"),
        ("gopher://other/0a%0D%0Ab", "0x\ta%0D%0Ab\tother\t70"),
        ("https://example.org/", "hx\tURL:https://example.org/\th\t70"),
        ("//example.org/", "hx\tURL://example.org/\th\t70"),
        ("mailto:a@example.org", "hx\tURL:mailto:a@example.org\th\t70"),
    ],
)
def test_a_link_becomes_an_item_of_a_menu(url: str, item: str) -> None:
    assert Page([Line("link", "x", url=url)]).to_gophermap("h", base="/app/page") == item + "\r\n"


@given(PAGES, st.text(alphabet="/ab%.", max_size=8))
def test_every_line_of_a_gophermap_is_one_item(page: Page, base: str) -> None:
    menu = page.to_gophermap("example.org", base="/" + base)
    for row in menu.split("\r\n")[:-1]:
        assert "\r" not in row
        assert "\n" not in row
        assert row.count("\t") == 3
        assert row != "."


@pytest.mark.parametrize("host", ["", "a b", "a\tb", "a\r\nb"])
def test_a_host_that_would_break_a_menu_is_refused(host: str) -> None:
    with pytest.raises(ValueError, match="host"):
        Page().to_gophermap(host)


def test_plain_text_of_the_example() -> None:
    assert example().to_text() == (
        "Guest book\n==========\n\nBe <welcome>.\nSign it </sign>\n<gemini://example.org/>\n"
        "Who was here\n------------\n* Zoë & co\n* Bob\n> So it goes.\n /\\_/\\\n( o.o )\n"
    )


def test_long_lines_of_plain_text_are_wrapped_with_their_mark() -> None:
    page = Page()
    page.item("one two three four")
    page.quote("one two three four")
    page.text("incomprehensibilities are long")
    assert page.to_text(width=10) == (
        "* one two\n  three\n  four\n> one two\n> three\n> four\nincomprehensibilities\nare long\n"
    )


# --- answers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variables", "media_type", "begins"),
    [
        ({"SERVER_PROTOCOL": "GEMINI"}, "text/gemini", "# Guest book\n"),
        ({"SERVER_PROTOCOL": "SPARTAN"}, "text/gemini", "# Guest book\n"),
        ({"SERVER_PROTOCOL": "HTTP/1.1", "REQUEST_METHOD": "GET"}, "text/html; charset=utf-8", "<!doctype html>"),
        (
            {"SERVER_PROTOCOL": "HTTP/1.1", "REQUEST_METHOD": "GET", "HTTP_ACCEPT": "text/gemini, text/plain;q=0.5"},
            "text/gemini",
            "# Guest book\n",
        ),
        (
            {"SERVER_PROTOCOL": "HTTP/1.1", "REQUEST_METHOD": "GET", "HTTP_ACCEPT": "text/plain"},
            "text/plain; charset=utf-8",
            "Guest book\n=====",
        ),
        ({"SERVER_PROTOCOL": "RFC1436"}, "application/gopher-menu", "iGuest book\t"),
    ],
)
def test_the_client_gets_the_form_that_suits_it(variables: dict[str, str], media_type: str, begins: str) -> None:
    response = example().response(Request(variables), 404)
    assert (response.status, response.content_type or "text/plain; charset=utf-8") == (404, media_type)
    assert str(response.body).startswith(begins)


def test_relative_links_of_a_menu_are_relative_to_the_request() -> None:
    page = Page([Line("link", "up", url="..")])
    request = Request(
        {"SERVER_PROTOCOL": "RFC1436", "SCRIPT_NAME": "/a%b/c d/e", "SERVER_NAME": "h", "SERVER_PORT": "7070"}
    )
    assert page.response(request).body == "1up\t/a%b/\th\t7070\r\n"


def test_an_answer_over_http_is_one_that_can_be_sent() -> None:
    answer = ask(example().response(Request({"SERVER_PROTOCOL": "HTTP/1.1", "REQUEST_METHOD": "GET"})))
    assert (answer.status, answer.field("Content-Type")) == (200, "text/html; charset=utf-8")
