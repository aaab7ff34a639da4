"""The process in which `googlenet convert` writes or runs one format: one framework in each."""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np

from backends import FRAMEWORKS, load, numpy
from backends.numpy import GoogLeNet
from common.convert import onnx
from common.convert.onnx import ONNX
from common.errors import BackendError
from common.spec import Spec, find
from common.weights import Weights
from common.weights import load as load_canonical


def main() -> None:
    """Run the jobs on stdin, one per line; a format as argument is made ready before they come."""
    with suppress(BackendError):  # a job says so
        for form in sys.argv[1:]:
            load(form)
    for line in sys.stdin:
        job = json.loads(line)
        name, channels, classes, eps = job["spec"]
        spec = find(name).at(channels=channels, classes=classes, eps=eps)
        weights = load_canonical(Path(job["weights"]), spec)
        x = np.load(job["images"]) if job["images"] else None
        path = Path(job["file"]) if job["file"] else None
        try:
            if job["named"] and path:
                backend = load(job["form"]) if job["form"] in FRAMEWORKS else numpy
                with np.load(job["named"]) as arrays:
                    backend.save_named(dict(arrays), path)
                logits = None
            else:
                logits = end(job["form"], spec, weights, path, x)
        except BackendError as error:
            print(error, file=sys.stderr)
            sys.exit(error.exit_code)
        if logits is not None:
            np.save(job["logits"], logits)
        print("done", flush=True)


def end(
    form: str, spec: Spec, weights: Weights, path: Path | None, x: np.ndarray | None
) -> np.ndarray | None:
    """Write the file if there is a path and a framework; return the logits of x if x is given."""
    if form in FRAMEWORKS:
        backend, dtype = load(form), weights["head.weight"].dtype.name
        model = backend.build(spec, dtype, "cpu")
        backend.write_weights(model, weights)
        if path:
            backend.save(model, path)
        if path and x is not None:  # read the file with the framework itself
            model = backend.build(spec, dtype, "cpu")
            backend.load(model, path)
        return None if x is None else backend.forward(model, x, False)["head"]
    if x is None:
        return None
    if form == ONNX and path:
        return onnx.run(path, x)
    reference = GoogLeNet(spec, load_canonical(path, spec) if path else weights)
    return reference.forward(x.astype(np.float64))["head"].astype(x.dtype)


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)  # all files are closed: a framework would take up to a second to leave
