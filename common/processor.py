"""What the processor is: its name, instruction sets, and how many threads may run."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

#: what the frameworks' kernels ask for, as Linux and NumPy spell it
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
    """Its name, instruction sets, and how many threads may run."""
    name, flags = platform.processor() or platform.machine(), set()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # no Linux
        flags = numpy_flags()
    else:
        pairs = dict(line.split(":", 1) for line in reversed(lines) if ":" in line)
        pairs = {key.strip(): value.strip() for key, value in pairs.items()}
        name = pairs.get("model name", name)
        flags = set(pairs.get("flags", pairs.get("Features", "")).split())
    affinity = getattr(os, "sched_getaffinity", None)  # Linux alone has it
    return {
        "name": name,
        "instructions": [what for what, spelled in INSTRUCTIONS.items() if spelled & flags],
        "cores": os.cpu_count(),
        "usable": len(affinity(0)) if affinity else os.cpu_count(),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
    }


def numpy_flags() -> set[str]:
    """The instruction sets that NumPy found, if it is there; it keeps them under a private name."""
    try:
        import numpy

        core = getattr(numpy, "_core", None) or numpy.core
        known: dict[str, bool] = core._multiarray_umath.__cpu_features__
    except (ImportError, AttributeError):
        return set()
    return {name for name, there in known.items() if there}
