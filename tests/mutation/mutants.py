"""Small mistakes in the source, drawn from a seed: do the tests notice them?

`python tests/mutation/mutants.py run` draws mutants, runs the tests that can see each in a copy of
the last commit, and adds a line of JSON for each to docs/results/mutants.jsonl, so that a stopped
run goes on later. `--groups` names some of GROUPS, `--count` how many of each, `--jobs` how many at
once. `again` runs the survivors anew, with the tests of today; `table` prints what docs/proof.md
shows. `--env` names the folder of tox's environments, `.tox` by default; those that run unit tests
need `pytest-cov`, which tells the tests that reach a line.

A mutant is *killed* if a test fails or takes too long. It is *equivalent* if no test can notice it,
because the function is the same; a person writes the reason into the file. All others survive.
Long because the mistakes, the tests that see them and the results are one script.
"""

from __future__ import annotations

import argparse
import ast
import copy
import json
import os
import random
import re
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # run from anywhere, installed or not

from backends import FRAMEWORKS  # noqa: E402

RESULTS = ROOT / "docs" / "results" / "mutants.jsonl"
LONGEST, LIMIT = 240, 1200  #: seconds for one test, and for all tests of a mutant

#: the conformance tests that can see a file of a backend, the quickest to see it first; `native`
#: stands for the framework's own tests
SEES = {
    "trace.py": ["check", "own", "native"],
    "parallel.py": ["parallel", "device"],
    "device.py": ["device", "train", "bench", "native"],
    "optimizers.py": ["optimizers", "recipes", "train", "same_run"],
    "train.py": ["train", "recipes", "device", "parity", "same_run", "bench"],
    "weights.py": ["weights", "native", "runs", "parity"],
    "saving.py": ["native", "weights"],
    "probes.py": ["parity", "device", "train"],
    "layers.py": ["properties", "native", "recipes", "parity"],
    "googlenet.py": ["properties", "native", "recipes", "parity"],
    "bias.py": ["properties", "native", "parity"],
    "fused.py": ["native", "parity"],
    "graph.py": ["native", "device"],
    "split.py": ["native", "device"],
    "streams.py": ["native", "device"],
    "__init__.py": ["weights", "properties", "native", "parallel"],
}
UNIT = "unit", ["tests/unit"]
ONNX = "onnx", "onnx_function"
NUMBERS = [
    f"tests/unit/test_{name}.py" for name in ("successors", "arithmetic", "spec", "upstream")
]


def conformance(backend: str, *names: str) -> tuple[str, list[str]]:
    """The environment of a backend, and its test files of these names."""
    native = f"tests/native/test_{backend}.py"
    files = [native if name == "native" else f"tests/conformance/test_{name}.py" for name in names]
    return backend, files


#: what a group is made of, and the tests that can see it: environments with paths, in order
GROUPS: dict[str, tuple[list[str], list[tuple[str, list[str]]]]] = {
    **{name: ([f"backends/{name}"], [(name, [])]) for name in FRAMEWORKS},
    "numpy": (["backends/numpy"], [UNIT, conformance("torch", "properties", "parity")]),
    "bench": (["common/bench"], [UNIT, conformance("mxnet", "bench")]),
    "check": (["common/check"], [UNIT, conformance("torch", "check", "own")]),
    "cli": (["common/cli"], [UNIT, conformance("tf", "readme_commands")]),
    "convert": (
        ["common/convert"],
        [
            UNIT,
            *(conformance(name, "own") for name in ("torch", "tf")),
            ("cross", [f"tests/cross_framework/test_{name}.py" for name in ("convert", "onnx")]),
        ],
    ),
    "data": (["common/data"], [UNIT]),
    "distributed": (
        ["common/distributed", "common/rendezvous.py"],
        [UNIT, conformance("mxnet", "parallel")],
    ),
    "formats": (
        ["common/formats"],
        [UNIT, ("cross", [f"tests/cross_framework/test_{name}.py" for name in ONNX])],
    ),
    "page": (
        ["common/page"],
        [("page", ["tests/page/test_drawing.py", "tests/page/test_source.py"]), UNIT],
    ),
    "parity": (["common/parity"], [UNIT, conformance("torch", "parity", "injected_bugs")]),
    "spec": (["common/spec"], [("unit", NUMBERS), UNIT]),
    "training": (["common/training"], [UNIT, conformance("torch", "train", "recipes", "runs")]),
    "weights": (["common/weights"], [UNIT]),
    "the rest": (
        [f"common/{name}.py" for name in ("device", "doctor", "errors", "files", "inference")]
        + [f"common/{name}.py" for name in ("limits", "processor", "recipe", "terminal")],
        [UNIT],
    ),
}
#: what also runs in a process of its own, where pytest-cov does not see which test began it
ELSEWHERE = {
    "common/data/image_decoder.py": ["tests/unit/test_image_folder.py"],
    "common/formats/sandbox.py": ["tests/unit/test_readers.py"],
    "common/formats/readers": ["tests/unit/test_readers.py"],
    "common/convert/work.py": ["tests/unit/test_convert.py"],
    "backends/numpy/weights.py": ["tests/unit/test_convert.py"],
    "common/distributed": ["tests/unit/test_workers.py", "tests/unit/test_launcher.py"],
}
#: tests that compare documents with the source as text: they notice every change, and prove nothing
TEXTUAL = ("test_readme.py", "test_notebooks.py", "test_structure.py", "test_manuals.py")

SWAPS = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
}
Row = dict[str, Any]  # a mutant with its result
Place = tuple[ast.expr | ast.stmt, str, ast.AST]  # what is replaced, the kind, what comes there


@dataclass(frozen=True)
class Mutant:
    """Lines of a file, and what stands there instead."""

    group: str
    file: str
    line: int  #: the first of the lines, counted from 1, when it was drawn
    kind: str
    before: str
    after: str

    def apply(self, root: Path) -> None:
        """Change the file below `root`; LookupError if the lines are gone."""
        path = root / self.file
        text = path.read_text()
        starts = [0, *(found.end() for found in re.finditer("\n", text))]
        found = [n for n, at in enumerate(starts) if text.startswith(self.before + "\n", at)]
        if not found:
            raise LookupError(f"{self.file} has no longer the lines of line {self.line}.")
        at = starts[min(found, key=lambda n: abs(n + 1 - self.line))]
        path.write_text(text[:at] + self.after + text[at + len(self.before) :])


def places(tree: ast.Module) -> Iterator[Place]:
    """Every small mistake that can be made in a module, in no order of lines."""
    skipped: set[int] = set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            skipped |= {id(child) for child in ast.iter_child_nodes(node)}
            continue
        skipped |= {id(child) for child in left_alone(node)}
        yield from mistakes(node)


def left_alone(node: ast.AST) -> Iterator[ast.AST]:
    """The parts of a node that say nothing a test should hold: types, messages, options' texts."""
    for name in ("annotation", "returns"):
        if child := getattr(node, name, None):
            yield child
    match node:
        case ast.Raise(exc=ast.Call(args=args)):
            yield from args
        case ast.Call(func=ast.Name(id="isinstance"), args=[_, classes]):
            yield classes  # in any order
        case ast.Compare(ops=[ast.In() | ast.NotIn()], comparators=[ast.Tuple() as elements]):
            yield elements
        case ast.ExceptHandler(type=ast.Tuple() as classes):
            yield classes
        case ast.JoinedStr():
            yield from ast.iter_child_nodes(node)
        case ast.Assert() | ast.Assign(targets=[ast.Name(id="__all__")]):
            yield from ast.iter_child_nodes(node)
        case ast.FunctionDef() | ast.ClassDef():
            yield from node.decorator_list
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            yield from ast.iter_child_nodes(node)
        case ast.Subscript() if isinstance(node.value, ast.Name) and node.value.id.istitle():
            yield from ast.iter_child_nodes(node)


def mistakes(node: ast.AST) -> Iterator[Place]:
    """The small mistakes in one node."""

    def changed(**fields: object) -> ast.AST:
        new = copy.deepcopy(node)
        for name, value in fields.items():
            setattr(new, name, value)
        return new

    match node:
        case ast.Constant(value=bool(value)):
            yield node, "truth", ast.Constant(not value)
        case ast.Constant(value=int(value) | float(value)):
            yield node, "number", ast.Constant(value + 1 if isinstance(value, int) else value * 2)
        case ast.UnaryOp(op=ast.USub() | ast.Not()):
            yield node, "sign", node.operand
        case ast.BinOp(op=op):
            if type(op) in SWAPS and not texts(node):
                yield node, "operator", changed(op=SWAPS[type(op)]())
                yield node, "dropped term", node.left
        case ast.BoolOp(op=op, values=values):
            yield node, "operator", changed(op=SWAPS[type(op)]())
            yield node, "dropped term", changed(values=values[:-1]) if values[2:] else values[0]
        case ast.Compare(ops=[op]):
            yield node, "comparison", changed(ops=[SWAPS[type(op)]()])
        case ast.Tuple(elts=[*elements], ctx=ast.Load()) | ast.List(elts=[*elements]):
            if elements[1:] and ast.dump(elements[0]) != ast.dump(elements[1]):
                yield node, "order", changed(elts=[elements[1], elements[0], *elements[2:]])
        case ast.Call(args=args, keywords=keywords):
            if args[1:] and not any(isinstance(each, ast.Starred) for each in args[:2]):
                yield node, "arguments", changed(args=[args[1], args[0], *args[2:]])
            if keywords and keywords[-1].arg:
                yield node, "dropped argument", changed(keywords=keywords[:-1])
        case ast.Expr(value=ast.Call()) | ast.AugAssign():
            yield node, "dropped statement", ast.Pass()
        case ast.IfExp(body=body, orelse=orelse):
            yield node, "order", changed(body=orelse, orelse=body)


def texts(node: ast.BinOp) -> bool:
    """Whether the operation joins texts or types."""
    sides = (node.left, node.right)
    return any(
        isinstance(side, ast.JoinedStr)
        or (isinstance(side, ast.Constant) and isinstance(side.value, (str, type(None))))
        for side in sides
    )


def candidates(group: str) -> Iterator[tuple[str, str, Place]]:
    """Every mistake that can be made in a group: the file, its text, and the place."""
    for folder in GROUPS[group][0]:
        path = ROOT / folder
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            name, text = file.relative_to(ROOT).as_posix(), file.read_text()
            for place in places(ast.parse(text)):
                yield name, text, place


def lines_of(text: str, old: ast.expr | ast.stmt, new: ast.AST) -> tuple[int, str, str] | None:
    """The lines of a node before and after; None if that changes nothing or does not parse."""
    lines = text.split("\n")
    first, last = old.lineno - 1, (old.end_lineno or old.lineno) - 1
    before = "\n".join(lines[first : last + 1])
    head = lines[first].encode()[: old.col_offset].decode()
    tail = lines[last].encode()[old.end_col_offset :].decode()
    written = ast.unparse(ast.fix_missing_locations(new))
    binds = (ast.BinOp, ast.BoolOp, ast.Compare, ast.UnaryOp, ast.IfExp, ast.Tuple)
    if isinstance(old, ast.expr) and isinstance(new, binds):
        written = f"({written})"
    after = head + written + tail
    whole = "\n".join([*lines[:first], after, *lines[last + 1 :]])
    try:
        tree = ast.parse(whole)
    except SyntaxError:
        return None
    return None if ast.dump(tree) == ast.dump(ast.parse(text)) else (first + 1, before, after)


def draw(group: str, count: int, seed: int) -> list[Mutant]:
    """`count` mutants of a group: as many in each file as there are, no two of one line."""
    found: dict[str, list[tuple[str, Place]]] = {}
    for file, text, place in candidates(group):
        found.setdefault(file, []).append((text, place))
    for file, own in found.items():
        random.Random(f"{file} {seed}").shuffle(own)
    drawn: list[Mutant] = []
    lines: set[tuple[str, int]] = set()
    while len(drawn) < count and any(found.values()):
        for file, own in found.items():
            while own and len(drawn) < count:
                text, (old, kind, new) = own.pop()
                changed = lines_of(text, old, new)
                if changed and (file, old.lineno) not in lines and not only_strict(*changed[1:]):
                    lines.add((file, old.lineno))
                    drawn.append(Mutant(group, file, changed[0], kind, *changed[1:]))
                    break
    return drawn


def only_strict(before: str, after: str) -> bool:
    """Whether all that changes is `zip`'s `strict`, which no right program needs."""
    strict = re.compile(r",?\s*strict=(True|False)")
    return strict.sub("", before) == strict.sub("", after)


class Tree:
    """A copy of the last commit, in which one mutant at a time is tested."""

    def __init__(self, folder: Path, environments: Path) -> None:
        self.folder, self.environments = folder, environments
        self.passing: set[str] = set()  #: tests that pass without a mutant
        self.broken: set[str] = set()  #: tests that do not, and prove nothing
        quiet = ["-c", "advice.detachedHead=false", "-q", "--shared"]
        subprocess.run(["git", "clone", *quiet, ROOT, folder], check=True)

    def run(self, mutant: Mutant, reach: Reach, newer: list[str]) -> tuple[str, str]:
        """`killed` and by which test, or `survived`; `newer` unit tests run too."""
        mutant.apply(self.folder)
        try:
            for environment, paths in GROUPS[mutant.group][1]:
                tests = paths or conformance(environment, *SEES[Path(mutant.file).name])[1]
                if paths == UNIT[1]:
                    tests = [*newer, *reach.tests(mutant)]
                if not tests:
                    continue  # no test of this environment runs the lines
                python = self.environments / environment / "bin" / "python"
                backend = environment if environment in FRAMEWORKS else ""
                while killer := first_failure(self.folder, python, tests, backend, self.broken):
                    if self.passes(python, tests, killer, backend):
                        return "killed", killer
                    self.broken.add(killer)
                    mutant.apply(self.folder)
            return "survived", ""
        finally:
            self.restore()

    def restore(self) -> None:
        """Take the mutant out."""
        subprocess.run(["git", "checkout", "-q", "."], cwd=self.folder, check=True)

    def passes(self, python: Path, tests: list[str], killer: str, backend: str) -> bool:
        """Whether the test passes without the mutant, which is taken out.

        Where no test is named, all must pass: RuntimeError if they do not.
        """
        self.restore()
        if killer in self.passing:
            return True
        named = "::" in killer or killer in tests
        again = [killer] if named else tests
        failure = first_failure(self.folder, python, again, backend, self.broken)
        if failure and not named:
            raise RuntimeError(f"Without a mutant the tests end with {failure!r}: {tests[:3]} ...")
        if named and not failure:
            self.passing.add(killer)
        return not failure


def first_failure(
    folder: Path, python: Path, tests: list[str], backend: str = "", without: Iterable[str] = ()
) -> str:
    """The test that fails in the copy of the project, or nothing if all pass.

    `timeout` if they take too long, `the import` if pytest ends without a result. Tests that are
    not there are left out.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as listed:  # too many for a command line
        listed.write("\n".join(tests))
        listed.flush()
        command = [str(python), "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
        command += [f"--timeout={LONGEST}"]
        command += [f"--ignore-glob=*/{name}" for name in TEXTUAL]
        command += [f"--deselect={test}" for test in without]
        command += [f"--backend={backend}"] * bool(backend) + [f"@{listed.name}"]
        own = {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1", "PYTEST_ADDOPTS": ""}
        own |= {"OMP_NUM_THREADS": "1", "TF_NUM_INTRAOP_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "2"}
        try:
            done = subprocess.run(
                command,
                cwd=folder,
                env=os.environ | own | {"CI": "1"},
                capture_output=True,
                text=True,
                timeout=LIMIT,
            )
        except subprocess.TimeoutExpired:
            return "timeout"
    if done.returncode in (0, 5):  # 5: no tests were collected
        return ""
    failed = re.findall(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", done.stdout, re.MULTILINE)
    gone = re.findall(r"^ERROR: not found: (.+)$", done.stderr, re.MULTILINE)
    left = [test for test in tests if not any(f"/{each}".endswith(f"/{test}") for each in gone)]
    if not failed and left != tests:
        return first_failure(folder, python, left, backend, without) if left else ""
    return failed[0] if failed else "the import"


class Reach:
    """Which unit tests run a line, from one run of them under `pytest-cov`."""

    def __init__(self, folder: Path, environments: Path) -> None:
        self.data = folder / "coverage"
        if self.data.exists():
            return
        command = [environments / "unit" / "bin" / "python", "-m", "pytest", "-q", "tests/unit"]
        command += ["-n", "2", "--dist", "worksteal", "--cov=common", "--cov=backends"]
        command += ["--cov-context=test", "--cov-report="]
        own = {"COVERAGE_FILE": str(self.data), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        # a test may fail under coverage: what was reached is written all the same
        subprocess.run([str(each) for each in command], cwd=ROOT, env=os.environ | own, check=False)

    def tests(self, mutant: Mutant) -> list[str]:
        """The tests that run a line of the mutant, those that run the fewest lines first.

        What runs in the import has no test of its own: then the files of tests that import the
        module, and all other tests that run a line of it. An empty list if the lines do not run.
        """
        lines = range(mutant.line, mutant.line + mutant.before.count("\n") + 1)
        with sqlite3.connect(self.data) as database:
            rows = database.execute(
                "select context.context, line_bits.numbits from line_bits "
                "join file on file.id = line_bits.file_id "
                "join context on context.id = line_bits.context_id where file.path like ?",
                (f"%/{mutant.file}",),
            ).fetchall()
        reached: dict[str, set[int]] = {}  # the lines that each test runs
        imported: set[int] = set()  # those that run outside of every test
        for context, bits in rows:
            ran = {
                8 * at + bit for at, byte in enumerate(bits) for bit in range(8) if byte >> bit & 1
            }
            test = context.rpartition("|")[0]  # what follows is the phase of the test
            if not test:
                imported |= ran
            elif not any(name in test for name in TEXTUAL):
                reached[test] = reached.get(test, set()) | ran
        found = [test for test, ran in reached.items() if ran & {*lines}]
        found.sort(key=lambda test: len(reached[test]))
        if not found and imported & {*lines}:
            files = importers(mutant.file)
            others = [test for test in reached if test.partition("::")[0] not in files]
            found = [*files, *sorted(others, key=lambda test: len(reached[test]))] or UNIT[1]
        for path, tests in ELSEWHERE.items():
            found += tests if mutant.file.startswith(path) else []
        return found


def importers(file: str) -> list[str]:
    """The files of unit tests that import a module."""
    package, _, name = file.removesuffix(".py").replace("/", ".").rpartition(".")
    module = re.compile(rf"{re.escape(package)}(\.{name}\b| import (\([^)]*|[^(\n]*)\b{name}\b)")
    tests = sorted((ROOT / "tests" / "unit").glob("test_*.py"))
    found = [path for path in tests if path.name not in TEXTUAL and module.search(path.read_text())]
    return [path.relative_to(ROOT).as_posix() for path in found]


def known() -> list[Row]:
    """The results so far."""
    return (
        [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []
    )


def examine(
    mutants: list[Mutant], asked: argparse.Namespace, since: Sequence[str] = ()
) -> Iterator[Row]:
    """Test the mutants, some at once; yield each one's row.

    `since`: the commit at which each was tested before; the unit tests changed after it run too.
    """
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(asked.jobs) as pool:
        folder = Path(name)
        reach = Reach(Path(asked.reach) if asked.reach else folder, asked.env)
        free = [Tree(folder / f"tree{job}", asked.env) for job in range(asked.jobs)]

        def one(mutant: Mutant, newer: list[str]) -> Row:
            tree, start = free.pop(), time.monotonic()
            try:
                result, test = tree.run(mutant, reach, newer)
            finally:
                free.append(tree)
            seconds = round(time.monotonic() - start, 1)
            row = {**asdict(mutant), "result": result, "test": test, "seconds": seconds}
            return row | {"commit": commit, "date": time.strftime("%Y-%m-%d")}

        newer = [changed_since(each) for each in since] or [[] for _ in mutants]
        for done in as_completed(map(partial(pool.submit, one), mutants, newer)):
            yield done.result()


def changed_since(commit: str) -> list[str]:
    """The files of unit tests that a later commit has changed."""
    command = [
        "git",
        "diff",
        "--name-only",
        "--diff-filter=d",
        commit,
        "--",
        "tests/unit/test_*.py",
    ]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return [path for path in done.stdout.split() if not path.endswith(TEXTUAL)]


def run(asked: argparse.Namespace) -> None:
    """Draw, and test until each group has `--count` results."""
    rows = known()
    done = {identity(row) for row in rows}
    missing = []
    for group in asked.groups:
        drawn = draw(group, asked.count, asked.seed)
        new = [each for each in drawn if identity(asdict(each)) not in done]
        has = sum(row["group"] == group for row in rows)  # some of an earlier source
        missing.append(new[: max(0, asked.count - has)])
    todo = [each for one_of_each in zip_longest(*missing) for each in one_of_each if each]
    print(f"seed {asked.seed}: {len(todo)} mutants to test", flush=True)
    for row in examine(todo, asked):
        with RESULTS.open("a") as file:
            file.write(json.dumps(row) + "\n")
        say(row)


def again(asked: argparse.Namespace) -> None:
    """Test the survivors anew, and write the file with their new results."""
    rows = {identity(row): row for row in known()}
    left = [
        row for row in rows.values() if row["result"] == "survived" and row["group"] in asked.groups
    ]
    fields = Mutant.__dataclass_fields__
    survivors = [Mutant(**{name: row[name] for name in fields}) for row in left]
    for row in examine(survivors, asked, [row["commit"] for row in left]):
        rows[identity(row)] = row | {"first": "survived"}
        RESULTS.write_text("".join(json.dumps(each) + "\n" for each in rows.values()))
        say(row)


def identity(row: Row) -> tuple[object, ...]:
    """What makes a mutant this one; its lines may have moved."""
    return row["file"], row["before"], row["after"]


def say(row: Row) -> None:
    """Print one result; of a survivor also the lines."""
    where = f"{row['file']}:{row['line']}"
    print(
        f"{row['result']:9} {row['seconds']:6} s  {where} {row['kind']} {row['test']}", flush=True
    )
    if row["result"] == "survived":
        print(f"    - {row['before']}\n    + {row['after']}", flush=True)


def table(rows: list[Row]) -> list[tuple[object, ...]]:
    """For each group: drawn, killed at first, by a test written since, equivalent, survived."""
    found = []
    for group in [*GROUPS, "all"]:
        own = [row for row in rows if group in (row["group"], "all")]
        killed = [row for row in own if row["result"] == "killed"]
        since = sum(row.get("first") == "survived" for row in killed)
        equivalent = sum(row["result"] == "equivalent" for row in own)
        if own:
            left = len(own) - len(killed) - equivalent
            share = f"{100 * len(killed) / max(1, len(own) - equivalent):.1f} %"
            counts = len(own), len(killed) - since, since, equivalent, left
            found.append((group, *counts, share))
    return found


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("what", choices=["run", "again", "table"])
    parser.add_argument("--groups", type=lambda text: text.split(","), default=[*GROUPS])
    parser.add_argument("--count", type=int, default=20, help="of each group")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--env", type=Path, default=ROOT / ".tox")
    parser.add_argument("--reach", help="a folder that keeps what pytest-cov found")
    asked = parser.parse_args()
    if asked.what == "table":
        for row in table(known()):
            print(*row, sep="\t")
    else:
        {"run": run, "again": again}[asked.what](asked)


if __name__ == "__main__":
    main()
