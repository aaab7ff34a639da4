"""What `googlenet train` does: plan a run, begun or resumed, and carry it out in words."""

from __future__ import annotations

import itertools
import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import click
from tabulate import tabulate

from backends import FRAMEWORKS, load
from common import summary
from common.arithmetic import layers
from common.contract import Backend
from common.data import Dataset
from common.data import load as load_data
from common.device import choose
from common.errors import BackendError, RunError, SpecError
from common.fit import Fit
from common.recipe import AUTO, Recipe, find_recipe
from common.run import Checkpoint, Config, Epoch, Run, open_run, speed
from common.workers import own_device


@dataclass(frozen=True)
class Plan:
    """A run about to be trained: from which checkpoint, on which data, in which folder."""

    backend_name: str
    backend: Backend
    checkpoint: Checkpoint
    data: Dataset
    run: Run
    new: bool

    @property
    def recipe(self) -> Recipe:
        """What the run was asked to do."""
        return self.checkpoint.config.recipe

    def device(self, requested: str) -> str:
        """The device that was asked for, if it is there; of several GPUs, each worker its own."""
        found = self.backend.devices()
        return own_device(choose(requested, found), requested, found)

    def decided(self, device: str) -> Plan:
        """The plan with the precision that `auto` is on the device."""
        config = self.checkpoint.config
        if config.recipe.precision != AUTO:
            return self
        recipe = replace(config.recipe, precision=self.backend.fastest(device))
        checkpoint = replace(self.checkpoint, config=replace(config, recipe=recipe))
        return replace(self, checkpoint=checkpoint)

    def describe(self, device: str) -> dict[str, Any]:
        """All that is known before the first step."""
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

    def train(
        self,
        device: str,
        show: Lines,
        write: Callable[[Epoch], None],
        stop: Callable[[], int],
        save_every: float,
        rank: int = 0,
        workers: int = 1,
    ) -> None:
        """Train to the end, and say so; worker 0 alone writes."""

        def report(epoch: Epoch) -> None:
            write(epoch)
            show.epoch(epoch)

        run = None if rank else self.run
        fit = Fit(  # a device or precision that is refused leaves no folder behind
            self.backend,
            self.backend_name,
            self.checkpoint,
            self.data,
            device,
            run,
            report,
            stop,
            save_every,
            rank,
            workers,
        )
        if run and self.new:
            Run.create(run.folder, self.checkpoint)
        elif run:
            run.record(self.checkpoint.progress.epochs)  # as it was at the checkpoint
        show.start(self, device, workers)
        show.end(fit().epochs, self.run)


def begin(
    backend_name: str,
    recipe_name: str,
    changes: dict[str, Any],
    source: str | None,
    limits: tuple[int | None, int | None],
    out: Path | None,
) -> Plan:
    """A new run: a named recipe with some of its fields changed."""
    recipe = replace(find_recipe(recipe_name), **changes)
    recipe.network()  # refuses an unknown spec
    run = Run(out or free_folder(Path("runs"), f"{recipe.name}-{backend_name}"))
    run.check_free()
    backend = load(backend_name)
    data = load_data(source, recipe.size).limit(*limits)
    config = Config.of(recipe, backend_name, data, source, limits)
    layers(config.network())  # refuses a size that is too small
    return Plan(backend_name, backend, Checkpoint.first(config), data, run, True)


def resume(path: Path, backend_name: str | None, precision: str | None, source: str | None) -> Plan:
    """A run that goes on, in the backend it was begun in or in another one."""
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
    """The backend that was asked for, or that of the run to go on with."""
    if given:
        return given
    if resumed:
        return open_run(resumed)[1].config.backend
    raise SpecError(f"--backend is needed: {', '.join(FRAMEWORKS)}.")


def free_folder(parent: Path, name: str) -> Path:
    """The first of `name`, `name-2`, `name-3`, ... that holds nothing yet."""
    candidates = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
    return next(parent / each for each in candidates if not (parent / each).exists())


class Lines:
    """The run in plain lines on stdout, or in JSON: an object a line."""

    def __init__(self, as_json: bool, silent: bool = False) -> None:
        self.as_json, self.silent = as_json, silent

    def start(self, plan: Plan, device: str, workers: int) -> None:
        """What is about to be trained."""
        if self.silent:
            return
        recipe, data = plan.recipe, plan.data
        if self.as_json:
            facts = {"backend": plan.backend_name, "device": device, "folder": str(plan.run.folder)}
            click.echo(json.dumps({**facts, "recipe": asdict(recipe), "data": data.source}))
            return
        done = plan.checkpoint.progress.steps
        click.echo(
            f"{plan.backend_name} {plan.backend.VERSION} on {device}, {recipe.precision}: recipe "
            f"{recipe.name} with {recipe.spec} at {recipe.size}, {len(data.train_labels)} images "
            f"from {data.source}, batch {recipe.batch_size}; "
            + (f"{workers} workers; " if workers > 1 else "")
            + (f"after {done} steps, " if done else "")
            + f"in {plan.run.folder}"
        )

    def epoch(self, epoch: Epoch) -> None:
        """What an epoch came to."""
        if self.silent:
            return
        if self.as_json:
            click.echo(json.dumps({k: v for k, v in asdict(epoch).items() if k != "losses"}))
            return
        click.echo(
            f"epoch {epoch.number}: loss {epoch.loss:.3f}, train acc {epoch.train_accuracy:.3f}, "
            f"test loss {epoch.test_loss:.3f}, test acc {epoch.test_accuracy:.3f}, "
            f"{epoch.seconds:.1f} s, {epoch.wait / epoch.seconds:.1%} of it waiting for images"
        )

    def end(self, epochs: list[Epoch], run: Run) -> None:
        """The book's two lines, and where everything lay."""
        if self.as_json or self.silent:
            return
        last = epochs[-1]
        where = "; ".join(f"{what} on {', '.join(on)}" for what, on in last.places.items() if on)
        click.echo(f"{where}\nkept in {run.folder}")
        click.echo(
            f"loss {last.loss:.3f}, train acc {last.train_accuracy:.3f}, "
            f"test acc {last.test_accuracy:.3f}"
        )
        click.echo(f"{speed(epochs):.1f} examples/sec on {last.device}")


@contextmanager
def events(plan: Plan, wanted: bool) -> Iterator[Callable[[Epoch], None]]:
    """A function that writes an epoch as TensorBoard events, if they are wanted."""
    if not wanted:
        yield lambda epoch: None
        return
    try:
        from tensorboardX.proto.event_pb2 import Event  # type: ignore[import-untyped]
        from tensorboardX.record_writer import RecordWriter  # type: ignore[import-untyped]
        from tensorboardX.summary import scalar  # type: ignore[import-untyped]
    except ImportError as error:
        raise BackendError(
            "--tensorboard needs tensorboardX: `pip install -e '.[tensorboard]'`."
        ) from error
    folder = plan.run.folder / "tensorboard"

    @contextmanager
    def refusing() -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RunError(
                f"{folder} cannot be written ({error.strerror}); {plan.run.way_on()}."
            ) from error

    with refusing():
        folder.mkdir(parents=True, exist_ok=True)
        # not SummaryWriter: its thread dies of a full disk, and the next epochs wait for it
        name = f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}"
        writer = RecordWriter(str(folder / name))
    first_event = Event(wall_time=time.time(), file_version="brain.Event:2")
    writer.write(first_event.SerializeToString())  # into a buffer: `write` below flushes it

    def add(name: str, value: float, step: int) -> None:
        event = Event(wall_time=time.time(), step=step, summary=scalar(name, value))
        writer.write(event.SerializeToString())

    def write(epoch: Epoch) -> None:
        first = (epoch.number - 1) * len(epoch.losses)
        with refusing():
            for step, loss in enumerate(epoch.losses, first + 1):
                add("step/loss", loss, step)
            for name in ("loss", "train_accuracy", "test_loss", "test_accuracy"):
                add(f"epoch/{name}", getattr(epoch, name), epoch.number)
            writer.flush()

    try:
        yield write
    finally:
        with suppress(OSError):  # `write` has flushed; what it could not write, it has told
            writer.close()


def render(found: dict[str, Any]) -> str:
    """What `Plan.describe` found, for people."""
    recipe = ", ".join(f"{name} {value}" for name, value in found["recipe"].items())
    rest = {name: value for name, value in found.items() if name not in ("network", "recipe")}
    table = tabulate([*rest.items(), ("recipe", recipe)], tablefmt="plain")
    return f"{summary.render(found['network'])}\n\n{table}"
