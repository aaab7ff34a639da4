"""The benchmark's turns and ratios, by a clock that only the loops move."""

import importlib
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner

from common import bench
from common.cli import main
from common.errors import DeviceError, OutOfMemoryError, SpecError
from common.recipe import Recipe

COSTS = {"as published": [9.0, 4.0, 8.0, 6.0], "float32": [9.0, 2.0, 1.0, 3.0]}  # seconds a step


class _Backend:
    """Takes as long as COSTS says, and has no bfloat16."""

    VERSION = "0.1"

    def __init__(self, work):
        self.work = work
        self.Trainer = lambda model, recipe: SimpleNamespace(update=self.update)

    def devices(self):
        return ["cpu"]

    def build(self, spec, precision, device):
        if precision == "bfloat16":
            raise DeviceError("no bfloat16")
        return spec

    def write_weights(self, model, weights):
        pass

    def place(self, model, images):
        assert images.shape == (4, 1, 33, 33)
        assert images.dtype == np.float32
        return images

    def update(self, inputs, labels):
        return self.work("float32"), 0

    def out_of_memory(self, error):
        return isinstance(error, MemoryError)


@pytest.fixture
def turns(monkeypatch):
    """The loops in the order that they ran; the clock moves by COSTS."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # the benchmark sets it
    done, clock = [], [0.0]

    def work(loop):
        clock[0] += COSTS[loop][done.count(loop)]
        done.append(loop)
        return 1.0

    published = SimpleNamespace(
        Published=lambda spec, device: SimpleNamespace(
            step=lambda *batch: (work("as published"), 0)
        )
    )
    monkeypatch.setattr(importlib, "import_module", lambda name: published)
    monkeypatch.setattr(bench, "load", lambda name: _Backend(work))
    monkeypatch.setattr(bench.time, "perf_counter", lambda: clock[0])
    return done


def test_the_loops_take_turns_and_the_first_step_of_each_is_not_counted(turns):
    recipe = Recipe(spec="mini", size=33, batch_size=4)
    book, ours = bench.bench("torch", recipe, "auto", rounds=3, steps=1)["rows"]
    assert turns == ["as published", "float32"] * 4
    assert (book["loop"], ours["loop"], ours["precision"]) == ("as published", "ours", "float32")
    assert [book[k] for k in ("median", "lowest", "highest", "ratio")] == [0.7, 0.5, 1.0, 1.0]
    assert [ours[k] for k in ("median", "lowest", "highest")] == [2.0, 1.3, 4.0]
    assert ours["ratio"] == 2.0, "the median of 2, 8 and 2, each within its round"
    assert (ours["batch_size"], ours["size"], ours["device"]) == (4, 33, "cpu")


def test_the_steps_of_a_turn_are_divided_out(turns):
    recipe = Recipe(spec="mini", size=33, batch_size=4)
    book, ours = bench.bench("torch", recipe, "auto", rounds=1, steps=3)["rows"]
    assert book["median"] == round(4 * 3 / (4 + 8 + 6), 1)
    assert ours["ratio"] == 3.0


def test_the_command_prints_the_machine_and_every_loop(turns):
    options = [
        "--spec",
        "mini",
        "--size",
        "33",
        "--batch-size",
        "4",
        "--rounds",
        "3",
        "--steps",
        "1",
    ]
    result = CliRunner().invoke(main, ["bench", "--backend", "torch", *options])
    assert result.exit_code == 0, result.output
    head, *table = result.output.splitlines()
    assert head.startswith("torch 0.1 on cpu, batch 4 at 33 pixels; ")
    assert bench.machine() in head
    assert [row.split()[-1] for row in table[2:]] == ["1", "2"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"spec": "torchvision-aux"}, "auxiliary heads"),
        ({"spec": "blog-224", "size": 10}, "use a larger image"),
    ],
)
def test_what_the_books_loop_cannot_take_is_refused_first(turns, options, said):
    with pytest.raises(SpecError, match=said):
        bench.bench("torch", Recipe(**options), "auto", rounds=1, steps=1)
    assert turns == []


def test_too_little_memory_is_told_in_one_sentence(turns, monkeypatch):
    def greedy(self, inputs, labels):
        raise MemoryError

    monkeypatch.setattr(_Backend, "update", greedy)
    recipe = Recipe(spec="mini", size=33, batch_size=4)
    with pytest.raises(OutOfMemoryError, match="--batch-size"):
        bench.bench("torch", recipe, "auto", rounds=1, steps=1)
