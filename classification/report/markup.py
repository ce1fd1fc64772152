"""The parts of a page that needs nothing beside itself: no script, no font, no network.

What is handed in as text is escaped here; what is called `content` is HTML already.
"""

import base64
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

FIGURE_WIDTH = 4.4  # inches: all drawings are as wide, so that their letters are as large
FIGURE_DPI = 200  # sharp on a fine screen and in print
LARGEST_IMAGE = 192  # pixels: examples are shown smaller than that
PIXEL_ART = 96  # images below so many pixels are enlarged without smoothing


def document(title: str, lead: str, sections: Mapping[str, str]) -> str:
    """A whole page: a title, a first paragraph, and contents by heading, of which empty ones are left out."""
    sections = {heading: content for heading, content in sections.items() if content}
    links = "".join(f'<a href="#{_anchor(heading)}">{escape(heading)}</a>' for heading in sections)
    body = "".join(
        f'<section id="{_anchor(heading)}">\n<h2>{escape(heading)}</h2>\n{content}</section>\n'
        for heading, content in sections.items()
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"<header>\n<h1>{escape(title)}</h1>\n{paragraph(lead, 'lead')}<nav>{links}</nav>\n</header>\n"
        f"<main>\n{body}</main>\n</body>\n</html>\n"
    )


def _anchor(heading: str) -> str:
    return re.sub(r"\W+", "-", heading.lower())


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph; `kind` is a class of the style sheet."""
    return f"<p{_class(kind)}>{escape(text)}</p>\n"


def _class(kind: str) -> str:
    return f' class="{kind}"' if kind else ""


def hidden(text: str) -> str:
    """What a screen reader says and nobody sees."""
    return f'<span class="hidden">{escape(text)}</span>'


def scroll(table: str, label: str) -> str:
    """A box in which a wide table moves without moving the page; the keyboard reaches it, too."""
    return f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(label)}">\n{table}</div>\n'


def text_table(head: Sequence[str], rows: Iterable[Sequence[str]], label: str) -> str:
    """A table of plain texts, whose first column names the rows."""
    heads = "".join(f'<th scope="col">{escape(text)}</th>' for text in head)
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th>{"".join(map(_text_cell, texts))}</tr>\n' for name, *texts in rows
    )
    return scroll(f'<table class="text">\n<thead><tr>{heads}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>\n', label)


def _text_cell(text: str) -> str:
    return f"<td{_class('words' if len(text) > 40 else '')}>{escape(text)}</td>"


def figures(pictures: Iterable[tuple[Figure, str, str]]) -> str:
    """Drawings side by side where there is room; each with what it shows to those who cannot see it, and a caption."""
    return f'<div class="figures">\n{"".join(_figure(*picture) for picture in pictures)}</div>\n'


def _figure(figure: Figure, alternative: str, caption: str) -> str:
    figure.set_size_inches(figure.get_size_inches() * FIGURE_WIDTH / figure.get_figwidth())
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=FIGURE_DPI, facecolor="white", metadata={"Software": None})
    return (
        f'<figure><img src="{_data_uri(file.getvalue())}" alt="{escape(alternative)}">\n'
        f"<figcaption>{escape(caption)}</figcaption></figure>\n"
    )


def image(pixels: Tensor, alternative: str) -> str:
    """A test image: uint8 (channels, H, W) of one or three channels."""
    array = pixels.cpu().permute(1, 2, 0).numpy()
    picture = Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)
    picture.thumbnail((LARGEST_IMAGE, LARGEST_IMAGE))  # shrinks only
    file = io.BytesIO()
    picture.save(file, format="png", optimize=True)
    kind = _class("pixels" if max(picture.size) < PIXEL_ART else "")
    return f'<img{kind} src="{_data_uri(file.getvalue())}" alt="{escape(alternative)}">'


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


STYLE = """
:root {
  color-scheme: light dark;
  --text: #1c2126; --muted: #5c6670; --line: #d7dce1; --rule: #1c2126; --back: #ffffff; --panel: #f4f6f8;
  --link: #005a8f; --paper: #9a4a00; --student: #007a59; --baseline: #0072b2;
}
@media (prefers-color-scheme: dark) {
  :root {
    --text: #e4e7ea; --muted: #9da7b1; --line: #363d45; --rule: #9da7b1; --back: #15181b; --panel: #1f2429;
    --link: #6cb8e6; --paper: #e3a465; --student: #2fc79a; --baseline: #56a8e0;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0 auto; padding: 2.5rem 1.25rem 4rem; max-width: 74rem; color: var(--text); background: var(--back);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Liberation Sans", sans-serif;
}
h1 { margin: 0 0 .75rem; font-size: 2rem; line-height: 1.2; letter-spacing: -.015em; overflow-wrap: anywhere; }
h2 { margin: 0 0 .75rem; font-size: 1.35rem; line-height: 1.3; }
h3 { margin: 2rem 0 .25rem; font-size: 1.05rem; line-height: 1.35; }
section { margin-top: 2.75rem; padding-top: 1.5rem; border-top: 1px solid var(--line); }
p { margin: .5rem 0 1rem; max-width: 46rem; }
.lead { font-size: 1.08rem; }
.note, figcaption { color: var(--muted); font-size: .875rem; line-height: 1.5; }
pre {
  margin: .5rem 0 1rem; padding: .75rem 1rem; overflow-x: auto; background: var(--panel); border-radius: 6px;
  font: .85rem/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, "Liberation Mono", monospace;
}
nav { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; margin-top: 1.25rem; font-size: .95rem; }
a { color: var(--link); text-decoration: none; }
a:hover, a:focus { text-decoration: underline; }
.hidden {
  position: absolute; width: 1px; height: 1px; margin: -1px; overflow: hidden; clip-path: inset(50%);
  white-space: nowrap;
}

.scroll { position: relative; overflow-x: auto; margin: .75rem 0; }
table {
  border-collapse: separate; border-spacing: 0;  /* collapsed borders do not stick */
  font-size: .875rem; line-height: 1.35; font-variant-numeric: tabular-nums;
}
.scroll > table { border-top: 2px solid var(--rule); border-bottom: 2px solid var(--rule); }
th, td { padding: .45rem .55rem; text-align: right; vertical-align: top; white-space: nowrap; }
thead th { font-weight: 600; }
thead tr:last-child th { border-bottom: 1px solid var(--rule); }
thead th[scope=colgroup] { text-align: center; border-bottom: 1px solid var(--line); }
tbody tr + tr > * { border-top: 1px solid var(--line); }
th:first-child { position: sticky; left: 0; padding-left: 0; text-align: left; background: var(--back); }
tbody th { min-width: 7rem; font-weight: 600; white-space: normal; }
.text th, .text td { text-align: left; }
.text .words { white-space: normal; min-width: 24rem; }
td u { text-underline-offset: 3px; }
.small { display: block; color: var(--muted); font-size: .86em; font-weight: 400; }
.paper { color: var(--paper); font-style: italic; }

.figures { display: flex; flex-wrap: wrap; gap: 1.5rem; }
.figures > figure { flex: 1 1 21rem; max-width: 28rem; }
figure { margin: 0; }
.figures img {
  display: block; width: 100%; height: auto; padding: .5rem; background: #fff;
  border: 1px solid var(--line); border-radius: 6px;
}
figcaption { margin-top: .5rem; }

.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(8rem, 1fr)); gap: 1rem; margin: .75rem 0 0; }
.card { display: flex; flex-direction: column; padding: .6rem; background: var(--panel); border-radius: 6px; }
.card img { display: block; width: 100%; max-width: 8rem; margin: .25rem auto .5rem; border-radius: 3px; }
.card img.pixels { image-rendering: pixelated; }
.card svg { display: block; width: 100%; height: 5rem; }
.card figcaption { overflow-wrap: anywhere; line-height: 1.35; }
.card strong { color: var(--text); }
.scores { display: flex; justify-content: space-between; font-size: .9rem; font-variant-numeric: tabular-nums; }
.student { color: var(--student); fill: var(--student); font-weight: 600; }
.baseline { color: var(--baseline); fill: var(--baseline); font-weight: 600; }
.truth { fill: var(--muted); opacity: .22; }
.axis { stroke: var(--muted); stroke-width: .6; }
summary { cursor: pointer; color: var(--link); }

@media print {
  :root { color-scheme: light; }
  body { max-width: none; padding: 0; font-size: 10pt; }
  nav, summary { display: none; }
  details::details-content { content-visibility: visible; block-size: auto; }
  pre { white-space: pre-wrap; }
  .figures > figure { flex: 0 1 31%; }
  .scroll { overflow: visible; }
  .scroll table { font-size: 7.5pt; }
  th, td { padding: .25rem .3rem; }
  tbody th { min-width: 0; }
  figure, tr { break-inside: avoid; }
  .cards { grid-template-columns: repeat(8, 1fr); gap: .4rem; }
  .card { padding: .3rem; }
  .scores, .card figcaption { font-size: 7pt; }
  h2, h3, h3 + p { break-after: avoid; }
}
"""
