"""What the commands print: tables, progress, and what they are doing at the moment.

In a terminal the output is styled and progress is drawn on stderr. When it is piped, tables are
plain text of any width and no progress is printed.
"""

from __future__ import annotations

import io
import re
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence, Sized
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:  # `--help` should not import rich
    from rich.progress import Progress

Item = TypeVar("Item")

NUMBER = re.compile(r"-?[\d,.]+(e[-+]?\d+)?%?|")  #: cells of a column that is aligned to the right
RULE = "    \n    \n -- \n    \n    \n    \n    \n    \n"  #: a line of hyphens below the heads
WIDEST = 10_000  #: characters in a line that is piped

_live: list[Progress] = []  # what is drawn at the moment, innermost last


def table(rows: Iterable[Sequence[Any]], heads: Sequence[str] = ()) -> str:
    """The rows as a table, one line each if it is piped; None is an empty cell.

    A column of numbers is aligned to the right.
    """
    from rich.box import Box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    cells = [["" if cell is None else str(cell) for cell in row] for row in rows]
    width = len(heads) or max(map(len, cells), default=0)
    terminal = sys.stdout.isatty()
    made = Table(
        box=Box(RULE, ascii=True),
        show_header=bool(heads),
        show_edge=False,
        pad_edge=False,
        header_style="bold" if terminal else None,
        collapse_padding=True,
        padding=(0, 1, 0, 0) if heads else (0, 1),
    )
    for at in range(width):
        numbers = all(NUMBER.fullmatch(row[at]) for row in cells if at < len(row))
        head = Text(heads[at]) if heads else ""
        made.add_column(head, justify="right" if numbers else "left", overflow="fold")
    for row in cells:
        made.add_row(*map(Text, row))
    out = io.StringIO()
    Console(
        file=out,
        force_terminal=terminal,
        width=shutil.get_terminal_size().columns if terminal else WIDEST,
        highlight=False,
        markup=False,
        emoji=False,
    ).print(made)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


class Bar:
    """The progress of one task; it draws nothing without a terminal."""

    def __init__(self, progress: Progress | None, task: Any = None) -> None:
        self._progress, self._task = progress, task

    def advance(self, count: float = 1, note: str = "") -> None:
        """Count finished work, and show a short note beside it."""
        if self._progress:
            self._progress.update(self._task, advance=count)
            if note:
                self._progress.update(self._task, note=note)


@contextmanager
def progress(
    what: str, total: float | None = None, done: float = 0, unit: str = "", quiet: bool = False
) -> Iterator[Bar]:
    """Draw the progress of a task on stderr: a bar if its total is known, else a spinner."""
    if quiet or not sys.stderr.isatty():
        yield Bar(None)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

    columns: list[Any] = [SpinnerColumn("line"), TextColumn("{task.description}", markup=False)]
    if total is not None:
        count = TextColumn("{task.completed:,.0f}/{task.total:,.0f}" + f" {unit}", markup=False)
        columns += [BarColumn(24), count, TimeRemainingColumn(compact=True)]
    columns.append(TextColumn("{task.fields[note]}", markup=False))
    made = Progress(
        *columns,
        console=Console(stderr=True, highlight=False),
        transient=True,
        redirect_stdout=False,  # stdout may be a pipe while stderr is a terminal
        redirect_stderr=False,
    )
    if _live:
        _live[-1].stop()
    with made:
        _live.append(made)
        try:
            yield Bar(made, made.add_task(what, total=total, completed=int(done), note=""))
        finally:
            _live.pop()
            if _live:
                _live[-1].start()


def tracked(items: Iterable[Item], what: str, unit: str = "") -> Iterator[Item]:
    """Yield the items, and draw how many are done."""
    total = len(items) if isinstance(items, Sized) else None
    with progress(what, total, unit=unit) as bar:
        for item in items:
            yield item
            bar.advance()


def doing(what: str) -> None:
    """Show what is being done, if a spinner or a bar is drawn at the moment."""
    if _live:
        _live[-1].update(_live[-1].task_ids[-1], description=what)


def say(text: str) -> None:
    """Print a line to stdout, above what is drawn at the moment."""
    if _live:
        _live[-1].stop()
    click.echo(text)
    if _live:
        _live[-1].start()
