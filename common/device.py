"""The device: what is asked for is what is used, or it is an error; so is too little memory."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from common.errors import DeviceError, GoogLeNetError, OutOfMemoryError
from common.processor import processor
from common.rendezvous import local_rank


def choose(requested: str, found: list[str]) -> str:
    """`cpu` or `gpu:N` for what was asked: auto (a GPU where there is one), cpu, gpu or gpu:N.

    `found` is what the backend's `devices()` returned. A GPU that is asked for and missing is a
    DeviceError that says what was found; nothing falls back.
    """
    if not re.fullmatch(r"auto|cpu|gpu(:\d+)?", requested):
        raise DeviceError(f"{requested!r} names no device; use auto, cpu, gpu or gpu:N.")
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
    """Whether the processor multiplies bfloat16 by itself."""
    found = processor()["instructions"]
    return any(name.endswith("bf16") for name in found)


def has_amx() -> bool:
    """Whether the processor multiplies whole tiles of bfloat16 (Intel's AMX)."""
    return "AMX bf16" in processor()["instructions"]


@contextmanager
def enough_memory(
    out_of_memory: Callable[[BaseException], bool], device: str, batch_size: int, way_out: str
) -> Iterator[None]:
    """Turn the frameworks' many words for too little memory into an OutOfMemoryError."""
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
    """The chosen device, or where any GPU will do, the one of this worker's number."""
    gpus = [each for each in found if each != "cpu"]
    if device == "cpu" or requested not in ("auto", "gpu"):
        return device
    return gpus[local_rank() % len(gpus)]
