"""The packages' own networks are timed in the book's loop beside ours of the same function."""

import importlib

import pytest
from inline_process import Here

from common.bench import benchmark, process
from common.bench.benchmark import Plan
from common.recipe import Recipe


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated")
@pytest.mark.filterwarnings("ignore:Tensor do not have 'place' interface")
def test_the_packages_own_network_stands_beside_ours(pytestconfig, monkeypatch):
    name = pytestconfig.getoption("--backend")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # the benchmark sets it; this puts it back
    monkeypatch.setattr(benchmark, "Process", Here)
    monkeypatch.setattr(benchmark, "PAUSE", 0)
    monkeypatch.setattr(process, "SIDES", {"cpu": 64})
    monkeypatch.setattr(process, "COPIED", 1000)
    baseline = importlib.import_module(f"benchmarks.baselines.{name}")
    if name == "torch":  # C++ would compile for minutes
        quick = {"torch.compile": lambda loop: loop.net.compile(backend="eager")}
        monkeypatch.setattr(baseline, "TODAY", quick)
    size = {"torch": 33, "paddle": 191}[name]
    recipe = Recipe(size=size, batch_size=4)
    plan = Plan(name, recipe, "cpu", recipe.precision, rounds=1, steps=1, peer=True)
    peer, today, ours = benchmark.bench(plan)["rows"]
    assert (peer["role"], peer["loop"], ours["loop"]) == ("a", "package's own", "ours")
    assert (today["role"], today["loop"]) == ("", *process.TODAY[name])
    assert peer["spec"] == ours["spec"] == benchmark.PEERS[name][1]
    network = process.Runner(plan.checked().published(), benchmark.read_images("sample"))
    losses = [float(network.steps(1)) for _ in range(8)]
    assert all(0 < loss < 100 for loss in losses)
    assert min(losses) < losses[0], losses
