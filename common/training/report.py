"""The output of a run: lines of text, JSON, TensorBoard events."""

from __future__ import annotations

import json
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict

import click

from common.errors import BackendError, RunError, printable
from common.training.history import Epoch, speed
from common.training.plan import Plan
from common.training.run import Run


class Lines:
    """Print a run to stdout as plain lines, or as JSON with one object per line."""

    def __init__(self, as_json: bool, silent: bool = False) -> None:
        self.as_json, self.silent = as_json, silent

    def start(self, plan: Plan, device: str, workers: int) -> None:
        """Print what will be trained."""
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
            f"from {printable(data.source)}, batch {recipe.batch_size}; "
            + (f"{workers} workers; " if workers > 1 else "")
            + (f"after {done} steps, " if done else "")
            + f"in {printable(plan.run.folder)}"
        )

    def epoch(self, epoch: Epoch) -> None:
        """Print the results of an epoch."""
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
        """Print the devices and the folder, then the two lines of d2l's `train_ch6`."""
        if self.as_json or self.silent:
            return
        last = epochs[-1]
        where = "; ".join(f"{what} on {', '.join(on)}" for what, on in last.places.items() if on)
        click.echo(f"{printable(where)}\nkept in {printable(run.folder)}")
        click.echo(
            f"loss {last.loss:.3f}, train acc {last.train_accuracy:.3f}, "
            f"test acc {last.test_accuracy:.3f}"
        )
        click.echo(f"{speed(epochs):.1f} examples/sec on {printable(last.device)}")


@contextmanager
def events(plan: Plan, wanted: bool) -> Iterator[Callable[[Epoch], None]]:
    """Yield a function that writes an epoch as TensorBoard events, if `wanted`."""
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
    def writing() -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RunError(
                f"{folder} cannot be written ({error.strerror}); {plan.run.way_on(error.errno)}."
            ) from error

    plan.run.require_inside(folder)
    with writing():
        folder.mkdir(parents=True, exist_ok=True)
        # not SummaryWriter: a full disk ends its thread, and then the next epochs block
        # a random name: a folder from a stranger may hold links
        name = (
            f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}.{secrets.token_hex(8)}"
        )
        writer = RecordWriter(str(folder / name))
    first_event = Event(wall_time=time.time(), file_version="brain.Event:2")
    writer.write(first_event.SerializeToString())  # into a buffer: `write` below flushes it

    def add(name: str, value: float, step: int) -> None:
        event = Event(wall_time=time.time(), step=step, summary=scalar(name, value))
        writer.write(event.SerializeToString())

    def write(epoch: Epoch) -> None:
        first = (epoch.number - 1) * len(epoch.losses)
        with writing():
            for step, loss in enumerate(epoch.losses, first + 1):
                add("step/loss", loss, step)
            for name in ("loss", "train_accuracy", "test_loss", "test_accuracy"):
                add(f"epoch/{name}", getattr(epoch, name), epoch.number)
            writer.flush()

    try:
        yield write
    finally:
        with suppress(OSError):  # `write` flushes and has already raised any error
            writer.close()
