"""Which changes make a step of PyTorch faster on a GPU, in one command.

`python benchmarks/gpu.py > docs/results/gpu-torch.json` measures a training step of d2l and d2l-bn
at 96 pixels with and without parallel branches, for three sizes of batch, then under
`torch.compile`. On an H100 that takes about four minutes, three of them for `torch.compile`.
`--device cpu` takes one step of each, to try the script. The batch lies on the device; a round is
60 steps, and the figure is the median of five rounds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # installed or not

import torch

from backends.torch import VERSION, device, graph, train
from common.device import choose
from common.recipe import RECIPES

ROUNDS, STEPS = 5, 60
BOTH = ("one stream", "ours")
#: spec, precision, batch, what is changed
VARIANTS = [
    *(("d2l", "bfloat16", batch, how) for batch in (128, 512, 1024) for how in BOTH),
    *(("d2l-bn", "bfloat16", 128, how) for how in BOTH),
    *(("d2l", "float32", 128, how) for how in BOTH),
    ("d2l", "bfloat16", 128, "torch.compile"),
    ("d2l", "bfloat16", 1024, "torch.compile"),
]


def main() -> None:
    """Print one row of JSON for each variant, as a list."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", default="gpu")
    chosen = choose(parser.parse_args().device, device.devices())
    rows = []
    for variant in VARIANTS:
        rows.append(measure(*variant, chosen))
        print(rows[-1], file=sys.stderr, flush=True)
    name = "the processor" if chosen == "cpu" else torch.cuda.get_device_name()
    print(json.dumps({"machine": name, "version": VERSION, "rows": rows}, indent=2))


def measure(spec: str, precision: str, batch: int, how: str, chosen: str) -> dict[str, object]:
    """The examples per second of one variant, and the seconds until its fourth step was done."""
    recipe = replace(RECIPES[spec], precision=precision, batch_size=batch)
    begun = time.perf_counter()
    model = train.build(recipe.network(), precision, chosen)
    torch.compiler.reset()  # else a second size of batch is compiled for any size
    if how == "torch.compile":
        model.compile()
    trainer = train.Trainer(model, recipe)
    trainer.set_step(recipe.lr, 0)
    random = np.random.RandomState(0)
    images = random.uniform(0, 1, (batch, *model.spec.input)).astype(np.float32)
    inputs = device.place(model, images)
    labels = device.place_labels(model, random.randint(0, 10, batch))

    def steps(count: int) -> float:
        start = time.perf_counter()
        for _ in range(count):
            loss, _ = trainer.train_step(inputs, labels)
        float(loss)  # the device has finished
        return time.perf_counter() - start

    rounds, count = (1, 1) if chosen == "cpu" else (ROUNDS, STEPS)
    one = mock.patch.object(graph, "parallel_branches", nullcontext)
    with nullcontext() if how == "ours" else one:
        steps(4 if rounds > 1 else 1)  # a graph is captured in the third
    first = time.perf_counter() - begun
    rate = batch * count / statistics.median(steps(count) for _ in range(rounds))
    row = {"spec": spec, "precision": precision, "batch_size": batch, "how": how}
    return row | {"median": round(rate, 1), "start": round(first, 1)}


if __name__ == "__main__":
    main()
