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

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from common.data import Dataset
from common.errors import RunError, WeightsError, one_line
from common.files import write_whole
from common.recipe import Recipe
from common.spec import Spec
from common.weights import KEY, Weights, check, draw, is_running, metadata, sha256

FORMAT = 1  #: of checkpoints; another one is refused


@dataclass(frozen=True)
class Config:
    """What a run was asked to do, and with what."""

    recipe: Recipe
    backend: str
    data: str | None  #: as `--data` was given
    limit_train: int | None
    limit_test: int | None
    channels: int
    classes: tuple[str, ...]
    fingerprint: str  #: of the data's labels and shapes
    pixels: tuple[int, int] = (28, 28)  #: height and width of the data's images

    @classmethod
    def of(
        cls,
        recipe: Recipe,
        backend: str,
        data: Dataset,
        source: str | None = None,
        limits: tuple[int | None, int | None] = (None, None),
    ) -> Config:
        """The configuration of a run on this data."""
        _, channels, height, width = (int(length) for length in data.train_images.shape)
        classes, print_of = tuple(data.classes), fingerprint(data)
        return cls(recipe, backend, source, *limits, channels, classes, print_of, (height, width))

    def network(self) -> Spec:
        """The spec of this run's network."""
        return self.recipe.network(self.channels, len(self.classes))


@dataclass(frozen=True)
class Epoch:
    """What one epoch came to. Losses are means in nats; the training ones while it went on."""

    number: int  #: from 1
    loss: float
    train_accuracy: float
    test_loss: float
    test_accuracy: float
    examples: int
    seconds: float  #: of training alone
    wait: float  #: seconds of these that the step waited for images
    backend: str
    version: str  #: of the framework
    device: str
    places: dict[str, list[str]]  #: where the tensors of the last step really lay
    losses: tuple[float, ...]  #: of every step


def speed(epochs: Sequence[Epoch]) -> float:
    """Training examples in a second of training, over all these epochs."""
    return sum(epoch.examples for epoch in epochs) / sum(epoch.seconds for epoch in epochs)


@dataclass
class Progress:
    """Where a run stands: the steps done, the epochs done, and the epoch under way."""

    steps: int = 0
    epochs: list[Epoch] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)  #: of the steps of the epoch under way
    right: int = 0
    seconds: float = 0.0
    wait: float = 0.0
    places: dict[str, list[str]] = field(default_factory=dict)  #: of the last step's tensors


@dataclass(frozen=True)
class Checkpoint:
    """All that a run needs to go on, in any backend."""

    config: Config
    weights: Weights
    state: dict[str, Weights]  #: of the optimizer; empty before the first step
    progress: Progress

    @classmethod
    def first(cls, config: Config) -> Checkpoint:
        """The checkpoint before the first step: the initial weights of the recipe's seed."""
        return cls(config, draw(config.network(), config.recipe.seed), {}, Progress())

    def encode(self) -> bytes:
        """The checkpoint as the bytes of a safetensors file."""
        from safetensors.numpy import save

        arrays = {f"weights/{name}": array for name, array in self.weights.items()}
        for slot, tensors in self.state.items():
            arrays |= {f"{slot}/{name}": array for name, array in tensors.items()}
        arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        content = json.dumps(
            {"format": FORMAT, "config": asdict(self.config), "progress": asdict(self.progress)}
        )
        named = json.dumps({"content": content, "sha256": _digest(arrays, content)})
        data: bytes = save(arrays, {KEY: named})
        return data

    @classmethod
    def decode(cls, data: bytes) -> Checkpoint:
        """Read such bytes; ValueError, with half a sentence, for anything else."""
        arrays, content = _open(data)
        try:
            found = json.loads(content)
            if found["format"] != FORMAT:
                raise ValueError(f"has format {found['format']}, this version reads {FORMAT}")
            tensors: dict[str, Weights] = {}
            for name, array in arrays.items():
                slot, _, rest = name.partition("/")
                tensors.setdefault(slot, {})[rest] = array
            config = config_from(found["config"])
            epochs = [epoch_from(epoch) for epoch in found["progress"].pop("epochs")]
            progress = Progress(epochs=epochs, **found["progress"])
            checkpoint = cls(config, tensors.pop("weights", {}), tensors, progress)
            checkpoint.check()
        except Exception as error:  # whole, and by its digest as it was written, but not by us
            if str(error).startswith("has format "):
                raise
            raise ValueError(f"is no checkpoint of ours: {one_line(error)[:200]}") from error
        return checkpoint

    def check(self) -> None:
        """Refuse weights or a state that are not those of the recipe, in float32."""
        network, slots = self.config.network(), self.config.recipe.slots()
        check(network, self.weights)
        before_the_first_step = not self.state and not self.progress.steps
        if set(self.state) != set(slots) and not before_the_first_step:
            raise WeightsError(f"its optimizer's state is {sorted(self.state)}, not {list(slots)}")
        trained = {name for name in self.weights if not is_running(name)}
        for slot, tensors in self.state.items():
            if set(tensors) != trained:
                odd = sorted(set(tensors) ^ trained)[0]
                raise WeightsError(f"{slot} of {odd} is missing, or of no trained weight")
            for name, array in tensors.items():
                if array.shape != self.weights[name].shape:
                    raise WeightsError(f"{slot} of {name} has shape {array.shape}")
        for part in (self.weights, *self.state.values()):
            for name, array in part.items():
                if array.dtype != np.float32:
                    raise WeightsError(f"{name} is {array.dtype}, not float32")


def _open(data: bytes) -> tuple[Weights, str]:
    """The tensors and the JSON in a checkpoint's bytes, whole; ValueError with half a sentence."""
    from safetensors.numpy import load

    try:
        arrays: Weights = load(data)
        outer = json.loads(metadata(data)[KEY])
        content, digest = outer["content"], outer["sha256"]
        actual = _digest(arrays, content)
    except Exception as error:  # safetensors raises many kinds
        raise ValueError(f"is no checkpoint: {one_line(error)[:120]}") from error
    if digest != actual:
        raise ValueError("is damaged: its contents do not have the SHA-256 that it names")
    return arrays, content


def _digest(arrays: Weights, content: str) -> str:
    return hashlib.sha256((sha256(arrays) + content).encode()).hexdigest()


def _signed(fields: dict[str, Any]) -> dict[str, Any]:
    """The same with a short digest of them."""
    digest = hashlib.sha256(json.dumps(fields).encode()).hexdigest()[:16]
    return {**fields, "sha256": digest}


def config_from(found: dict[str, Any]) -> Config:
    """A configuration from what `json` read."""
    recipe = Recipe(**found["recipe"])
    lists = {"classes": tuple(found["classes"]), "pixels": tuple(found.get("pixels", (28, 28)))}
    return Config(**{**found, "recipe": recipe, **lists})


def epoch_from(found: dict[str, Any]) -> Epoch:
    """An epoch from what `json` read."""
    return Epoch(**{**found, "losses": tuple(found["losses"])})


def fingerprint(data: Dataset) -> str:
    """A digest of all labels and of the counts and channels: enough to tell other data."""
    digest = hashlib.sha256()
    for images, labels in (
        (data.train_images, data.train_labels),
        (data.test_images, data.test_labels),
    ):
        digest.update(json.dumps([len(labels), int(images.shape[1])]).encode())
        digest.update(labels.astype("<i8").tobytes())
    return digest.hexdigest()[:16]


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
        from common.pictures import curve

        lines = [json.dumps(_signed(asdict(epoch))) + "\n" for epoch in epochs]
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


def read_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint in a file; RunError if there is none in it."""
    try:
        return Checkpoint.decode(path.read_bytes())
    except OSError as error:
        raise RunError(f"{path} cannot be read ({error.strerror}).") from error
    except ValueError as error:
        raise RunError(f"{path} {str(error).rstrip('.')}.") from error


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


def read_history(path: Path) -> list[Epoch]:
    """The epochs in a `history.jsonl`; RunError, with the line, for what is no history.

    A line is the epoch of its number, with its digest; what is cut off between lines is not missed.
    """
    known = {each.name for each in fields(Epoch)}
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"{path} cannot be read ({one_line(error)}).") from error
    epochs = []
    for number, line in enumerate(lines, 1):
        try:
            found = json.loads(line)
            digest = found.pop("sha256")
            if set(found) != known or found["number"] != number:
                raise ValueError("other fields")
            if digest != _signed(found)["sha256"]:
                raise ValueError("damaged")
            epochs.append(epoch_from(found))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise RunError(
                f"{path}, line {number}, is no epoch: `--resume` writes the file anew from the "
                "last checkpoint."
            ) from error
    return epochs
