"""Select the requested device or fail, never fall back; report a lack of memory."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from common.errors import DeviceError, GoogLeNetError, OutOfMemoryError
from common.processor import processor
from common.rendezvous import local_rank


def choose(requested: str, found: list[str]) -> str:
    """Return `cpu` or `gpu:N` for a requested device: auto, cpu, gpu or gpu:N.

    `auto` is the first GPU, or the CPU without one. `found` is the result of the backend's
    `devices()`. Raises DeviceError with the list of found devices if the requested one is missing.
    """
    if not re.fullmatch(r"auto|cpu|gpu(:\d+)?", requested):
        raise DeviceError(f"{requested!r} is not a device; use auto, cpu, gpu or gpu:N.")
    gpus = [name for name in found if name.startswith("gpu:")]
    if requested == "auto":
        return gpus[0] if gpus else "cpu"
    wanted = "gpu:0" if requested == "gpu" else requested
    if wanted not in found:
        raise DeviceError(
            f"--device {requested} is not there: found {', '.join(found)}; "
            "use one of these, or auto."
        )
    return wanted


def has_bfloat16() -> bool:
    """Return whether the processor has instructions for bfloat16."""
    return any(name.endswith("bf16") for name in processor()["instructions"])


def has_avx512() -> bool:
    """Return whether the processor has AVX-512."""
    return "AVX-512" in processor()["instructions"]


def has_amx() -> bool:
    """Return whether the processor multiplies tiles of bfloat16 (Intel's AMX)."""
    return "AMX bf16" in processor()["instructions"]


@contextmanager
def enough_memory(
    out_of_memory: Callable[[BaseException], bool], device: str, batch_size: int, way_out: str
) -> Iterator[None]:
    """Turn the frameworks' various out-of-memory errors into OutOfMemoryError.

    `out_of_memory` decides whether an exception is one of them. `way_out` names what to try.
    """
    try:
        yield
    except GoogLeNetError:
        raise
    except Exception as error:
        if not isinstance(error, MemoryError) and not out_of_memory(error):
            raise
        raise OutOfMemoryError(
            f"A batch of {batch_size} does not fit in the memory of {device}: try {way_out}."
        ) from error


def own_device(device: str, requested: str, found: Sequence[str]) -> str:
    """Return the chosen device. If the request allows any GPU, return the one for this worker."""
    gpus = [each for each in found if each != "cpu"]
    if device == "cpu" or requested not in ("auto", "gpu"):
        return device
    return gpus[local_rank() % len(gpus)]
