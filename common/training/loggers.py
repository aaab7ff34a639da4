"""Logs of a run beside its own files: TensorBoard events, Weights & Biases, MLflow."""

from __future__ import annotations

import importlib
import secrets
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from functools import partial
from typing import Any

import click

from common.errors import BackendError, RunError, one_line, printable
from common.files import install_command
from common.training.history import Epoch
from common.training.plan import Plan

METRICS = ("loss", "train_accuracy", "test_loss", "test_accuracy")

Log = Callable[[Epoch], None]


@contextmanager
def logging(plan: Plan, names: tuple[str, ...]) -> Iterator[Log]:
    """Yield a function that logs an epoch with each of the packages.

    `names` are of `tensorboard`, `wandb` and `mlflow`. The last two use the account and the server
    of their own settings. BackendError if a package is missing.
    """
    with ExitStack() as stack:
        logs = [stack.enter_context(LOGGERS[name](plan)) for name in names]

        def log(epoch: Epoch) -> None:
            for each in logs:
                each(epoch)

        yield log


def _imported(package: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise BackendError(
            f"--logger {package} needs {package}: `pip install {package}`."
        ) from error


def _begun(name: str, function: Callable[..., Any], /, *values: Any, **options: Any) -> Any:
    """Return what a package's function returns; RunError in one sentence if it raises."""
    try:
        return function(*values, **options)
    except Exception as error:
        raise RunError(
            f"--logger {name} does not work ({one_line(error)[:200]}): log in or start its server, "
            f"or leave out `--logger {name}`."
        ) from error


def _tried(
    name: str, what: str, function: Callable[..., Any], /, *values: Any, **options: Any
) -> None:
    """Call a package's function. One that fails is a warning: it ends no run."""
    try:
        function(*values, **options)
    except Exception as error:
        reason = printable(one_line(error)[:200])
        click.echo(f"warning: {name} did not {what}: {reason}", err=True)


def _logged(name: str, function: Callable[..., Any], epoch: Epoch) -> None:
    """Log an epoch's metrics."""
    _tried(name, f"log epoch {epoch.number}", function, _metrics(epoch), step=epoch.number)


def _metrics(epoch: Epoch) -> dict[str, float]:
    return {name: getattr(epoch, name) for name in METRICS}


@contextmanager
def wandb(plan: Plan) -> Iterator[Log]:
    """Log to Weights & Biases, in the project `googlenet`."""
    run = _begun(
        "wandb",
        _imported("wandb").init,
        project="googlenet",
        name=plan.run.folder.name,
        dir=str(plan.run.folder.parent),
        config=plan.recipe.as_json(),
    )
    try:
        yield partial(_logged, "wandb", run.log)
    finally:
        _tried("wandb", "end its log", run.finish)


@contextmanager
def mlflow(plan: Plan) -> Iterator[Log]:
    """Log to MLflow."""
    package = _imported("mlflow")
    run = _begun("mlflow", package.start_run, run_name=plan.run.folder.name)
    run.__enter__()
    try:
        _begun("mlflow", package.log_params, plan.recipe.as_json())
        yield partial(_logged, "mlflow", package.log_metrics)
    finally:
        _tried("mlflow", "end its log", run.__exit__, *sys.exc_info())


@contextmanager
def tensorboard(plan: Plan) -> Iterator[Log]:
    """Write TensorBoard events into the run's folder: the loss of each step, and each epoch."""
    try:
        from tensorboardX.proto.event_pb2 import Event  # type: ignore[import-untyped]
        from tensorboardX.record_writer import RecordWriter  # type: ignore[import-untyped]
        from tensorboardX.summary import scalar  # type: ignore[import-untyped]
    except ImportError as error:
        raise BackendError(
            f"--logger tensorboard needs tensorboardX: `{install_command('tensorboard')}`."
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
            for name, value in _metrics(epoch).items():
                add(f"epoch/{name}", value, epoch.number)
            writer.flush()

    try:
        yield write
    finally:
        with suppress(OSError):  # `write` flushes and has already raised any error
            writer.close()


LOGGERS: dict[str, Callable[[Plan], AbstractContextManager[Log]]] = {
    "tensorboard": tensorboard,
    "wandb": wandb,
    "mlflow": mlflow,
}
