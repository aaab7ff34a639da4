"""Build, write and serve the page.

One file for each language shows everything. Beside it are the guides (to porting, to `googlenet
check`) and the listings that the page links to. No file needs the network.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from common.errors import BackendError, PageError, one_line
from common.files import ROOT, install_command, write_whole
from common.page.guide import DOCUMENTS, ENDINGS
from common.page.results import TITLES
from common.page.words import LANGUAGES, WORDS

try:
    import jinja2
    from markupsafe import Markup

    from common.page import align, source
    from common.page.content import Page
    from common.page.markup import document, indent_of, inline, science, shape_text
except ImportError as error:
    raise BackendError(
        f"The page needs Jinja2 and Pygments: `{install_command('page', 'cross')}`."
    ) from error

FILES = {"en": "index.html", "zh-CN": "index.zh-CN.html"}
FOLDER = Path(__file__).parent


def render(language: str, root: Path = ROOT) -> str:
    """The page in a language, as one HTML file; PageError if code that it shows is missing."""
    page = Page(language, root)
    return _fill(
        "page.html",
        page=page,
        say=page.say,
        pick=page.pick,
        check_name=page.check_name,
        language=language,
        other=next(name for name in LANGUAGES if name != language),
        files=FILES,
        guide=DOCUMENTS[f"docs/porting/index{ENDINGS[language]}"],
        titles=TITLES,
        script=Markup((FOLDER / "page.js").read_text()),
    )


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        science=science,
        inline=inline,
        indent_of=indent_of,
        shape=shape_text,
        count="{:,}".format,
    )
    environment.globals.update(css=Markup((FOLDER / "page.css").read_text()), words=WORDS)
    return environment


def _fill(template: str, **values: Any) -> str:
    return _environment().get_template(template).render(**values)


def guide(name: str, root: Path = ROOT) -> str | None:
    """A document of `DOCUMENTS` as an HTML file; None if there is none."""
    path, top = (root / name).resolve(), root.resolve()
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError):
        return None

    def link(target: str) -> str | None:
        file, _, anchor = target.partition("#")
        found = (path.parent / file).resolve()
        if not found.is_relative_to(top):
            return None
        place = found.relative_to(top).as_posix()
        if place in DOCUMENTS:
            return f"{DOCUMENTS[place]}#{anchor}" if anchor else DOCUMENTS[place]
        if found.suffix == ".py" and found.is_file():
            return source.listing(place, int(anchor.removeprefix("L") or 1))
        return None

    title = text.partition("\n")[0].removeprefix("# ")
    body, headings = document(text, link)
    chinese = name.endswith(ENDINGS["zh-CN"])
    return _fill(
        "plain.html", title=title, body=body, headings=headings, up="", language=LANGUAGES[chinese]
    )


def site(root: Path = ROOT) -> dict[str, bytes]:
    """The content of every file of the site, by its path in the site."""
    made = {FILES[language]: render(language, root) for language in LANGUAGES}
    for name, file in DOCUMENTS.items():
        if (text := guide(name, root)) is not None:
            made[file] = text
    names = {link for text in made.values() for link in re.findall(r'href="(source/[^"#]+)', text)}
    files = {_place(path): path for path in _python_files(root)}
    found = {name: text.encode() for name, text in made.items()}
    return found | listings({files[name] for name in names}, root)


def listings(paths: Iterable[str], root: Path = ROOT) -> dict[str, bytes]:
    """The listing of each source file, by its path in the site."""
    found = {}
    for path in sorted(paths):
        lines = [
            align.marked(line) for line in align.tokens((root / path).read_text().splitlines())
        ]
        found[_place(path)] = _fill(
            "plain.html", title=path, lines=lines, up="../", language="en"
        ).encode()
    return found


def _place(path: str) -> str:
    return source.listing(path, 1).partition("#")[0]


def _python_files(root: Path) -> list[str]:
    folders = [folder for folder in ("backends", "common", "tests") if (root / folder).is_dir()]
    return [
        path.relative_to(root).as_posix()
        for folder in folders
        for path in sorted((root / folder).rglob("*.py"))
    ]


def write(out: Path, root: Path = ROOT) -> list[Path]:
    """Write the site into a folder; return the pages' paths. PageError if that fails."""
    made = site(root)
    try:
        for name, data in made.items():
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            write_whole(out / name, data)
    except OSError as error:
        raise PageError(f"The page cannot be written to {out}: {one_line(error)}.") from error
    return [out / name for name in FILES.values()]


class Server(ThreadingHTTPServer):
    """A server that does not report a client that goes away before it has its answer."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print the traceback of any other error."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def server(port: int, root: Path = ROOT) -> ThreadingHTTPServer:
    """A server of the site for this machine only; PageError if the port is not available."""
    made = site(root)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            """Send a file of the site; status 404 for any other path. HEAD gets only the header."""
            name = self.path.partition("?")[0].lstrip("/") or FILES["en"]
            data = made.get(name, b"There is no such page.")
            self.send_response(200 if name in made else 404)
            kind = "html" if name in made else "plain"
            self.send_header("Content-Type", f"text/{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        do_HEAD = do_GET

        def log_message(self, format: str, *args: Any) -> None:
            """Log nothing."""

    try:
        return Server(("127.0.0.1", port), Handler)
    except (OSError, OverflowError) as error:
        raise PageError(
            f"Port {port} is not available ({one_line(error)}): choose another with --port."
        ) from error
