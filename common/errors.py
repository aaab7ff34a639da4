"""The errors of this project. Each has an exit status and a one-sentence message."""

import unicodedata
from collections.abc import Collection
from difflib import get_close_matches


class GoogLeNetError(Exception):
    """Base of all errors. The command line prints the message and exits with `exit_code`."""

    exit_code = 2


class SpecError(GoogLeNetError, ValueError):
    """A spec is invalid, or does not accept the input."""


class UnknownNameError(SpecError):
    """No spec or recipe has this name. The sentence has the name that is near, or all of them."""

    def __init__(self, kind: str, name: str, known: Collection[str], more: str = "") -> None:
        near = get_close_matches(name.lower(), known, n=1)
        rest = f"; choose one of {', '.join(known)}{more}."
        if near:
            rest = f": did you mean {near[0]!r}? `googlenet {kind}s` lists all."
        super().__init__(f"There is no {kind} named {name!r}{rest}")


class FieldError(SpecError):
    """A field of a recipe has a value that it cannot have."""

    def __init__(self, field: str, value: object, rule: str) -> None:
        super().__init__(f"The recipe's {field} is {value!r}: it must be {rule}.")
        self.field, self.value, self.rule = field, value, rule


class WeightsError(GoogLeNetError, ValueError):
    """Weights do not fit the network, or a file holds no weights."""


class ParityError(GoogLeNetError):
    """A backend computes a different function than the reference."""

    exit_code = 3


class BackendError(GoogLeNetError):
    """A framework is not installed, or does not work with this Python or NumPy."""

    exit_code = 4


class DataError(GoogLeNetError):
    """Images are missing, truncated or altered, or cannot be downloaded."""

    exit_code = 5


class DeviceError(GoogLeNetError):
    """The requested device is not available."""

    exit_code = 6


class RunError(GoogLeNetError):
    """A run on disk is damaged, belongs to another process, or cannot be written."""

    exit_code = 7


class DivergedError(GoogLeNetError):
    """The loss is no longer a finite number."""

    exit_code = 8


class PageError(GoogLeNetError):
    """The page cannot be built, written or served."""


class OutOfMemoryError(GoogLeNetError):
    """A batch does not fit in memory."""

    exit_code = 9


class WorkersError(GoogLeNetError):
    """Distributed training cannot continue: a worker died or never joined, or a port is taken."""

    exit_code = 10


class Stopped(GoogLeNetError):
    """A signal stopped a run. The run was saved first."""

    def __init__(self, sentence: str, signum: int) -> None:
        super().__init__(sentence)
        self.exit_code = 128 + signum


def one_line(error: Exception) -> str:
    """The message of any exception, without line breaks."""
    return " ".join(str(error).split())


def printable(text: object) -> str:
    """Any text in one line that is safe on a terminal.

    Control characters, line breaks, invisible characters and parts of names that are not UTF-8
    become escapes such as `\\x1b`.
    """
    return "".join(
        each
        if each.isprintable() or unicodedata.category(each) == "Zs"  # every kind of space
        else each.encode("unicode_escape").decode()
        for each in str(text)
    )
