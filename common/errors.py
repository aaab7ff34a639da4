"""Every refusal of this project: one sentence that names the way out, and an exit status."""


class GoogLeNetError(Exception):
    """Base of all refusals; the command line prints the sentence and leaves with `exit_code`."""

    exit_code = 2


class SpecError(GoogLeNetError, ValueError):
    """A spec that makes no sense, or an input that a spec cannot take."""


class WeightsError(GoogLeNetError, ValueError):
    """Weights that do not fit the network, or a file that holds none."""


class ParityError(GoogLeNetError):
    """A backend computes another function than the reference."""

    exit_code = 3


class BackendError(GoogLeNetError):
    """A framework that is not installed, or cannot be used with this Python or NumPy."""

    exit_code = 4


class DataError(GoogLeNetError):
    """Images that are missing, truncated, altered or cannot be downloaded."""

    exit_code = 5


class DeviceError(GoogLeNetError):
    """A device that was asked for and is not there."""

    exit_code = 6


class RunError(GoogLeNetError):
    """A run on disk that is damaged, is another's, or cannot be written."""

    exit_code = 7


class DivergedError(GoogLeNetError):
    """A loss that is no longer a finite number."""

    exit_code = 8


class PageError(GoogLeNetError):
    """A page that cannot be made, written or served."""


class OutOfMemoryError(GoogLeNetError):
    """A batch that does not fit in the memory."""

    exit_code = 9


class WorkersError(GoogLeNetError):
    """Workers that cannot go on together: one died or never joined, or a port is taken."""

    exit_code = 10


class Stopped(GoogLeNetError):
    """A signal stopped a run, which was saved first."""

    def __init__(self, sentence: str, signum: int) -> None:
        super().__init__(sentence)
        self.exit_code = 128 + signum


def one_line(error: Exception) -> str:
    """What somebody else's exception says, without its line breaks."""
    return " ".join(str(error).split())
