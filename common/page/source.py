"""Finds code of the backends by name in the parsed source.

An address is a path of names inside a file: `Conv`, `GoogLeNet.forward` (each framework has its own
name for it), `GoogLeNet.__init__.head` (the assignment), `layer.MaxPool` (the body of that case).
"""

from __future__ import annotations

import ast
import textwrap
from functools import lru_cache
from pathlib import Path

from common.errors import PageError

FORWARD = ("forward", "call", "hybrid_forward")  # the frameworks' names for the same method


@lru_cache
def parse(path: Path) -> tuple[ast.Module, tuple[str, ...]]:
    """The syntax tree and the lines of a file; PageError if it cannot be parsed."""
    try:
        text = path.read_text()
        return ast.parse(text), tuple(text.splitlines())
    except (OSError, SyntaxError, ValueError) as error:
        raise PageError(f"{path} cannot be read as Python ({error}).") from error


def find(path: Path, address: str) -> list[ast.AST]:
    """The statements at an address; PageError if the file has no such address."""
    tree, _ = parse(path)
    found: list[ast.AST] = [tree]
    for name in address.split("."):
        found = [node for outer in found for node in _named(outer, name)]
    if not found:
        raise PageError(
            f"{path.parent.name}/{path.name} has no `{address}`, which the page shows: change the "
            "address in common/page/topics.py."
        )
    return found


def _named(outer: ast.AST, name: str) -> list[ast.AST]:
    names = FORWARD if name in FORWARD else (name,)
    for node in getattr(outer, "body", []):
        match node:
            case ast.FunctionDef() | ast.ClassDef() if node.name in names:
                return [node]
            case ast.Assign():
                parts = [part for each in node.targets for part in getattr(each, "elts", [each])]
                if name in {getattr(part, "attr", getattr(part, "id", "")) for part in parts}:
                    return [node]
            case ast.If():  # both ways, and what stands between them
                way = [*_named(node, name), *_named(ast.Module(node.orelse, []), name)]
                if way:
                    return way
            case ast.With():
                if inside := _named(node, name):
                    return inside
            case ast.Match():
                for case in node.cases:
                    pattern = case.pattern
                    either = pattern.patterns if isinstance(pattern, ast.MatchOr) else [pattern]
                    kinds = [each.cls for each in either if isinstance(each, ast.MatchClass)]
                    if name in [ast.unparse(kind).rpartition(".")[2] for kind in kinds]:
                        return list(case.body)
    return []


def first_line(path: Path, address: str) -> int:
    """The number of the first line at an address; a decorator counts."""
    first = find(path, address)[0]
    numbers: list[int] = [n.lineno for n in (first, *getattr(first, "decorator_list", []))]
    return min(numbers)


def listing(path: str, line: int) -> str:
    """The address of a line of a file in the site."""
    return f"source/{path.replace('/', '-')}.html#L{line}"


def cut(path: Path, address: str) -> list[str]:
    """The lines at an address, without their common indentation."""
    last = find(path, address)[-1]
    begin = first_line(path, address)
    lines = parse(path)[1][begin - 1 : last.end_lineno]  # type: ignore[attr-defined]
    return textwrap.dedent("\n".join(lines)).splitlines()


def is_block(path: Path, address: str) -> bool:
    """Whether the address is a function or a class, which gets blank lines around it."""
    return isinstance(find(path, address)[0], (ast.FunctionDef, ast.ClassDef))


@lru_cache
def uses(path: Path) -> tuple[dict[str, str], list[tuple[int, str]]]:
    """The full name of each import, and every name that the file uses, with its line number."""
    tree, _ = parse(path)
    imported: dict[str, str] = {}
    names = []
    for node in ast.walk(tree):
        match node:
            case ast.Import():
                imported |= {alias.asname or alias.name: alias.name for alias in node.names}
            case ast.ImportFrom():
                imported |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
            case ast.Attribute() | ast.Name():
                names.append((node.lineno, ast.unparse(node)))
    return imported, sorted(names)


def where_used(path: Path, call: str) -> tuple[int, str] | None:
    """The first line that uses a name such as `nn.Conv2d`, and the full name; None if unused."""
    imported, names = uses(path)
    for line, text in names:
        if text == call or text.endswith(f".{call}"):
            first, dot, rest = call.partition(".")
            return line, imported.get(first, first) + dot + rest
    return None
