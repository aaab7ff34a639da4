"""A run on disk: its configuration, history and checkpoints. Each file is complete or absent.

    runs/<name>/
      config.json              the configuration, for people and other programs
      history.jsonl            one line per epoch, with its own digest
      curve.png                loss and accuracy, training and test
      checkpoints/last.safetensors, best.safetensors
      .lock                    only while a process trains: its number, its machine, since when

A checkpoint alone is enough to resume a run in any backend. It holds the weights and the optimizer
state in canonical form, the recipe, the history so far and a digest of all of these. Each file is
written to a temporary file in the same folder, synced and renamed. A partial file is never read.
While a process trains, it holds the lock of the folder (`lock.py`).

The folder may come from a stranger. Links in it that lead out of it are refused.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

import click

from common.errors import RunError, one_line, printable
from common.files import leads_out, leftovers, write_whole
from common.training import lock
from common.training.checkpoint import Checkpoint, Config, read_checkpoint
from common.training.history import Epoch, read_history, signed

FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC), errno.EFBIG)  #: no room on the disk


class Run:
    """The folder of one run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def create(cls, folder: Path, first: Checkpoint) -> Run:
        """Make the folder and its first checkpoint; RunError if it holds a run already."""
        run = cls(folder)
        run.check_free()
        run.describe(first.config)
        run.save(first)  # now, so that the run can be resumed from the start
        return run

    def check_free(self, locked: bool = False) -> None:
        """Raise RunError if the folder holds a run already, or can be no folder.

        The error names the process that trains in it, if there is one, unless this one holds the
        lock (`locked`).
        """
        try:
            holds = self.checkpoint("last").exists() or self.checkpoint("best").exists()
            around = (self.folder, *self.folder.parents)
            existing = next((each for each in around if each.exists()), Path())
        except OSError as error:  # such as a name that is too long
            raise self.unusable(error.strerror) from error
        if holds:
            if not locked and (self.folder / lock.NAME).exists():
                with suppress(OSError), lock.held(self.folder):
                    pass  # nobody trains in it: the lock is what a killed process left
            raise RunError(
                f"{self.folder} holds a run already: go on with it by `--resume {self.folder}`, "
                "or choose another folder with `--out`."
            )
        if not existing.is_dir():
            raise self.unusable(f"{existing} is a file")

    def unusable(self, reason: str | None) -> RunError:
        """Return the error for a folder that cannot be made."""
        return RunError(
            f"{self.folder} cannot be the folder of a run ({reason}): choose another with `--out`."
        )

    @contextmanager
    def locked(self, made: bool = False) -> Iterator[None]:
        """Make the folder if it is missing, and hold its lock.

        Raises RunError, which names the holder, if another process has the lock. If the folder was
        made for this (`made`: by the caller) and nothing was written, it is removed afterwards.
        """
        try:
            made = made or not self.folder.exists()
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self.unusable(error.strerror) from error
        try:
            with lock.held(self.folder):
                self.remove_leftovers()
                yield
        except OSError as error:
            if str(error.filename) != str(self.folder / lock.NAME):
                raise
            raise RunError(
                f"{self.folder / lock.NAME} cannot be written ({error.strerror}): remove it, or "
                "choose another folder with `--out`."
            ) from error
        finally:
            if made:
                with suppress(OSError):
                    self.folder.rmdir()  # only if it is empty

    def remove_leftovers(self) -> None:
        """Remove what killed processes left half-written; only for the holder of the lock."""
        checkpoints = [self.checkpoint("last"), self.checkpoint("best")]
        for path in (self.config_file, self.history_file, self.curve_file, *checkpoints):
            if not leads_out(path.parent, self.folder):
                for each in leftovers(path):
                    with suppress(OSError):
                        each.unlink()

    @property
    def config_file(self) -> Path:
        """The configuration of the run."""
        return self.folder / "config.json"

    @property
    def history_file(self) -> Path:
        """One line for each epoch."""
        return self.folder / "history.jsonl"

    @property
    def curve_file(self) -> Path:
        """The plot of the history."""
        return self.folder / "curve.png"

    def checkpoint(self, which: str) -> Path:
        """Return the path of the `last` or the `best` checkpoint."""
        return self.folder / "checkpoints" / f"{which}.safetensors"

    def describe(self, config: Config) -> None:
        """Write the configuration for people and other programs."""
        fields = {**asdict(config), "recipe": config.recipe.as_json()}
        self.write(self.config_file, json.dumps(fields, indent=2).encode())

    def save(self, checkpoint: Checkpoint, which: str = "last") -> None:
        """Write a checkpoint; it replaces the previous one only when it is complete."""
        self.write(self.checkpoint(which), checkpoint.encode())

    def record(self, epochs: list[Epoch]) -> None:
        """Rewrite the history and its plot. A plot that fails is a warning: it ends no run."""
        from common.training.plots import curve

        lines = [json.dumps(signed(asdict(epoch))) + "\n" for epoch in epochs]
        self.write(self.history_file, "".join(lines).encode())
        try:
            write_whole(self.curve_file, curve(epochs, self.folder.absolute().name))
        except Exception as error:  # matplotlib raises many types
            reason = printable(one_line(error)[:200])
            click.echo(f"warning: {printable(self.curve_file)} is not drawn: {reason}", err=True)

    def load(self, which: str = "last") -> Checkpoint:
        """Read a checkpoint; RunError with advice if it is missing or damaged."""
        path = self.checkpoint(which)
        try:
            return self.read(which)
        except RunError as error:
            other = self.checkpoint("best" if which == "last" else "last")
            if other.exists():
                raise RunError(f"{str(error)[:-1]}; try {other} instead.") from error
            if not path.exists() and not self.config_file.exists():
                raise RunError(f"{self.folder} is not a run: it holds no checkpoint.") from error
            if not path.exists():
                raise RunError(
                    f"{self.folder} holds no checkpoint: start again with `--out {self.folder}`."
                ) from error
            raise

    def read(self, which: str) -> Checkpoint:
        """Read a checkpoint; RunError if it is missing, damaged, or a link that leads out."""
        self.require_inside(self.checkpoint(which))
        return read_checkpoint(self.checkpoint(which))

    def stamp(self) -> tuple[int, int] | None:
        """Return what changes whenever the last checkpoint is written; None if there is none."""
        try:
            found = self.checkpoint("last").stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns

    def history(self) -> list[Epoch]:
        """Read the history; RunError if it is missing, damaged, or a link that leads out."""
        self.require_inside(self.history_file)
        return read_history(self.history_file)

    def require_inside(self, path: Path) -> None:
        """Raise RunError if links take a path of the run out of its folder."""
        if leads_out(path, self.folder):
            raise RunError(
                f"{path} leads out of {self.folder} by a link: put the file itself in its place."
            )

    def write(self, path: Path, data: bytes) -> None:
        """Write a file completely, or keep the old file and raise RunError."""
        self.require_inside(path.parent)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, data)
        except OSError as error:
            reason = error.strerror or str(error)
            way_on = self.way_on(error.errno)
            raise RunError(f"{path} cannot be written ({reason}); {way_on}.") from error

    def way_on(self, number: int | None) -> str:
        """Return the advice after a failed write; `number` is the errno."""
        remedy = "make room on the disk" if number in FULL else "make it writable"
        if self.checkpoint("last").exists():
            return (
                f"the earlier checkpoint is intact: {remedy}, then go on with "
                f"`--resume {self.folder}`"
            )
        return f"nothing was saved yet: {remedy}, then start again"


def open_run(path: Path) -> tuple[Run, Checkpoint]:
    """Return a run and its last checkpoint, or the checkpoint in the given file.

    Raises RunError if the path is neither.
    """
    if path.exists() and not path.is_dir():
        folder = path.absolute().parent
        if folder.name != "checkpoints":
            raise RunError(
                f"{path} is not in the folder `checkpoints` of a run: move it there, or begin a "
                "run from a file of weights with `--weights`."
            )
        run = Run(folder.parent)
        run.require_inside(path.absolute())
        return run, read_checkpoint(path)
    if not path.is_dir():
        raise RunError(f"{path} is not a run: there is no such folder.")
    run = Run(path)
    return run, run.load()
