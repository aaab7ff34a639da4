"""The processor: its name, its instruction sets and the number of usable cores."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

#: instruction sets that the frameworks' kernels use, with the names of Linux and of NumPy
INSTRUCTIONS = {
    "SSE4.2": {"sse4_2", "SSE42"},
    "AVX": {"avx", "AVX"},
    "AVX2": {"avx2", "AVX2"},
    "FMA": {"fma", "FMA3"},
    "AVX-512": {"avx512f", "AVX512F"},
    "AVX-512 VNNI": {"avx512_vnni", "AVX512VNNI"},
    "AVX-512 bf16": {"avx512_bf16", "AVX512_BF16"},
    "AMX bf16": {"amx_bf16"},
    "AMX int8": {"amx_int8"},
    "NEON": {"asimd", "ASIMD"},
    "SVE": {"sve", "SVE"},
    "ARM bf16": {"bf16"},
}


def processor() -> dict[str, Any]:
    """Return the processor's name, instruction sets, cores, usable cores and OMP_NUM_THREADS."""
    model, flags = platform.processor() or platform.machine(), set()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        flags = numpy_flags()
    else:
        pairs = dict(line.split(":", 1) for line in reversed(lines) if ":" in line)
        pairs = {key.strip(): value.strip() for key, value in pairs.items()}
        model = pairs.get("model name", model)
        flags = set(pairs.get("flags", pairs.get("Features", "")).split())
    return {
        "name": model,
        "instructions": [name for name, spellings in INSTRUCTIONS.items() if spellings & flags],
        "cores": os.cpu_count(),
        "usable": usable_cores(),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
    }


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # only on Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def numpy_flags() -> set[str]:
    """Return the instruction sets that NumPy found; empty without NumPy.

    NumPy keeps them under a private name.
    """
    try:
        import numpy

        core = getattr(numpy, "_core", None) or numpy.core
        known: dict[str, bool] = core._multiarray_umath.__cpu_features__
    except (ImportError, AttributeError):
        return set()
    return {name for name, present in known.items() if present}
