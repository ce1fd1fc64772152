"""A page as a reader's browser takes it apart: by its elements and their text."""

import re
from html.parser import HTMLParser

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Elements of a page, its texts, and whether every element is closed in its place."""

    def __init__(self, html):
        super().__init__()
        self.open, self.elements, self.texts = [], [], []
        self.feed(html)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):  # as SVG has it
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-1:]}"
        self.open.pop()

    def handle_data(self, text):
        self.texts.append(text)

    def attributes(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def table_rows(html):
    """Cells of the first table, as HTML."""
    table = re.search(r"<table.*?</table>", html, re.DOTALL)[0]
    return [re.findall(r"<t[hd].*?</t[hd]>", row, re.DOTALL) for row in re.findall(r"<tr>.*?</tr>", table, re.DOTALL)]


def text_of(html):
    """What is between the tags."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html)).strip()


def headings(html):
    """Of the sections."""
    return re.findall(r"<h2>(.*?)</h2>", html)


def check_self_contained(html):
    """Assert that the page needs nothing beside itself, and that its links lead somewhere."""
    page = Page(html)
    assert not {"link", "iframe", "object"} & {tag for tag, _ in page.elements}
    assert not any("src" in found for found in page.attributes("script"))
    sources = [value for _, found in page.elements for key, value in found.items() if key in ("src", "srcset", "data")]
    assert all(source.startswith("data:image/") for source in sources)
    assert "url(" not in html and "@import" not in html and "http:" not in html and "https:" not in html
    assert all(attributes["alt"] for attributes in page.attributes("img"))
    names = [found["id"] for _, found in page.elements if "id" in found]
    assert len(names) == len(set(names))
    assert [link["href"] for link in page.attributes("a")] == [f"#{name}" for name in names]


def explanations(html):
    """Captions, notes and meanings of metrics; not those of pictures, which tell these apart, nor directions."""
    charts = re.sub(r'<div class="strip">.*?</div>', "", html, flags=re.DOTALL)
    glossary = "".join(re.findall(r'<dl class="glossary">.*?</dl>', charts, re.DOTALL))
    # names of classes and counts of images explain nothing
    found = re.findall(r'<(?:figcaption|p class="note")>(?!<strong>|\d)(.*?)</', charts, re.DOTALL)
    texts = [re.sub(r"(^|; )(higher|lower) is better$", "", text_of(text)) for text in found]
    return list(filter(None, texts)) + [text_of(text) for text in re.findall(r"<dd>(.*?)</dd>", glossary)]
