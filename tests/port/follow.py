"""Go on with runs: `python follow.py BACKEND STEPS BEFORE AFTER [BEFORE AFTER ...]`.

For each pair of files: read the checkpoint BEFORE, train that many steps, write the one AFTER.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "data")]

from narrow import NARROW  # noqa: E402  # after the path

from backends import load  # noqa: E402
from common import spec  # noqa: E402
from common.data import load as load_data  # noqa: E402
from common.errors import Stopped  # noqa: E402
from common.fit import Fit  # noqa: E402
from common.run import read_checkpoint  # noqa: E402


def follow(name, steps, before, after):
    """One run, stopped by the question that the loop asks after every step."""
    asked = iter(range(1, 10**6))

    def stop():
        return 15 if next(asked) == steps else 0

    fit = Fit(load(name), name, read_checkpoint(before), load_data("sample"), "cpu", stop=stop)
    try:
        fit()
    except Stopped:
        after.write_bytes(fit.checkpoint().encode())


if __name__ == "__main__":
    spec.SPECS["narrow"] = NARROW
    name, steps, *files = sys.argv[1:]
    for before, after in zip(files[::2], files[1::2], strict=True):
        follow(name, int(steps), Path(before), Path(after))
