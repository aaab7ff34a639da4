"""The plan of a new or resumed run: its backend, checkpoint, data and folder."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from backends import FRAMEWORKS, load
from common.contract import Backend
from common.data.dataset import Dataset
from common.data.sources import load as load_data
from common.device import choose, own_device
from common.errors import RunError, SpecError, printable
from common.formats.identify import Known, with_own_eps
from common.recipe import AUTO, RECIPES, Recipe, recipe_of
from common.spec import summary
from common.spec.arithmetic import layers
from common.terminal import table
from common.training.checkpoint import Checkpoint, Config, same_data
from common.training.run import Run, open_run
from common.weights import not_finite

MOST_STEPS = 2_500_000  #: of a run; a checkpoint that holds more losses could not be read again


@dataclass(frozen=True)
class Plan:
    """A run before its training starts: the checkpoint, the data and the folder."""

    backend_name: str
    backend: Backend
    checkpoint: Checkpoint
    data: Dataset
    run: Run
    new: bool
    named: bool = True  #: the user gave the folder; if not, another free one does as well
    stamp: tuple[int, int] | None = None  #: of the last checkpoint when it was read
    extended: int = 0  #: the epochs that a resumed run had before it got more
    notes: tuple[str, ...] = ()  #: how weights and data were changed, as sentences

    @property
    def recipe(self) -> Recipe:
        """The hyper-parameters of the run."""
        return self.checkpoint.config.recipe

    def device(self, requested: str) -> str:
        """Return the requested device or fail; each worker gets its own GPU of several."""
        found = self.backend.devices()
        return own_device(choose(requested, found), requested, found)

    def decided(self, device: str) -> Plan:
        """Return the plan with the device's threads, and with its fastest precision for `auto`."""
        config, recipe = self.checkpoint.config, self.recipe
        if recipe.precision == AUTO:
            recipe = replace(recipe, precision=self.backend.fastest_precision(device))
        threads = self.backend.threads() if device == "cpu" else None
        config = replace(config, recipe=recipe, threads=threads)
        return replace(self, checkpoint=replace(self.checkpoint, config=config))

    def warning(self, device: str) -> str | None:
        """Return a sentence if this process computes with another number of threads than before."""
        before, now = self.checkpoint.config.threads, self.backend.threads()
        if device != "cpu" or before in (None, now):
            return None
        return (
            f"this run was computed in {before} threads, and goes on in {now}: sums round "
            f"differently, so the bits differ from an uninterrupted run. OMP_NUM_THREADS={before} "
            "sets the number of threads."
        )

    @contextmanager
    def claimed(self, rank: int = 0, workers: int = 1) -> Iterator[Plan]:
        """Hold the lock of the run's folder; yield the plan, whose folder nobody else has.

        A new run without `--out` takes the next free name if another process was faster. Several
        workers have agreed on the name, and only the first holds the lock. RunError if another
        process trains in the folder, or has trained in it since the plan was made.
        """
        if rank:
            yield self
            return
        run, choose = self.run, self.new and not self.named and workers == 1
        if choose:
            run = Run(make_free_folder(run.folder, run_name(self.recipe, self.backend_name)))
        with run.locked(made=choose):
            if self.new:
                run.check_free(locked=True)
            elif run.stamp() != self.stamp:
                raise RunError(
                    f"{run.folder} was trained by another process while this one started: go on "
                    f"with `--resume {run.folder}`."
                )
            yield replace(self, run=run)

    def describe(self, device: str) -> dict[str, Any]:
        """Return everything that is known before the first step, for `--dry-run`."""
        data, steps = self.data, self.recipe.steps_an_epoch(len(self.data.train_labels))
        return {
            "backend": f"{self.backend_name} {self.backend.VERSION}",
            "device": device,
            "data": data.source,
            "training images": len(data.train_labels),
            "test images": len(data.test_labels),
            "classes": len(data.classes),
            "steps": self.recipe.epochs * steps,
            "steps done": self.checkpoint.progress.steps,
            "folder": str(self.run.folder),
            "recipe": self.recipe.as_json(),
            "network": summary.describe(self.checkpoint.config.network()),
        }


def begin(
    backend_name: str,
    recipe_name: str,
    changes: dict[str, Any],
    source: str | None,
    limits: tuple[int | None, int | None],
    out: Path | None,
    known: Known | None = None,
    split: float | None = None,
) -> Plan:
    """Plan a new run: a named recipe with some fields changed.

    `split` divides the class folders of a data set that has no test images.

    It starts with the weights of `known`, if they are given, and their spec.
    """
    if known:
        changes = {"spec": known.spec.name, **changes}
    recipe = replace(recipe_of(recipe_name), **changes)
    recipe.network()  # raises SpecError for an unknown spec
    try:
        folder = out or free_folder(Path("runs"), run_name(recipe, backend_name))
    except OSError as error:
        raise RunError(
            f"runs cannot be used ({error.strerror}): choose a folder with `--out`."
        ) from error
    run = Run(folder)
    run.check_free()
    backend = load(backend_name)
    data = load_data(source, recipe.size, split).limit(*limits)
    config = Config.of(recipe, backend_name, data, source, limits, split)
    layers(config.network())  # raises SpecError for a size that is too small
    require_readable(recipe, len(data.train_labels))
    first = Checkpoint.first(config)
    notes: tuple[str, ...] = ()
    if known:
        first, notes = started_from(first, with_own_eps(replace(known, notes=())))
    if split is not None:
        notes = (
            *notes,
            f"{data.source} is divided by `--split {split:g}`, class by class, with a fixed seed: "
            f"{len(data.train_labels)} images for training, {len(data.test_labels)} for testing.",
        )
    return Plan(backend_name, backend, first, data, run, True, bool(out), notes=notes)


def started_from(first: Checkpoint, known: Known) -> tuple[Checkpoint, tuple[str, ...]]:
    """The first checkpoint with the weights of a file, and what was changed in them, as sentences.

    With another number of classes the heads stay as the seed draws them. RunError for other
    channels.
    """
    config, notes = first.config, list(known.notes)
    if known.spec.input[0] != config.channels:
        raise RunError(
            f"The weights are for images of {known.spec.input[0]} channel(s), and the data have "
            f"{config.channels}: give other data with `--data`."
        )
    if names := not_finite(known.weights):
        raise RunError(f"The weights hold NaN or infinity in {names[0]}: use others.")
    same = known.spec.head.width == len(config.classes)
    if not same:
        notes.append(
            f"The weights are of {known.spec.head.width} classes, and the data have "
            f"{len(config.classes)}: the head is new, drawn with the seed {config.recipe.seed}."
        )
    heads = re.compile(r"(auxiliary\.\d+\.)?head\.\w+")
    weights = {
        name: array if heads.fullmatch(name) and not same else known.weights[name].astype("float32")
        for name, array in first.weights.items()
    }
    return replace(first, weights=weights), tuple(notes)


def resume(
    path: Path,
    backend_name: str | None,
    precision: str | None,
    source: str | None,
    epochs: int | None = None,
) -> Plan:
    """Plan to resume a run, in its own backend or in another one, perhaps for more epochs.

    With more epochs the schedule is that of the longer run, from the next step on. SpecError if the
    run has more epochs already.
    """
    stamp = Run(path if path.is_dir() else path.absolute().parent.parent).stamp()
    run, checkpoint = open_run(path)
    config = checkpoint.config
    if precision:
        config = replace(config, recipe=replace(config.recipe, precision=precision))
    planned, ended = config.recipe.epochs, len(checkpoint.progress.epochs)
    if epochs:
        if epochs < ended or epochs < planned:
            raise SpecError(
                f"--epochs {epochs} is fewer than the {planned} epochs of {run.folder}: "
                "--resume can only extend a run."
            )
        config = replace(config, recipe=replace(config.recipe, epochs=epochs))
    backend_name = backend_name or config.backend
    if source is not None:
        config = replace(config, data=source)
    data = load_data(config.data, config.recipe.size, config.split)
    data = data.limit(config.limit_train, config.limit_test)
    require_readable(config.recipe, len(data.train_labels))
    checkpoint = replace(checkpoint, config=config)
    if same_data(config, data):  # the loop refuses other images
        check_steps(checkpoint, len(data.train_labels))
    extended = planned if config.recipe.epochs > planned else 0
    return Plan(
        backend_name,
        load(backend_name),
        checkpoint,
        data,
        run,
        False,
        stamp=stamp,
        extended=extended,
    )


def require_readable(recipe: Recipe, examples: int) -> None:
    """Raise SpecError for a run of more steps than a checkpoint can hold."""
    steps = recipe.epochs * recipe.steps_an_epoch(examples)
    if steps > MOST_STEPS:
        raise SpecError(
            f"{recipe.epochs} epochs are {steps:,} steps, and a run has at most {MOST_STEPS:,}: "
            "give fewer `--epochs`, or a larger `--batch-size`."
        )


def check_steps(checkpoint: Checkpoint, examples: int) -> None:
    """Raise RunError unless a checkpoint's steps are those of its epochs and losses."""
    progress, recipe = checkpoint.progress, checkpoint.config.recipe
    steps = recipe.steps_an_epoch(examples)
    counts = [len(epoch.losses) for epoch in progress.epochs]
    whole = counts == [steps] * len(counts) and len(counts) <= recipe.epochs
    rest = progress.steps - sum(counts)
    if not whole or rest != len(progress.losses) or rest > steps:
        raise RunError(
            f"The checkpoint's {progress.steps} steps do not fit its epochs and losses: start "
            "again with `--out`."
        )


def backend_name(given: str | None, resumed: Path | None) -> str:
    """Return the given backend, or the backend of the resumed run."""
    if given:
        return given
    if resumed:
        return open_run(resumed)[1].config.backend
    raise SpecError(f"--backend is needed: {', '.join(FRAMEWORKS)}.")


def run_name(recipe: Recipe, backend_name: str) -> str:
    """Return the name of a run's folder; it has the spec if that is not the named recipe's own."""
    named = RECIPES.get(recipe.name)
    spec = [recipe.spec] if named and recipe.spec != named.spec else []
    return "-".join([recipe.name, *spec, backend_name])


def free_folder(parent: Path, name: str) -> Path:
    """Return the first of `name`, `name-2`, `name-3`, ... that does not exist."""
    candidates = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
    return next(parent / each for each in candidates if not (parent / each).exists())


def make_free_folder(free: Path, name: str) -> Path:
    """Make this folder; if another process has made it, the next free one of `name`, `name-2`, ...

    RunError if it cannot be made.
    """
    while True:
        try:
            free.mkdir(parents=True)
            return free
        except FileExistsError:
            free = free_folder(free.parent, name)
        except OSError as error:
            raise Run(free).unusable(error.strerror) from error


def render(found: dict[str, Any]) -> str:
    """Return the result of `Plan.describe` as text."""
    recipe = ", ".join(f"{name} {value}" for name, value in found["recipe"].items())
    rest = {name: value for name, value in found.items() if name not in ("network", "recipe")}
    rows = [(name, printable(value)) for name, value in (*rest.items(), ("recipe", recipe))]
    return f"{summary.render(found['network'])}\n\n{table(rows)}"
