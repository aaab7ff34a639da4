"""The command group, its exit statuses and signals, and the options that commands share."""

from __future__ import annotations

import errno
import io
import math
import re
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from backends import FRAMEWORKS
from common.cli.aliases import renamed
from common.errors import GoogLeNetError, SpecError, printable

BACKENDS = tuple(FRAMEWORKS)

STATUS = """\b
Exit status:
  0    done, and everything that was checked holds
  1    an internal error
  2    bad input: an option, a spec, a file of weights
  3    a parity failure: a backend computes another function
  4    a framework that is not installed
  5    images that are missing or damaged
  6    a device that does not exist, or cannot do what was asked
  7    a run that is damaged, in use by another process, or cannot be written
  8    a loss that is no longer a finite number
  9    a batch that does not fit in the memory
  10   workers that cannot continue together: one died or never joined, or a port is taken
  130  stopped by Ctrl-C; a run in training is saved first
  143  stopped by SIGTERM; a run in training is saved first
"""


def usage(error: click.UsageError) -> SpecError:
    """One sentence instead of click's lines: the option, what is wrong, and where to read on."""
    text = " ".join(error.format_message().split())
    text = re.sub(r"^Invalid value for '(\S+)': ", r"\1: ", text)
    end = "" if text.endswith((".", "?", "?)")) else "."
    command = error.ctx.command_path if error.ctx else "googlenet"
    return SpecError(f"{text}{end} See `{command} --help`.")


class Commands(click.Group):
    """A command group that turns each error into one sentence and its exit status."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the options in front of the command."""
        try:
            return super().parse_args(ctx, args)
        except click.exceptions.NoArgsIsHelpError:
            raise
        except click.UsageError as error:
            click.echo(f"googlenet: {printable(usage(error))}", err=True)
            ctx.exit(SpecError.exit_code)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; its options may have their old spelling."""
        name, command, rest = super().resolve_command(ctx, args)
        options = {option for param in command.params for option in param.opts} if command else ()
        return name, command, renamed(rest, options)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
            sys.stdout.reconfigure(errors="backslashreplace")  # a terminal may lack characters
        interrupts.clear()
        before = {each: signal.signal(each, interrupt) for each in (signal.SIGINT, signal.SIGTERM)}
        try:
            return super().invoke(ctx)
        except (Interrupt, KeyboardInterrupt, Exception) as error:
            if interrupts or isinstance(error, KeyboardInterrupt):
                click.echo("googlenet: stopped.", err=True)
                ctx.exit(128 + (interrupts or [signal.SIGINT])[0])
            if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
                error = SpecError(f"{error.filename} is too long a name: give a shorter one.")
            if isinstance(error, PermissionError) and error.filename:
                error = SpecError(
                    f"{error.filename} may not be used by you: name another path, or change its "
                    "permissions."
                )
            if isinstance(error, click.UsageError):
                error = usage(error)
            if not isinstance(error, GoogLeNetError):
                raise
            click.echo(f"googlenet: {printable(error)}", err=True)
            ctx.exit(error.exit_code)
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)


class Interrupt(BaseException):
    """A signal was received.

    Not a KeyboardInterrupt: after one inside C code, Python would end itself with SIGINT.
    """


interrupts: list[int] = []  # received signals: a framework's import may swallow the exception


def interrupt(signum: int, frame: Any) -> None:
    """Handle SIGINT or SIGTERM: raise Interrupt."""
    interrupts.append(signum)
    raise Interrupt


SETTINGS = {"max_content_width": 100, "help_option_names": ["-h", "--help"]}


@click.group(cls=Commands, epilog=STATUS, context_settings=SETTINGS)
@click.version_option(package_name="googlenet-in-four-frameworks", message="%(version)s")
def main() -> None:
    """GoogLeNet in four frameworks: one spec, one reference, the same function everywhere."""


class FloatRange(click.FloatRange):
    """A number in a range; click's own accepts NaN in each."""

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        """Return the number."""
        number = float(super().convert(value, param, ctx))
        if math.isnan(number):
            self.fail(f"{value} is not a number.", param, ctx)
        return number


class Known(click.ParamType):
    """A name of a list that help and shell completion show; the command itself refuses others.

    `names` is called when the list is needed: most commands never import what it comes from.
    """

    def __init__(self, metavar: str, names: Callable[[], Iterable[str]]) -> None:
        self.name, self.names = metavar, names

    def shell_complete(self, ctx: Any, param: Any, incomplete: str) -> list[CompletionItem]:
        """Return the names that begin like this."""
        return [CompletionItem(name) for name in self.names() if name.startswith(incomplete)]


class KnownOption(click.Option):
    """An option whose help ends with the names that it takes."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Return the option and its help."""
        record = super().get_help_record(ctx)
        assert record is not None, "no such option is hidden"
        assert isinstance(self.type, Known)
        return record[0], f"{record[1]}  One of {', '.join(self.type.names())}.".strip()


def spec_names() -> Iterable[str]:
    """Return the names of the specs."""
    from common.spec import SPECS

    return SPECS


def recipe_names() -> Iterable[str]:
    """Return the names of the recipes."""
    from common.recipe import RECIPES

    return RECIPES


def bug_names() -> Iterable[str]:
    """Return the names of the bugs."""
    from common.parity.mutations import INJECTED_BUGS

    return INJECTED_BUGS


SPEC = Known("NAME", spec_names)
COUNT = click.IntRange(1)  #: of pixels, channels, classes, images: at least one

spec_option = click.option(
    "--spec",
    "spec_name",
    default="d2l",
    show_default=True,
    type=SPEC,
    cls=KnownOption,
    help="Network.",
)
backend_option = click.option("--backend", required=True, type=click.Choice(BACKENDS))
device_option = click.option(
    "--device", default="auto", show_default=True, help="auto, cpu, gpu or gpu:N."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")


@contextmanager
def deferred_signals(debounce: float = 0.0) -> Iterator[Callable[[], int]]:
    """Record SIGINT and SIGTERM instead of ending the process.

    Yields a function that returns the received signal, or 0.

    A second signal ends the process as usual. It is ignored within `debounce` seconds, because a
    launcher may forward a signal that its workers have already received.
    """
    if interrupts:
        raise Interrupt
    received: list[tuple[int, float]] = []  # the first signal and its time
    previous: dict[int, Any] = {}

    def note(signum: int, frame: Any) -> None:
        now = time.monotonic()
        if not received:
            received.append((signum, now))
        elif now - received[0][1] >= debounce:
            restore()
            signal.raise_signal(signum)

    def restore() -> None:
        for signum, handler in previous.items():
            signal.signal(signum, handler)

    for signum in (signal.SIGINT, signal.SIGTERM):
        previous[signum] = signal.signal(signum, note)
    try:
        yield lambda: received[0][0] if received else 0
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


weights_option = click.option(
    "--weights",
    "weights_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A file of weights, as `convert` reads it.",
)
weights_spec_option = click.option(
    "--spec",
    "spec_name",
    type=SPEC,
    cls=KnownOption,
    help="Spec of the weights, instead of the detected one.",
)
weights_key_option = click.option(
    "--key", help="Which of several dicts in the file of weights, such as state_dict or ema."
)
weights_eps_option = click.option(
    "--eps",
    type=FloatRange(0, 1, min_open=True, max_open=True),
    help="eps of the batch norms that the weights were trained with, if not the spec's.",
)


def read_weights(path: Path, spec_name: str | None, key: str | None, eps: float | None) -> Any:
    """Identify the weights in a file, and print to stderr what was assumed."""
    from common.formats import sandbox
    from common.formats.assumptions import assumptions
    from common.formats.identify import identify

    file = sandbox.read_file(path)
    known = identify(file, spec_name, str(path), key, eps)
    click.echo(f"{printable(path)}: {known.naming}, network {known.spec.name}", err=True)
    for line in (*known.notes, *assumptions(known, file)):
        click.echo(f"  {printable(line)}", err=True)
    return known


class Numbers(click.ParamType):
    """One or more whole numbers, separated by commas."""

    name = "N[,N...]"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[int, ...]:
        """Return the numbers."""
        try:
            numbers = tuple(int(word) for word in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is not a list of whole numbers.", param, ctx)
        if min(numbers) < 1:
            self.fail(f"{value!r} has a number below 1.", param, ctx)
        return numbers
