"""Write the notebooks: one for each framework, and one that compares all four.

`python docs/notebooks.py` rewrites the folder `notebooks`; a test compares it with the source. Code
and texts come from the page's topics, the address of the repository from `project.urls`.
"""

from __future__ import annotations

import json
import sys
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # run from anywhere, installed or not

from backends import FRAMEWORKS  # noqa: E402
from common.page import source, topics  # noqa: E402
from common.page.results import TITLES  # noqa: E402

SHOWN = ("conv", "inception", "layers", "head", "step", "optimizer", "evaluation")

#: where a notebook runs beside Jupyter
PLACES = {
    "torch": "It runs in Jupyter and in Colab.",
    "tf": "It runs in Jupyter and in Colab.",
    "mxnet": "It runs in Jupyter with Python 3.11 or 3.12. It does not run in Colab: MXNet 1.9.1 "
    "needs NumPy 1.26, and Colab's other packages need NumPy 2.",
    "paddle": "It runs in Jupyter and in Colab.",
}

INSTALL = """\
# Finds the project, or clones it, and installs the framework if it is missing.
import importlib.util
import pathlib
import subprocess
import sys

ADDRESS = "{address}"
folders = [pathlib.Path.cwd(), *pathlib.Path.cwd().parents]
project = next((each for each in folders if (each / "common" / "spec").is_dir()), None)
if project is None:
    project = pathlib.Path("googlenet").resolve()
    if not project.exists():
        subprocess.run(["git", "clone", "--depth", "1", ADDRESS, str(project)], check=True)
for package, extra in {packages}:
    if importlib.util.find_spec(package) is None:
        pins = project / "constraints" / "{pins}.txt"
        wanted = ["-c", str(pins), "-e", f"{{project}}[{{extra}}]"]
        subprocess.run([sys.executable, "-m", "pip", "install", "-q", *wanted], check=True)
if importlib.util.find_spec("safetensors") is None:
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "-e", str(project)], check=True)
sys.path.insert(0, str(project))"""

NETWORK = """\
from common.spec import MINI
from common.spec.summary import summary

summary(MINI, depth=2)"""

FORWARD = """\
import numpy as np

from backends import load
from common.weights import draw

backend = load("{name}")
network = backend.build(MINI, "float32", "cpu")
backend.write_weights(network, draw(MINI, seed=0))
network"""

REFERENCE = """\
from common.parity import suite

for report in suite.verify("{name}", spec="mini", size=33):
    print(report.sentence())
    assert report.failed is None"""

TRAIN = """\
from dataclasses import replace

from common.data.sampling import batches
from common.data.sources import load as load_data
from common.recipe import find_recipe

data = load_data("sample", MINI.input[1]).limit(256, 64)
recipe = replace(find_recipe("best"), spec="mini", size=33, batch_size=32, precision="float32")
trainer = backend.Trainer(network, recipe)
means = []
for epoch in range(3):
    losses = []
    for step, chosen in enumerate(batches(256, recipe.batch_size, seed=0, epoch=epoch)):
        trainer.set_step(0.05, seed=step)
        images = trainer.prepare(data.train_images[chosen])
        labels = backend.place_labels(network, data.train_labels[chosen])
        loss, _ = trainer.train_step(images, labels, 1.0)
        losses.append(float(loss))
    means.append(float(np.mean(losses)))
    print(f"epoch {epoch + 1}: loss {means[-1]:.3f}")
assert means[-1] < means[0]"""

COMPARE = """\
import json
import os

from backends import FRAMEWORKS

found = {}
for name, package in FRAMEWORKS.items():  # two frameworks cannot share a process
    if importlib.util.find_spec(package) is None:
        print(f"{name} is not installed")
        continue
    command = [sys.executable, "-m", "common.cli", "verify", "--backend", name]
    command += ["--spec", "mini", "--size", "33", "--json"]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True)
    found[name] = json.loads(done.stdout)
    assert done.returncode == 0, done.stderr"""

TABLE = """\
from common.parity.report import CHECKS_KEY
from common.terminal import table

checks = [check["name"] for check in next(iter(found.values()))[0][CHECKS_KEY]]
rows = []
for at, check in enumerate(checks):
    errors = [reports[0][CHECKS_KEY][at]["error"] for reports in found.values()]
    rows.append([check, *("" if error is None else f"{error:.0e}" for error in errors)])
print(table(rows, ["float64", *found]))"""


def markdown(text: str) -> dict[str, Any]:
    """A cell of text."""
    return {"cell_type": "markdown", "metadata": {}, "source": text.splitlines(keepends=True)}


def code(text: str) -> dict[str, Any]:
    """A cell of code that was not run."""
    lines = text.splitlines(keepends=True)
    more = {"execution_count": None, "outputs": []}
    return {"cell_type": "code", "metadata": {}, "source": lines, **more}


def notebook(cells: list[dict[str, Any]]) -> str:
    """The file of a notebook; ids are numbers, so that the same cells give the same file."""
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    numbered = [{"id": f"cell-{number}", **cell} for number, cell in enumerate(cells)]
    whole = {
        "cells": numbered,
        "metadata": {"kernelspec": kernel, "language_info": {"name": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


def address() -> str:
    """The address of the repository, which stands once, in `project.urls`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return str(project["urls"]["Repository"])


def listing(topic: topics.Topic, backend: str) -> str:
    """The code of a topic in one framework, in a Markdown fence."""
    path = ROOT / "backends" / backend / topic.file
    parts = ["\n".join(source.cut(path, name)) for name in topic.addresses(backend)]
    return "```python\n" + "\n\n".join(parts) + "\n```"


def chosen() -> list[topics.Topic]:
    """The topics that the notebooks show."""
    return [topic for topic in topics.TOPICS if topic.id in SHOWN]


def of_framework(name: str) -> str:
    """The notebook of one framework."""
    extra = INSTALL.format(address=address(), packages=[(FRAMEWORKS[name], name)], pins=name)
    cells = [
        markdown(f"# GoogLeNet in {TITLES[name]}\n\n{PLACES[name]} It needs no GPU."),
        code(extra),
        markdown("## The network\n\n`mini` is a small GoogLeNet with batch norm, for tries."),
        code(NETWORK),
        code(FORWARD.format(name=name)),
        markdown(
            "## The same function as the reference\n\nThe reference is float64 NumPy, in under "
            "400 lines. Each line below is one precision: every activation, gradient and step is "
            "compared."
        ),
        code(REFERENCE.format(name=name)),
        markdown("## Training\n\n256 real images, three epochs."),
        code(TRAIN),
        markdown(f"## The idioms of {TITLES[name]}\n\nThe code of this backend, topic by topic."),
    ]
    for topic in chosen():
        text = f"### {topic.title[0]}\n\n{topic.about[0]}\n\n{listing(topic, name)}"
        cells.append(markdown(text))
    return notebook(cells)


def of_all() -> str:
    """The notebook that compares the four frameworks."""
    packages = [(package, name) for name, package in FRAMEWORKS.items()]
    cells = [
        markdown(
            "# GoogLeNet in four frameworks\n\nOne process for each framework: two of them cannot "
            "share one. It runs in Jupyter with Python 3.11 or 3.12. In Colab, MXNet cannot be "
            "installed; the notebook then compares the others."
        ),
        code(INSTALL.format(address=address(), packages=packages, pins="cross")),
        markdown(
            "## The proof\n\nEach framework against the float64 reference, on the spec `mini`."
        ),
        code(COMPARE),
        code(TABLE),
        markdown("## The idioms"),
    ]
    for topic in chosen():
        parts = [f"### {topic.title[0]}\n\n{topic.about[0]}"]
        parts += [f"**{TITLES[name]}**\n\n{listing(topic, name)}" for name in TITLES]
        cells.append(markdown("\n\n".join(parts)))
    return notebook(cells)


def every() -> dict[str, str]:
    """The content of every notebook, by its file's name."""
    return {**{f"{name}.ipynb": of_framework(name) for name in TITLES}, "compare.ipynb": of_all()}


if __name__ == "__main__":
    for file, text in every().items():
        (ROOT / "notebooks" / file).write_text(text)
