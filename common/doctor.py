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
from typing import Any

from backends import FRAMEWORKS
from common.errors import one_line
from common.files import ROOT
from common.processor import processor

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


def examine() -> dict[str, Any]:
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


def data() -> dict[str, Any]:
    """The folders that may hold Fashion-MNIST, and how many of its four files are in each."""
    try:
        from common.data.sources import whereabouts

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
