"""The command group, its exit statuses and signals, and the options that commands share."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from backends import FRAMEWORKS
from common.errors import GoogLeNetError

BACKENDS = tuple(FRAMEWORKS)

STATUS = """\b
Exit status:
  0    done, and everything that was checked holds
  1    a fault of this program
  2    bad input: an option, a spec, a file of weights
  3    a parity failure: a backend computes another function
  4    a framework that is not installed
  5    images that are missing or damaged
  6    a device that is not there, or cannot do what was asked
  7    a run that is damaged, or cannot be written
  8    a loss that is no longer a finite number
  9    a batch that does not fit in the memory
  10   workers that cannot go on together: one died or never joined, or a port is taken
  130  stopped by Ctrl-C; a run in training is saved first
  143  stopped by SIGTERM; a run in training is saved first
"""


class Commands(click.Group):
    """Turns every refusal into one sentence and its exit status."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        interrupts.clear()
        before = {each: signal.signal(each, interrupt) for each in (signal.SIGINT, signal.SIGTERM)}
        try:
            return super().invoke(ctx)
        except (Interrupt, KeyboardInterrupt, Exception) as error:
            if interrupts or isinstance(error, KeyboardInterrupt):
                click.echo("googlenet: stopped.", err=True)
                ctx.exit(128 + (interrupts or [signal.SIGINT])[0])
            if not isinstance(error, GoogLeNetError):
                raise
            click.echo(f"googlenet: {error}", err=True)
            ctx.exit(error.exit_code)
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)


class Interrupt(BaseException):
    """A signal came. After a KeyboardInterrupt inside C code Python itself would die of SIGINT."""


interrupts: list[int] = []  # the signals: a framework's import may swallow the exception


def interrupt(signum: int, frame: Any) -> None:
    """Stop by SIGINT or SIGTERM."""
    interrupts.append(signum)
    raise Interrupt


@click.group(cls=Commands, epilog=STATUS, context_settings={"max_content_width": 100})
def main() -> None:
    """GoogLeNet in four frameworks: one spec, one reference, the same function everywhere."""


spec_option = click.option("--spec", "spec_name", default="d2l", show_default=True, metavar="NAME")
backend_option = click.option("--backend", required=True, type=click.Choice(BACKENDS))
device_option = click.option(
    "--device", default="auto", show_default=True, help="auto, cpu, gpu or gpu:N."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")


@contextmanager
def deferred_signals(debounce: float = 0.0) -> Iterator[Callable[[], int]]:
    """Note SIGINT and SIGTERM instead of dying of them; a second one acts as ever.

    Unless it comes within `deaf` seconds: a launcher passes on what its workers have got already.
    Gives the function that says which came, 0 for none.
    """
    if interrupts:
        raise Interrupt
    came: list[tuple[int, float]] = []  # the first signal and when; no other is kept
    before: dict[int, Any] = {}

    def note(signum: int, frame: Any) -> None:
        now = time.monotonic()
        if not came:
            came.append((signum, now))
        elif now - came[0][1] >= debounce:
            restore()
            signal.raise_signal(signum)

    def restore() -> None:
        for signum, handler in before.items():
            signal.signal(signum, handler)

    for signum in (signal.SIGINT, signal.SIGTERM):
        before[signum] = signal.signal(signum, note)
    try:
        yield lambda: came[0][0] if came else 0
    finally:
        restore()


checkpoint_option = click.option(
    "--checkpoint", type=click.Choice(("best", "last")), default="best", show_default=True
)
other_backend_option = click.option(
    "--backend", type=click.Choice(BACKENDS), help="Instead of the run's own."
)
precision_option = click.option(
    "--precision", type=click.Choice(("float32", "bfloat16")), help="Instead of the run's own."
)


class Numbers(click.ParamType):
    """One or more whole numbers, with commas between them."""

    name = "N[,N...]"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[int, ...]:
        """The numbers."""
        try:
            return tuple(int(word) for word in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is no list of whole numbers.", param, ctx)
