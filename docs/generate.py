"""Write the generated parts of README.md: code cut from the backends, tables from their results.

`python docs/generate.py` rewrites them, a test holds README.md to them. The results are what the
commands printed: `googlenet bugs --backend B --json > docs/results/bugs-B.json`, `verify` alike; of
a training run docs/results/runs/ holds the `config.json` and `history.jsonl` that it wrote itself.
"""

from __future__ import annotations

import ast
import json
import sys
from pathlib import Path

from tabulate import tabulate

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # run from anywhere, installed or not

from backends import FRAMEWORKS  # noqa: E402
from common.plants import BUGS  # noqa: E402
from common.results import TITLES, runs, training_rows  # noqa: E402


def results(kind: str, backend: str) -> list[dict]:
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
    found, wrong = runs(ROOT)
    if wrong:
        raise wrong[0]
    heads = ("recipe", "run", "images x epochs", "loss", "train acc", "test acc", "examples/s")
    return tabulate(training_rows(found), heads, tablefmt="github", missingval="-")


def generate(text: str) -> str:
    """The README with every marked part made anew."""
    for part in (inception_blocks, bug_matrix, shapes_alone, parity, versions, training):
        begin, end = (f"<!-- {word} {part.__name__} -->" for word in ("begin", "end"))
        head, rest = text.split(begin)
        text = f"{head}{begin}\n{part()}\n{end}{rest.split(end)[1]}"
    return text


if __name__ == "__main__":
    readme = ROOT / "README.md"
    readme.write_text(generate(readme.read_text()))
