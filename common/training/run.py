"""A run on disk: its configuration, history and checkpoints. Each file is complete or absent.

    runs/<name>/
      config.json              the configuration, for people and other programs
      history.jsonl            one line per epoch, with its own digest
      curve.png                loss and accuracy, training and test
      checkpoints/last.safetensors, best.safetensors

A checkpoint alone is enough to resume a run in any backend. It holds the weights and the optimizer
state in canonical form, the recipe, the history so far and a digest of all of these. Each file is
written to a temporary file in the same folder, synced and renamed. A partial file is never read.
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
    """The folder of one run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def create(cls, folder: Path, first: Checkpoint) -> Run:
        """Make the folder and its first checkpoint; RunError if it holds a run already."""
        run = cls(folder)
        run.check_free()
        run.write(run.config_file, json.dumps(asdict(first.config), indent=2).encode())
        run.save(first)  # now, so that the run can be resumed from the start
        return run

    def check_free(self) -> None:
        """Raise RunError if the folder holds a run already."""
        if self.checkpoint("last").exists() or self.checkpoint("best").exists():
            raise RunError(
                f"{self.folder} holds a run already: go on with it by `--resume {self.folder}`, "
                "or choose another folder with `--out`."
            )

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

    def save(self, checkpoint: Checkpoint, which: str = "last") -> None:
        """Write a checkpoint; it replaces the previous one only when it is complete."""
        self.write(self.checkpoint(which), checkpoint.encode())

    def record(self, epochs: list[Epoch]) -> None:
        """Rewrite the history and its plot."""
        from common.training.plots import curve

        lines = [json.dumps(signed(asdict(epoch))) + "\n" for epoch in epochs]
        self.write(self.history_file, "".join(lines).encode())
        self.write(self.curve_file, curve(epochs, self.folder.name))

    def load(self, which: str = "last") -> Checkpoint:
        """Read a checkpoint; RunError with advice if it is missing or damaged."""
        path = self.checkpoint(which)
        try:
            return read_checkpoint(path)
        except RunError as error:
            other = self.checkpoint("best" if which == "last" else "last")
            if other.exists():
                raise RunError(f"{str(error)[:-1]}; try {other} instead.") from error
            if not path.exists():
                raise RunError(
                    f"{self.folder} holds no checkpoint: start again with `--out {self.folder}`."
                ) from error
            raise

    def write(self, path: Path, data: bytes) -> None:
        """Write a file completely, or keep the old file and raise RunError."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, data)
        except OSError as error:
            reason = error.strerror or str(error)
            raise RunError(f"{path} cannot be written ({reason}); {self.way_on()}.") from error

    def way_on(self) -> str:
        """Return the advice after a failed write."""
        if self.checkpoint("last").exists():
            return (
                f"the earlier checkpoint is intact: make room on the disk, then go on with "
                f"`--resume {self.folder}`"
            )
        return "nothing was saved yet: make room on the disk, then start again"


def open_run(path: Path) -> tuple[Run, Checkpoint]:
    """Return a run and its last checkpoint, or the checkpoint in the given file.

    Raises RunError if the path is neither.
    """
    if path.is_file():
        folder = path.absolute().parent
        if folder.name != "checkpoints":
            raise RunError(f"{path} is not in the folder `checkpoints` of a run: move it there.")
        return Run(folder.parent), read_checkpoint(path)
    if not path.is_dir():
        raise RunError(f"{path} is not a run: there is no such folder.")
    run = Run(path)
    return run, run.load()
