"""A run on disk: what was asked, its history, its checkpoints. Each file is whole, or not there.

    runs/<name>/
      config.json              what was asked, for people and other programs
      history.jsonl            a line an epoch, with a digest of itself
      curve.png                loss and accuracy, training and test
      checkpoints/last.safetensors, best.safetensors

A checkpoint alone is the whole run: weights and optimizer state in canonical form, the recipe, the
history so far and a digest of all of it, so that any backend can go on from it. A file is written
beside its place, synced and renamed; what a kill leaves half-written is never read.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from common.errors import RunError
from common.files import write_whole
from common.training.checkpoint import Checkpoint, read_checkpoint
from common.training.history import Epoch, signed


class Run:
    """A folder of one run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def create(cls, folder: Path, first: Checkpoint) -> Run:
        """Make the folder and its first checkpoint; RunError where there is a run already."""
        run = cls(folder)
        run.check_free()
        run.write(run.config_file, json.dumps(asdict(first.config), indent=2).encode())
        run.save(first)  # at once, so that whatever was begun can be resumed
        return run

    def check_free(self) -> None:
        """RunError where there is a run already."""
        if self.checkpoint("last").exists() or self.checkpoint("best").exists():
            raise RunError(
                f"{self.folder} holds a run already: go on with it by `--resume {self.folder}`, "
                "or choose another folder with `--out`."
            )

    @property
    def config_file(self) -> Path:
        """What was asked."""
        return self.folder / "config.json"

    @property
    def history_file(self) -> Path:
        """A line an epoch."""
        return self.folder / "history.jsonl"

    @property
    def curve_file(self) -> Path:
        """The picture of the history."""
        return self.folder / "curve.png"

    def checkpoint(self, which: str) -> Path:
        """The file of the `last` or the `best` checkpoint."""
        return self.folder / "checkpoints" / f"{which}.safetensors"

    def save(self, checkpoint: Checkpoint, which: str = "last") -> None:
        """Write a checkpoint; the one before it stays whole until this one is."""
        self.write(self.checkpoint(which), checkpoint.encode())

    def record(self, epochs: list[Epoch]) -> None:
        """Write the history and its picture anew."""
        from common.training.plots import curve

        lines = [json.dumps(signed(asdict(epoch))) + "\n" for epoch in epochs]
        self.write(self.history_file, "".join(lines).encode())
        self.write(self.curve_file, curve(epochs, self.folder.name))

    def load(self, which: str = "last") -> Checkpoint:
        """Read a checkpoint; RunError if there is none, or a damaged one, with the way out."""
        path = self.checkpoint(which)
        try:
            return read_checkpoint(path)
        except RunError as error:
            other = self.checkpoint("best" if which == "last" else "last")
            if other.exists():
                raise RunError(f"{str(error)[:-1]}; {other} may be whole: name it.") from error
            if not path.exists():
                raise RunError(
                    f"{self.folder} holds no checkpoint: begin anew with `--out {self.folder}`."
                ) from error
            raise

    def write(self, path: Path, data: bytes) -> None:
        """Write a file at once or not at all; RunError, and the old file, where that fails."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, data)
        except OSError as error:
            reason = error.strerror or str(error)
            raise RunError(f"{path} cannot be written ({reason}); {self.way_on()}.") from error

    def way_on(self) -> str:
        """What to do once there is room on the disk again."""
        if self.checkpoint("last").exists():
            return (
                f"what was saved before is whole: make room, then go on with "
                f"`--resume {self.folder}`"
            )
        return "nothing was saved yet: make room, then begin again"


def open_run(path: Path) -> tuple[Run, Checkpoint]:
    """A run and its last checkpoint, or the one in a named file of its `checkpoints`."""
    if path.is_file():
        folder = path.absolute().parent
        if folder.name != "checkpoints":
            raise RunError(f"{path} is not in the folder `checkpoints` of a run: name it there.")
        return Run(folder.parent), read_checkpoint(path)
    if not path.is_dir():
        raise RunError(f"{path} is no run: there is no such folder.")
    run = Run(path)
    return run, run.load()
