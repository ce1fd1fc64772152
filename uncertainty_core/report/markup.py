"""The parts of a page that needs nothing beside itself.

What is handed in as text is escaped here; what is called `content` is HTML already.
"""

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path

_STYLE = Path(__file__).with_name("style.css")
_SCRIPT = Path(__file__).with_name("script.js")


def document(
    title: str, findings: Sequence[str], lead: str, parts: Mapping[str, Mapping[str, str]], style: str = ""
) -> str:
    """A whole page: a title, what was found, what was done, and contents by heading, of which empty ones are left out.

    Args:
        title, lead: texts.
        findings: sentences.
        parts: content by heading, for each part of the page; "" is the name of a part that needs none.
        style: rules beside those of `style.css`.
    """
    parts = {part: {heading: c for heading, c in sections.items() if c} for part, sections in parts.items()}
    links = "".join(_links(part, sections) for part, sections in parts.items())
    body = "".join(
        _section(part, heading, content) for part, sections in parts.items() for heading, content in sections.items()
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{_STYLE.read_text(encoding='utf-8')}{style}</style>\n"
        f"</head>\n<body>\n<header>\n<h1>{escape(title)}</h1>\n"
        f"{_found(findings)}{paragraph(lead)}"
        f'<nav aria-label="Sections">\n{links}</nav>\n</header>\n<main>\n{body}</main>\n'
        f"<script>\n{_SCRIPT.read_text(encoding='utf-8')}</script>\n</body>\n</html>\n"
    )


def _found(findings: Sequence[str]) -> str:
    if not findings:
        return ""
    note = "In brackets the 95 % interval of the difference, paired by image."
    content = "".join(paragraph(found) for found in findings).replace(" %", "\N{NO-BREAK SPACE}%")
    return f'<div class="found">\n{content}{paragraph(note, "note")}</div>\n'


def _links(part: str, sections: Mapping[str, str]) -> str:
    name = f"<span>{escape(part)}</span>" if part else ""
    links = "".join(f'<a href="#{_anchor(part, heading)}">{escape(heading)}</a>' for heading in sections)
    return f"<div>{name}{links}</div>\n"


def _section(part: str, heading: str, content: str) -> str:
    above = f'<p class="part">{escape(part)}</p>\n' if part else ""
    return f'<section id="{_anchor(part, heading)}">\n{above}<h2>{escape(heading)}</h2>\n{content}</section>\n'


def _anchor(part: str, heading: str) -> str:
    return re.sub(r"\W+", "-", f"{part} {heading}".strip().lower())


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph; `kind` is a class of the style sheet."""
    return f"<p{_class(kind)}>{escape(text)}</p>\n"


def _class(kind: str) -> str:
    return f' class="{kind}"' if kind else ""


def hidden(text: str) -> str:
    """What a screen reader reads and nobody sees."""
    return f'<span class="hidden">{escape(text)}</span>'


def scroll(table: str, label: str) -> str:
    """A box in which a wide or long table moves without moving the page; the keyboard reaches it, too."""
    return f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(label)}">\n{table}</div>\n'


def folded(title: str, content: str) -> str:
    """Content that opens below its title; nothing where there is none."""
    return f"<details>\n<summary>{escape(title)}</summary>\n{content}</details>\n" if content else ""


def text_table(head: Sequence[str], rows: Iterable[Sequence[str]], label: str) -> str:
    """A table of plain texts, whose first column names the rows."""
    heads = "".join(f'<th scope="col">{escape(text)}</th>' for text in head)
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th>{"".join(map(_text_cell, texts))}</tr>\n' for name, *texts in rows
    )
    return scroll(f'<table class="text">\n<thead><tr>{heads}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>\n', label)


def _text_cell(text: str) -> str:
    return f"<td{_class('words' if len(text) > 40 else '')}>{escape(text)}</td>"


def picture(content: bytes, kind: str, alternative: str, caption: str) -> str:
    """An embedded picture of a media type such as "image/png", and a caption."""
    return (
        f'<figure><img src="{data_uri(content, kind)}" alt="{escape(alternative)}">\n'
        f"<figcaption>{escape(caption)}</figcaption></figure>\n"
    )


def side_by_side(figures: Iterable[str]) -> str:
    """Figures (content) beside each other where there is room."""
    return f'<div class="figures">\n{"".join(figures)}</div>\n'


def data_uri(content: bytes, kind: str = "image/png") -> str:
    """A file as part of the page."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
