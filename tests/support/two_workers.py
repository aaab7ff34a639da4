"""What two workers do in test_parallel.py, and one alone: `python two_workers.py BACKEND FOLDER`.

Started by the framework's own launcher, each worker writes what it came to into the folder.
"""

import signal
import sys
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np

ROOT = Path(__file__).parents[2]

if __name__ == "__main__":
    sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

from small_specs import FILE, NARROW, RECIPE  # after the path  # noqa: E402

from backends.numpy import resize  # noqa: E402
from common.data.sources import load  # noqa: E402
from common.errors import Stopped  # noqa: E402
from common.parity.fixtures import draw_fixture  # noqa: E402
from common.recipe import Recipe  # noqa: E402
from common.spec import D2L, MINI, SPECS  # noqa: E402
from common.training import loop  # noqa: E402
from common.training.checkpoint import (  # noqa: E402
    Checkpoint,
    Config,
    Progress,
)
from common.training.run import Run  # noqa: E402
from common.weights import load as load_weights  # noqa: E402

STEPS = (32, 7, 1)  # examples of each: even, uneven, and too few for every worker
FEW = (4, 3, 4)  # for the large network
FIRST = 44  # the image to begin with, from which d2l in float32 comes near no tie
WITHOUT_FLOAT64 = {"mxnet"}  # its servers sum in float32


def small():
    """A run of two epochs of 3 steps, the last of 7 images, from weights that have learned."""
    data = load("sample").limit(71, 45)
    config = Config.of(replace(RECIPE, epochs=2, lr=0.01), "none", data)
    return Checkpoint(config, load_weights(FILE, NARROW), {}, Progress()), data


#: the networks whose steps are compared: spec, weights, dtype, learning rate, examples of each step
NETWORKS = {
    "narrow float32": (NARROW, lambda: load_weights(FILE, NARROW), "float32", 0.01, STEPS),
    "narrow float64": (NARROW, lambda: load_weights(FILE, NARROW), "float64", 0.01, STEPS),
    "parts float32": (NARROW, lambda: load_weights(FILE, NARROW), "float32", 0.01, STEPS),
    "parts float64": (NARROW, lambda: load_weights(FILE, NARROW), "float64", 0.01, STEPS),
    "d2l float32": (D2L, lambda: draw_fixture(D2L).weights, "float32", 0.001, FEW),
    "d2l float64": (D2L, lambda: draw_fixture(D2L).weights, "float64", 0.001, FEW),
    "norm float32": (MINI, lambda: draw_fixture(MINI).weights, "float32", 0.01, (32,)),
    "norm float64": (MINI, lambda: draw_fixture(MINI).weights, "float64", 0.01, (32,)),
}


def recipe_of(network):
    """Momentum; in parts, with a clip that is well below the norms."""
    more = {"accumulate": 3, "clip": 0.5} if network.startswith("parts") else {}
    return Recipe(lr=NETWORKS[network][3], momentum=0.9, **more)


def networks(name):
    """Those of a framework: in float64 where it can, the small one in float32 too."""
    other = "float64" if name in WITHOUT_FLOAT64 else "float32"
    return [each for each in NETWORKS if each == "narrow float32" or other not in each]


def parts(sizes, rank, count, accumulate=1):
    """This worker's images, labels and weight of every part of a step; whether it is the last."""
    data, at = load("sample"), FIRST
    for size in sizes:
        pieces = np.array_split(np.arange(at, at + size), min(accumulate, size))
        for piece in pieces:
            part, weight = loop.shard(piece, rank, count)
            weight *= len(piece) / size
            yield data.train_images[part], data.train_labels[part], weight, piece is pieces[-1]
        at += size


def steps(backend, network, rank, count):
    """Momentum steps: weights, this worker's part of the metrics; last, an evaluation."""
    spec, weights, dtype, _, sizes = NETWORKS[network]
    recipe = recipe_of(network)
    model = backend.build(spec, dtype, "cpu")
    backend.write_weights(model, weights())
    trainer = backend.Trainer(model, recipe)
    losses, corrects = [], []
    for images, labels, weight, last in parts(sizes, rank, count, recipe.accumulate):
        inputs = backend.place(model, resize(images, *spec.input[1:]))
        native_labels = backend.place_labels(model, labels)
        loss, correct = trainer.train_step(inputs, native_labels, weight, last)
        losses.append(weight * float(loss))
        corrects.append(int(correct) if weight else 0)
    found = {"losses": losses, "rights": corrects}
    if spec.norm:
        data = load("sample")
        loss, correct, total = trainer.evaluate([(data.test_images[:8], data.test_labels[:8])])
        found["evaluated"] = [float(loss) / total, float(correct) / total]
    return found | backend.read_weights(model)


def twice(backend, rank):
    """Gradients that are summed by hand, though the wrapped model sums them."""
    parallel = sys.modules[f"{backend.__name__}.parallel"]
    scale_loss = parallel.scale_loss
    return mock.patch.object(
        parallel, "scale_loss", lambda loss, weight: 2 * scale_loss(loss, weight)
    )


def unsharded(backend, rank):
    """Every worker takes the first one's part."""
    shard = loop.shard
    return mock.patch.object(loop, "shard", lambda indices, rank, count: shard(indices, 0, count))


def unsynchronised(backend, rank):
    """The second worker begins elsewhere; most frameworks send the weights of the first to all."""
    train_step = backend.Trainer.train_step

    def stray(self, *arguments):
        result = train_step(self, *arguments)
        if rank and not self.__dict__.setdefault("strayed", False):
            self.strayed = True
            weights = backend.read_weights(self.model)
            backend.write_weights(self.model, {n: 1.01 * a for n, a in weights.items()})
        return result

    return mock.patch.object(backend.Trainer, "train_step", stray)


INJECTED = {"twice": twice, "unsharded": unsharded, "unsynchronised": unsynchronised}


def main(name, folder):
    """All that two workers do, a file of arrays each."""
    from backends import load as load_backend

    SPECS[NARROW.name] = NARROW
    backend = load_backend(name)  # does not return in a server of MXNet's
    rank, count = backend.init_process_group("cpu")
    backend.all_reduce_sum(np.zeros(1))
    print(f"worker {rank} of {count}", flush=True)

    def keep(what, found):
        np.savez(folder / f"{what}-{rank}.npz", **found)

    keep("total", {"sum": backend.all_reduce_sum(np.array([1.5, rank, 10.0**rank]))})
    for network in networks(name):
        keep(network, steps(backend, network, rank, count))
    for bug, injected in INJECTED.items():
        with injected(backend, rank):
            keep(bug, steps(backend, "narrow float32", rank, count))
    with unsharded(backend, rank):
        keep("unsharded run", {"shown": epoch(backend, name, rank, count)})
    keep("run", run(backend, name, folder, rank, count))
    backend.all_reduce_sum(np.zeros(1))
    backend.destroy_process_group()


def begin(backend, name, rank, count, run=None, stop=lambda shown: 0):
    """A run, and the images that each of its steps is shown and counts."""
    checkpoint, data = small()
    shown = []

    class Noting(backend.Trainer):
        """Notes them."""

        def prepare(self, images, flip_mask=None):
            """Before a step; an evaluation has no flip mask."""
            if flip_mask is not None:
                self.images = [int(image.sum()) for image in images]
            return super().prepare(images, flip_mask)

        def train_step(self, inputs, labels, weight=1.0, last=True):
            """One step."""
            shown.append(self.images if weight else [])
            return super().train_step(inputs, labels, weight, last)

    with mock.patch.object(backend, "Trainer", Noting):
        where = {"rank": rank, "workers": count}
        one = loop.TrainingLoop(
            backend, name, checkpoint, data, "cpu", run, stop=lambda: stop(shown), **where
        )
    return one, shown


def epoch(backend, name, rank, count):
    """The images that count in an epoch."""
    one, shown = begin(backend, name, rank, count)
    one.train(0)
    return [image for images in shown for image in images]


def run(backend, name, folder, rank, count):
    """A whole run, and one that a signal to the second worker stops."""
    whole, shown = begin(backend, name, rank, count)
    (first, *_) = whole().epochs
    kept = Run(folder / "kept")
    if rank == 0:
        kept.save(small()[0])
    signum = signal.SIGTERM if rank == 1 else 0
    half, _ = begin(
        backend, name, rank, count, None if rank else kept, lambda seen: signum * (len(seen) > 3)
    )
    stopped = 0
    try:
        with mock.patch.object(loop, "SIGNAL_POLL_SECONDS", 0.0):  # polls after every step
            half()
    except Stopped as error:
        stopped = error.exit_code
    return {
        "shown": [image for images in shown[:3] for image in images],
        "losses": first.losses,
        "metrics": [first.loss, first.train_accuracy, first.test_loss, first.test_accuracy],
        "stopped": [stopped, half.progress.steps],
        **backend.read_weights(whole.model),
    }


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
