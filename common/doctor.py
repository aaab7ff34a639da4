"""The report of `googlenet doctor`: Python, packages, frameworks, devices, processor and data.

Each framework is imported in its own process: two of them cannot share one, and a crash at import
does not end the report. Nothing here needs a package that may be missing.
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
from common.files import install_command, python_path
from common.processor import processor

TIMEOUT = 120.0  # seconds to import a framework and list its devices

#: package -> the extra that installs it; "" for a package that every command needs
PACKAGES = {
    "numpy": "",
    "click": "",
    "pooch": "",
    "requests": "",
    "safetensors": "",
    "rich": "",
    "pillow": "",
    "matplotlib": "",
    "h5py": "",
    "tensorboardX": "tensorboard",
    "jinja2": "page",
    "markdown-it-py": "page",
    "pygments": "page",
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
    """Return the report. A framework or package that cannot be used has a sentence in `trouble`."""
    with ThreadPoolExecutor(len(FRAMEWORKS)) as pool:  # each thread only waits for its process
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
    """Return whether any framework works."""
    return any("trouble" not in each for each in found["frameworks"].values())


def framework(name: str) -> dict[str, Any]:
    """Return a backend's version and devices, or its `trouble` in one line."""
    try:
        child = subprocess.run(
            [sys.executable, "-c", ASK, name],
            env={**os.environ, "PYTHONPATH": python_path()},
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
    lines = [line for line in child.stderr.splitlines() if line.strip()]
    reason = lines[-1].strip()[:200] if lines else f"exit status {child.returncode}"
    if child.returncode < 0:
        reason = signal.Signals(-child.returncode).name
    return {"trouble": f"crashes when it is imported: {reason}."}


def package(name: str, extra: str) -> dict[str, Any]:
    """Return a package's version, or the command that installs it."""
    try:
        return {"version": metadata.version(name)}
    except metadata.PackageNotFoundError:
        return {"trouble": f"is not installed; install it with `{install_command(extra)}`."}


def data() -> dict[str, Any]:
    """Return the folders that may hold Fashion-MNIST, and how many of its four files each has."""
    try:
        from common.data.sources import whereabouts

        found = whereabouts()
    except Exception as error:  # a package is missing, or a folder cannot be read
        return {"trouble": f"cannot be looked for: {one_line(error)}."}
    folders: dict[str, Any] = {
        name: {"folder": str(path), "files": files} for name, (path, files) in found.items()
    }
    if all(files < 4 for name, (_, files) in found.items() if name != "sample"):
        folders["trouble"] = (
            "not here yet: `googlenet train` downloads it into the cache, on Debian and Ubuntu "
            "`apt-get install dataset-fashion-mnist` installs it; `--data sample` needs neither."
        )
    return folders


def render(found: dict[str, Any]) -> str:
    """Return the report as text."""
    chip = found["processor"]
    rows = [
        ("Python", found["python"]),
        ("system", found["system"]),
        ("processor", chip["name"]),
        ("instructions", ", ".join(chip["instructions"]) or "none of the known ones"),
        ("cores", f"{chip['cores']}, of which {chip['usable']} may be used here"),
        ("OMP_NUM_THREADS", chip["OMP_NUM_THREADS"] or "not set"),
    ]
    installed = {name: each for name, each in found["packages"].items() if "version" in each}
    rows.append(("packages", ", ".join(f"{n} {each['version']}" for n, each in installed.items())))
    missing = {name: each for name, each in found["packages"].items() if "trouble" in each}
    rows += [(name, each["trouble"]) for name, each in missing.items()]
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
