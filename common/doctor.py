"""What `googlenet doctor` finds: Python, packages, frameworks and devices, the processor, data.

Each framework is asked in a process of its own: two of them cannot share one, and one that crashes
when it is imported takes nothing else along. Nothing here needs a package that may be missing.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any

from backends import FRAMEWORKS
from common.errors import one_line

ROOT = Path(__file__).parent.parent
TIMEOUT = 120.0  # seconds for a framework to be imported and name its devices

#: what each package is for, and the extra that brings it; "" for what every command needs
PACKAGES = {
    "numpy": "",
    "click": "",
    "pooch": "",
    "safetensors": "",
    "tabulate": "",
    "tqdm": "",
    "pillow": "",
    "matplotlib": "",
    "h5py": "",
    "tensorboardX": "tensorboard",
    "onnx": "onnx",
    "onnxruntime": "onnx",
}

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

ASK = """
import json, sys
from backends import load
from common.errors import GoogLeNetError
try:
    backend = load(sys.argv[1])
    found = {"version": backend.VERSION, "devices": backend.devices()}
except GoogLeNetError as error:
    found = {"trouble": str(error)}
print("\\n" + json.dumps(found))
"""


def look() -> dict[str, Any]:
    """All that is found. A framework or package that cannot be used has `trouble`: a sentence."""
    with ThreadPoolExecutor(len(FRAMEWORKS)) as pool:  # each only waits for its process
        asked = pool.map(framework, FRAMEWORKS)
        found = {
            "python": f"{platform.python_version()} ({sys.executable})",
            "system": platform.platform(),
            "processor": processor(),
            "packages": {name: package(name, extra) for name, extra in PACKAGES.items()},
            "data": data(),
        }
        return {**found, "frameworks": dict(zip(FRAMEWORKS, asked, strict=True))}


def can_train(found: dict[str, Any]) -> bool:
    """Whether any framework works."""
    return any("trouble" not in each for each in found["frameworks"].values())


def framework(name: str) -> dict[str, Any]:
    """A backend's version and devices, or its trouble in one line."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    try:
        child = subprocess.run(
            [sys.executable, "-c", ASK, name],
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT,
        )
    except subprocess.TimeoutExpired:
        return {"trouble": f"did not name its devices within {TIMEOUT:.0f} s."}
    if child.returncode == 0:
        found: dict[str, Any] = json.loads(child.stdout.splitlines()[-1])
        return found
    said = [line for line in child.stderr.splitlines() if line.strip()]
    reason = said[-1].strip()[:200] if said else f"exit status {child.returncode}"
    if child.returncode < 0:
        reason = signal.Signals(-child.returncode).name
    return {"trouble": f"crashes when it is imported: {reason}."}


def package(name: str, extra: str) -> dict[str, Any]:
    """A package's version, or the line that installs it."""
    try:
        return {"version": metadata.version(name)}
    except metadata.PackageNotFoundError:
        where = f"'.[{extra}]'" if extra else "."
        return {"trouble": f"is not installed; install it with `pip install -e {where}`."}


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


def data() -> dict[str, Any]:
    """The folders that may hold Fashion-MNIST, and how many of its four files are in each."""
    try:
        from common.data import whereabouts

        found = whereabouts()
    except Exception as error:  # a package is missing, or a folder cannot be read
        return {"trouble": f"cannot be looked for: {one_line(error)}."}
    places: dict[str, Any] = {
        name: {"folder": str(path), "files": files} for name, (path, files) in found.items()
    }
    if all(files < 4 for name, (_, files) in found.items() if name != "sample"):
        places["trouble"] = (
            "not here yet: `googlenet train` downloads it into the cache, on Debian and Ubuntu "
            "`apt-get install dataset-fashion-mnist` brings it, and `--data sample` needs neither."
        )
    return places


def render(found: dict[str, Any]) -> str:
    """What was found, for people."""
    chip = found["processor"]
    rows = [
        ("Python", found["python"]),
        ("system", found["system"]),
        ("processor", chip["name"]),
        ("instructions", ", ".join(chip["instructions"]) or "none that is known here"),
        ("cores", f"{chip['cores']}, of which {chip['usable']} may be used here"),
        ("OMP_NUM_THREADS", chip["OMP_NUM_THREADS"] or "not set"),
    ]
    there = {name: each for name, each in found["packages"].items() if "version" in each}
    rows.append(("packages", ", ".join(f"{n} {each['version']}" for n, each in there.items())))
    troubles = {name: each for name, each in found["packages"].items() if "trouble" in each}
    rows += [(name, each["trouble"]) for name, each in troubles.items()]
    for name, each in found["frameworks"].items():
        if "trouble" in each:
            rows.append((name, each["trouble"]))
        else:
            rows.append((name, f"{each['version']} on {', '.join(each['devices'])}"))
    for name, each in found["data"].items():
        if name == "trouble":
            rows.append(("Fashion-MNIST", each))
        else:
            files = {0: "nothing", 4: "all four files"}.get(each["files"], f"{each['files']} of 4")
            rows.append((f"data: {name}", f"{each['folder']}: {files}"))
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:{width}}  {text}" for name, text in rows)
