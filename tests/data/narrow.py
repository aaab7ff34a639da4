"""The spec `mini` without its norm, and weights of it that the arbiter taught the sample.

`python tests/data/narrow.py` makes learned.safetensors, in a minute. Runs that start from it are
past the first plateau, where wrong weights look right, and without norm float32 stays close to
float64 for many steps.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from backends.numpy import GoogLeNet, Trainer
from common.data import batches, load
from common.recipe import Recipe
from common.spec import MINI
from common.weights import draw, save

NARROW = replace(MINI, name="narrow", norm=None)
FILE = Path(__file__).with_name("learned.safetensors")


def main() -> None:
    """Eight epochs of Adam, then write the weights."""
    recipe = Recipe(optimizer="adam", lr=0.003, schedule="cosine", batch_size=32, epochs=8)
    data = load("sample")
    trainer = Trainer(GoogLeNet(NARROW, draw(NARROW, 0)), recipe)
    step = 0
    for epoch in range(recipe.epochs):
        losses = []
        for indices in batches(len(data.train_labels), recipe.batch_size, 0, epoch):
            trainer.tune(recipe.rate(step, recipe.epochs * 25), 0)
            inputs = trainer.prepare(data.train_images[indices])
            losses.append(trainer.update(inputs, data.train_labels[indices]))
            step += 1
        print(f"epoch {epoch + 1}: loss {np.mean(losses):.3f}")
    weights = {name: array.astype(np.float32) for name, array in trainer.model.weights.items()}
    save(FILE, weights, NARROW)


if __name__ == "__main__":
    main()
