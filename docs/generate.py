"""Write the generated parts of README.md and docs/porting.md: lines of the source, results.

`python docs/generate.py` rewrites them, a test holds both pages to them. The results are what the
commands printed: `googlenet bugs --backend B --json > docs/results/bugs-B.json`, `verify` alike,
`pytest tests/porting --backend B --write-results` for the traps; of a training run
docs/results/runs/ holds the `config.json` and `history.jsonl` that it wrote itself.
"""

from __future__ import annotations

import ast
import json
import re
import sys
from pathlib import Path
from typing import Any

from tabulate import tabulate

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # run from anywhere, installed or not

from backends import FRAMEWORKS  # noqa: E402
from common.plants import BUGS  # noqa: E402
from common.recipe import find_recipe  # noqa: E402
from common.run import config_from, read_history, speed  # noqa: E402

#: published runs of 10 epochs: what, where from, loss, train and test accuracy, examples/s
PUBLISHED = (
    ("`d2l`, batch 128", "d2l, MXNet, GPU", 0.256, 0.903, 0.907, 2343.6),
    ("`d2l`, batch 128", "d2l, PyTorch, GPU", 0.262, 0.900, 0.886, 3265.5),
    ("`d2l`, batch 128", "d2l, TensorFlow, GPU", 0.248, 0.905, 0.899, 3758.1),
    ("`d2l`, batch 128", "d2l, Paddle, GPU", 0.213, 0.919, 0.904, 1381.9),
    ("`d2l`, batch 512", "a blog's PyTorch, GPU", 0.464, 0.824, 0.795, 431.9),
    ("`blog-224`, Adam", "a blog's PyTorch, GPU", 0.183, None, 0.9154, None),
)

TITLES = {"torch": "PyTorch", "tf": "TensorFlow", "mxnet": "MXNet Gluon", "paddle": "PaddlePaddle"}


def results(kind: str, backend: str) -> Any:
    """What a command printed for a backend."""
    return json.loads((ROOT / "docs" / "results" / f"{kind}-{backend}.json").read_text())


def inception_blocks() -> str:
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


def bug_matrix() -> str:
    """Bug x first failing rung x error, a column for each backend."""
    found = {b: {row["bug"]: row for row in results("bugs", b)} for b in FRAMEWORKS}
    rows = []
    for bug in BUGS.values():
        cells = [_caught(found[backend][bug.name]) for backend in FRAMEWORKS]
        rows.append([f"`{bug.name}`", bug.what, *cells])
    return tabulate(rows, ("bug", "what it is", *TITLES.values()), tablefmt="github")


def _caught(row: dict) -> str:
    if "rung" not in row:
        return "escaped"
    if row["error"] is not None:
        return f"{row['rung']}, {row['error']:.0e}"
    return f"{row['rung']}, refused" if "Error" in row["where"] else row["rung"]


def shapes_alone() -> str:
    """How many of the bugs a comparison of shapes would have found."""
    caught = [row for row in results("bugs", "torch") if row["rung"] == "shapes"]
    return f"Comparing shapes alone would have caught {len(caught)} of these {len(BUGS)}."


def parity() -> str:
    """The worst error of every rung that allows one, over all specs and sizes."""
    rows = {}
    for backend, title in TITLES.items():
        for report in results("verify", backend):
            for rung in report["rungs"]:
                if rung["error"] is not None and rung["tolerance"] > 0:
                    row = rows.setdefault((report["dtype"], rung["name"]), {})
                    row[title] = max(row.get(title, 0.0), rung["error"])
    longest = max((report["rungs"] for report in results("verify", "torch")), key=len)
    climbed = [rung["name"] for rung in longest]
    order = sorted(rows, key=lambda key: (key[0] == "float32", climbed.index(key[1])))
    table = [[*key, *(f"{rows[key][title]:.0e}" for title in TITLES.values())] for key in order]
    return tabulate(table, ("dtype", "rung", *TITLES.values()), tablefmt="github")


def versions() -> str:
    """The versions that the results come from."""
    found = [f"{TITLES[b]} {results('verify', b)[0]['version']}" for b in FRAMEWORKS]
    return f"Measured with {', '.join(found)} on two CPU cores."


def training() -> str:
    """Our runs, from what they wrote themselves, under the published ones."""
    rows = [(*row[:2], "60,000 x 10", *row[2:]) for row in PUBLISHED]
    for folder in sorted((ROOT / "docs" / "results" / "runs").iterdir()):
        config = config_from(json.loads((folder / "config.json").read_text()))
        epochs, recipe = read_history(folder / "history.jsonl"), config.recipe
        last, name = epochs[-1], f"`{recipe.name}`"
        if recipe.spec != find_recipe(recipe.name).spec:
            name += f" with `{recipe.spec}`"
        if recipe.size != find_recipe(recipe.name).size:
            name += f" at {recipe.size}"
        what = f"{name}, batch {recipe.batch_size}"
        titles = list(dict.fromkeys(TITLES[epoch.backend] for epoch in epochs))
        where = f"**ours**, {' then '.join(titles)}, {last.device}, {recipe.precision}"
        amount = f"{last.examples:,} x {len(epochs)}"
        accuracies = (round(last.train_accuracy, 3), round(last.test_accuracy, 4))
        rows.append(
            (what, where, amount, round(last.loss, 3), *accuracies, round(speed(epochs), 1))
        )
    heads = ("recipe", "run", "images x epochs", "loss", "train acc", "test acc", "examples/s")
    return tabulate(rows, heads, tablefmt="github", missingval="-")


def generate(text: str) -> str:
    """The README with every marked part made anew."""
    for part in (inception_blocks, bug_matrix, shapes_alone, parity, versions, training):
        begin, end = (f"<!-- {word} {part.__name__} -->" for word in ("begin", "end"))
        head, rest = text.split(begin)
        text = f"{head}{begin}\n{part()}\n{end}{rest.split(end)[1]}"
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


def traps(backend: str) -> dict[str, tuple[str, str]]:
    """The file and the name of the test of every trap that shows in a framework, by its name."""
    found = {}
    for path in (f"tests/porting/test_{name}.py" for name in ("every", backend)):
        for node in ast.parse((ROOT / path).read_text()).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                found[node.name.removeprefix("test_").replace("_", "-")] = (path, node.name)
    return found


def figures(trap: str) -> str:
    """How far each framework in which the trap shows is off without the fix and with it."""
    rows = []
    for backend, title in TITLES.items():
        measured = results("traps", backend)["traps"].get(trap)
        if measured:
            path, test = traps(backend)[trap]
            where = line(path, test, f"def {test}(")
            cells = (f"{measured[which]:.2g}" for which in ("without", "with"))
            rows.append([title, *cells, f"[`{test}`](../{path}#L{where})"])
    heads = ("", "without", "with the fix", "test")
    return tabulate(rows, heads, tablefmt="github", disable_numparse=True)


if __name__ == "__main__":
    for name, change in (("README.md", generate), ("docs/porting.md", guide)):
        page = ROOT / name
        page.write_text(change(page.read_text()))
