"""The benchmark's turns, ratios and roles, by a clock that only the loops move; its processes.

Long because one play of processes serves all tests.
"""

import importlib
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
from click.testing import CliRunner
from inline_process import Here

from common.bench import benchmark, process, report
from common.bench.benchmark import Plan
from common.cli.app import main
from common.data.sources import load
from common.errors import BackendError, DeviceError, GoogLeNetError, OutOfMemoryError, SpecError
from common.files import ROOT
from common.recipe import Recipe
from common.spec.arithmetic import fewest_bytes, layers

RECIPE = Recipe(spec="mini", size=33, batch_size=4)
#: seconds of the steps of each loop and of its epochs: the first step and turn, then those that
#: count; the book's loop has made a step before, in another process
COSTS = {
    "as published": [9.0, 1.0, 1.0, 4.0, 8.0, 6.0],
    "hybridize": [9.0, 2.0, 3.0, 2.0, 4.0],
    "float32": [5.0, 1.0, 2.0, 1.0, 3.0],
    "bfloat16": [3.0, 1.0, 1.0, 1.0, 1.0],
    "float32 epoch": [7.0, 4.0, 2.0, 4.0],
    "bfloat16 epoch": [7.0, 1.0, 1.0, 2.0],
}


class _Machine:
    """A backend, its probes and baseline that take as long as COSTS says."""

    def __init__(self, precisions=("float32",)):
        self.clock, self.done, self.calls, self.precisions = 0.0, [], [], precisions
        self.products = []  # seconds of one in each process

    def work(self, loop):
        self.clock += COSTS[loop][self.done.count(loop)]
        self.done.append(loop)
        return 1.0

    # the backend
    VERSION = "0.1"

    def devices(self):
        return ["cpu", "gpu:0"]

    def place(self, model, images):
        assert (images.shape, images.dtype) == ((4, 1, 33, 33), np.float32)
        return model

    def place_labels(self, model, labels):
        assert (labels.shape, labels.dtype) == ((4,), np.int64)
        return "labels"

    def out_of_memory(self, error):
        return False

    # the baseline
    def Published(self, spec, device, lr):
        self.baseline_on = device
        return SimpleNamespace(step=lambda *batch: (self.work("as published"), 0))

    # what a user would write today
    @property
    def TODAY(self):
        return {"hybridize": lambda loop: setattr(loop, "step", lambda *batch: self.today())}

    def today(self):
        return (self.work("hybridize"), 0)

    # the probes
    def label(self, device):
        return "a GPU"

    def wait(self, device):
        self.calls.append("wait")

    def peak_memory(self, device):
        self.calls.append("memory")
        return None if device == "cpu" else 5_000_000

    def product(self, side, precision, device):
        self.calls.append("product")
        usual = {"float32": 2.0, "bfloat16": 1.0}[precision]
        seconds = self.products.pop(0) if self.products else usual

        def multiply():
            self.clock += seconds

        return multiply

    def copy(self, count, device):
        assert count == 1000
        self.calls.append("copy")

        def copied():
            self.clock += 0.5

        return copied

    def operators(self, run, device):
        run()
        return [("relu", 4, 1.0), ("conv", 2, 3.0)]

    # the training loop
    def TrainingLoop(self, backend, name, checkpoint, data, device):
        precision = checkpoint.config.recipe.precision
        if precision not in self.precisions:
            raise DeviceError(f"no {precision}")
        self.images, progress = data.train_images.shape, SimpleNamespace(wait=0.0, epochs=[])

        def train(number):
            self.work(f"{precision} epoch")
            progress.wait = 0.5

        def train_step(inputs, labels):
            assert (inputs, labels) == ("model", "labels")
            return self.work(precision), 0

        return SimpleNamespace(
            model="model",
            trainer=SimpleNamespace(train_step=train_step),
            progress=progress,
            train=train,
            finish=lambda number, loss, accuracy: progress.epochs.append(number),
        )


@pytest.fixture
def play(monkeypatch):
    """Make the machine with such precisions."""

    def make(*precisions):
        found = _Machine(precisions or ("float32",))
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # the benchmark sets it
        monkeypatch.setattr(benchmark, "PAUSE", 0)
        monkeypatch.setattr(benchmark, "require", lambda name: None)
        monkeypatch.setattr(benchmark, "Process", Here)
        monkeypatch.setattr(benchmark, "images", lambda: load("sample"))
        monkeypatch.setattr(process, "load_module", lambda name, path: found)
        monkeypatch.setattr(process, "load", lambda name: found)
        monkeypatch.setattr(process, "TrainingLoop", found.TrainingLoop)
        monkeypatch.setattr(process, "SIDES", {"cpu": 10, "gpu": 20})
        monkeypatch.setattr(process, "COPIED", 1000)
        monkeypatch.setattr(process, "copy_of_array", lambda count: found.copy(count, "cpu"))
        monkeypatch.setattr(time, "perf_counter", lambda: found.clock)
        return found

    return make


def test_the_loops_take_turns_and_the_first_step_and_turn_are_not_counted(play):
    machine = play()
    found = benchmark.bench(Plan("torch", RECIPE, rounds=3, steps=1))
    book, ours = found["rows"]
    turn = ["as published", "float32", "float32 epoch"]
    scout, first = ["as published"], ["as published", "float32"]
    assert machine.done == [*scout, *first, *turn, *turn, *turn, *turn]
    assert machine.images == (4, 1, 28, 28)
    assert (book["role"], book["loop"], book["precision"]) == ("a", "as published", "float32")
    assert (ours["role"], ours["loop"], ours["precision"]) == ("bc", "ours", "float32")
    assert [book[k] for k in ("median", "lowest", "highest", "ratio")] == [0.7, 0.5, 1.0, 1.0]
    assert [ours[k] for k in ("median", "lowest", "highest")] == [2.0, 1.3, 4.0]
    assert ours["ratio"] == 2.0, "the median of 2, 8 and 2, each within its round"
    assert (ours["batch_size"], ours["size"], ours["threads"]) == (4, 33, None)
    assert found["data"] == "sample"


def test_start_and_compilation_count_from_each_process_and_may_be_repaid(play):
    play()
    book, ours = benchmark.bench(Plan("torch", RECIPE, rounds=3, steps=1))["rows"]
    assert (book["start"], ours["start"]) == (1.0, 5.0)
    assert (book["compile"], ours["compile"]) == (0.0, 2.0), "5 and 1 s; later steps take 2"
    assert (book["repaid"], ours["repaid"]) == (0, 4), "4 s later, 1 s an example faster"


def test_a_slower_loop_that_starts_later_is_never_repaid(play, monkeypatch):
    monkeypatch.setitem(COSTS, "float32", [5.0, 1.0, 9.0, 9.0, 9.0])
    play()
    _, ours = benchmark.bench(Plan("torch", RECIPE, rounds=3, steps=1))["rows"]
    assert ours["repaid"] is None


def test_the_real_loop_stands_beside_the_drawn_batch_of_its_round(play):
    play()
    book, ours = benchmark.bench(Plan("torch", RECIPE, rounds=3, steps=1))["rows"]
    assert (book["real"], book["real_share"], book["wait"]) == (None, None, None)
    assert ours["real"] == 1.0
    assert ours["real_share"] == 0.5, "the median of 1/2, 2/4 and 3/4"
    assert ours["wait"] == 0.125, "the median of 1/8, 1/4 and 1/8"
    text = report.render({"machine": "m", "data": "d", "rows": [book, ours]})
    assert f"{ours['wait']:.1%}" in text


def test_the_share_of_the_peak_counts_three_passes_of_two_operations(play):
    play()
    book, ours = benchmark.bench(Plan("torch", RECIPE, "cpu", rounds=3, steps=1))["rows"]
    forward = sum(layer.multiply_adds for layer in layers(RECIPE.network()))
    peak = 2 * 10**3 / 2  # operations, seconds
    assert ours["share"] == pytest.approx(2.0 * 6 * forward / peak, abs=1e-3)
    assert book["share"] == pytest.approx(ours["share"] / 3, abs=1e-3)


@pytest.mark.parametrize(("device", "times"), [("cpu", 3.0), ("gpu", 1.5)])
def test_the_peak_is_the_best_of_all_loops_on_a_cpu_and_each_ones_own_on_a_gpu(play, device, times):
    machine = play()
    machine.products += [4.0, 2.0]
    book, ours = benchmark.bench(Plan("torch", RECIPE, device, rounds=3, steps=1))["rows"]
    assert ours["share"] == pytest.approx(times * book["share"], rel=1e-3), "three times the speed"


@pytest.mark.parametrize(("device", "times"), [("cpu", 1), ("gpu", 20)])
def test_the_least_time_of_a_step_is_its_operations_and_then_its_bytes(play, device, times):
    play("float32", "bfloat16")
    book, ours, mixed = benchmark.bench(Plan("torch", RECIPE, device, rounds=3, steps=1))["rows"]
    bandwidth = 2 * 4 * 1000 / 0.5  # bytes read and written, seconds
    least = {}
    for precision, seconds in (("float32", 2.0), ("bfloat16", 1.0)):
        peak = 2 * (10 if device == "cpu" else 20) ** 3 / seconds
        flop = 4 * 6 * sum(layer.multiply_adds for layer in layers(RECIPE.network()))
        moved = fewest_bytes(RECIPE.network(), 4, precision)
        least[precision] = flop / peak + moved / bandwidth
    for row, seconds in ((book, 6.0), (ours, 2.0), (mixed, 1.0)):
        assert row["bandwidth"] == round(bandwidth / 1e9, 1)
        assert row["roofline"] == pytest.approx(least[row["precision"]] / seconds, rel=1e-4)
    text = report.render({"machine": "m", "data": "d", "rows": [book, ours]})
    assert f"{ours['roofline']:.1%} of 0 GFLOP/s, 0 GB/s" in text
    assert "of peak" not in text


def test_a_copy_moves_every_number_in_a_thread_for_each_core(monkeypatch):
    copied = []
    monkeypatch.setattr(process, "processor", lambda: {"usable": 3})
    monkeypatch.setattr(np, "copyto", lambda target, source: copied.append(len(target)))
    process.copy_of_array(1000)()
    assert sorted(copied) == [333, 333, 334]


def test_real_images_are_fashion_mnist_where_nothing_has_to_be_downloaded(monkeypatch):
    monkeypatch.setattr(benchmark, "read_images", lambda source: source)
    for cache, debian, source in ((0, 4, None), (4, 0, None), (3, 1, "sample"), (0, 0, "sample")):
        found = {"cache": ("", cache), "Debian": ("", debian), "sample": ("", 4)}
        monkeypatch.setattr(benchmark, "whereabouts", lambda found=found: found)
        assert benchmark.images() == source


def test_the_fastest_of_ours_is_c_unless_a_precision_is_asked_for(play):
    machine = play("float32", "bfloat16")
    rows = benchmark.bench(Plan("torch", RECIPE, rounds=3, steps=1))["rows"]
    assert [(row["role"], row["precision"]) for row in rows] == [
        ("a", "float32"),
        ("b", "float32"),
        ("c", "bfloat16"),
    ]
    assert rows[2]["share"] == pytest.approx(rows[1]["share"], abs=2e-3), "twice speed and peak"
    machine.done.clear()
    rows = benchmark.bench(Plan("torch", RECIPE, precision="float32", rounds=3, steps=1))["rows"]
    assert [row["role"] for row in rows] == ["a", "bc"]


def test_a_precision_that_is_asked_for_and_missing_is_refused(play):
    play("float32")
    with pytest.raises(DeviceError, match="no bfloat16"):
        benchmark.bench(Plan("torch", RECIPE, precision="bfloat16", rounds=1, steps=1))


def test_the_steps_of_a_turn_are_divided_out(play):
    machine = play()
    book, ours = benchmark.bench(Plan("torch", RECIPE, rounds=1, steps=2))["rows"]
    assert book["median"] == round(4 * 2 / (8 + 6), 1)
    assert ours["ratio"] == 3.5, "14 s to 4 s"
    assert machine.images == (8, 1, 28, 28)


@pytest.mark.parametrize(("step", "steps"), [(0.25, 8), (5.0, 2), (0.001, 100)])
def test_a_turn_is_two_seconds_of_the_books_loop(play, monkeypatch, step, steps):
    monkeypatch.setitem(COSTS, "as published", [9.0, step, 1.0, *[1.0] * 200])
    monkeypatch.setitem(COSTS, "float32", [1.0] * 201)
    machine = play()
    benchmark.bench(Plan("torch", RECIPE, rounds=1))
    assert machine.done.count("float32") == 1 + 2 * steps


def test_a_turn_ends_when_the_device_has_done_all_and_memory_is_read_before_the_product(play):
    machine = play()
    benchmark.bench(Plan("torch", RECIPE, rounds=3, steps=1))
    waits = ["wait"] * (3 + 4 * 3)  # first steps, then turns
    products, copies = ([kind, *["wait"] * 4] for kind in ("product", "copy"))
    assert machine.calls == [*waits, "memory", "memory", *products * 2, *copies * 2]


def test_the_gpu_is_taken_as_train_takes_it_and_hidden_where_the_cpu_is_asked_for(play):
    machine = play()
    book, _ = benchmark.bench(Plan("torch", RECIPE, rounds=1, steps=1))["rows"]
    assert (book["device"], machine.baseline_on) == ("gpu:0", "gpu:0")
    assert (os.environ["CUDA_VISIBLE_DEVICES"], book["device_memory"]) == ("", 5)
    machine.done.clear()
    book, _ = benchmark.bench(Plan("torch", RECIPE, device="cpu", rounds=1, steps=1))["rows"]
    assert (book["device"], machine.baseline_on) == ("cpu", "cpu")
    assert (os.environ["CUDA_VISIBLE_DEVICES"], book["device_memory"]) == ("-1", None)


def test_the_command_prints_the_machine_and_every_loop(play):
    machine = play()
    options = ["--spec", "mini", "--size", "33", "--batch-size", "4", "--steps", "1"]
    options = ["bench", "--backend", "torch", *options, "--rounds", "3"]
    result = CliRunner().invoke(main, options)
    assert result.exit_code == 0, result.output
    head, about, *table = [line for line in result.output.splitlines() if line]
    assert head == f"a GPU; {benchmark.machine()}; real data: sample"
    assert about == "torch 0.1 on gpu:0, mini, batch 4 at 33 pixels"
    assert [row.split()[0] for row in table[2:]] == ["a", "bc"]
    machine.done.clear()
    result = CliRunner().invoke(main, [*options, "--json"])
    assert [row["role"] for row in json.loads(result.output)["rows"]] == ["a", "bc"]


def test_every_combination_of_sizes_batches_and_threads_is_measured(play, monkeypatch):
    play()
    asked = []

    def measured(plan):
        asked.append((plan.recipe.size, plan.recipe.batch_size, plan.threads))
        return {"machine": "m", "data": "d", "rows": [{"size": plan.recipe.size}]}

    monkeypatch.setattr(benchmark, "bench", measured)
    monkeypatch.setattr(benchmark, "processor", lambda: {"usable": 2})
    options = ["--spec", "mini", "--size", "33,40", "--batch-size", "2,4", "--threads", "1,2"]
    result = CliRunner().invoke(main, ["bench", "--backend", "torch", *options, "--json"])
    assert result.exit_code == 0, result.output
    assert asked == [(s, b, t) for s in (33, 40) for b in (2, 4) for t in (1, 2)]
    assert [row["size"] for row in json.loads(result.output)["rows"]] == [33] * 4 + [40] * 4


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--size", "33,x"], "list of whole numbers"),
        (["--threads", "0"], "--threads: '0' has a number below 1"),
        (["--workers", "0"], "--workers: '0' has a number below 1"),
        (["--size", "0"], "--size: '0' has a number below 1"),
        (["--threads", "1,4096"], "--threads 4096 is not possible: give 1 to"),
        (["--batch-size", "4,0"], "--batch-size: '4,0' has a number below 1"),
        (["--spec", "torchvision-aux"], "auxiliary heads"),
        (["--spec", "blog-224", "--size", "33,10"], "use a larger image"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_runs(play, options, said):
    machine = play()
    result = CliRunner().invoke(main, ["bench", "--backend", "torch", *options])
    assert result.exit_code == 2, result.output
    assert said in result.output
    assert machine.done == []


def test_a_peer_that_is_not_installed_is_an_error_with_the_way_out(play, monkeypatch):
    play()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BackendError, match="pip install torchvision"):
        benchmark.bench(Plan("torch", RECIPE, peer=True))


def test_a_peer_is_the_books_loop_with_a_line_more_and_takes_its_turns(play):
    machine = play()
    found = benchmark.bench(Plan("mxnet", RECIPE, rounds=3, steps=1, peer=True))
    assert [(row["loop"], row["role"]) for row in found["rows"]] == [
        ("as published", "a"),
        ("hybridize", ""),
        ("ours", "bc"),
    ]
    book, today, ours = found["rows"]
    assert (today["ratio"], ours["ratio"]) == (1.5, 2.0), "the medians of 4/3, 8/2, 6/4 and above"
    assert today["compile"] == 5.0, "9 and 2 s; later steps take 3"
    assert (today["real"], today["real_share"], today["wait"]) == (None, None, None)
    assert (ours["real"], ours["real_share"], ours["wait"]) == (1.0, 0.5, 0.125)
    assert book["spec"] == "mini"
    order = ["as published", "hybridize", "float32", "float32 epoch"]
    assert machine.done[1:] == order[:3] + order * 4


def test_fit_takes_all_steps_of_a_turn(play, monkeypatch):
    machine = play()
    steps = []

    def fit(images, labels, count, begin):
        machine.clock += 7.0  # the start of an epoch does not count
        begin()
        machine.clock += 2.0 * count
        steps.append(count)
        return 1.0, 0.0

    def published(spec, device, lr):
        return SimpleNamespace(step=lambda *batch: (machine.work("as published"), 0), fit=fit)

    monkeypatch.setattr(machine, "Published", published)
    monkeypatch.setattr(_Machine, "TODAY", {"fit": id, "fit, jit_compile": id})
    rows = benchmark.bench(Plan("tf", RECIPE, rounds=1, steps=2, peer=True))["rows"]
    assert steps == [1, 1, 2, 2, 2, 2]
    assert [row["median"] for row in rows[1:3]] == [2.0, 2.0]


def test_a_peer_that_does_not_run_here_is_left_out_with_a_warning(play, monkeypatch, capsys):
    machine = play()

    def fails():
        raise RuntimeError("no\ncompiler")

    monkeypatch.setattr(machine, "today", fails)
    rows = benchmark.bench(Plan("mxnet", RECIPE, rounds=3, steps=1, peer=True))["rows"]
    assert [row["loop"] for row in rows] == ["as published", "ours"]
    assert capsys.readouterr().err == "warning: hybridize does not run here: no compiler\n"


def test_a_closed_process_has_ended_even_if_it_is_stuck(tmp_path):
    """It is killed, and waited for: else its memory is still taken when the next one starts."""
    stuck = process.Process.__new__(process.Process)
    stuck.pipe, stuck.log = mock.Mock(), tmp_path / "log"
    stuck.process = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(600,))
    stuck.process.start()
    stuck.close()
    assert stuck.process.exitcode == -signal.SIGKILL


def test_a_profile_shares_out_the_time_of_the_operators_and_gives_the_floor(play):
    machine = play()
    found = benchmark.profile(Plan("torch", RECIPE, device="cpu"), steps=1)
    book, ours = found["profiles"]
    assert machine.done == ["as published"] * 4 + ["float32"] * 4
    assert (book["step"], ours["step"]) == (1.0, 2.0), "the second turn, without the profiler"
    forward = sum(layer.multiply_adds for layer in layers(RECIPE.network()))
    assert ours["floor"] == pytest.approx(4 * 6 * forward / 1000)
    assert [(row["name"], row["share"]) for row in ours["operators"]] == [
        ("conv", 0.75),
        ("relu", 0.25),
    ]
    text = report.render_profile(found)
    assert "ours in float32, batch 4 at 33 pixels: 2000.0 ms a step" in text
    *_, heads, _, conv, _ = text.splitlines()
    assert heads.split() == ["operator", "calls", "ms", "a", "step", "share"]
    assert conv.split() == ["conv", *conv.split()[1:-1], "75.0%"]


ROW = {
    "machine": "m",
    **{"backend": "torch", "version": "0.1", "device": "gpu:0", "spec": "mini", "batch_size": 4},
    **{"size": 33, "threads": 2, "role": "b", "loop": "ours", "precision": "bfloat16"},
    **{"median": 7.5, "lowest": 6.5, "highest": 8.5, "ratio": 2.5, "share": 0.125, "peak": 1e3},
    **{"memory": 300, "device_memory": 50, "start": 4.5, "compile": 1.5, "real": 0.5, "wait": 0.25},
    **{"workers": 3, "step": 0.02, "floor": 0.005, "roofline": 0.375, "bandwidth": 250.0},
}
OPERATOR = {"name": "o" * 99, "calls": 2.0, "seconds": 0.003, "share": 0.375}


@pytest.mark.parametrize(
    ("text", "heads", "cells"),
    [
        (
            report.render({"machine": "m", "data": "d", "rows": [ROW]}),
            "loop|precision|examples/s|range|ratio|of the roofline|memory|start|compile|real data|"
            "wait",
            "b|ours|bfloat16|7.5|6.5 to 8.5|2.5|37.5% of 1000 GFLOP/s, 250 GB/s|"
            "300 MB, 50 MB on the GPU|4.5 s|1.5 s|0.5|25.0%",
        ),
        (
            report.render_scaling({"machine": "m", "data": "d", "scaling": [ROW]}),
            "workers|examples/s|range|ratio",
            "3|7.5|6.5 to 8.5|2.5",
        ),
        (
            report.render_profile({"machine": "m", "profiles": [ROW | {"operators": [OPERATOR]}]}),
            "operator|calls|ms a step|share",
            f"{'o' * 60}|2.0|3.0|37.5%",
        ),
    ],
)
def test_a_table_shows_every_value_below_its_head_and_setting(text, heads, cells):
    lines = text.splitlines()
    assert [re.sub(r" {2,}", "|", lines[at].strip()) for at in (-3, -1)] == [heads, cells]
    (setting,) = [line for line in lines if line.startswith("torch")]
    for value in ("torch 0.1 on gpu:0", "batch 4", "33 pixels"):
        assert value in setting
    assert "--threads 2" in setting or "bfloat16" in setting


def test_too_little_memory_is_one_sentence(play, monkeypatch):
    machine = play()

    def greedy(*batch):
        raise MemoryError

    monkeypatch.setattr(machine, "place", greedy)
    with pytest.raises(OutOfMemoryError, match=r"^A batch of 4 .* of gpu:0: .*--batch-size"):
        benchmark.bench(Plan("torch", RECIPE, rounds=1, steps=1))


def test_images_are_repeated_to_fill_an_epoch_and_have_the_networks_channels():
    data = load("sample")
    more = benchmark.cut(data, 1000, RECIPE.network(channels=3))
    assert more.train_images.shape == (1000, 3, 28, 28)
    np.testing.assert_array_equal(more.train_images[810, 2], data.train_images[10, 0])
    assert more.train_labels[810] == data.train_labels[10]


@pytest.fixture
def loop():
    """A loop in a process that has no framework to run it."""
    return lambda kind, recipe: process.Loop(kind, "nothing", recipe, None, "cpu", None)


@pytest.mark.parametrize("kind", [process.BOOK, process.PEER, process.OURS])
def test_a_process_hands_on_a_refusal(loop, kind):
    with pytest.raises(BackendError, match="There is no backend 'nothing'"):
        process.Process(loop(kind, RECIPE), load("sample"))


def test_a_process_hands_on_a_fault_with_its_traceback(loop):
    with pytest.raises(RuntimeError, match=r"(?s)Traceback.*no attribute 'batch_size'"):
        process.Process(loop(process.BOOK, None), load("sample"))


class Fatal:
    """Code that the process runs when it gets the recipe."""

    def __init__(self, code):
        self.code = code

    def __reduce__(self):
        return exec, (f"import os, signal\n{self.code}",)


@pytest.mark.parametrize(
    ("code", "error", "said"),
    [
        ("os._exit(3)", BackendError, r"nothing's loop ended with status 3: $"),
        ("print('one\\ntwo', flush=True); os._exit(3)", BackendError, r"status 3: two$"),
        ("signal.raise_signal(signal.SIGKILL)", OutOfMemoryError, r"smaller `--batch-size`"),
    ],
)
def test_a_process_that_dies_is_one_sentence(loop, code, error, said):
    with pytest.raises(error, match=said):
        process.Process(loop(process.BOOK, Fatal(code)), load("sample"))


def test_a_process_that_nobody_closes_ends_with_the_one_that_started_it():
    code = "import sys; from common.bench import process; process.Process._ask = lambda *_: {};"
    code += "kept = process.Process(process.Loop(*'abcde', None), None); print(kept.process.pid)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    with pytest.raises(ProcessLookupError):
        os.kill(int(done.stdout), 0)


def test_threads_bind_what_starts_meanwhile_and_nothing_else(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    before = os.sched_getaffinity(0)
    with process.threads(1):
        assert (os.environ["OMP_NUM_THREADS"], len(os.sched_getaffinity(0))) == ("1", 1)
    assert (os.environ["OMP_NUM_THREADS"], os.sched_getaffinity(0)) == ("7", before)
    monkeypatch.delenv("OMP_NUM_THREADS")
    with process.threads(1):
        pass
    assert "OMP_NUM_THREADS" not in os.environ


# Several workers


def test_runs_with_several_workers_take_turns_and_a_ratio_is_within_a_round(monkeypatch):
    seconds = iter([12.0, 6.0, 3.0, 3.0, 24.0, 12.0, 1.0])  # a machine that drifts
    asked = []

    def trained(words, count):
        asked.append((dict(zip(words[::2], words[1::2], strict=True)), count))
        return SimpleNamespace(examples=8, seconds=next(seconds), version="0.1", device="cpu")

    monkeypatch.setattr(benchmark, "_trained", trained)
    monkeypatch.setattr(benchmark, "require", lambda name: None)
    plan = Plan("torch", RECIPE, device="cpu", precision="bfloat16", rounds=3, steps=2)
    found = benchmark.scale(plan, (1, 2))
    one, two = found["scaling"]
    assert [count for _, count in asked] == [1, 2] * 3
    words = asked[0][0]
    assert (words["--limit-train"], words["--batch-size"], words["--epochs"]) == ("8", "4", "2")
    wanted = ("bfloat16", "cpu", "2")
    assert (words["--precision"], words["--device"], words["--limit-test"]) == wanted
    assert (one["workers"], one["median"], one["ratio"]) == (1, 0.7, 1.0)
    assert (two["workers"], two["median"], two["ratio"]) == (2, 1.3, 2.0)
    assert (two["lowest"], two["highest"]) == (0.7, 2.7)
    *_, last = report.render_scaling(found).splitlines()
    assert last.split() == ["2", "1.3", "0.7", "to", "2.7", "2.0"]
    assert one["precision"] == "bfloat16"
    (once,) = benchmark.scale(replace(plan, rounds=1, precision=None), (1,))["scaling"]
    assert (once["version"], once["device"], once["median"]) == ("0.1", "cpu", 8.0)
    assert once["precision"] == asked[-1][0]["--precision"] == RECIPE.precision


def test_what_train_refuses_keeps_its_status():
    words = ["--backend", "torch", "--spec", "none such"]
    with pytest.raises(GoogLeNetError, match=r"none such|not installed") as refused:
        benchmark._trained(words, 1)
    assert refused.value.exit_code in (2, 4)  # 4 where there is no PyTorch


@pytest.mark.parametrize("more", [["--size", "33,96"], ["--profile"], ["--threads", "1"]])
def test_workers_are_timed_at_one_setting(more, monkeypatch):
    monkeypatch.setattr(benchmark, "require", lambda name: None)
    result = CliRunner().invoke(main, ["bench", "--backend", "torch", "--workers", "1,2", *more])
    assert result.exit_code == SpecError.exit_code
    assert "--workers takes one size and one batch size" in result.stderr
