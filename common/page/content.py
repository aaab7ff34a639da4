"""What the template shows, in one language: code, figures and words, ready to print.

Long because every part of the page has its method here.

Code is cut from the backends' source. Figures come from docs/results. Words come from the tables of
docs/reference.md and its Chinese version. A results file that is missing, damaged or of another
version leaves a note in its place. A name that the source does not have is an error.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

from markupsafe import Markup

from common.check.mistakes import MISTAKES
from common.errors import PageError
from common.page import align, drawing, manuals, mistakes, results, source
from common.page.drawing import DRAWN as SPECS
from common.page.guide import DOCUMENTS, ENDINGS, guide_titles
from common.page.markup import inline, markdown_table
from common.page.results import TITLES, Unusable
from common.page.topics import CALLS, CODE_FILES, PARTS, TOPICS, WITHOUT, Text, Topic
from common.page.words import BUGS as BUGS_ZH
from common.page.words import CHECKS, LANGUAGES, PITFALLS, SPEED_HEADS, WORDS, run_in_chinese
from common.parity.mutations import INJECTED_BUGS
from common.spec import D2L

REFERENCES = {"en": "docs/reference.md", "zh-CN": "docs/reference.zh.md"}

#: the command that writes a results file, by the beginning of the file's name
COMMANDS = {
    "verify-": "googlenet verify --backend {0} --json > docs/results/verify-{0}.json",
    "same-padding-": "googlenet verify --backend {0} --inject same-padding --json"
    " > docs/results/same-padding-{0}.json",
    "bugs-": "googlenet bugs --backend {0} --json > docs/results/bugs-{0}.json",
}

#: fields of a benchmark's row that only benchmarks/README.md shows
LEFT_OUT = {
    *("role", "spec", "threads", "lowest", "highest", "peak", "share", "memory", "device_memory"),
    *("start", "compile", "repaid", "real", "real_share", "wait"),
    *("bandwidth", "roofline"),
}

#: the words that the page's script uses
SCRIPT_WORDS = (
    *("copied", "copy", "moved", "too_small", "bad_size", "search_found", "search_none"),
    *("shape", "parameters", "multiply_adds", "share", "kind_topic", "kind_pitfall", "kind_word"),
    *("kind_bug", "open_all", "close_all"),
)

Found = TypeVar("Found")


class Page:
    """What the template shows, in one language."""

    def __init__(self, language: str, root: Path) -> None:
        self.index, self.root = LANGUAGES.index(language), root
        self.reference, self.ending = REFERENCES[language], ENDINGS[language]
        self.guide = guide_titles(root)
        self.pitfalls = {
            name: self.usable(partial(results.pitfalls, root, name)) for name in TITLES
        }
        self.topics = [self.topic(topic) for topic in TOPICS]
        self.specs = {name: drawing.stages(spec) for name, spec in SPECS.items()}
        self.default = D2L.name

    def pick(self, text: Text) -> Markup:
        """A text in the page's language, code in backticks marked."""
        return inline(text[self.index])

    def say(self, key: str, *values: object) -> Markup:
        """A text of the page, with its values filled in."""
        return inline(WORDS[key][self.index].format(*values))

    def check_name(self, name: str) -> str:
        """The name of a check in the page's language."""
        return name if self.index == 0 else CHECKS.get(name, name)

    def usable(self, reader: Callable[[], Found]) -> Found | Unusable:
        """The reader's result, or what is wrong with its file."""
        try:
            return reader()
        except Unusable as error:
            return error

    def note(self, wrong: Unusable) -> Markup:
        """The note in place of a figure that cannot be shown."""
        text = self.say(f"note_{wrong.why}", wrong.path.relative_to(self.root).as_posix())
        for begin, command in COMMANDS.items():
            if wrong.path.name.startswith(begin):
                backend = wrong.path.stem.removeprefix(begin)
                text += self.say("note_command", command.format(backend))
        return text

    def split(self, reader: Callable[[Path, str], Found]) -> tuple[dict[str, Found], list[Markup]]:
        """The result for each backend, and a note for each backend without one."""
        found, notes = {}, []
        for name in TITLES:
            result = self.usable(partial(reader, self.root, name))
            if isinstance(result, Unusable):
                notes.append(self.note(result))
            else:
                found[name] = result
        return found, notes

    # ---- idioms

    def file(self, backend: str, name: str) -> Path:
        """A file of a backend."""
        return self.root / "backends" / backend / name

    def snippet(self, topic: Topic, backend: str, names: list[str]) -> tuple[str, list[str]]:
        """The path of a topic's file, and the lines at its addresses with blanks round blocks."""
        path, lines = self.file(backend, topic.file), list[str]()
        before = False
        for name in names:
            block = source.is_block(path, name)
            lines += [""] * bool(lines and (block or before)) + source.cut(path, name)
            before = block
        return f"backends/{backend}/{topic.file}", lines

    def topic(self, topic: Topic) -> SimpleNamespace:
        """The columns of a topic with aligned lines, links to their files, and the pitfalls."""
        has = {backend: topic.addresses(backend) for backend in TITLES}
        shared = [name for name in topic.names if all(name in names for names in has.values())]
        parts = []
        for address in shared:
            code = {backend: self.snippet(topic, backend, [address]) for backend in TITLES}
            block = source.is_block(self.file("torch", topic.file), address)
            parts.append((align.align(code), block))
        own = {b: [name for name in names if name not in shared] for b, names in has.items()}
        if any(own.values()):  # what not all frameworks have is one part, so that no column waits
            code = {backend: self.snippet(topic, backend, own[backend]) for backend in TITLES}
            parts.append((align.align(code), True))
        columns = align.stack(parts)
        return SimpleNamespace(
            id=topic.id,
            title=topic.title,
            about=topic.about,
            columns=columns,
            rows=len(columns[0].html),
            listings={backend: self.listings(topic, backend, has[backend]) for backend in TITLES},
            pitfalls=self.pitfall_rows(topic.pitfalls),
        )

    def listings(self, topic: Topic, backend: str, names: list[str]) -> list[tuple[int, str]]:
        """The first line of each piece of code, and the address of that line in the site."""
        path = self.file(backend, topic.file)
        lines = [source.first_line(path, name) for name in names]
        return [(line, source.listing(f"backends/{backend}/{topic.file}", line)) for line in lines]

    def pitfall_rows(self, ids: Iterable[str]) -> list[SimpleNamespace]:
        """Those of the pitfalls that were measured: the title, and the figures by backend."""
        chinese = PITFALLS if self.index else {}
        rows = []
        for name in ids:
            figures = {
                backend: found[name]
                for backend, found in self.pitfalls.items()
                if not isinstance(found, Unusable) and name in found
            }
            if figures:
                page, title = self.guide.get(name, ("index", name))
                rows.append(
                    SimpleNamespace(
                        id=name,
                        href=f"{DOCUMENTS[f'docs/porting/{page}{self.ending}']}#{name}",
                        title=chinese.get(name) or title,
                        language=LANGUAGES[name in chinese],
                        figures=figures,
                    )
                )
        return rows

    def pitfalls_elsewhere(self) -> list[SimpleNamespace]:
        """The measured pitfalls that no topic names."""
        placed = {name for topic in TOPICS for name in topic.pitfalls}
        measured = [found for found in self.pitfalls.values() if not isinstance(found, Unusable)]
        names = dict.fromkeys(name for found in measured for name in found)
        return self.pitfall_rows(name for name in names if name not in placed)

    def mistakes(self) -> list[SimpleNamespace]:
        """The mistakes that `googlenet check` names: what it says, and a wrong line of each."""
        rows = []
        for name, mistake in MISTAKES.items():
            document, _, anchor = mistake.link.partition("#")
            own = document.removesuffix(".md") + self.ending
            rows.append(
                SimpleNamespace(
                    id=name,
                    href=f"{DOCUMENTS[own]}#{anchor}",
                    text=mistakes.sentence(name, self.index),
                    lines=mistakes.lines(name),
                )
            )
        return rows

    def pitfall_notes(self) -> list[Markup]:
        """Notes on the results of the pitfalls, and on the guide that names them."""
        notes = [self.note(each) for each in self.pitfalls.values() if isinstance(each, Unusable)]
        if not self.guide:
            notes.insert(0, self.note(Unusable("missing", self.root / "docs" / "porting")))
        return notes

    # ---- picture

    def picture(self) -> SimpleNamespace:
        """The error of every stage, with and without d2l's TensorFlow padding."""
        spec, size = D2L.name, D2L.input[1]

        def ours(root: Path, backend: str) -> dict[str, float]:
            reports = results.verified(root, backend)
            mine = [r for r in reports if (r.spec, r.size, r.dtype) == (spec, size, "float64")]
            return results.stages_of(mine, root / "docs" / "results" / f"verify-{backend}.json")

        def bug(root: Path, backend: str) -> dict[str, float]:
            path = root / "docs" / "results" / f"same-padding-{backend}.json"
            return results.stages_of([results.injected(root, backend)], path)

        injected, notes = self.split(bug)
        clean, more = self.split(ours)
        names = results.stage_names()
        x = drawing.Axis(0, len(names) - 1, 84, 586)
        y = drawing.Axis(1e-17, 10, 304, 16, log=True)
        series = {
            which: drawing.chart_of(
                [
                    (name, [(at, errors[stage]) for at, stage in enumerate(names)])
                    for name, errors in found.items()
                ],
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
        """The bug matrix, and how many bugs a comparison of shapes finds."""
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
            self.say(
                "note_behind", f"docs/results/bugs-{name}.json", len(INJECTED_BUGS) - len(rows)
            )
            for name, rows in found.items()
            if len(rows) < len(INJECTED_BUGS)
        ]
        first = next(iter(found.values()), {})
        shapes = [row for row in first.values() if row.get("check") == "shapes"]
        caught = [row for rows in found.values() for row in rows.values() if "check" in row]
        return SimpleNamespace(
            rows=rows,
            backends=list(found),
            notes=notes,
            shapes=len(shapes),
            caught=len(caught),
            injected=sum(map(len, found.values())),
            compared=len(first),
        )

    # ---- network

    def parts(self) -> dict[str, dict[str, str]]:
        """For each part of the drawing, the code that builds it in each backend."""
        return {
            kind: {
                name: "\n".join(source.cut(self.file(name, "googlenet.py"), address))
                for name in TITLES
            }
            for kind, address in PARTS.items()
        }

    def highlight(self, code: str) -> Markup:
        """Code in colours."""
        (column,) = align.align({"": ("", code.splitlines())})
        return Markup("\n").join(line for line in column.html if line is not None)

    def script_data(self) -> Markup:
        """The data of the page's script, as JSON that cannot close its HTML element."""
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
        """Every check of every spec: the worst error over its sizes, and the tolerance.

        The error is None where a failed check has no number: a wrong shape, NaN, an exception.
        """
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
                    known = worst is not None and check.error is not None
                    error = max(worst, check.error) if known else None
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
        """Our runs: one chart for each recipe, and rows below the published results."""
        found, wrong = results.runs(self.root)
        charts: dict[tuple[str, str, int], list[results.Run]] = {}
        for run in found:
            recipe = run.config.recipe
            charts.setdefault((recipe.name, recipe.spec, recipe.size), []).append(run)
        say = run_in_chinese if self.index else str
        rows = [
            (*(inline(say(text)) for text in row[:2]), row[2].replace("x", "×"), *row[3:])
            for row in results.training_rows(found)
        ]
        return SimpleNamespace(
            charts=[self.curves(key, runs) for key, runs in charts.items()],
            rows=rows,
            published=len(results.PUBLISHED),
            notes=[self.note(each) for each in wrong],
        )

    def curves(self, key: tuple[str, str, int], runs: list[results.Run]) -> SimpleNamespace:
        """Training loss and test accuracy of runs by the same recipe."""
        last = max(len(run.epochs) for run in runs)
        x = drawing.Axis(0, last, 48, 470)
        losses, accuracies = [], []
        for run in runs:
            steps = [loss for epoch in run.epochs for loss in epoch.losses]
            name = run.epochs[-1].backend
            losses.append((name, drawing.curve(steps, len(run.epochs))))
            points = [(float(e.number), e.test_accuracy) for e in run.epochs]
            accuracies.append((name, points))
        panels = []
        for word, series in (("loss", losses), ("accuracy", accuracies)):
            values = [value for _, points in series for _, value in points]
            low, high = min(values), max(values)
            margin = 0.05 * (high - low) or 0.05
            y = drawing.Axis(low - margin, high + margin, 220, 12)
            marks = drawing.ticks(y.low, y.high)
            panels.append((word, drawing.chart_of(series, (x, y)), x, y, marks))
        return SimpleNamespace(
            name=f"`{key[0]}`, `{key[1]}`, {key[2]} × {key[2]}",
            panels=panels,
            epochs=range(last + 1),
            backends=[name for name in TITLES if name in dict(losses)],
        )

    def speeds(self) -> SimpleNamespace:
        """The speed tables: the machine, the heads and the rows of each."""
        found = self.usable(partial(results.speeds, self.root))
        if isinstance(found, Unusable):
            return SimpleNamespace(tables=[], notes=[self.note(found)])
        tables = []
        for machine, rows in found:
            fields = [field for field in rows[0] if field not in LEFT_OUT]
            heads = [SPEED_HEADS.get(field, (field, field))[self.index] for field in fields]
            named = [row | {"backend": TITLES.get(row["backend"], row["backend"])} for row in rows]
            tables.append((machine, heads, [[row[field] for field in fields] for row in named]))
        return SimpleNamespace(tables=tables, notes=[])

    # ---- words

    def names(self) -> SimpleNamespace:
        """The reference's table of words, in the page's language."""
        path = self.root / self.reference
        try:
            rows = markdown_table(path.read_text(), "d2l")
        except (OSError, UnicodeDecodeError, ValueError):
            why = "damaged" if path.exists() else "missing"
            return SimpleNamespace(rows=[], notes=[self.note(Unusable(why, path))])
        return SimpleNamespace(rows=[list(map(inline, row)) for row in rows], notes=[])

    def calls(self) -> list[tuple[Markup, list[SimpleNamespace]]]:
        """Each task, and each framework's call for it."""
        return [
            (self.pick(call.what), [self.call(call.what[0], getattr(call, b), b) for b in TITLES])
            for call in CALLS
        ]

    def call(self, what: str, name: str | None, backend: str) -> SimpleNamespace:
        """The full name with its manual and its place, or the reason why there is none.

        PageError if the backend does not use the name.
        """
        if name is None:
            reason = WITHOUT.get((what, backend)) or WITHOUT[what, ""]
            return SimpleNamespace(name="", reason=self.pick(reason))
        for file in CODE_FILES:
            if used := source.where_used(self.file(backend, file), name):
                return SimpleNamespace(
                    name=used[1],
                    place=f"{file}:{used[0]}",
                    href=source.listing(f"backends/{backend}/{file}", used[0]),
                    manual=manuals.address(backend, used[1], LANGUAGES[self.index]),
                )
        raise PageError(
            f"backends/{backend} does not use `{name}`, which the page shows for {what!r}: correct "
            "the name in common/page/topics.py."
        )
