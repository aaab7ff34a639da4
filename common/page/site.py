"""Build, write and serve the page: one file for each language that needs nothing else."""

from __future__ import annotations

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from common.errors import BackendError, PageError, one_line
from common.files import ROOT, write_whole
from common.page.results import TITLES
from common.page.words import LANGUAGES

try:
    import jinja2
    from markupsafe import Markup

    from common.page.content import Page
    from common.page.markup import inline, science, shape_text
except ImportError as error:
    raise BackendError("The page needs Jinja2 and Pygments: `pip install -e '.[page]'`.") from error

FILES = {"en": "index.html", "zh-CN": "index.zh-CN.html"}


def render(language: str, root: Path = ROOT) -> str:
    """The page in a language, as one HTML file; PageError if code that it shows is missing."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = Page(language, root)
    environment.globals.update(say=page.say, pick=page.pick)
    environment.filters.update(
        science=science,
        inline=inline,
        shape=shape_text,
        check_name=page.check_name,
        count="{:,}".format,
    )
    here = Path(__file__).parent
    return environment.get_template("page.html").render(
        page=page,
        language=language,
        other=next(name for name in LANGUAGES if name != language),
        files=FILES,
        titles=TITLES,
        css=Markup((here / "page.css").read_text()),
        script=Markup((here / "page.js").read_text()),
    )


def site(root: Path = ROOT) -> dict[str, bytes]:
    """The content of every file of the site, by the file's name."""
    return {FILES[language]: render(language, root).encode() for language in LANGUAGES}


def write(out: Path, root: Path = ROOT) -> list[Path]:
    """Write the site into a folder and return the paths; PageError if that fails."""
    made = site(root)
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, data in made.items():
            write_whole(out / name, data)
    except OSError as error:
        raise PageError(f"The page cannot be written to {out}: {one_line(error)}.") from error
    return [out / name for name in made]


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
