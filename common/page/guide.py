"""The guide to porting: its pages, and the pitfalls on each of them."""

from __future__ import annotations

import re
from pathlib import Path

#: the pages of the guide to porting, in docs/porting
GUIDE = (
    *("index", "layout", "weights", "local-norm", "batch-norm", "loss", "optimizer", "numbers"),
    *("initial-values", "images", "devices", "files", "runtime", "words", "errata"),
)

ENDINGS = {"en": ".md", "zh-CN": ".zh.md"}  #: of a document's file, by its language

_NAMES = {"check": "check", "porting/index": "guide"}
_NAMES |= {f"porting/{name}": f"guide-{name}" for name in GUIDE[1:]}
#: the documents that the site has beside the page, and the HTML file of each
DOCUMENTS = {
    f"docs/{name}{ENDINGS[language]}": f"{page}{html}"
    for name, page in _NAMES.items()
    for language, html in (("en", ".html"), ("zh-CN", ".zh-CN.html"))
}


def guide_titles(root: Path) -> dict[str, tuple[str, str]]:
    """The page and the heading of each pitfall in the guide, by its anchor."""
    found = {}
    for page in GUIDE:
        try:
            text = (root / "docs" / "porting" / f"{page}.md").read_text()
        except (OSError, UnicodeDecodeError):
            continue
        for anchor, title in re.findall(r'^<a id="([^"]+)"></a>\n\n## (.+)$', text, re.M):
            found[anchor] = page, title
    return found
