"""What the commands `evaluate`, `predict` and `plot` do with a finished run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from backends import load
from common.contract import Backend
from common.data.dataset import Dataset
from common.data.image_files import Files, decode, inspect_image
from common.data.sources import load as load_data
from common.device import choose, enough_memory
from common.errors import DivergedError, RunError, printable
from common.files import write_whole
from common.terminal import table, tracked
from common.training.checkpoint import Checkpoint, Config
from common.training.history import Epoch, read_history
from common.training.run import Run
from common.weights import not_finite


@dataclass(frozen=True)
class Opened:
    """A checkpoint loaded in a backend and on a device, which may differ from the run's own."""

    run: Run
    which: str
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
                f"The network of {self.run.folder} gives probabilities that are not finite numbers "
                f"in {self.precision}: try `--precision float32`, another `--checkpoint`, or train "
                "it again with a smaller `--lr`."
            )
        return found

    def facts(self) -> dict[str, Any]:
        """Return the run, the checkpoint, and where it runs."""
        return {
            "run": str(self.run.folder),
            "checkpoint": self.which,
            "epochs": len(self.checkpoint.progress.epochs),
            "backend": self.backend_name,
            "version": self.backend.VERSION,
            "device": self.device,
            "precision": self.precision,
        }


def read(path: Path, which: str) -> tuple[Run, Checkpoint]:
    """Return a run and its `best` or `last` checkpoint.

    RunError if there is none, or if one of its weights is not a finite number.
    """
    run = Run(path)
    if not path.is_dir():
        why = "it is a file" if path.exists() else "there is no such folder"
        raise RunError(f"{path} is not a run: {why}.")
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
    return run, checkpoint


def enter(
    run: Run,
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
    return Opened(run, which, checkpoint, name, backend, chosen, recipe.precision)


def test_set(config: Config, source: str | None) -> Dataset:
    """Return the run's own test images, or all of another source; RunError if they do not fit."""
    data = load_data(config.data if source is None else source, config.recipe.size)
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
    head = (
        f"{found['backend']} {found['version']} on {found['device']}, {found['precision']}: the "
        f"{found['checkpoint']} checkpoint of {found['run']}, after epoch {found['epochs']}; "
        f"{found['images']} test images from {found['data']}"
    )
    heads = ("class", "images", "right", "accuracy")
    last = f"test loss {found['loss']:.3f}, test acc {found['accuracy']:.3f}"
    return f"{printable(head)}\n\n{table(rows, heads)}\n\n{last}"


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
