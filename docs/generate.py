"""Write the generated parts of the README in both languages and of two other pages.

They are lines of the source, and results. `python docs/generate.py` rewrites them, tests hold the
pages to them. The results are what the commands printed: `googlenet bugs --backend B --json >
docs/results/bugs-B.json`, `verify` alike, `bench` as common/page/results.py says, `pytest tests/pitfalls
--backend B --write-results` for the pitfalls; of a training run docs/results/runs/ holds the
`config.json` and `history.jsonl` that it wrote itself.
"""

from __future__ import annotations

import ast
import re
import sys
from functools import partial
from pathlib import Path
from typing import Any

import tabulate as tables
from tabulate import tabulate

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # run from anywhere, installed or not

from backends import FRAMEWORKS  # noqa: E402
from common.bench.report import (  # noqa: E402
    COLUMNS,
    WORKERS,
)
from common.page import (  # noqa: E402
    results,
    words,
)
from common.page.results import TITLES  # noqa: E402
from common.parity.mutations import INJECTED_BUGS  # noqa: E402

tables.WIDE_CHARS_MODE = False  # else the width of Chinese depends on what else is installed
READMES = ("README.md", "README.zh-CN.md")  # by language: 0 English, 1 Chinese


def inception_blocks(language: int) -> str:
    """The four Inception blocks side by side, as an HTML table that GitHub renders."""
    cells = []
    for backend, title in TITLES.items():
        source = (ROOT / "backends" / backend / "googlenet.py").read_text()
        (node,) = [n for n in ast.parse(source).body if getattr(n, "name", "") == "Inception"]
        code = "\n".join(source.splitlines()[node.lineno - 1 : node.end_lineno])
        path = f"backends/{backend}/googlenet.py"
        cells.append(f"<td>\n\n**[{title}]({path})**\n\n```python\n{code}\n```\n\n</td>")
    pairs = ["\n".join(cells[at : at + 2]) for at in range(0, len(cells), 2)]
    rows = [f'<tr valign="top">\n{pair}\n</tr>' for pair in pairs]
    return "<table>\n" + "\n".join(rows) + "\n</table>"


def bug_matrix(language: int) -> str:
    """Bug x first failing check x error, a column for each backend."""
    found = {backend: results.caught(ROOT, backend) for backend in FRAMEWORKS}
    rows = []
    for bug in INJECTED_BUGS.values():
        what = words.BUGS[bug.name] if language else bug.what
        cells = [_caught(found[backend][bug.name], language) for backend in FRAMEWORKS]
        rows.append([f"`{bug.name}`", what, *cells])
    heads = (said("bug", language), said("what", language), *TITLES.values())
    return tabulate(rows, heads, tablefmt="github")


def _caught(row: dict, language: int) -> str:
    if "check" not in row:
        return said("escaped", language)
    check = words.CHECKS[row["check"]] if language else row["check"]
    if row["error"] is not None:
        return f"{check}, {row['error']:.0e}"
    return f"{check}, {said('refused', language)}" if "Error" in row["where"] else check


def said(word: str, language: int) -> str:
    """A word as the page says it."""
    return words.WORDS[word][language]


def shapes_alone(language: int) -> str:
    """How many of the bugs a comparison of shapes would have found."""
    caught = [row for row in results.caught(ROOT, "torch").values() if row["check"] == "shapes"]
    return said("bugs_shapes", language).format(len(caught), len(INJECTED_BUGS))


def parity(language: int) -> str:
    """The worst error of every check that allows one, over all specs and sizes."""
    rows = {}
    for backend, title in TITLES.items():
        for report in results.verified(ROOT, backend):
            for check in report.checks:
                if check.error is not None and check.tolerance > 0:
                    row = rows.setdefault((report.dtype, check.name), {})
                    row[title] = max(row.get(title, 0.0), check.error)
    longest = max((report.checks for report in results.verified(ROOT, "torch")), key=len)
    names = [check.name for check in longest]
    order = sorted(rows, key=lambda key: (key[0] == "float32", names.index(key[1])))
    table = [
        [
            key[0],
            words.CHECKS[key[1]] if language else key[1],
            *(f"{rows[key][title]:.0e}" for title in TITLES.values()),
        ]
        for key in order
    ]
    return tabulate(table, ("dtype", said("check", language), *TITLES.values()), tablefmt="github")


def versions(language: int) -> str:
    """The versions that the results come from."""
    found = ", ".join(f"{TITLES[b]} {results.verified(ROOT, b)[0].version}" for b in FRAMEWORKS)
    chinese = f"测量所用版本：{found}，两个 CPU 核。"
    return chinese if language else f"Measured with {found} on two CPU cores."


def training(language: int) -> str:
    """Our runs, from what they wrote themselves, under the published ones."""
    found, wrong = results.runs(ROOT)
    if wrong:
        raise wrong[0]
    heads = ["recipe", "run", "images x epochs", "loss", "train acc", "test acc", "examples/s"]
    rows = results.training_rows(found)
    if language:
        named = ("amount", "final_loss", "train_accuracy", "test_accuracy", "speed")
        heads = [words.WORDS[word][1] for word in ("recipe", "run", *named)]
        rows = [(words.run_in_chinese(a), words.run_in_chinese(b), *rest) for a, b, *rest in rows]
    return tabulate(rows, heads, tablefmt="github", missingval="-")


def generate(text: str, language: int = 0) -> str:
    """A README with every marked part made anew."""
    for part in (inception_blocks, bug_matrix, shapes_alone, parity, versions, training):
        begin, end = (f"<!-- {word} {part.__name__} -->" for word in ("begin", "end"))
        head, rest = text.split(begin)
        text = f"{head}{begin}\n{part(language)}\n{end}{rest.split(end)[1]}"
    return text


#: a link to a line of the source: its code as the text, and whose code it is in quotes
LINK = re.compile(r'(\[`([^`]+)`\]\((\.\./[\w./]+\.py))(?:#L\d+)? "([\w.]+)"\)')
FIGURES = re.compile(r"(<!-- begin figures ([\w-]+) -->\n).*?(<!-- end figures -->)", re.DOTALL)


def guide(text: str) -> str:
    """The guide to porting with the number of every line that it links to, and every figure."""

    def link(match: re.Match) -> str:
        start, code, path, owner = match.groups()
        return f'{start}#L{line(path.removeprefix("../"), owner, code)} "{owner}")'

    def table(match: re.Match) -> str:
        return f"{match[1]}{figures(match[2])}\n{match[3]}"

    return LINK.sub(link, FIGURES.sub(table, text))


def line(path: str, owner: str, code: str) -> int:
    """The number of the first line of a file at which the code begins.

    `owner` is the function, class or method that it stands in, or `module`; LookupError if none.
    """
    source = (ROOT / path).read_text()
    node: Any = ast.parse(source)
    if owner == "module":
        first, last = 1, len(source.splitlines())
    else:
        for name in owner.split("."):
            found = [inner for inner in node.body if getattr(inner, "name", "") == name]
            if not found:
                raise LookupError(f"docs/porting.md: there is no {owner} in {path}.")
            node = found[0]
        first, last = node.lineno, node.end_lineno
    text, numbers = "", []  # without blanks and line ends, where a formatter may break a call
    for number, row in enumerate(source.splitlines()[first - 1 : last], first):
        text += "".join(row.split())
        numbers += [number] * (len(text) - len(numbers))
    at = text.find("".join(code.split()))
    if at >= 0:
        return numbers[at]
    raise LookupError(f"docs/porting.md: there is no line `{code}` in {owner} of {path}.")


def pitfalls(backend: str) -> dict[str, tuple[str, str]]:
    """The file and the name of the test of every pitfall that shows in a framework, by its name."""
    found = {}
    for path in (f"tests/pitfalls/test_{name}.py" for name in ("every", backend)):
        for node in ast.parse((ROOT / path).read_text()).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                found[node.name.removeprefix("test_").replace("_", "-")] = (path, node.name)
    return found


def figures(pitfall: str) -> str:
    """How far each framework in which the pitfall shows is off without the fix and with it."""
    rows = []
    for backend, title in TITLES.items():
        measured = results.pitfalls(ROOT, backend).get(pitfall)
        if measured:
            path, test = pitfalls(backend)[pitfall]
            where = line(path, test, f"def {test}(")
            cells = (f"{error:.2g}" for error in measured)
            rows.append([title, *cells, f"[`{test}`](../{path}#L{where})"])
    heads = ("", "without", "with the fix", "test")
    return tabulate(rows, heads, tablefmt="github", disable_numparse=True)


#: what the cost was measured against: the kind of results, which is the row's field as well
SWEEPS = {"size": "image size", "batch_size": "batch size", "threads": "threads"}
OPERATORS = 8  # of a profile that are shown


def benchmarks(text: str) -> str:
    """The benchmarks' page with every table made anew."""
    parts = {"speeds": table_of_speeds, "profiles": tables_of_profiles}
    parts["peers"] = partial(table_of_speeds, "peer")
    parts["scaling"] = partial(table_of_speeds, "workers", "scaling", WORKERS)
    parts |= {f"sweep {field}": partial(table_of_sweep, field) for field in SWEEPS}
    for name, part in parts.items():
        begin, end = (f"<!-- {word} {name} -->" for word in ("begin", "end"))
        head, rest = text.split(begin)
        try:
            table = part()
        except results.Unusable as error:
            if error.why != "missing":
                raise
            table = "Not measured yet."
        text = f"{head}{begin}\n{table}\n{end}{rest.split(end)[1]}"
    return text


def table_of_speeds(kind: str = "bench", key: str = "rows", columns: dict = COLUMNS) -> str:
    """Every row of a kind of results, a table for each machine."""
    parts = []
    for machine, rows in results.speeds(ROOT, kind, key):
        same = {(row["batch_size"], row["size"], row["device"]) for row in rows}
        setting = "; ".join(f"batch {b} at {s} pixels on {d}" for b, s, d in sorted(same))
        table = [
            [f"{TITLES[row['backend']]} {row['version']}", *(of(row) for of in columns.values())]
            for row in rows
        ]
        heads = ("framework", *columns)
        parts.append(f"{machine}; {setting}:\n\n{tabulate(table, heads, tablefmt='github')}")
    return "\n\n".join(parts)


def table_of_sweep(field: str) -> str:
    """Examples a second of (a) and of (c) and their ratio, a column for each framework."""
    parts = []
    for machine, rows in results.speeds(ROOT, field):
        names = [name for name in TITLES if name in {row["backend"] for row in rows}]
        rows = [row for row in rows if set("ac") & set(row["role"])]
        found = {(row["backend"], row[field], row["role"][-1]): row for row in rows}
        table = []
        for value in sorted({row[field] for row in rows}):
            cells = []
            for name in names:
                book, own = (found.get((name, value, role)) for role in "ac")
                cells.append(
                    f"{book['median']} to {own['median']}, {own['ratio']}x" if book and own else ""
                )
            table.append([value, *cells])
        kept = {(row["batch_size"], row["size"], row["threads"]) for row in rows}
        batches, sizes, counts = (sorted({*each}, key=str) for each in zip(*kept, strict=True))
        rest = {"batch_size": ("batch", batches), "size": ("image size", sizes)}
        rest |= {"threads": ("threads", [n for n in counts if n])}
        said = "; ".join(
            f"{word} {', '.join(map(str, values))}"
            for other, (word, values) in rest.items()
            if other != field and values
        )
        heads = (SWEEPS[field], *(TITLES[name] for name in names))
        parts.append(f"{machine}; {said}:\n\n{tabulate(table, heads, tablefmt='github')}")
    return "\n\n".join(parts)


def tables_of_profiles() -> str:
    """The operators that take most of a step, before and after."""
    parts = []
    for machine, profiles in results.speeds(ROOT, "profile", "profiles"):
        parts.append(f"{machine}:")
        for each in profiles:
            rows = [
                (f"`{row['name'][:60]}`", f"{row['seconds'] * 1e3:.1f}", f"{row['share']:.1%}")
                for row in each["operators"][:OPERATORS]
            ]
            step, floor = each["step"], each["floor"]
            parts.append(
                f"**{TITLES[each['backend']]}, {each['loop']}**, {each['precision']}, batch "
                f"{each['batch_size']} at {each['size']} pixels on {each['device']}: a step takes "
                f"{step * 1e3:.0f} ms, its multiply-adds {floor * 1e3:.0f} ms at the measured peak "
                f"({floor / step:.1%})."
            )
            heads = ("operator", "ms a step", "of all")
            parts.append(tabulate(rows, heads, tablefmt="github", disable_numparse=True))
    return "\n\n".join(parts)


if __name__ == "__main__":
    benchmarks_page = ROOT / "benchmarks" / "README.md"
    benchmarks_page.write_text(benchmarks(benchmarks_page.read_text()))
    guide_page = ROOT / "docs" / "porting.md"
    guide_page.write_text(guide(guide_page.read_text()))
    for index, name in enumerate(READMES):
        readme = ROOT / name
        readme.write_text(generate(readme.read_text(), index))
