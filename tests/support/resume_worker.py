"""Go on with runs: `python resume_worker.py BACKEND STEPS BEFORE AFTER [BEFORE AFTER ...]`.

For each pair of files: read the checkpoint BEFORE, train that many steps, write the one AFTER. As
one of several workers, where a launcher started it so.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

import numpy as np  # noqa: E402
from small_specs import NARROW, go_on  # after the path  # noqa: E402

from backends import load  # noqa: E402
from common import spec  # noqa: E402
from common.training import loop  # noqa: E402
from common.training.checkpoint import read_checkpoint  # noqa: E402

if __name__ == "__main__":
    spec.SPECS[NARROW.name] = NARROW
    name, steps, *files = sys.argv[1:]
    backend = load(name)
    rank, workers = backend.init_process_group("cpu")
    loop.SIGNAL_POLL_SECONDS = 0.0  # several poll after every step
    for before, after in zip(files[::2], files[1::2], strict=True):
        begun = read_checkpoint(Path(before))
        checkpoint = go_on(backend, name, begun, int(steps), rank, workers)
        if rank == 0:
            Path(after).write_bytes(checkpoint.encode())
    backend.all_reduce_sum(np.zeros(1))
    backend.destroy_process_group()
