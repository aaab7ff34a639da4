"""The processes in which `googlenet convert` writes and runs weights: one framework in each.

Each runs common/convert/work.py, which takes its jobs from stdin.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from subprocess import PIPE
from typing import Any

import numpy as np

from backends import FRAMEWORKS
from backends.numpy import resize
from common.convert import onnx
from common.convert.onnx import ONNX
from common.data.sources import load as load_data
from common.errors import BackendError, WeightsError
from common.files import ROOT
from common.formats import sandbox
from common.formats.downscale import redo_downscale_in_infer
from common.formats.identify import Known, identify
from common.formats.naming import FORMATS, Layers, paddle_vision
from common.spec import Spec
from common.weights import Weights, save

Process = subprocess.Popen[str]
IMAGES = 8  #: number of images that `--check` runs


@dataclass(frozen=True)
class Work:
    """Known weights in a temporary folder, and the processes that write and run them there.

    Each format is run in a process of its own: by its framework, by the reference (NumPy) for
    safetensors, or by onnxruntime for ONNX.
    """

    folder: Path
    known: Known
    compare: bool

    def __post_init__(self) -> None:
        save(self.folder / "canonical.safetensors", self.known.weights, self.known.spec)
        if self.compare:
            dtype = self.known.weights["head.weight"].dtype
            np.save(self.folder / "images.npy", images(self.known.spec).astype(dtype))

    def write(self, target: str, path: Path, process: Process | None = None) -> np.ndarray | None:
        """Write the file; if logits are compared, run it and return its logits."""
        if target == ONNX:
            path.write_bytes(onnx.encode(self.known.spec, self.known.weights))
        elif target not in FRAMEWORKS:
            save(path, self.known.weights, self.known.spec)
        if target in FRAMEWORKS or self.compare:
            return self.run(target, path, process)
        return None

    def write_named(
        self, target: str, path: Path, layers: Layers, process: Process | None = None
    ) -> np.ndarray | None:
        """Write the tensors under other names, read them again, and run what was read.

        WeightsError if a tensor changed or another network is identified.
        """
        form, weights = FORMATS[target], self.known.weights
        if layers["head"] == next(paddle_vision(self.known.spec))["head"]:
            weights = redo_downscale_in_infer(self.known.spec, weights)
        arrays = {form.name(layers, name): form.native(weights[name]) for name in weights}
        np.savez(self.folder / "named.npz", **arrays)  # type: ignore[arg-type]
        do(self.job(target, path, named=str(self.folder / "named.npz")), process)
        file = sandbox.read_file(path)
        verify(file.arrays, replace(self.known, weights=arrays), path)
        back = identify(file, self.known.spec.name, path.name)
        return replace(self, known=back).run(target) if self.compare else None

    def run(
        self, form: str, path: Path | None = None, process: Process | None = None
    ) -> np.ndarray | None:
        """Run one format; with a path, the framework first writes the file there and reads it."""
        job = self.job(form, path)
        do(job, process)
        return np.load(job["logits"]) if self.compare else None

    def job(self, form: str, path: Path | None, named: str | None = None) -> dict[str, Any]:
        """What a process has to do, as plain data."""
        spec = self.known.spec
        return {
            "form": form,
            "spec": [spec.name, spec.input[0], spec.head.width, spec.norm and spec.norm.eps],
            "weights": str(self.folder / "canonical.safetensors"),
            "named": named,
            "file": str(path) if path else None,
            "images": str(self.folder / "images.npy") if self.compare else None,
            "logits": str(self.folder / f"{form}.npy"),
        }


@contextmanager
def started(form: str) -> Iterator[Process | None]:
    """A process that imports the format's framework while the source is read; None without one."""
    if form not in FRAMEWORKS:
        yield None
        return
    with start(form) as process:
        try:
            yield process
        finally:
            process.kill()  # the source may have been refused


def start(form: str) -> Process:
    """A process of `common.convert.work` for one format."""
    command = [sys.executable, "-m", "common.convert.work", form]
    return subprocess.Popen(
        command, cwd=ROOT, stdin=PIPE, stdout=PIPE, stderr=PIPE, text=True, errors="replace"
    )


def do(job: dict[str, Any], process: Process | None = None) -> None:
    """Run a job in a process of its own, which may have started; BackendError if it fails."""
    process = process or start(job["form"])
    _, said = process.communicate(json.dumps(job))
    if process.returncode:
        last = (said.splitlines() or [f"status {process.returncode}"])[-1]
        if process.returncode != BackendError.exit_code:
            last = f"{job['form']} could not write or run the weights: {last}"
        raise BackendError(last)


def images(spec: Spec) -> np.ndarray:
    """The first images of the shipped sample as the network's input: float64 (N, C, H, W)."""
    channels, height, width = spec.input
    sample = load_data("sample").test_images[:IMAGES]
    return np.repeat(resize(sample, height, width), channels, axis=1)


def verify(back: Weights, known: Known, destination: Path) -> None:
    """WeightsError unless the weights that were read back have the same bits."""
    for name, array in known.weights.items():
        found = back.get(name)
        if found is None or found.dtype != array.dtype or found.tobytes() != array.tobytes():
            raise WeightsError(
                f"{destination} was not written: {name} changed when the file was read back."
            )
    if len(back) != len(known.weights):
        raise WeightsError(
            f"{destination} was not written: the file has other tensors when it is read back."
        )
