"""Small conversions from Markdown and numbers to the page's HTML."""

from __future__ import annotations

import re
from collections.abc import Callable

from markdown_it import MarkdownIt
from markupsafe import Markup

PLAIN = MarkdownIt("zero").enable(["backticks", "emphasis"])  #: of a sentence: code and strong
MARKDOWN = MarkdownIt("commonmark", {"html": True}).enable("table")


#: the end of a line inside a Chinese paragraph, which a browser would show as a space
WRAPPED = re.compile(
    r"(?<=[，。；：、）”])\n *(?=[\w（“\[`])(?!\d+\.|```)|(?<=[一-鿿])\n(?=[一-鿿（“])"
)


def unwrapped(text: str) -> str:
    """Chinese Markdown with each paragraph in one line."""
    return WRAPPED.sub("", text)


def markdown_table(text: str, head: str) -> list[list[str]]:
    """The cells of the first Markdown table with a column of that name; ValueError if none."""
    rows: list[list[str]] = []
    for token in MARKDOWN.parse(text):
        if token.type == "table_open":
            rows = []
        elif token.type == "tr_open":
            rows.append([])
        elif token.type == "inline" and rows:
            rows[-1].append(token.content)
        elif token.type == "table_close" and head in rows[0]:
            return rows
    raise ValueError(f"no table with a column {head!r}")


def inline(text: str) -> Markup:
    """Text with `code` and **strong** words as HTML."""
    return Markup(PLAIN.renderInline(text))


def document(text: str, link: Callable[[str], str | None]) -> tuple[Markup, list[tuple[str, str]]]:
    """A Markdown document as HTML, and its second-level headings: anchor, title.

    `link` gives the new target of a relative link, or None if the site does not have it.
    """
    tokens = MARKDOWN.parse(unwrapped(text))
    titles = []
    for at, token in enumerate(tokens):
        if token.type == "heading_open" and token.tag == "h2":
            title = tokens[at + 1].content
            anchor = re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")  # as GitHub's
            token.attrSet("id", anchor)
            titles.append((anchor, title))
        for child in token.children or ():
            target = child.attrGet("href") if child.type == "link_open" else None
            if isinstance(target, str) and not re.match(r"#|\w+:", target):
                if new := link(target):
                    child.attrSet("href", new)
                else:
                    del child.attrs["href"]
    html = MARKDOWN.renderer.render(tokens, MARKDOWN.options, {})
    return Markup(html.replace("<th></th>", "<td></td>")), titles  # an empty cell is no heading


def science(value: float | None) -> str:
    """A number in the short form of a small error: 4e-15."""
    if value is None:
        return "–"
    mantissa, exponent = f"{value:.0e}".split("e")
    return f"{mantissa}e{int(exponent)}" if abs(int(exponent)) > 3 else f"{value:.2g}"


def shape_text(shape: tuple[int, ...]) -> str:
    """The shape of a batch of N, as text."""
    return "(" + ", ".join(["N", *map(str, shape[1:])]) + ")"


def indent_of(line: str) -> int:
    """The number of spaces at the beginning of a line of code."""
    return len(line) - len(line.lstrip(" "))
