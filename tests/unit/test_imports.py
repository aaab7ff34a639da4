"""Imports go one way: every group of modules imports only the groups above it, without a circle."""

import ast
from functools import cache
from pathlib import Path

import pytest

from backends import FRAMEWORKS

ROOT = Path(__file__).parents[2]

#: the groups, lowest first: each may import itself and what stands before it
ORDER = (
    "common.errors",
    "common.files",
    "common.terminal",
    "common.limits",
    "common.processor",
    "common.rendezvous",
    "common.device",
    "common.spec",
    "common.weights",
    "common.formats",
    "common.recipe",
    "common.contract",
    "backends",
    "benchmarks",
    "common.data",
    "common.training",
    "common.inference",
    "common.distributed",
    "common.parity",
    "common.check",
    "common.convert",
    "common.bench",
    "common.page",
    "common.doctor",
    "common.cli",
)
LOADERS = {"import_module", "load_module", "__import__"}  #: functions that import by a string


def sources():
    """The source of every module of the packages, by its dotted name."""
    found = {}
    for folder in ("common", "backends", "benchmarks"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            if name != "common":  # a docstring
                found[name] = path.read_text()
    return found


def named(argument):
    """The modules that a string can name; a field of a formatted one holds a backend's name."""
    if isinstance(argument, ast.JoinedStr):
        parts = [each.value if isinstance(each, ast.Constant) else None for each in argument.values]
        return ["".join(part or name for part in parts) for name in FRAMEWORKS]
    return [argument.value] if isinstance(getattr(argument, "value", None), str) else []


@cache
def imported(source, modules):
    """What a module imports anywhere: in functions, for type checking, or by a string."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                found.append(full if full in modules else node.module)
        elif isinstance(node, ast.Call):
            called = getattr(node.func, "attr", getattr(node.func, "id", ""))
            for argument in node.args if called in LOADERS else ():
                found += named(argument)
    return found


def group(module):
    """The group of a module: the entry of ORDER that it is, or lies in."""
    return next((at for at, name in enumerate(ORDER) if f"{module}.".startswith(f"{name}.")), None)


def faults(modules):
    """Every import that goes up, and every circle, as sentences."""
    found, graph, names = [], {}, frozenset(modules)
    for name, source in modules.items():
        if group(name) is None:
            found.append(f"{name} is in no group")
            continue
        graph[name] = {each for each in imported(source, names) if each in names} - {name}
        for each in sorted(graph[name]):
            if group(each) > group(name):
                found.append(f"{name} imports {each}, which stands below it")
    done, path = set(), []

    def visit(name):
        if name in path:
            found.append("a circle: " + " -> ".join([*path[path.index(name) :], name]))
        elif name not in done:
            path.append(name)
            for each in sorted(graph.get(name, ())):
                visit(each)
            done.add(path.pop())

    for name in graph:
        visit(name)
    return found


def test_every_import_goes_down_the_list_and_there_is_no_circle():
    assert faults(sources()) == []


@pytest.mark.parametrize(
    ("name", "line", "fault"),
    [
        ("common.spec.rows", "from common.training.run import Run", "stands below"),
        ("common.weights.storage", "def f():\n    import common.cli.app", "stands below"),
        (
            "common.recipe",
            "if TYPE_CHECKING:\n    from common.parity import checks",
            "stands below",
        ),
        ("backends.torch.train", "importlib.import_module('common.training.loop')", "below"),
        ("common.formats.sandbox", "load_module(name, f'backends.{name}')", "stands below"),
        ("common.spec.rows", "from common.spec.networks import D2L", "a circle"),
        ("common.training.history", "from common.training.run import Run", "a circle"),
        ("backends.torch.googlenet", "from backends.torch.train import Trainer", "a circle"),
        ("common.stray", "import os", "no group"),
    ],
)
def test_an_upward_import_and_a_circle_are_found(name, line, fault):
    modules = sources()
    modules[name] = f"{modules.get(name, '')}\n{line}\n"
    assert any(fault in each for each in faults(modules)), faults(modules)


def test_a_module_that_is_imported_as_a_name_of_its_package_counts():
    modules = {"common.spec": "", "common.spec.rows": "", "common.weights": ""}
    modules["common.spec.rows"] = "from common import weights"
    assert faults(modules) == ["common.spec.rows imports common.weights, which stands below it"]


LONGEST = 420  # lines; "about 400"


def test_a_long_file_says_why_at_its_top():
    for folder in ("common", "backends", "benchmarks", "tests", "docs"):
        for path in (ROOT / folder).rglob("*.py"):
            text = path.read_text()
            if len(text.splitlines()) > LONGEST:
                top = ast.get_docstring(ast.parse(text)) or ""
                assert "Long because" in top, f"{path}: {len(text.splitlines())} lines"
