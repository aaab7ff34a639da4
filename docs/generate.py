"""Write the generated parts of the documents in both languages, and of the benchmarks.

They come from the source and from docs/results. `python docs/generate.py` rewrites them; tests
compare the pages with them. common/page/results.py names the command behind each results file.
`pytest tests/pitfalls --backend B --write-results` writes those of the pitfalls.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import tabulate as tables
from tabulate import tabulate

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # run from anywhere, installed or not
sys.path.insert(0, str(ROOT / "tests" / "mutation"))

import mutants as mutation  # noqa: E402

from backends import FRAMEWORKS  # noqa: E402
from common.bench.report import (  # noqa: E402
    COLUMNS,
    WORKERS,
    cells,
)
from common.page import (  # noqa: E402
    results,
    words,
)
from common.page.guide import GUIDE, guide_titles  # noqa: E402
from common.page.results import TITLES  # noqa: E402
from common.parity.checks import FORWARD  # noqa: E402
from common.parity.mutations import INJECTED_BUGS  # noqa: E402
from common.spec import PEERS  # noqa: E402
from common.spec.summary import peer  # noqa: E402

tables.WIDE_CHARS_MODE = False  # else the width of Chinese depends on installed packages
ENDINGS = (".md", ".zh.md")  # language 0 is English, 1 is Chinese


def inception_blocks(language: int) -> str:
    """The four Inception blocks side by side, as an HTML table that GitHub renders."""
    cells = []
    for backend, title in TITLES.items():
        source = (ROOT / "backends" / backend / "googlenet.py").read_text()
        (node,) = [n for n in ast.parse(source).body if getattr(n, "name", "") == "Inception"]
        code = "\n".join(source.splitlines()[node.lineno - 1 : node.end_lineno])
        path = f"../backends/{backend}/googlenet.py"
        cells.append(f"<td>\n\n**[{title}]({path})**\n\n```python\n{code}\n```\n\n</td>")
    pairs = ["\n".join(cells[at : at + 2]) for at in range(0, len(cells), 2)]
    rows = [f'<tr valign="top">\n{pair}\n</tr>' for pair in pairs]
    return "<table>\n" + "\n".join(rows) + "\n</table>"


def bug_matrix(language: int) -> str:
    """For each bug the first failing check and its error, with a column for each backend."""
    found = {backend: results.caught(ROOT, backend) for backend in FRAMEWORKS}
    rows = []
    for bug in INJECTED_BUGS.values():
        what = words.BUGS[bug.name] if language else bug.what
        cells = [_caught(found[backend][bug.name], language) for backend in FRAMEWORKS]
        rows.append([f"`{bug.name}`", what, *cells])
    heads = (word_of("bug", language), word_of("what", language), *TITLES.values())
    return tabulate(rows, heads, tablefmt="github")


def _caught(row: dict, language: int) -> str:
    if "check" not in row:
        return word_of("escaped", language)
    check = words.CHECKS[row["check"]] if language else row["check"]
    if row["error"] is not None:
        return f"{check}, {row['error']:.0e}"
    return f"{check}, {word_of('refused', language)}" if "Error" in row["where"] else check


def word_of(word: str, language: int) -> str:
    """A text of the page."""
    return words.WORDS[word][language]


def shapes_alone(language: int) -> str:
    """How many of the bugs a comparison of shapes finds."""
    caught = [row for row in results.caught(ROOT, "torch").values() if row.get("check") == "shapes"]
    return word_of("bugs_shapes", language).format(len(caught), len(INJECTED_BUGS))


def parity(language: int) -> str:
    """The worst error of every check that has a tolerance, over all specs and sizes."""
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
    return tabulate(
        table, ("dtype", word_of("check", language), *TITLES.values()), tablefmt="github"
    )


def ordinary(language: int) -> str:
    """What ties do to float32 gradients of ordinary inputs."""
    rows = []
    for backend, title in TITLES.items():
        found = results.ordinary(ROOT, backend)
        tied = [row for row in found if row[0] > FORWARD["float32"]]
        rest = [row[0] for row in found if row not in tied]
        columns = [row[0] for row in tied], [row[1] for row in tied], rest
        worst = (f"{max(column):.0e}" if column else "-" for column in columns)
        rows.append((title, f"{len(tied)} / {len(found)}", *worst))
    heads = (
        ("framework", "seeds with a tie", "largest error", "by length", "without a tie"),
        ("框架", "遇到临界值的种子", "最大误差", "按范数", "没有临界值时"),
    )
    return tabulate(rows, heads[language], tablefmt="github", disable_numparse=True)


def mutants(language: int) -> str:
    """The result of the mutation run, for each part of the source."""
    rows = mutation.table(mutation.known())
    if language:
        chinese = {"the rest": "其余", "all": "合计"}
        rows = [(chinese.get(part, part), *rest) for part, *rest in rows]
    heads = (
        ("part", "tested", "noticed at first", "by a test since", "equivalent", "left", "noticed"),
        ("部分", "已测试", "起初发现", "后来发现", "等价", "未发现", "发现率"),
    )
    return tabulate(rows, heads[language], tablefmt="github")


def versions(language: int) -> str:
    """The versions of the frameworks in the results."""
    found = ", ".join(f"{TITLES[b]} {results.verified(ROOT, b)[0].version}" for b in FRAMEWORKS)
    chinese = f"测量所用版本：{found}，两个 CPU 核。"
    return chinese if language else f"Measured with {found} on two CPU cores."


def training(language: int) -> str:
    """Our training runs below the published ones."""
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


def exercises(language: int) -> str:
    """The rows of the exercise with their runs, where there are some; and networks to compare."""
    found, wrong = results.runs(ROOT, "exercises")
    if found and wrong:
        raise wrong[0]
    rows = results.exercise_rows(found)
    if language:
        rows = [(*row, words.run_in_chinese(amount or "-")) for *row, amount in rows]
    for each in map(peer, PEERS):
        costs = f"{each['parameters']:,}", f"{each['multiply_adds'] / 1e6:.1f} M"
        rows.append((each["name"], *costs, None, None, None))
    heads = (
        ("network", "parameters", "multiply-adds", "smallest image", "test accuracy", "runs"),
        ("网络", "参数量", "乘加次数", "最小图像", "测试准确率", "训练"),
    )
    return tabulate(rows, heads[language], tablefmt="github", missingval="-")


#: the generated parts of each document
PAGES: dict[str, tuple[Callable[[int], str], ...]] = {
    "idioms": (inception_blocks,),
    "proof": (parity, ordinary, versions, bug_matrix, shapes_alone, mutants),
    "training": (training,),
    "family": (exercises,),
}


def pages() -> Iterator[tuple[Path, str]]:
    """Each document with generated parts, and its text with these rewritten."""
    for name, parts in PAGES.items():
        for language, ending in enumerate(ENDINGS):
            path = ROOT / "docs" / f"{name}{ending}"
            yield path, generate(path.read_text(), parts, language)
    for name in GUIDE:
        parts = (pitfall_table,) if name == "index" else ()
        for language, ending in enumerate(ENDINGS):
            path = ROOT / "docs" / "porting" / f"{name}{ending}"
            yield path, guide(generate(path.read_text(), parts, language), language)


def generate(text: str, parts: Sequence[Callable[[int], str]], language: int = 0) -> str:
    """A document with these parts rewritten."""
    for part in parts:
        begin, end = (f"<!-- {word} {part.__name__} -->" for word in ("begin", "end"))
        head, rest = text.split(begin)
        text = f"{head}{begin}\n{part(language)}\n{end}{rest.split(end)[1]}"
    return text


#: a link to a line of the source: the text is its code, the title in quotes is the code's owner
LINK = re.compile(r'(\[`([^`]+)`\]\((?:\.\./)+([\w/]+\.py))(?:#L\d+)? "([\w.]+)"\)')
FIGURES = re.compile(r"(<!-- begin figures ([\w-]+) -->\n).*?(<!-- end figures -->)", re.DOTALL)


def guide(text: str, language: int = 0) -> str:
    """A page of the guide to porting with all its line numbers and figures rewritten."""

    def link(match: re.Match) -> str:
        start, code, path, owner = match.groups()
        return f'{start}#L{line(path, owner, code)} "{owner}")'

    def table(match: re.Match) -> str:
        return f"{match[1]}{figures(match[2], language)}\n{match[3]}"

    return LINK.sub(link, FIGURES.sub(table, text))


def line(path: str, owner: str, code: str) -> int:
    """The number of the line of a file where the code begins.

    `owner` is the function, class or method that contains the code, or `module`. LookupError if the
    owner or the code is not there.
    """
    source = (ROOT / path).read_text()
    node: Any = ast.parse(source)
    if owner == "module":
        first, last = 1, len(source.splitlines())
    else:
        for name in owner.split("."):
            found = [inner for inner in node.body if getattr(inner, "name", "") == name]
            if not found:
                raise LookupError(f"docs/porting: there is no {owner} in {path}.")
            node = found[0]
        first, last = node.lineno, node.end_lineno
    text, numbers = "", []  # without white space, because a formatter may break a call
    for number, row in enumerate(source.splitlines()[first - 1 : last], first):
        text += "".join(row.split())
        numbers += [number] * (len(text) - len(numbers))
    at = text.find("".join(code.split()))
    if at >= 0:
        return numbers[at]
    raise LookupError(f"docs/porting: there is no line `{code}` in {owner} of {path}.")


def pitfalls(backend: str) -> dict[str, tuple[str, str]]:
    """For each pitfall of a framework, the file and the name of its test."""
    found = {}
    for path in (f"tests/pitfalls/test_{name}.py" for name in ("every", backend)):
        for node in ast.parse((ROOT / path).read_text()).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                found[node.name.removeprefix("test_").replace("_", "-")] = (path, node.name)
    return found


def figures(pitfall: str, language: int) -> str:
    """The table of a pitfall: the error in each framework without the fix and with it."""
    rows = []
    for backend, title in TITLES.items():
        measured = results.pitfalls(ROOT, backend).get(pitfall)
        if measured:
            path, test = pitfalls(backend)[pitfall]
            where = line(path, test, f"def {test}(")
            cells = (f"{error:.2g}" for error in measured)
            rows.append([title, *cells, f"[`{test}`](../../{path}#L{where})"])
    heads = (("", "without", "with the fix", "test"), ("", "修正前", "修正后", "测试"))
    return tabulate(rows, heads[language], tablefmt="github", disable_numparse=True)


def pitfall_table(language: int) -> str:
    """Every pitfall of the guide with its error in each framework without the fix."""
    measured = [results.pitfalls(ROOT, backend) for backend in TITLES]
    rows, last = [], ""
    for name, (page, title) in guide_titles(ROOT).items():
        errors = (f"{found[name][0]:.2g}" if name in found else "" for found in measured)
        first = (ROOT / "docs" / "porting" / f"{page}.md").read_text().partition("\n")[0]
        of_page = words.GUIDE[page] if language else first.removeprefix("# ")
        file = f"{page}{ENDINGS[language]}"
        link = f"[{of_page}]({file})" if page != last else ""
        shown = words.PITFALLS[name] if language else title
        rows.append([link, f"[{shown}]({file}#{name})", *errors])
        last = page
    heads = (*(("page", "pitfall"), ("页面", "陷阱"))[language], *TITLES.values())
    return tabulate(rows, heads, tablefmt="github", disable_numparse=True)


#: the sweeps of the cost: kind of results and field of a row, and its title
SWEEPS = {"size": "image size", "batch_size": "batch size", "threads": "threads"}
OPERATORS = 4  # shown of a profile


def benchmarks(text: str) -> str:
    """The page of the benchmarks with every table rewritten."""
    parts = {"speeds": table_of_speeds, "profiles": tables_of_profiles}
    parts["gpu"] = table_of_gpu
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
    """All rows of a kind of results, one table for each machine."""
    parts = []
    for machine, rows in results.speeds(ROOT, kind, key):
        same = {(row["batch_size"], row["size"], row["device"]) for row in rows}
        setting = "; ".join(f"batch {b} at {s} pixels on {d}" for b, s, d in sorted(same))
        named = {"framework": lambda row: f"{TITLES[row['backend']]} {row['version']}"}
        heads, table = cells(rows, named | columns)
        parts.append(f"{machine}; {setting}:\n\n{tabulate(table, heads, tablefmt='github')}")
    return "\n\n".join(parts)


def table_of_sweep(field: str) -> str:
    """Examples per second of (a) and (c) and their ratio, with a column for each framework."""
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
        setting = "; ".join(
            f"{word} {', '.join(map(str, values))}"
            for other, (word, values) in rest.items()
            if other != field and values
        )
        heads = (SWEEPS[field], *(TITLES[name] for name in names))
        parts.append(f"{machine}; {setting}:\n\n{tabulate(table, heads, tablefmt='github')}")
    return "\n\n".join(parts)


def table_of_gpu() -> str:
    """What benchmarks/gpu.py measured: examples per second, with a column for each variant."""
    path = ROOT / "docs" / "results" / "gpu-torch.json"
    found = results.read(path, lambda found: found | {"rows": list(found["rows"])})
    ways = list(dict.fromkeys(row["how"] for row in found["rows"]))
    table: dict[tuple, dict[str, float]] = {}
    for row in found["rows"]:
        setting = (f"`{row['spec']}`", row["precision"], row["batch_size"])
        table.setdefault(setting, {})[row["how"]] = row["median"]
    rows = [[*setting, *(speeds.get(way) for way in ways)] for setting, speeds in table.items()]
    heads = ("spec", "precision", "batch", *ways)
    return f"{found['machine']}; examples/s:\n\n{tabulate(rows, heads, tablefmt='github')}"


def tables_of_profiles() -> str:
    """The time of a step and its slowest operators, in the book's loop and in ours."""
    parts = []
    for machine, profiles in results.speeds(ROOT, "profile", "profiles"):
        table = []
        for each in profiles:
            slowest = each["operators"][:OPERATORS]
            table.append(
                (
                    f"{TITLES[each['backend']]}, {each['loop']}, {each['precision']}",
                    f"{each['step'] * 1e3:.0f}",
                    f"{each['floor'] * 1e3:.0f}",
                    ", ".join(f"`{row['name'][:40]}` {row['share']:.0%}" for row in slowest),
                )
            )
        same = {(each["batch_size"], each["size"], each["device"]) for each in profiles}
        setting = "; ".join(f"batch {b} at {s} pixels on {d}" for b, s, d in sorted(same))
        heads = ("loop", "ms a step", "at the peak", "slowest operators, share of their time")
        found = tabulate(table, heads, tablefmt="github", disable_numparse=True)
        parts.append(f"{machine}; {setting}:\n\n{found}")
    return "\n\n".join(parts)


if __name__ == "__main__":
    benchmarks_page = ROOT / "benchmarks" / "README.md"
    benchmarks_page.write_text(benchmarks(benchmarks_page.read_text()))
    for path, text in pages():
        path.write_text(text)
