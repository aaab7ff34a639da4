"""The error of float32 gradients for ordinary inputs, where a tie may change the path of one.

`python docs/ordinary.py --backend torch` compares the gradients of `d2l` at 96 pixels with the
reference's, for the fixtures of the seeds 0 to 7, and writes docs/results/ordinary-torch.json. The
parity checks use a seed that is far from ties; docs/proof.md shows both figures.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # run from anywhere, installed or not

from backends import FRAMEWORKS, load  # noqa: E402
from backends.numpy import GoogLeNet  # noqa: E402
from common.parity.fixtures import draw_fixture  # noqa: E402
from common.parity.report import tensor_error  # noqa: E402
from common.spec import D2L  # noqa: E402

SEEDS = 8


def main() -> None:
    """Measure one backend on the CPU."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--backend", choices=FRAMEWORKS, required=True)
    name = parser.parse_args().backend
    backend = load(name)
    model, rows = backend.build(D2L, "float32", "cpu"), []
    for seed in range(SEEDS):
        fixture = draw_fixture(D2L, seed)
        reference = GoogLeNet(D2L, fixture.weights)
        want = reference.gradients(fixture.inputs.astype(np.float64), fixture.labels)[1]
        backend.write_weights(model, fixture.weights)
        found = backend.gradients(model, fixture.inputs, fixture.labels)[1]
        lengths = [np.linalg.norm(found[n] - want[n]) / np.linalg.norm(want[n]) for n in want]
        largest = max(tensor_error(found[n], want[n]) for n in want)
        rows.append({"seed": seed, "largest": float(largest), "length": float(max(lengths))})
    written = {"backend": name, "version": backend.VERSION, "rows": rows}
    path = ROOT / "docs" / "results" / f"ordinary-{name}.json"
    path.write_text(json.dumps(written, indent=2) + "\n")


if __name__ == "__main__":
    main()
