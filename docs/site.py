"""Hooks of mkdocs.yml: the page and the listings become a part of the site.

Documents link to source files of the repository. In the site such a link leads to a listing, and
a link to any other file outside `docs` becomes plain text.
"""

from __future__ import annotations

import posixpath
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # `mkdocs build` may run where the project is not installed

from common.page import site as page  # noqa: E402
from common.page import source  # noqa: E402
from common.page.markup import unwrapped  # noqa: E402

LINK = re.compile(r"\[((?:`[^`\n]*`|[^\[\]`])*)\]\((\.\./[^)\s]+)(?: \"[^\"]*\")?\)")
OTHER = re.compile(r"^\[English\]\(\S+\)\n", re.M)  # the head of every page of the site has it
ENGLISH_ONLY = "*本页目前只有英文版。*"
FOLDER = "page"  #: of the page in the site

listings: set[str] = set()  # the files that documents link to


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Rewrite links that lead out of `docs`, or to the page, which is there once.

    A Chinese page loses its line ends; one that is there only in English says so.
    """
    up = posixpath.relpath(FOLDER, posixpath.dirname(page.file.dest_uri) or ".")
    here = posixpath.join("docs", posixpath.dirname(page.file.src_uri))

    def rewrite(match: re.Match[str]) -> str:
        text, target = match[1], posixpath.normpath(posixpath.join(here, match[2]))
        if target.startswith("docs/"):
            return match[0]
        path, _, line = target.partition("#L")
        if path.endswith(".py") and (ROOT / path).is_file():
            listings.add(path)
            return f"[{text}]({up}/{source.listing(path, int(line or 1))})"
        return text

    text = LINK.sub(rewrite, markdown).replace("](page/", f"]({up}/")
    if not page.file.dest_uri.startswith("zh/"):
        return text
    if not page.file.src_uri.endswith(".zh.md"):
        return f"{ENGLISH_ONLY}\n\n{text}"
    return unwrapped(OTHER.sub("", text))


def on_post_build(config: Any, **_: Any) -> None:
    """Write the page beside the documents, with the listings that they link to."""
    folder = Path(config["site_dir"]) / FOLDER
    page.write(folder)
    for name, data in page.listings(listings).items():
        (folder / name).write_bytes(data)
