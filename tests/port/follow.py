"""Go on with runs: `python follow.py BACKEND STEPS BEFORE AFTER [BEFORE AFTER ...]`.

For each pair of files: read the checkpoint BEFORE, train that many steps, write the one AFTER.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "data")]

from narrow import NARROW, go_on  # noqa: E402  # after the path

from backends import load  # noqa: E402
from common import spec  # noqa: E402
from common.run import read_checkpoint  # noqa: E402

if __name__ == "__main__":
    spec.SPECS[NARROW.name] = NARROW
    name, steps, *files = sys.argv[1:]
    for before, after in zip(files[::2], files[1::2], strict=True):
        checkpoint = go_on(load(name), name, read_checkpoint(Path(before)), int(steps))
        Path(after).write_bytes(checkpoint.encode())
