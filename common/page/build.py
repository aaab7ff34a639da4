"""Build, write and serve the page: one self-contained site in two languages.

Code is cut from the backends' source, figures from docs/results, words from README.md and its
Chinese twin: nothing is typed twice. A results file that is missing, damaged or of another version
leaves a note in its place; a name that the source has no more is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

from common.errors import BackendError, PageError, one_line
from common.files import ROOT, write_whole
from common.page import results
from common.page.results import TITLES, Unusable
from common.parity.mutations import INJECTED_BUGS
from common.parity.report import Report
from common.spec import D2L, SPECS

try:
    import jinja2
    from markupsafe import Markup

    from common.page import drawing, source
except ImportError as error:
    raise BackendError("The page needs Jinja2 and Pygments: `pip install -e '.[page]'`.") from error
from common.page.topics import CALLS, TOPICS, WITHOUT, Text, Topic
from common.page.words import BUGS as BUGS_ZH
from common.page.words import CHECKS, LANGUAGES, PITFALLS, WORDS, run_in_chinese

FILES = {"en": "index.html", "zh-CN": "index.zh-CN.html"}
READMES = {"en": "README.md", "zh-CN": "README.zh-CN.md"}
CODE_FILES = ("googlenet.py", "train.py", "optimizers.py", "weights.py")

#: what makes a results file anew, by the beginning of its name
COMMANDS = {
    "verify-": "googlenet verify --backend {0} --json > docs/results/verify-{0}.json",
    "same-padding-": "googlenet verify --backend {0} --inject same-padding --json"
    " > docs/results/same-padding-{0}.json",
    "bugs-": "googlenet bugs --backend {0} --json > docs/results/bugs-{0}.json",
}

#: of a benchmark's rows: what benchmarks/README.md alone shows
LEFT_OUT = {
    *("role", "spec", "threads", "lowest", "highest", "peak", "share", "memory", "device_memory"),
    *("start", "compile", "repaid", "real", "real_share", "wait"),
}

#: addresses of the lines that build a part of the drawing, in googlenet.py
PARTS = {
    **{f"stage{number}": f"GoogLeNet.__init__.stage{number}" for number in range(1, 6)},
    "head": "GoogLeNet.__init__.head",
    "Conv": "Conv.__init__.conv",
    "MaxPool": "layer.MaxPool",
    "Inception": "layer.Inception",
    "GlobalAvgPool": "layer.GlobalAvgPool",
    "AvgPool": "layer.AvgPool",
    "AdaptiveAvgPool": "layer.AdaptiveAvgPool",
    "Affine": "layer.Affine",
    "auxiliary": "GoogLeNet.__init__.auxiliary",
    "hidden": "Auxiliary.__init__.hidden",
    **{
        branch: f"Inception.__init__.{branch}"
        for branch in ("branch1x1", "branch3x3", "branch5x5", "branch_pool")
    },
}

#: the words that the script says
SCRIPT_WORDS = (
    *("copied", "copy", "moved", "too_small", "bad_size", "search_found"),
    *("shape", "parameters", "multiply_adds", "share"),
)

Found = TypeVar("Found")


def render(language: str, root: Path = ROOT) -> str:
    """The page in a language, as one HTML file; PageError where the source lacks what it shows."""
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
    """Every file of the site by its name."""
    return {FILES[language]: render(language, root).encode() for language in LANGUAGES}


def write(out: Path, root: Path = ROOT) -> list[Path]:
    """Write the site into a folder; PageError where that cannot be done."""
    made = site(root)
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, data in made.items():
            write_whole(out / name, data)
    except OSError as error:
        raise PageError(f"The page cannot be written to {out}: {one_line(error)}.") from error
    return [out / name for name in made]


def server(port: int, root: Path = ROOT) -> ThreadingHTTPServer:
    """A server of the site on this machine alone; PageError where the port cannot be had."""
    made = site(root)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            """Send a file of the site, and nothing else."""
            name = self.path.partition("?")[0].lstrip("/") or FILES["en"]
            data = made.get(name, b"There is no such page.")
            self.send_response(200 if name in made else 404)
            kind = "html" if name in made else "plain"
            self.send_header("Content-Type", f"text/{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing: a line a request helps nobody here."""

    try:
        return ThreadingHTTPServer(("127.0.0.1", port), Handler)
    except (OSError, OverflowError) as error:
        raise PageError(
            f"Port {port} cannot be had ({one_line(error)}): choose another with --port."
        ) from error


class Page:
    """What the template shows, in one language."""

    def __init__(self, language: str, root: Path) -> None:
        self.index, self.root, self.readme = LANGUAGES.index(language), root, READMES[language]
        self.guide = guide_titles(root / "docs" / "porting.md")
        self.pitfalls = {name: self.usable(partial(results.pitfalls, root, name)) for name in TITLES}
        self.topics = [self.topic(topic) for topic in TOPICS]
        self.specs = {name: drawing.stages(spec) for name, spec in SPECS.items()}
        self.default = D2L.name

    def pick(self, text: Text) -> Markup:
        """A text in the page's language, code in backticks marked."""
        return inline(text[self.index])

    def say(self, key: str, *values: object) -> Markup:
        """A word of the page, with values filled in."""
        return inline(WORDS[key][self.index].format(*values))

    def check_name(self, name: str) -> str:
        """What a check is called."""
        return name if self.index == 0 else CHECKS.get(name, name)

    def usable(self, reader: Callable[[], Found]) -> Found | Unusable:
        """What the reader finds, or what is wrong with its file."""
        try:
            return reader()
        except Unusable as error:
            return error

    def note(self, wrong: Unusable) -> Markup:
        """What stands in the place of what cannot be shown."""
        text = self.say(f"note_{wrong.why}", wrong.path.relative_to(self.root).as_posix())
        for begin, command in COMMANDS.items():
            if wrong.path.name.startswith(begin):
                backend = wrong.path.stem.removeprefix(begin)
                text += self.say("note_command", command.format(backend))
        return text

    def split(self, reader: Callable[[Path, str], Found]) -> tuple[dict[str, Found], list[Markup]]:
        """What is found for each backend, and the notes on the others."""
        found, notes = {}, []
        for name in TITLES:
            one = self.usable(partial(reader, self.root, name))
            if isinstance(one, Unusable):
                notes.append(self.note(one))
            else:
                found[name] = one
        return found, notes

    # ---- idioms

    def file(self, backend: str, name: str) -> Path:
        """A file of a backend."""
        return self.root / "backends" / backend / name

    def addresses(self, topic: Topic, backend: str) -> list[str]:
        """What a topic shows of a backend."""
        kept = [name for name in topic.names if name not in topic.less.get(backend, ())]
        return [*kept, *topic.also.get(backend, ())]

    def topic(self, topic: Topic) -> SimpleNamespace:
        """A topic's columns, lines aligned, and the pitfalls of each."""
        has = {backend: self.addresses(topic, backend) for backend in TITLES}
        parts = []
        for address in dict.fromkeys(name for names in has.values() for name in names):
            paths = {b: self.file(b, topic.file) for b in TITLES if address in has[b]}
            snippets = {
                backend: (
                    f"backends/{backend}/{topic.file}",
                    source.cut(paths[backend], address) if backend in paths else [],
                )
                for backend in TITLES
            }
            block = source.is_block(next(iter(paths.values())), address)
            parts.append((source.align(snippets), block))
        pitfalls = {backend: self.pitfall_rows(topic.pitfalls, backend) for backend in TITLES}
        return SimpleNamespace(
            id=topic.id,
            title=topic.title,
            about=topic.about,
            columns=source.stack(parts),
            pitfalls=pitfalls,
        )

    def pitfall_rows(self, ids: tuple[str, ...], backend: str) -> list[SimpleNamespace]:
        """The measured pitfalls of a backend among these."""
        found = self.pitfalls[backend]
        if isinstance(found, Unusable):
            return []
        chinese = PITFALLS if self.index else {}
        return [
            SimpleNamespace(
                id=name,
                title=chinese.get(name) or self.guide.get(name, name),
                language=LANGUAGES[name in chinese],
                without=found[name][0],
                fixed=found[name][1],
            )
            for name in ids
            if name in found
        ]

    def pitfalls_elsewhere(self) -> dict[str, list[SimpleNamespace]]:
        """The measured pitfalls that no topic names, by backend."""
        placed = {name for topic in TOPICS for name in topic.pitfalls}
        rest = {}
        for backend, found in self.pitfalls.items():
            ids = () if isinstance(found, Unusable) else tuple(n for n in found if n not in placed)
            if ids:
                rest[backend] = self.pitfall_rows(ids, backend)
        return rest

    def pitfall_notes(self) -> list[Markup]:
        """What is wrong with the results of the pitfalls, and with the guide that names them."""
        notes = [self.note(each) for each in self.pitfalls.values() if isinstance(each, Unusable)]
        if not self.guide:
            notes.insert(0, self.note(Unusable("missing", self.root / "docs" / "porting.md")))
        return notes

    # ---- picture

    def picture(self) -> SimpleNamespace:
        """The error of every stage, with d2l's TensorFlow padding injected and without."""
        spec, size = D2L.name, D2L.input[1]

        def ours(root: Path, backend: str) -> dict[str, float]:
            reports = results.verified(root, backend)
            mine = [r for r in reports if (r.spec, r.size, r.dtype) == (spec, size, "float64")]
            return stages_of(mine, root / "docs" / "results" / f"verify-{backend}.json")

        def bug(root: Path, backend: str) -> dict[str, float]:
            path = root / "docs" / "results" / f"same-padding-{backend}.json"
            return stages_of([results.injected(root, backend)], path)

        injected, notes = self.split(bug)
        clean, more = self.split(ours)
        names = stage_names()
        x = drawing.Axis(0, len(names) - 1, 84, 586)
        y = drawing.Axis(1e-17, 10, 304, 16, log=True)
        series = {
            which: drawing.chart_of(
                {
                    name: [(at, errors[stage]) for at, stage in enumerate(names)]
                    for name, errors in found.items()
                },
                (x, y),
            )
            for which, found in (("bug", injected), ("ours", clean))
        }
        dots = [
            (which, name, x(at), y(errors[stage]), errors[stage], stage)
            for which, found in (("bug", injected), ("ours", clean))
            for name, errors in found.items()
            for at, stage in enumerate(names)
        ]
        return SimpleNamespace(
            injected=injected,
            clean=clean,
            notes=notes + more,
            names=names,
            x=x,
            y=y,
            series=series,
            dots=dots,
        )

    def bugs(self) -> SimpleNamespace:
        """The bug matrix, and how many a comparison of shapes would have found."""
        found, notes = self.split(results.caught)
        rows = [
            (
                bug.name,
                inline(bug.what if self.index == 0 else BUGS_ZH.get(bug.name, bug.what)),
                {name: rows.get(bug.name) for name, rows in found.items()},
            )
            for bug in INJECTED_BUGS.values()
        ]
        notes += [
            self.say("note_behind", f"docs/results/bugs-{name}.json", len(INJECTED_BUGS) - len(rows))
            for name, rows in found.items()
            if len(rows) < len(INJECTED_BUGS)
        ]
        first = next(iter(found.values()), {})
        shapes = [row for row in first.values() if row.get("check") == "shapes"]
        right = [row for rows in found.values() for row in rows.values() if "check" in row]
        return SimpleNamespace(
            rows=rows,
            backends=list(found),
            notes=notes,
            shapes=len(shapes),
            caught=len(right),
            injected=sum(map(len, found.values())),
            compared=len(first),
        )

    # ---- network

    def parts(self) -> dict[str, dict[str, str]]:
        """The four lines that build each part of the drawing."""
        return {
            kind: {
                name: "\n".join(source.cut(self.file(name, "googlenet.py"), address))
                for name in TITLES
            }
            for kind, address in PARTS.items()
        }

    def highlight(self, code: str) -> Markup:
        """Code in colours."""
        (column,) = source.align({"": ("", code.splitlines())})
        return Markup("\n").join(line for line in column.html if line is not None)

    def script_data(self) -> Markup:
        """What the script computes with, as JSON that cannot end its element."""
        words = {key: WORDS[key][self.index] for key in SCRIPT_WORDS}
        data = {
            "specs": {name: drawing.data(spec) for name, spec in SPECS.items()},
            "columns": list(TITLES),
            "titles": TITLES,
            "words": words,
        }
        return Markup(json.dumps(data, ensure_ascii=False).replace("<", "\\u003c"))

    # ---- proof

    def parity(self) -> SimpleNamespace:
        """Every check of every spec: the worst error over its sizes, and what it may be."""
        found, notes = self.split(results.verified)
        groups: dict[tuple[str, str], dict[str, Any]] = {}
        for name, reports in found.items():
            for report in reports:
                group = groups.setdefault((report.spec, report.dtype), {"sizes": {}, "checks": {}})
                group["sizes"][report.size] = True
                for check in report.checks:
                    row = group["checks"].setdefault(check.name, {"tolerance": 0.0, "cells": {}})
                    row["tolerance"] = max(row["tolerance"], check.tolerance)
                    worst, passed = row["cells"].get(name, (0.0, True))
                    error = worst if check.error is None else max(worst, check.error)
                    row["cells"][name] = (error, passed and check.passed)
        versions = [f"{TITLES[name]} {reports[0].version}" for name, reports in found.items()]
        forward = [
            check.error
            for reports in found.values()
            for report in reports
            for check in report.checks
            if (check.name, report.dtype) == ("forward", "float64") and check.error is not None
        ]
        return SimpleNamespace(
            groups=list(groups.items()),
            notes=notes,
            versions=", ".join(versions),
            worst=max(forward, default=None),
            axis=drawing.Axis(1e-17, 1, 4, 156, log=True),
        )

    def training(self) -> SimpleNamespace:
        """Our runs: curves by recipe laid over each other, and rows under the published ones."""
        found, wrong = results.runs(self.root)
        together: dict[tuple[str, str, int], list[results.Run]] = {}
        for run in found:
            recipe = run.config.recipe
            together.setdefault((recipe.name, recipe.spec, recipe.size), []).append(run)
        say = run_in_chinese if self.index else str
        rows = [
            (*(inline(say(text)) for text in row[:2]), row[2].replace("x", "×"), *row[3:])
            for row in results.training_rows(found)
        ]
        return SimpleNamespace(
            charts=[self.curves(key, runs) for key, runs in together.items()],
            rows=rows,
            published=len(results.PUBLISHED),
            notes=[self.note(each) for each in wrong],
        )

    def curves(self, key: tuple[str, str, int], runs: list[results.Run]) -> SimpleNamespace:
        """Training loss and test accuracy of runs by the same recipe."""
        last = max(len(run.epochs) for run in runs)
        x = drawing.Axis(0, last, 48, 470)
        losses, accuracies = {}, {}
        for run in runs:
            steps = [loss for epoch in run.epochs for loss in epoch.losses]
            name = run.epochs[-1].backend
            losses[name] = drawing.curve(steps, len(run.epochs))
            accuracies[name] = [(float(e.number), e.test_accuracy) for e in run.epochs]
        panels = []
        for word, series in (("loss", losses), ("accuracy", accuracies)):
            values = [value for points in series.values() for _, value in points]
            low, high = min(values), max(values)
            margin = 0.05 * (high - low) or 0.05
            y = drawing.Axis(low - margin, high + margin, 220, 12)
            marks = drawing.ticks(y.low, y.high)
            panels.append((word, drawing.chart_of(series, (x, y)), x, y, marks))
        return SimpleNamespace(
            name=f"`{key[0]}`, `{key[1]}`, {key[2]} × {key[2]}",
            panels=panels,
            epochs=range(last + 1),
            backends=[name for name in TITLES if name in losses],
        )

    def speeds(self) -> SimpleNamespace:
        """The speed tables with their machines, as soon as somebody measured them."""
        found = self.usable(partial(results.speeds, self.root))
        if isinstance(found, Unusable):
            return SimpleNamespace(tables=[], notes=[self.note(found)])
        tables = [
            (machine, [{k: v for k, v in row.items() if k not in LEFT_OUT} for row in rows])
            for machine, rows in found
        ]
        return SimpleNamespace(tables=tables, notes=[])

    # ---- words

    def names(self) -> SimpleNamespace:
        """The README's table of words, in the page's language."""
        path = self.root / self.readme
        try:
            rows = markdown_table(path.read_text(), "d2l")
        except (OSError, UnicodeDecodeError, ValueError):
            why = "damaged" if path.exists() else "missing"
            return SimpleNamespace(rows=[], notes=[self.note(Unusable(why, path))])
        return SimpleNamespace(rows=[list(map(inline, row)) for row in rows], notes=[])

    def calls(self) -> list[tuple[Markup, list[tuple[str, str, Markup]]]]:
        """What is done, and each framework's full name for it, its place, or why it has none."""
        return [
            (self.pick(call.what), [self.call(call.what[0], getattr(call, b), b) for b in TITLES])
            for call in CALLS
        ]

    def call(self, what: str, name: str | None, backend: str) -> tuple[str, str, Markup]:
        """The full name and its place, or the reason why there is none."""
        if name is None:
            reason = WITHOUT.get((what, backend)) or WITHOUT[what, ""]
            return "", "", self.pick(reason)
        for file in CODE_FILES:
            if used := source.where_used(self.file(backend, file), name):
                return used[1], f"{file}:{used[0]}", Markup("")
        raise PageError(
            f"backends/{backend} uses `{name}` no more, which the page shows for {what!r}: name "
            "what it uses in common/page/topics.py."
        )


def stage_names() -> list[str]:
    """The five stages and the head."""
    return [*(name for name, _ in D2L.stages()), "head"]


def stages_of(reports: list[Report], path: Path) -> dict[str, float]:
    """The error of each stage in the only report; Unusable where it is not known."""
    for report in reports:
        for check in report.checks:
            known = [name for name, error in check.stages.items() if error is not None]
            if check.name == "forward" and known == stage_names():
                return check.stages
    raise Unusable("other", path)


def guide_titles(path: Path) -> dict[str, str]:
    """The heading of each pitfall's section in the guide, by its anchor."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError):
        return {}
    anchored = r'<a id="([^"]+)"></a>\s*(?:#+ *([^\n]+))?|^#+ *([^\n]*?) *<a id="([^"]+)"></a>'
    found = {}
    for before, heading, title, after in re.findall(anchored, text, re.M):
        found[before or after] = heading or title or before or after
    return found


def markdown_table(text: str, head: str) -> list[list[str]]:
    """The cells of the first Markdown table that has a column of that name; ValueError if none."""
    lines = text.splitlines()
    for at, line in enumerate(lines):
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if line.startswith("|") and head in cells and set(lines[at + 1]) <= set("|-: "):
            rows = [cells]
            for each in lines[at + 2 :]:
                if not each.startswith("|"):
                    break
                rows.append([cell.strip() for cell in each.strip().strip("|").split("|")])
            if any(len(row) != len(cells) for row in rows):
                break
            return rows
    raise ValueError(f"no table with a column {head!r}")


def inline(text: str) -> Markup:
    """Text with `code` and **strong** words as HTML."""
    parts = re.split(r"`([^`]+)`", text)
    out = Markup("")
    for index, part in enumerate(parts):
        if index % 2:
            out += Markup("<code>{}</code>").format(part)
        else:
            pieces = part.split("**")
            for at, piece in enumerate(pieces):
                out += (
                    Markup("<strong>{}</strong>").format(piece) if at % 2 else Markup.escape(piece)
                )
    return out


def science(value: float | None) -> str:
    """A number as people write a small error: 4e-15."""
    if value is None:
        return "–"
    mantissa, exponent = f"{value:.0e}".split("e")
    return f"{mantissa}e{int(exponent)}" if abs(int(exponent)) > 3 else f"{value:.2g}"


def shape_text(shape: tuple[int, ...]) -> str:
    """The shape for a batch of N."""
    return "(" + ", ".join(["N", *map(str, shape[1:])]) + ")"
