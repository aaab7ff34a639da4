"""A checkpoint: all that a run needs to go on, in any backend."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from common.data.dataset import Dataset
from common.errors import RunError, WeightsError, one_line
from common.recipe import Recipe
from common.spec import Spec
from common.training.history import Epoch, epoch_from
from common.weights import Weights, check, draw, is_running, open_sealed, seal

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
        arrays = {f"weights/{name}": array for name, array in self.weights.items()}
        for slot, tensors in self.state.items():
            arrays |= {f"{slot}/{name}": array for name, array in tensors.items()}
        arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        content = json.dumps(
            {"format": FORMAT, "config": asdict(self.config), "progress": asdict(self.progress)}
        )
        return seal(arrays, content)

    @classmethod
    def decode(cls, data: bytes) -> Checkpoint:
        """Read such bytes; ValueError, with half a sentence, for anything else."""
        arrays, content = open_sealed(data)
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


def config_from(found: dict[str, Any]) -> Config:
    """A configuration from what `json` read."""
    recipe = Recipe(**found["recipe"])
    lists = {"classes": tuple(found["classes"]), "pixels": tuple(found.get("pixels", (28, 28)))}
    return Config(**{**found, "recipe": recipe, **lists})


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


def read_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint in a file; RunError if there is none in it."""
    try:
        return Checkpoint.decode(path.read_bytes())
    except OSError as error:
        raise RunError(f"{path} cannot be read ({error.strerror}).") from error
    except ValueError as error:
        raise RunError(f"{path} {str(error).rstrip('.')}.") from error
