"""Code of the backends found by name in the parsed source, aligned with its twins, as HTML lines.

An address is a path of names inside a file: `Conv`, `GoogLeNet.forward` (under each framework's word
for it), `GoogLeNet.__init__.head` (the assignment), `layer.MaxPool` (the body of that case).
"""

from __future__ import annotations

import ast
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from functools import lru_cache
from pathlib import Path

from markupsafe import Markup
from pygments.lexers import PythonLexer
from pygments.token import Comment, Keyword, Name, Number, String, Token

from common.errors import PageError

FORWARD = ("forward", "call", "hybrid_forward")  # the frameworks' words for the same method
ALIKE = 0.4  # lines that share fewer of their words are no twins

#: classes of the style sheet; a token has that of its nearest ancestor
CLASSES = {
    Comment: "c",
    Keyword: "k",
    Keyword.Constant: "m",
    Name.Function: "f",
    Name.Class: "f",
    Name.Builtin.Pseudo: "b",
    Number: "m",
    String: "s",
    String.Doc: "c",
}


@lru_cache
def parse(path: Path) -> tuple[ast.Module, tuple[str, ...]]:
    """A file's tree and its lines; PageError where there is none to parse."""
    try:
        text = path.read_text()
        return ast.parse(text), tuple(text.splitlines())
    except (OSError, SyntaxError, ValueError) as error:
        raise PageError(f"{path} cannot be read as Python ({error}).") from error


def find(path: Path, address: str) -> list[ast.AST]:
    """The statements at that address; PageError if it is none."""
    tree, _ = parse(path)
    found: list[ast.AST] = [tree]
    for name in address.split("."):
        found = [node for outer in found for node in _named(outer, name)]
    if not found:
        raise PageError(
            f"{path.parent.name}/{path.name} has no `{address}`, which the page shows: name it anew "
            "in common/page/topics.py."
        )
    return found


def has(path: Path, address: str) -> bool:
    """Whether the file has something of that address."""
    try:
        return bool(find(path, address))
    except PageError:
        return False


def _named(outer: ast.AST, name: str) -> list[ast.AST]:
    names = FORWARD if name in FORWARD else (name,)
    for node in getattr(outer, "body", []):
        match node:
            case ast.FunctionDef() | ast.ClassDef() if node.name in names:
                return [node]
            case ast.Assign():
                targets = {getattr(each, "attr", getattr(each, "id", "")) for each in node.targets}
                if name in targets:
                    return [node]
            case ast.Match():
                for case in node.cases:
                    pattern = case.pattern
                    if isinstance(pattern, ast.MatchClass):
                        if ast.unparse(pattern.cls).rpartition(".")[2] == name:
                            return list(case.body)
    return []


def cut(path: Path, addresses: Sequence[str]) -> list[str]:
    """The lines at these addresses: a blank line around functions, statements close together."""
    _, lines = parse(path)
    parts: list[list[str]] = []
    before_was_block = False
    for address in addresses:
        nodes = find(path, address)
        first, last = nodes[0], nodes[-1]
        block = isinstance(first, (ast.FunctionDef, ast.ClassDef))
        decorators = getattr(first, "decorator_list", [])
        begin = min(node.lineno for node in (first, *decorators))  # type: ignore[attr-defined]
        found = lines[begin - 1 : last.end_lineno]  # type: ignore[attr-defined]
        if parts and (block or before_was_block):
            parts.append([""])
        parts.append(textwrap.dedent("\n".join(found)).splitlines())
        before_was_block = block
    return [line for part in parts for line in part]


@dataclass(frozen=True)
class Piece:
    """A stretch of one line that the lexer takes for one token."""

    text: str
    css: str


@dataclass
class Column:
    """One framework's code in a topic, line beside line with its twins; None where it has none."""

    backend: str
    path: str
    code: str
    lines: list[int | None] = field(default_factory=list)  #: index of its line in each row
    html: list[Markup | None] = field(default_factory=list)  #: that line, differences marked
    absent: list[str] = field(default_factory=list)  #: classes: which others lack the line


def tokens(lines: Sequence[str]) -> list[list[Piece]]:
    """The lines as pieces, in the colours of the whole code."""
    rows: list[list[Piece]] = [[]]
    for kind, text in PythonLexer(stripnl=False).get_tokens("\n".join(lines) + "\n"):
        while kind is not Token and kind not in CLASSES:
            kind = kind.parent
        css = CLASSES.get(kind, "")
        for index, part in enumerate(text.split("\n")):
            if index:
                rows.append([])
            if part:
                rows[-1].append(Piece(part, css))
    return rows[: len(lines)]


def align(snippets: Mapping[str, tuple[str, Sequence[str]]]) -> list[Column]:
    """The snippets (path and lines by backend) as columns of equally many rows."""
    columns = [Column(name, path, "\n".join(code)) for name, (path, code) in snippets.items()]
    pieces = {name: tokens(code) for name, (_, code) in snippets.items()}
    words = {name: [Counter(_words(line)) for line in rows] for name, rows in pieces.items()}
    rows: list[dict[str, int]] = []
    for column in columns:
        rows = _merge(rows, column.backend, words)
    number = {column.backend: index for index, column in enumerate(columns)}
    for row in rows:
        missing = [f"x{number[each]}" for each in number if each not in row]
        for column in columns:
            at = row.get(column.backend)
            column.lines.append(at)
            if at is None:
                column.html.append(None)
                column.absent.append("")
                continue
            mine = pieces[column.backend][at]
            others = {
                f"n{number[each]}": pieces[each][row[each]]
                for each in row
                if each != column.backend
            }
            column.html.append(_marked(mine, others))
            column.absent.append(" ".join(missing))
    return columns


def _words(line: Sequence[Piece]) -> list[str]:
    return [piece.text for piece in line if piece.text.strip()]


def _merge(
    rows: list[dict[str, int]], name: str, words: Mapping[str, list[Counter[str]]]
) -> list[dict[str, int]]:
    """The rows with one more column, so that lines that share most words stand together."""
    mine = words[name]
    if not rows:
        return [{name: index} for index in range(len(mine))]

    def alike(row: dict[str, int], index: int) -> float:
        scores = [_alike(words[other][at], mine[index]) for other, at in row.items()]
        return max(scores) - ALIKE

    height, width = len(rows), len(mine)
    best = [[0.0] * (width + 1) for _ in range(height + 1)]  # of what lies below and right
    for y in reversed(range(height)):
        for x in reversed(range(width)):
            pair = best[y + 1][x + 1] + alike(rows[y], x)
            best[y][x] = max(pair, best[y + 1][x], best[y][x + 1])
    merged, y, x = [], 0, 0
    while y < height or x < width:
        if y < height and x < width and best[y][x] == best[y + 1][x + 1] + alike(rows[y], x):
            merged.append({**rows[y], name: x})
            y, x = y + 1, x + 1
        elif y < height and best[y][x] == best[y + 1][x]:
            merged.append(rows[y])
            y += 1
        else:
            merged.append({name: x})
            x += 1
    return merged


def _alike(a: Counter[str], b: Counter[str]) -> float:
    """The share of words in common; blank lines are alike, but less than any twins."""
    count = a.total() + b.total()
    return 2 * (a & b).total() / count if count else ALIKE + 0.01


def _marked(mine: Sequence[Piece], others: Mapping[str, Sequence[Piece]]) -> Markup:
    """The line; a piece that another column's line lacks has that column's class."""
    texts = [piece.text for piece in mine]
    lacking: list[list[str]] = [[] for _ in mine]
    for css, line in others.items():
        matcher = SequenceMatcher(None, texts, [piece.text for piece in line], autojunk=False)
        shared = {
            index
            for block in matcher.get_matching_blocks()
            for index in range(block.a, block.a + block.size)
        }
        for index, text in enumerate(texts):
            if index not in shared and text.strip():
                lacking[index].append(css)
    out: list[tuple[str, str]] = []
    for piece, lacks in zip(mine, lacking, strict=True):
        css = " ".join([piece.css, *lacks]).strip()
        if out and out[-1][0] == css:
            out[-1] = (css, out[-1][1] + piece.text)
        else:
            out.append((css, piece.text))
    parts = [
        Markup('<span class="{}">{}</span>').format(css, text) if css else Markup.escape(text)
        for css, text in out
    ]
    return Markup("").join(parts)


def where_used(path: Path, call: str) -> tuple[int, str] | None:
    """The first line that uses a name such as `nn.Conv2d`, and the name in full, by the imports."""
    tree, _ = parse(path)
    imported = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                imported[alias.asname or alias.name] = alias.name
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                imported[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    uses = [
        (node.lineno, ast.unparse(node))
        for node in ast.walk(tree)
        if isinstance(node, (ast.Attribute, ast.Name))
    ]
    lines = [line for line, text in uses if text == call or text.endswith(f".{call}")]
    if not lines:
        return None
    first, dot, rest = call.partition(".")
    return min(lines), imported.get(first, first) + dot + rest
