"""A checkpoint: everything that a run needs to continue in any backend."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from common.data.dataset import Dataset
from common.data.image_files import Files
from common.errors import RunError, WeightsError, one_line
from common.files import read_ordinary
from common.recipe import Recipe
from common.spec import Spec
from common.training.fields import listed, named, number, parse, plain, text, whole
from common.training.history import MOST, Epoch, epoch_from, losses_from, places_from
from common.weights import Weights, check, draw, is_running, open_sealed, seal

FORMAT = 1  #: version of the checkpoint format; other versions are rejected
LARGEST = 2**30  #: bytes of a checkpoint; with Adam, one of 20,000 classes has a third of them
MOST_CLASSES = 100_000
MOST_PIXELS = 4096  #: height or width of an image, and size of the input


@dataclass(frozen=True)
class Config:
    """The configuration of a run: recipe, backend and data."""

    recipe: Recipe
    backend: str
    data: str | None  #: the value of `--data`
    limit_train: int | None
    limit_test: int | None
    channels: int
    classes: tuple[str, ...]
    fingerprint: str  #: digest of the data's labels and pixels; see `fingerprint`
    pixels: tuple[int, int] = (28, 28)  #: height and width of the images in the data
    threads: int | None = None  #: of one operation on the CPU; None on a GPU and in older runs
    split: float | None = None  #: the value of `--split`

    def check(self) -> None:
        """Raise ValueError if a field has another type or is out of its range."""
        plain("backend", self.backend)  # `backends.load` refuses unknown ones
        if self.data is not None:
            text("data", self.data, 4096)
        for name in ("limit_train", "limit_test"):
            if (limit := getattr(self, name)) is not None:
                whole(name, limit, 1, MOST)
        if whole("channels", self.channels, 1, 3) == 2:
            raise ValueError("its channels are 2: they must be 1 or 3")
        for each in listed("classes", self.classes, MOST_CLASSES):
            text("classes", each, 255)
        if len(self.classes) < 2:
            raise ValueError("its classes are fewer than two")
        fingerprint = text("fingerprint", self.fingerprint)
        if fingerprint.strip("0123456789abcdef"):
            raise ValueError("its fingerprint is not a hexadecimal number")
        if self.split is not None and not 0 < number("split", self.split, 0) < 1:
            raise ValueError("its split is not between 0 and 1")
        whole("recipe's size", self.recipe.size, 1, MOST_PIXELS)
        for name in ("batch_size", "epochs"):
            whole(f"recipe's {name}", getattr(self.recipe, name), 1, MOST)
        if len(listed("pixels", self.pixels, 2)) != 2:
            raise ValueError("its pixels are not a height and a width")
        if self.threads is not None:
            whole("threads", self.threads, 1, MOST)
        for length in self.pixels:
            whole("pixels", length, 1, most_pixels(self.recipe))

    @classmethod
    def of(
        cls,
        recipe: Recipe,
        backend: str,
        data: Dataset,
        source: str | None = None,
        limits: tuple[int | None, int | None] = (None, None),
        split: float | None = None,
    ) -> Config:
        """Return the configuration of a run; RunError for images larger than its input."""
        _, channels, height, width = (int(length) for length in data.train_images.shape)
        if max(height, width) > most_pixels(recipe):
            raise RunError(
                f"The images in {data.source} are {height} x {width}, larger than the input of "
                f"{recipe.size} x {recipe.size}: give `--size {max(height, width)}`."
            )
        classes, digest = tuple(data.classes), fingerprint(data)
        config = cls(
            recipe,
            backend,
            source,
            *limits,
            channels,
            classes,
            digest,
            pixels=(height, width),
            split=split,
        )
        try:
            config.check()
        except ValueError as error:
            raise RunError(f"This run is not possible: {error}.") from error
        return config

    def network(self) -> Spec:
        """Return the spec of this run's network."""
        return self.recipe.network(self.channels, len(self.classes))


def most_pixels(recipe: Recipe) -> int:
    """The height or width of the largest images that a run takes: its input's, or 28."""
    return max(28, recipe.size)


@dataclass
class Progress:
    """The progress of a run: finished steps, finished epochs, and the current epoch."""

    steps: int = 0
    epochs: list[Epoch] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)  #: of each step in the current epoch
    right: int = 0  #: correct predictions in the current epoch
    seconds: float = 0.0  #: training time of the current epoch
    wait: float = 0.0  #: part of `seconds` spent waiting for images
    places: dict[str, list[str]] = field(
        default_factory=dict
    )  #: devices of the last step's tensors


@dataclass(frozen=True)
class Checkpoint:
    """Everything that a run needs to continue in any backend."""

    config: Config
    weights: Weights
    state: dict[str, Weights]  #: the optimizer's slots; empty before the first step
    progress: Progress

    @classmethod
    def first(cls, config: Config) -> Checkpoint:
        """Return the checkpoint before the first step, with the initial weights of the seed."""
        return cls(config, draw(config.network(), config.recipe.seed), {}, Progress())

    def encode(self) -> bytes:
        """Return the checkpoint as the bytes of a safetensors file."""
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
        """Read the bytes that `encode` returns.

        Raises ValueError with the second half of a sentence ("is not ...") for anything else.
        """
        arrays, content = open_sealed(data)
        try:
            found = parse(content)
            if found["format"] != FORMAT:
                form = whole("format", found["format"], 0, MOST)
                raise ValueError(f"has format {form}, this version reads {FORMAT}")
            tensors: dict[str, Weights] = {}
            for name, array in arrays.items():
                slot, _, rest = name.partition("/")
                tensors.setdefault(slot, {})[rest] = array
            config = config_from(found["config"])
            progress = progress_from(found["progress"])
            checkpoint = cls(config, tensors.pop("weights", {}), tensors, progress)
            checkpoint.check()
        except Exception as error:  # the digest is right, but the content is not a checkpoint
            if str(error).startswith("has format "):
                raise
            raise ValueError(
                f"is not a checkpoint of this program: {one_line(error)[:200]}"
            ) from error
        return checkpoint

    def check(self) -> None:
        """Raise WeightsError if weights or state do not fit the recipe or are not float32."""
        network, slots = self.config.network(), self.config.recipe.slots()
        check(network, self.weights)
        untrained = not self.state and not self.progress.steps
        if set(self.state) != set(slots) and not untrained:
            raise WeightsError(f"its optimizer's state is {sorted(self.state)}, not {list(slots)}")
        trained = {name for name in self.weights if not is_running(name)}
        for slot, tensors in self.state.items():
            if set(tensors) != trained:
                odd = sorted(set(tensors) ^ trained)[0]
                raise WeightsError(f"{slot} of {odd} is missing, or belongs to no trained weight")
            for name, array in tensors.items():
                if array.shape != self.weights[name].shape:
                    raise WeightsError(f"{slot} of {name} has shape {array.shape}")
        for part in (self.weights, *self.state.values()):
            for name, array in part.items():
                if array.dtype != np.float32:
                    raise WeightsError(f"{name} is {array.dtype}, not float32")


def config_from(found: Any) -> Config:
    """Return a configuration from parsed JSON; ValueError if a field is wrong."""
    found = named(Config, found, "configuration")
    recipe = Recipe(**named(Recipe, found["recipe"], "recipe"))
    classes = tuple(listed("classes", found["classes"], MOST_CLASSES))
    pixels = tuple(listed("pixels", found.get("pixels", [28, 28]), 2))
    config = Config(**{**found, "recipe": recipe, "classes": classes, "pixels": pixels})
    config.check()
    return config


def progress_from(found: Any) -> Progress:
    """Return the progress of a run from parsed JSON; ValueError if a field is wrong."""
    found = named(Progress, found, "progress")
    epochs = [epoch_from(epoch) for epoch in listed("epochs", found.get("epochs", []), MOST)]
    for index, epoch in enumerate(epochs, 1):
        whole("epoch's number", epoch.number, index, index)
    progress = Progress(**{**found, "epochs": epochs})
    whole("steps", progress.steps, 0, MOST)
    whole("right", progress.right, 0, MOST)
    number("seconds", progress.seconds, 0)
    number("wait", progress.wait, 0)
    losses_from(progress.losses)
    places_from(progress.places)
    return progress


def fingerprint(data: Dataset, pixels: bool = True) -> str:
    """Return a digest of the labels, the counts and the pixels, to detect other data.

    The pixels of a data folder are those of its files, byte by byte. Runs of older versions have a
    shorter digest, without the pixels (`pixels=False`). DataError if an image cannot be read.
    """
    digest = hashlib.sha256()
    for images, labels in (
        (data.train_images, data.train_labels),
        (data.test_images, data.test_labels),
    ):
        digest.update(json.dumps([len(labels), int(images.shape[1])]).encode())
        digest.update(labels.astype("<i8").tobytes())
        if pixels:
            digest.update(json.dumps([int(length) for length in images.shape[2:]]).encode())
            digest.update(images.digest if isinstance(images, Files) else images.tobytes())
    return digest.hexdigest()[: 32 if pixels else 16]


def same_data(config: Config, data: Dataset) -> bool:
    """Return whether this is the data that a run was begun with, by classes and fingerprint."""
    recorded = config.fingerprint
    classes = tuple(data.classes)
    return (classes, fingerprint(data, len(recorded) > 16)) == (config.classes, recorded)


def read_checkpoint(path: Path) -> Checkpoint:
    """Return the checkpoint in a file; RunError if it cannot be read or holds none."""
    try:
        return Checkpoint.decode(read_ordinary(path, LARGEST))
    except OSError as error:
        raise RunError(f"{path} cannot be read ({error.strerror}).") from error
    except ValueError as error:
        raise RunError(f"{path} {str(error).rstrip('.')}.") from error
