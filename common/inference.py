"""What the commands `evaluate`, `predict` and `plot` do with a finished run, or with weights."""

from __future__ import annotations

import csv
import glob
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from backends import FRAMEWORKS, load
from common.contract import Backend
from common.data.dataset import Dataset
from common.data.image_decoder import endings
from common.data.image_files import Files, decode, inspect_image
from common.data.sources import load as load_data
from common.device import choose, enough_memory
from common.errors import DataError, DivergedError, RunError, printable
from common.files import write_whole
from common.formats.identify import Known, with_own_eps
from common.recipe import Recipe
from common.spec.arithmetic import layers
from common.terminal import table, tracked
from common.training.checkpoint import Checkpoint, Config, Progress
from common.training.history import Epoch, read_history
from common.training.run import Run
from common.weights import not_finite

WEIGHTS = "weights"  #: a file of weights instead of a checkpoint of a run


@dataclass(frozen=True)
class Opened:
    """A checkpoint loaded in a backend and on a device, which may differ from the run's own."""

    path: Path  #: of the run, or of the file of weights
    which: str  #: `best`, `last` or WEIGHTS
    checkpoint: Checkpoint
    backend_name: str
    backend: Backend
    device: str
    precision: str

    @property
    def config(self) -> Config:
        """The configuration of the run."""
        return self.checkpoint.config

    def probabilities(self, images: Any) -> np.ndarray:
        """Return the probabilities, float64 (N, classes), of uint8 images (N, C, H, W).

        OutOfMemoryError if a batch of the recipe does not fit in the memory. DivergedError if a
        probability is not a finite number.
        """
        recipe = replace(self.config.recipe, precision=self.precision)
        starts = range(0, len(images), recipe.batch_size)
        bar = tracked(starts, "predicting", "batches")
        batch_size = recipe.batch_size
        with enough_memory(
            self.backend.out_of_memory, self.device, batch_size, "another `--device`"
        ):
            model = self.backend.build(self.config.network(), self.precision, self.device)
            self.backend.write_weights(model, self.checkpoint.weights)
            trainer = self.backend.Trainer(model, recipe)
            parts = [trainer.predict(images[at : at + recipe.batch_size]) for at in bar]
        found: np.ndarray = np.concatenate(parts).astype(np.float64)
        if not np.isfinite(found).all():
            raise DivergedError(
                f"The network of {self.path} gives probabilities that are not finite numbers "
                f"in {self.precision}: try `--precision float32`, another `--checkpoint`, or train "
                "it again with a smaller `--lr`."
            )
        return found

    def facts(self) -> dict[str, Any]:
        """Return the run, the checkpoint, and where it runs."""
        origin: dict[str, Any] = {"run": str(self.path), "checkpoint": self.which}
        origin["epochs"] = len(self.checkpoint.progress.epochs)
        if self.which == WEIGHTS:
            origin = {"weights": str(self.path), "spec": self.config.recipe.spec}
        return origin | {
            "backend": self.backend_name,
            "version": self.backend.VERSION,
            "device": self.device,
            "precision": self.precision,
        }


def read(path: Path, which: str) -> Checkpoint:
    """Return the `best` or `last` checkpoint of a run.

    RunError if there is none, or if one of its weights is not a finite number.
    """
    run = Run(path)
    if path.is_file():
        raise RunError(
            f"{path} is a file, not the folder of a run: give a file of weights with `--weights`."
        )
    if not path.is_dir():
        raise RunError(f"{path} is not a run: there is no such folder.")
    if not (path / "checkpoints").is_dir():
        raise RunError(f"{path} is not a run: it holds no folder `checkpoints`.")
    if which == "best" and not run.checkpoint("best").exists() and run.checkpoint("last").exists():
        raise RunError(
            f"{path} has no best checkpoint before the end of its first epoch: use "
            "`--checkpoint last`."
        )
    checkpoint = run.read(which)
    if names := not_finite(checkpoint.weights):
        raise RunError(
            f"{run.checkpoint(which)} is damaged: {names[0]} holds NaN or infinity; try another "
            "`--checkpoint`, or train it again."
        )
    return checkpoint


def from_weights(
    known: Known, classes: Sequence[str] | None, size: int | None, backend: str | None
) -> Checkpoint:
    """The weights of a file as the checkpoint of a run that was never trained here.

    Classes without names have numbers. The size is the spec's if it is None. The norms have the
    eps of the spec; see `with_own_eps`. RunError for fewer than two classes, or other channels than
    those of images.
    """
    known = with_own_eps(known)
    count, size = known.spec.head.width, size or known.spec.input[1]
    names = tuple(classes or map(str, range(count)))
    if len(names) != count:
        raise RunError(
            f"The weights are of {count} classes, and the images of {len(names)}: give images of "
            "the same classes with `--data`."
        )
    recipe = Recipe(spec=known.spec.name, size=size, batch_size=32)
    name, channels = backend or next(iter(installed()), next(iter(FRAMEWORKS))), known.spec.input[0]
    config = Config(recipe, name, None, None, None, channels, names, "", (size, size))
    try:
        config.check()
    except ValueError as error:
        raise RunError(f"These weights cannot classify images: {error}.") from error
    layers(config.network())  # raises SpecError for a size that is too small
    weights = {name: array.astype(np.float32) for name, array in known.weights.items()}
    if odd := not_finite(weights):
        raise RunError(f"The weights hold NaN or infinity in {odd[0]}: train the network again.")
    return Checkpoint(config, weights, {}, Progress())


def installed() -> list[str]:
    """The backends whose framework is installed."""
    return [name for name, package in FRAMEWORKS.items() if find_spec(package)]


def weights_test_set(known: Known, source: str | None, size: int | None) -> Dataset:
    """The test images for weights of a file; RunError if they have other channels."""
    size = size or known.spec.input[1]
    data = load_data(source, size)
    channels = known.spec.input[0]
    if isinstance(data.test_images, Files):
        files = Files(data.test_images.paths, channels, *data.test_images.shape[2:])
        data = replace(data, test_images=files)
    if data.test_images.shape[1] != channels:
        raise RunError(
            f"The images in {data.source} have {data.test_images.shape[1]} channel(s), and the "
            f"network takes {channels}: give other images with `--data`."
        )
    return data


def enter(
    path: Path,
    which: str,
    checkpoint: Checkpoint,
    backend_name: str | None,
    device: str,
    precision: str | None,
) -> Opened:
    """Select backend, device and precision for a checkpoint. The backend defaults to the run's."""
    recipe = checkpoint.config.recipe
    recipe = replace(
        recipe, precision=precision or recipe.precision
    )  # raises an error for an unknown one
    name = backend_name or checkpoint.config.backend
    backend = load(name)
    chosen = choose(device, backend.devices())
    return Opened(path, which, checkpoint, name, backend, chosen, recipe.precision)


def test_set(config: Config, source: str | None) -> Dataset:
    """Return the run's own test images, or all of another source; RunError if they do not fit."""
    data = load_data(
        config.data if source is None else source,
        config.recipe.size,
        config.split if source is None else None,
    )
    if source is None:
        data = data.limit(config.limit_train, config.limit_test)
    if isinstance(data.test_images, Files):  # another source may have another size or be grey
        files = Files(data.test_images.paths, config.channels, *config.pixels)
        data = replace(data, test_images=files)
    if data.classes != config.classes or data.test_images.shape[1] != config.channels:
        raise RunError(
            f"The images in {data.source} have other classes or channels than those that this run "
            "was trained on: give a matching folder with `--data`."
        )
    return data


def evaluate(opened: Opened, data: Dataset) -> dict[str, Any]:
    """Return the mean loss (nats, without label smoothing), accuracy and confusion matrix.

    `confusion[i][j]` counts the images of class i that were predicted as class j.
    """
    labels, classes = data.test_labels, data.classes
    found = opened.probabilities(data.test_images)
    chosen = found[np.arange(len(labels)), labels]
    confusion = np.zeros((len(classes), len(classes)), np.int64)
    np.add.at(confusion, (labels, found.argmax(1)), 1)
    return {
        **opened.facts(),
        "data": data.source,
        "images": len(labels),
        "loss": float(-np.log(np.maximum(chosen, np.finfo(np.float32).tiny)).mean()),
        "accuracy": float(confusion.trace() / len(labels)),
        "classes": [
            {"name": name, "images": int(row.sum()), "right": int(row[index])}
            for index, (name, row) in enumerate(zip(classes, confusion, strict=True))
        ],
        "confusion": confusion.tolist(),
    }


def render(found: dict[str, Any]) -> str:
    """Return the result of `evaluate` as text."""
    rows = [
        (
            printable(each["name"]),
            each["images"],
            each["right"],
            f"{each['right'] / max(each['images'], 1):.3f}",
        )
        for each in found["classes"]
    ]
    origin = f"{found.get('weights')} as {found.get('spec')}"
    if "run" in found:
        origin = f"the {found['checkpoint']} checkpoint of {found['run']}, "
        origin += f"after epoch {found['epochs']}"
    head = (
        f"{found['backend']} {found['version']} on {found['device']}, {found['precision']}: "
        f"{origin}; {found['images']} test images from {found['data']}"
    )
    heads = ("class", "images", "right", "accuracy")
    last = f"test loss {found['loss']:.3f}, test acc {found['accuracy']:.3f}"
    return f"{printable(head)}\n\n{table(rows, heads)}\n\n{last}"


def expand(paths: Sequence[Path]) -> list[Path]:
    """The image files that paths name: files, the images in folders, and patterns such as `*.png`.

    DataError for a folder or a pattern without images.
    """
    found: list[Path] = []
    for path in paths:
        names = [path]
        if path.is_dir():
            inside = (each for each in path.rglob("*") if each.suffix.lower() in endings())
            names = sorted(each for each in inside if each.is_file() and each.name[0] != ".")
        elif not path.exists() and glob.has_magic(str(path)):
            names = sorted(map(Path, glob.glob(str(path), recursive=True)))
        if not names:
            raise DataError(
                f"{path} names no image of a known format; name files or a folder, or leave it out"
            )
        found += names
    return found


def csv_table(rows: Sequence[dict[str, Any]]) -> str:
    """Predictions as CSV: one line for each image and class, the most probable first."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("file", "rank", "class", "probability"))
    for row in rows:
        for rank, each in enumerate(row["classes"], 1):
            writer.writerow((row["file"], rank, each["class"], f"{each['probability']:.6f}"))
    return text.getvalue()


def read_images(config: Config, paths: Sequence[Path], invert: bool) -> np.ndarray:
    """Read image files in the format of the run's images, uint8 (N, C, H, W).

    `invert` negates them. DataError if a file is damaged.
    """
    for path in paths:
        inspect_image(path)
    images = np.stack([decode(path, config.channels, *config.pixels) for path in paths])
    return 255 - images if invert else images


def predict(
    opened: Opened, images: np.ndarray, paths: Sequence[Path], top: int
) -> list[dict[str, Any]]:
    """Return the `top` most probable classes of each image, the most probable first."""
    names = opened.config.classes
    return [
        {
            "file": str(path),
            "classes": [
                {"class": names[index], "probability": float(row[index])}
                for index in np.argsort(-row, kind="stable")[:top]
            ],
        }
        for path, row in zip(paths, opened.probabilities(images), strict=True)
    ]


def line(row: dict[str, Any]) -> str:
    """Return a prediction as text."""
    chances = (f"{each['class']} {each['probability']:.3f}" for each in row["classes"])
    return printable(f"{row['file']}: {', '.join(chances)}")


def keep(path: Path, picture: bytes) -> None:
    """Write a picture completely or not at all; RunError if it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, picture)
    except OSError as error:
        reason = error.strerror or error
        raise RunError(
            f"{path} cannot be written ({reason}): choose another path with `--out`."
        ) from error


def histories(paths: Sequence[Path]) -> dict[str, list[Epoch]]:
    """Return unique run name -> epochs; RunError if a run has no finished epoch."""
    runs = [Run(path) if path.is_dir() else None for path in paths]
    files = [run.history_file if run else path for run, path in zip(runs, paths, strict=True)]
    names = [file.absolute().parent.name for file in files]
    found = {}
    for path, run, file, name in zip(paths, runs, files, names, strict=True):
        epochs = []
        if file.exists():
            epochs = run.history() if run else read_history(file)
        if not epochs and not path.exists():
            raise RunError(f"{path} is not a run: there is no such folder.")
        if not epochs:
            raise RunError(
                f"{file} holds no epoch: it is not a run, or its first epoch is not finished."
            )
        backends = " then ".join(dict.fromkeys(epoch.backend for epoch in epochs))
        found[f"{name if names.count(name) == 1 else path} ({backends})"] = epochs
    return found
