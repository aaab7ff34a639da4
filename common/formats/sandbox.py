"""Reads untrusted weight files as named arrays, without any framework.

The format is detected from the content. Nothing in a file is executed. Pickles are read by a
restricted interpreter that can only build arrays, numbers, strings, dicts and lists. Archives are
never unpacked to disk. Sizes in headers are checked against the size of the file. A separate
process with limited memory and time (`common.limits`) does all of this, because HDF5 files are
parsed by native code (`python -m common.formats.sandbox FILE`). The process returns
a safetensors file of float32 or float64. Half-precision values become float32, which is exact.
Whatever else lies beside the weights is left out.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from common.errors import WeightsError
from common.files import ROOT, leads_out
from common.formats.flow import Steps
from common.formats.readers.base import LARGEST, File, Unreadable
from common.formats.readers.detect import DISTRIBUTED, SHARDS, parse
from common.limits import (
    TOO_LARGE,
    TOO_LONG,
    WAIT,
    ended_by_time,
    environment,
    limit_memory,
    limit_seconds,
)
from common.weights import KEY, metadata


def read_file(path: Path) -> File:
    """Read the arrays of a file in a process of its own; WeightsError if that fails."""
    path = weights_file(path)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "common.formats.sandbox", str(path.absolute())],
            cwd=ROOT,
            env=environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=WAIT,
        )
    except subprocess.TimeoutExpired:
        raise WeightsError(
            f"{path} could not be read in {WAIT} seconds: it is damaged or malicious."
        ) from None
    said = done.stderr.decode(errors="replace").splitlines()
    if done.returncode == WeightsError.exit_code and said:
        raise WeightsError(f"{path} {said[-1]}")
    if ended_by_time(done.returncode):
        raise WeightsError(f"{path} {TOO_LONG} to read: it is damaged or malicious.")
    if done.returncode:
        raise WeightsError(
            f"{path} crashed the process that read it (status {done.returncode}): it is damaged, "
            "or needs more memory than its size allows."
        )
    return decode(done.stdout)


def weights_file(path: Path) -> Path:
    """The file itself; in the folder of a run, its best checkpoint.

    WeightsError unless it is a regular file that is small enough for weights, and in the folder.
    """
    best = path / "checkpoints" / "best.safetensors"
    if path.is_dir() and best.is_file():
        if leads_out(best, path):
            raise WeightsError(
                f"{best} leads out of {path} by a link: put the file itself in its place."
            )
        path = best
    if path.is_dir() and (path / "saved_model.pb").exists():
        raise WeightsError(
            f"{path} is a TensorFlow SavedModel: load the model that it was made from, and write "
            "`model.save_weights('NAME.weights.h5')`."
        )
    if path.is_dir() and (path / ".metadata").is_file():
        raise WeightsError(f"{path} {DISTRIBUTED}")
    if path.is_dir() and any(path.glob("*.index.json")):
        raise WeightsError(f"{path} {SHARDS}")
    if path.is_dir():
        raise WeightsError(f"{path} is a folder: name the file of weights in it.")
    if not path.is_file():
        raise WeightsError(
            f"{path} is not there, or is not a regular file: name a file of weights."
        )
    if path.stat().st_size > LARGEST:
        raise WeightsError(
            f"{path} holds {path.stat().st_size:,} bytes: the weights of a GoogLeNet have at most "
            f"{LARGEST:,}."
        )
    return path


def encode(file: File) -> bytes:
    """The content of a file as the bytes of a safetensors file, the output of the process."""
    from safetensors.numpy import save

    arrays = {name: np.ascontiguousarray(array) for name, array in file.arrays.items()}
    steps = file.steps and file.steps.plain()
    told = [file.format, file.stored, file.eps, file.scales, file.unread, list(arrays), steps]
    return save(arrays, {KEY: json.dumps(told)})


def decode(data: bytes) -> File:
    """The inverse of `encode`; the arrays keep their order."""
    from safetensors.numpy import load

    arrays = load(data)
    form, stored, eps, scales, unread, names, steps = json.loads(metadata(data)[KEY])
    found = {name: arrays[name] for name in names}
    return File(form, found, stored, eps, scales, unread, Steps.of(steps))


# --- in the process that reads
def main() -> None:
    """Read the file on the command line and write its content to stdout."""
    import h5py  # noqa: F401  # before the limits, because loading a library counts too

    path = Path(sys.argv[1])
    limit_memory(path.stat().st_size)
    limit_seconds()
    try:
        data = encode(parse(path))
    except (Unreadable, MemoryError) as error:
        too_large = f"{TOO_LARGE}, or more than its size allows: it is damaged or malicious."
        print(error if isinstance(error, Unreadable) else too_large, file=sys.stderr)
        sys.exit(WeightsError.exit_code)
    sys.stdout.buffer.write(data)


if __name__ == "__main__":
    main()
