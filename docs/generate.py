"""Write the generated parts of the README in both languages: code of the backends, results.

`python docs/generate.py` rewrites them, a test holds both to them. The results are what the
commands printed: `googlenet bugs --backend B --json > docs/results/bugs-B.json`, `verify` alike; of
a training run docs/results/runs/ holds the `config.json` and `history.jsonl` that it wrote itself.
"""

from __future__ import annotations

import ast
import json
import sys
from pathlib import Path

import tabulate as tables
from tabulate import tabulate

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # run from anywhere, installed or not

from backends import FRAMEWORKS  # noqa: E402
from common.page import words  # noqa: E402
from common.plants import BUGS  # noqa: E402
from common.results import TITLES, runs, training_rows  # noqa: E402

tables.WIDE_CHARS_MODE = False  # else the width of Chinese depends on what else is installed
READMES = ("README.md", "README.zh-CN.md")  # by language: 0 English, 1 Chinese


def results(kind: str, backend: str) -> list[dict]:
    """What a command printed for a backend."""
    return json.loads((ROOT / "docs" / "results" / f"{kind}-{backend}.json").read_text())


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
    """Bug x first failing rung x error, a column for each backend."""
    found = {b: {row["bug"]: row for row in results("bugs", b)} for b in FRAMEWORKS}
    rows = []
    for bug in BUGS.values():
        what = words.BUGS[bug.name] if language else bug.what
        cells = [_caught(found[backend][bug.name], language) for backend in FRAMEWORKS]
        rows.append([f"`{bug.name}`", what, *cells])
    heads = (said("bug", language), said("what", language), *TITLES.values())
    return tabulate(rows, heads, tablefmt="github")


def _caught(row: dict, language: int) -> str:
    if "rung" not in row:
        return said("escaped", language)
    rung = words.RUNGS[row["rung"]] if language else row["rung"]
    if row["error"] is not None:
        return f"{rung}, {row['error']:.0e}"
    return f"{rung}, {said('refused', language)}" if "Error" in row["where"] else rung


def said(word: str, language: int) -> str:
    """A word as the page says it."""
    return words.WORDS[word][language]


def shapes_alone(language: int) -> str:
    """How many of the bugs a comparison of shapes would have found."""
    caught = [row for row in results("bugs", "torch") if row["rung"] == "shapes"]
    return said("bugs_shapes", language).format(len(caught), len(BUGS))


def parity(language: int) -> str:
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
    table = [
        [
            key[0],
            words.RUNGS[key[1]] if language else key[1],
            *(f"{rows[key][title]:.0e}" for title in TITLES.values()),
        ]
        for key in order
    ]
    return tabulate(table, ("dtype", said("rung", language), *TITLES.values()), tablefmt="github")


def versions(language: int) -> str:
    """The versions that the results come from."""
    found = ", ".join(f"{TITLES[b]} {results('verify', b)[0]['version']}" for b in FRAMEWORKS)
    chinese = f"测量所用版本：{found}，两个 CPU 核。"
    return chinese if language else f"Measured with {found} on two CPU cores."


def training(language: int) -> str:
    """Our runs, from what they wrote themselves, under the published ones."""
    found, wrong = runs(ROOT)
    if wrong:
        raise wrong[0]
    heads = ["recipe", "run", "images x epochs", "loss", "train acc", "test acc", "examples/s"]
    rows = training_rows(found)
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


if __name__ == "__main__":
    for index, name in enumerate(READMES):
        readme = ROOT / name
        readme.write_text(generate(readme.read_text(), index))
