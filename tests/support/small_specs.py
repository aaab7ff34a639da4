"""Small networks for tests: large specs with thin layers, and `mini` without its norm.

The latter with weights that the reference learned from the sample, and runs of it.
`python tests/support/small_specs.py` makes learned.safetensors in a minute. Such runs are past the
first plateau, where wrong weights look right, and without norm float32 stays close to float64 for
many steps.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from backends.numpy import GoogLeNet, Trainer
from common.data.sampling import batches
from common.data.sources import load
from common.errors import Stopped
from common.recipe import Recipe
from common.spec import MINI, SPECS, Spec, divide_widths
from common.training.loop import TrainingLoop
from common.weights import draw, save


def thin(spec: Spec) -> Spec:
    """The spec with an eighth of its widths and ten classes, its auxiliary heads too."""
    stages = {name: divide_widths(rows, 8) for name, rows in spec.stages()}
    heads = (
        replace(
            row,
            conv=replace(row.conv, width=row.conv.width // 8),
            features=row.features // 8,
            hidden=replace(row.hidden, width=row.hidden.width // 8),
        )
        for row in spec.auxiliary
    )
    head = replace(spec.head, width=10)
    return replace(spec, name=f"thin {spec.name}", **stages, head=head, auxiliary=tuple(heads))


#: all specs, with thin layers in the large networks that have the rows of smaller ones
EVERY = {
    name: thin(spec) if name.startswith(("inception", "bn-inception")) else spec
    for name, spec in SPECS.items()
}

NARROW = replace(MINI, name="narrow", norm=None)
FILE = Path(__file__).parents[1] / "data" / "learned.safetensors"


#: what the runs do that are compared between backends
RECIPE = Recipe(
    spec=NARROW.name,
    size=33,
    batch_size=32,
    epochs=3,
    lr=0.001,  # at which no ReLU comes near a tie, which would move a tensor by 4e-3
    momentum=0.9,
    nesterov=True,
    schedule="cosine",
    weight_decay=5e-4,
    label_smoothing=0.02,
    flip=True,
)
BEGUN, MORE = 5, 20  # steps: all within the first epoch
CLOSE = 1e-3  #: of losses in nats and of weights over the largest of their tensor

#: what makes a checkpoint another run's
INJECTED = {
    "weights drawn anew": lambda c: replace(c, weights=draw(c.config.network(), 1)),
    "state zeroed": lambda c: replace(
        c, state={slot: {n: 0 * a for n, a in s.items()} for slot, s in c.state.items()}
    ),
    "order shifted": lambda c: replace(
        c, config=replace(c.config, recipe=replace(c.config.recipe, seed=1))
    ),
}


def go_on(backend, name, checkpoint, steps, rank=0, workers=1):
    """The checkpoint so many steps later: the loop asks after each step whether to stop."""
    asked = iter(range(1, 10**6))

    def stop():
        return 15 if next(asked) == steps else 0

    where = {"rank": rank, "workers": workers}
    loop = TrainingLoop(backend, name, checkpoint, load("sample"), "cpu", stop=stop, **where)
    try:
        loop()
    except Stopped:
        return loop.checkpoint()
    raise AssertionError(f"the run was over before {steps} steps")


def main() -> None:
    """Eight epochs of Adam, then write the weights."""
    recipe = Recipe(optimizer="adam", lr=0.003, schedule="cosine", batch_size=32, epochs=8)
    data = load("sample")
    trainer = Trainer(GoogLeNet(NARROW, draw(NARROW, 0)), recipe)
    step = 0
    for epoch in range(recipe.epochs):
        losses = []
        for indices in batches(len(data.train_labels), recipe.batch_size, 0, epoch):
            trainer.set_step(recipe.rate(step, recipe.epochs * 25), 0)
            inputs = trainer.prepare(data.train_images[indices])
            losses.append(trainer.train_step(inputs, data.train_labels[indices])[0])
            step += 1
        print(f"epoch {epoch + 1}: loss {np.mean(losses):.3f}")
    weights = {name: array.astype(np.float32) for name, array in trainer.model.weights.items()}
    save(FILE, weights, NARROW)


if __name__ == "__main__":
    main()
