"""The mutation run itself, and a small fixed sample of its last result."""

import ast
import re
import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "mutation"))

import mutants  # noqa: E402

SAMPLE = 8  #: mutants of the last result that are tested anew


def changed(text):
    """What each mistake makes of one line."""
    found = [mutants.lines_of(text, old, new) for old, _, new in mutants.places(ast.parse(text))]
    return [each[2] for each in found if each]


@pytest.mark.parametrize(
    ("line", "after"),
    [
        ("x = f(a, axis=1)", ["x = f(a)", "x = f(a, axis=2)"]),
        ("x = a - b * 2", ["x = (a + b * 2)", "x = a", "x = a - (b / 2)"]),
        ("x = -a", ["x = a"]),
        ("x = f(a, b)", ["x = f(b, a)"]),
        ("x = a < b and not c", ["x = (a < b or not c)", "x = (a < b)", "x = (a <= b) and not c"]),
        ("f(x)", ["pass"]),
        ("x += 1", ["pass", "x += 2"]),
        ("x = [a, b, c]", ["x = [b, a, c]"]),
        ("x = a if b else c", ["x = (c if b else a)"]),
    ],
)
def test_the_small_mistakes_of_a_line(line, after):
    found = changed(line)
    assert [each for each in after if each not in found] == []


@pytest.mark.parametrize(
    "line",
    [
        "from a import b",
        "raise ValueError(f'{a + 1}')",
        "x: Literal[1, 2] = None",
        "__all__ = ['a', 'b']",
        "x = 'a' + 'b'",
    ],
)
def test_what_no_test_should_hold_is_left_alone(line):
    assert changed(line) == []


def test_the_order_of_classes_is_left_alone():
    assert changed("x = isinstance(a, (b, c))") == ["x = isinstance((b, c), a)"]


def test_the_draw_is_fixed_by_its_seed_and_covers_every_file():
    once, again, other = (mutants.draw("spec", 30, seed) for seed in (0, 0, 1))
    assert once == again != other
    assert len({(each.file, each.line) for each in once}) == 30
    every = {path for paths, _ in mutants.GROUPS.values() for path in paths}
    for path in [*(ROOT / "backends").iterdir(), *(ROOT / "common").iterdir()]:
        name = path.relative_to(ROOT).as_posix()
        if name not in every and path.suffix in ("", ".py") and path.name != "__pycache__":
            assert name in UNTOUCHED, name


#: what only describes, says which others there are, or injects bugs itself
UNTOUCHED = {
    "backends/__init__.py",
    "backends/mutations",
    "backends/simulated",
    "common/__init__.py",
    "common/contract.py",
}


def test_what_runs_in_a_process_of_its_own_has_the_tests_that_begin_it():
    started = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "common").rglob("*.py")
        if "__main__" in path.read_text()
    }
    # the conformance tests of its group begin it
    started -= {"common/cli/__main__.py", "common/check/server.py"}
    whole = {"common/formats/readers", "common/distributed"}
    named = {"backends/numpy/weights.py"}  # which `common/convert/work.py` imports
    assert started | whole | named == {*mutants.ELSEWHERE}
    for tests in mutants.ELSEWHERE.values():
        assert all((ROOT / test).exists() for test in tests)


def test_a_mutant_finds_its_lines_where_they_have_moved(tmp_path):
    mutant = mutants.Mutant("spec", "a.py", 3, "number", "    x = 1", "    x = 2")
    (tmp_path / "a.py").write_text("if a:\n    x = 1\n\n\nif b:\n    x = 1\n")
    mutant.apply(tmp_path)
    assert (tmp_path / "a.py").read_text() == "if a:\n    x = 2\n\n\nif b:\n    x = 1\n"
    (tmp_path / "a.py").write_text("x = 1\n")
    with pytest.raises(LookupError, match="line 3"):
        mutant.apply(tmp_path)


def test_the_tests_that_run_a_line_are_chosen(tmp_path):
    with mutants.sqlite3.connect(tmp_path / "coverage") as database:
        database.execute("create table file (id, path)")
        database.execute("create table context (id, context)")
        database.execute("create table line_bits (file_id, context_id, numbits)")
        for file, name in enumerate(["a.py", "imported.py"]):
            database.execute("insert into file values (?, ?)", (file, f"/src/common/{name}"))
        for context, name in enumerate(["", "long[a|b]|run", "short|run"]):
            database.execute("insert into context values (?, ?)", (context, name))
        for each in [(0, 0, 0b11), (0, 1, 0b11100), (0, 2, 0b1000), (1, 0, 0b1110)]:
            bits = each[2].to_bytes(1, "little")
            database.execute("insert into line_bits values (?, ?, ?)", (*each[:2], bits))
    reach = mutants.Reach(tmp_path, tmp_path)

    def tests(file, line):
        return reach.tests(mutants.Mutant("spec", f"common/{file}", line, "number", "1", "2"))

    assert tests("a.py", 2) == ["long[a|b]"]
    assert (
        tests("a.py", 3) == tests("a.py", 0) == ["short", "long[a|b]"]
    )  # the second in the import
    assert tests("imported.py", 2) == ["tests/unit"]
    assert tests("a.py", 5) == tests("never_imported.py", 1) == []


def test_a_module_has_the_tests_that_import_it():
    assert "tests/unit/test_parity.py" in mutants.importers("common/parity/mutations.py")
    assert "tests/unit/test_plan.py" in mutants.importers("common/training/lock.py")
    assert mutants.importers("common/training/nothing.py") == []


def test_what_only_guards_a_zip_is_not_drawn():
    line = "x = [*zip(a, b, strict=True)]"
    found = [each for each in changed(line) if not mutants.only_strict(line, each)]
    assert found == ["x = [*zip(b, a, strict=True)]"]


def test_a_failed_test_is_named_whole(tmp_path):
    (tmp_path / "test_a.py").write_text(
        "import pytest\n\n@pytest.mark.parametrize('x', ['a \"b\"', 'c'])\n"
        "def test_a(x):\n    assert x == 'c', 'a - b'\n"
    )
    python = Path(sys.executable)
    failed = mutants.first_failure(tmp_path, python, ["test_a.py"])
    assert failed == 'test_a.py::test_a[a "b"]'
    assert mutants.first_failure(tmp_path, python, [failed]) == failed
    assert mutants.first_failure(tmp_path, python, ["test_a.py"], without=[failed]) == ""
    assert mutants.first_failure(tmp_path, python, ["test_a.py::gone"]) == ""
    assert mutants.first_failure(tmp_path, python, ["test_a.py::gone", failed]) == failed


def test_a_failure_without_a_test_counts_only_if_all_pass_without_the_mutant(tmp_path, monkeypatch):
    """A run that ends without a result proves nothing by itself."""
    ends = []
    monkeypatch.setattr(mutants, "first_failure", lambda *told: ends.pop(0))
    tree = object.__new__(mutants.Tree)
    tree.folder, tree.passing, tree.broken = tmp_path, set(), set()
    monkeypatch.setattr(tree, "restore", lambda: None)
    for killer in ("the import", "timeout"):
        ends[:] = [""]
        assert tree.passes(Path(), ["a.py::a"], killer, "")
        ends[:] = [killer]
        with pytest.raises(RuntimeError, match=f"Without a mutant the tests end with '{killer}'"):
            tree.passes(Path(), ["a.py::a"], killer, "")
    ends[:] = ["a.py::a"]
    assert not tree.passes(Path(), ["a.py::a"], "a.py::a", "")


def sample():
    """The mutants that a unit test killed soonest, one of each group, where the lines are left."""
    rows = [
        row
        for row in mutants.known()
        if re.match("tests/unit/.+::", row["test"])
        and row["before"] in (ROOT / row["file"]).read_text()
    ]
    rows.sort(key=lambda row: -row["seconds"])
    groups = {row["group"]: row for row in rows}
    return sorted(groups.values(), key=lambda row: row["seconds"])[:SAMPLE]


def test_a_sample_of_the_last_result_is_still_killed(tmp_path):
    for name in ("backends", "common", "tests", "docs", "pyproject.toml", "README.md"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copyfile
        copy(ROOT / name, tmp_path / name)
    rows, python = sample(), Path(sys.executable)
    assert len(rows) == SAMPLE
    assert mutants.first_failure(tmp_path, python, [row["test"] for row in rows]) == ""
    for row in rows:
        mutant = mutants.Mutant(**{name: row[name] for name in mutants.Mutant.__dataclass_fields__})
        mutant.apply(tmp_path)
        assert mutants.first_failure(tmp_path, python, [row["test"]]) == row["test"], row
        shutil.copyfile(ROOT / mutant.file, tmp_path / mutant.file)
