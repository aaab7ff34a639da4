"""Files of weights that others wrote, as named arrays, without any framework and without trust.

A file's format is told by its content. Nothing of it is executed: pickles run on a small machine
that knows arrays, numbers, strings, dicts and lists, and has nothing else to call; archives are
never unpacked; what a header claims is held against the bytes that are there. All of it happens in
a process of its own (`python -m common.foreign FILE`) with little memory and time, since HDF5 is
parsed natively; what comes back is a safetensors file of float32 or float64.

Half-precision values are widened to float32, which is exact; integers are no weights.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from common.errors import WeightsError
from common.files import ROOT
from common.formats.readers.base import LARGEST, File, Unreadable
from common.formats.readers.detect import parse
from common.weights import KEY, metadata

MEMORY = 2**31  #: bytes of address space that the reading process has, and four times the file
SECONDS = 120  #: that it has


def read(path: Path) -> File:
    """The arrays in a file, read in a process of its own; WeightsError if it holds none."""
    require_file(path)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "common.formats.sandbox", str(path.absolute())],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise WeightsError(
            f"{path} could not be read in {SECONDS} seconds: it is damaged, or made to last."
        ) from None
    said = done.stderr.decode(errors="replace").splitlines()
    if done.returncode == WeightsError.exit_code and said:
        raise WeightsError(f"{path} {said[-1]}")
    if done.returncode:
        raise WeightsError(
            f"{path} ended the process that read it (status {done.returncode}): it is damaged, or "
            "asks for more memory than its size allows."
        )
    return decode(done.stdout)


def require_file(path: Path) -> None:
    """WeightsError unless there is an ordinary file of a size that weights have."""
    if path.is_dir():
        raise WeightsError(f"{path} is a folder: name the file of weights in it.")
    if not path.is_file():
        raise WeightsError(f"{path} is not there, or is no ordinary file: name a file of weights.")
    if path.stat().st_size > LARGEST:
        raise WeightsError(
            f"{path} holds {path.stat().st_size:,} bytes: the weights of a GoogLeNet have at most "
            f"{LARGEST:,}."
        )


def encode(file: File) -> bytes:
    """A file's content as the bytes of a safetensors file, which is what leaves the process."""
    from safetensors.numpy import save

    arrays = {name: np.ascontiguousarray(array) for name, array in file.arrays.items()}
    return save(arrays, {KEY: json.dumps([file.format, file.stored, list(arrays)])})


def decode(data: bytes) -> File:
    """The inverse of `encode`, with the arrays in the order that they had."""
    from safetensors.numpy import load

    arrays = load(data)
    form, stored, names = json.loads(metadata(data)[KEY])
    return File(form, {name: arrays[name] for name in names}, stored)


# --- in the process that reads
def main() -> None:
    """Read the file that the command line names; its content goes to stdout."""
    import h5py  # noqa: F401  # before the limits: a library that is loaded later counts as well

    path = Path(sys.argv[1])
    limit(path.stat().st_size)
    try:
        data = encode(parse(path))
    except (Unreadable, MemoryError) as error:
        greedy = "asks for more memory than its size allows: it is damaged, or made to do so."
        print(error if isinstance(error, Unreadable) else greedy, file=sys.stderr)
        sys.exit(WeightsError.exit_code)
    sys.stdout.buffer.write(data)


def limit(size: int) -> None:
    """Little memory and time, and no file to be written, where the system has such limits."""
    try:
        import resource
    except ImportError:  # Windows has none
        return
    for what, most in (
        (resource.RLIMIT_AS, MEMORY + 4 * size),
        (resource.RLIMIT_CPU, SECONDS),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        try:
            resource.setrlimit(what, (most, most))
        except (OSError, ValueError):  # macOS does not bound the address space
            continue


if __name__ == "__main__":
    main()
