"""The plan of a new or resumed run: its backend, checkpoint, data and folder."""

from __future__ import annotations

import itertools
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tabulate import tabulate

from backends import FRAMEWORKS, load
from common.contract import Backend
from common.data.dataset import Dataset
from common.data.sources import load as load_data
from common.device import choose, own_device
from common.errors import SpecError
from common.recipe import AUTO, Recipe, find_recipe
from common.spec import summary
from common.spec.arithmetic import layers
from common.training.checkpoint import Checkpoint, Config
from common.training.run import Run, open_run


@dataclass(frozen=True)
class Plan:
    """A run before its training starts: the checkpoint, the data and the folder."""

    backend_name: str
    backend: Backend
    checkpoint: Checkpoint
    data: Dataset
    run: Run
    new: bool

    @property
    def recipe(self) -> Recipe:
        """The hyper-parameters of the run."""
        return self.checkpoint.config.recipe

    def device(self, requested: str) -> str:
        """Return the requested device or fail; each worker gets its own GPU of several."""
        found = self.backend.devices()
        return own_device(choose(requested, found), requested, found)

    def decided(self, device: str) -> Plan:
        """Return the plan with `auto` replaced by the fastest precision of the device."""
        config = self.checkpoint.config
        if config.recipe.precision != AUTO:
            return self
        recipe = replace(config.recipe, precision=self.backend.fastest_precision(device))
        checkpoint = replace(self.checkpoint, config=replace(config, recipe=recipe))
        return replace(self, checkpoint=checkpoint)

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
            "recipe": asdict(self.recipe),
            "network": summary.describe(self.checkpoint.config.network()),
        }


def begin(
    backend_name: str,
    recipe_name: str,
    changes: dict[str, Any],
    source: str | None,
    limits: tuple[int | None, int | None],
    out: Path | None,
) -> Plan:
    """Plan a new run: a named recipe with some fields changed."""
    recipe = replace(find_recipe(recipe_name), **changes)
    recipe.network()  # raises SpecError for an unknown spec
    run = Run(out or free_folder(Path("runs"), f"{recipe.name}-{backend_name}"))
    run.check_free()
    backend = load(backend_name)
    data = load_data(source, recipe.size).limit(*limits)
    config = Config.of(recipe, backend_name, data, source, limits)
    layers(config.network())  # raises SpecError for a size that is too small
    return Plan(backend_name, backend, Checkpoint.first(config), data, run, True)


def resume(path: Path, backend_name: str | None, precision: str | None, source: str | None) -> Plan:
    """Plan to resume a run, in its own backend or in another one."""
    run, checkpoint = open_run(path)
    config = checkpoint.config
    if precision:
        config = replace(config, recipe=replace(config.recipe, precision=precision))
    backend_name = backend_name or config.backend
    if source is not None:
        config = replace(config, data=source)
    data = load_data(config.data, config.recipe.size)
    data = data.limit(config.limit_train, config.limit_test)
    return Plan(
        backend_name, load(backend_name), replace(checkpoint, config=config), data, run, False
    )


def backend_name(given: str | None, resumed: Path | None) -> str:
    """Return the given backend, or the backend of the resumed run."""
    if given:
        return given
    if resumed:
        return open_run(resumed)[1].config.backend
    raise SpecError(f"--backend is needed: {', '.join(FRAMEWORKS)}.")


def free_folder(parent: Path, name: str) -> Path:
    """Return the first of `name`, `name-2`, `name-3`, ... that does not exist."""
    candidates = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
    return next(parent / each for each in candidates if not (parent / each).exists())


def render(found: dict[str, Any]) -> str:
    """Return the result of `Plan.describe` as text."""
    recipe = ", ".join(f"{name} {value}" for name, value in found["recipe"].items())
    rest = {name: value for name, value in found.items() if name not in ("network", "recipe")}
    table = tabulate([*rest.items(), ("recipe", recipe)], tablefmt="plain")
    return f"{summary.render(found['network'])}\n\n{table}"
