"""The packages' own networks are timed in the book's loop beside ours of the same function."""

from here import Here

from common import bench
from common.bench import Plan
from common.recipe import Recipe


def test_the_packages_own_network_stands_beside_ours(pytestconfig, monkeypatch):
    name = pytestconfig.getoption("--backend")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # the benchmark sets it; this puts it back
    monkeypatch.setattr(bench, "Process", Here)
    monkeypatch.setattr(bench, "PAUSE", 0)
    monkeypatch.setattr(bench, "SIDES", {"cpu": 64})
    size = {"torch": 33, "paddle": 191}[name]
    recipe = Recipe(size=size, batch_size=4)
    plan = Plan(name, recipe, "cpu", recipe.precision, rounds=1, steps=1, peer=True)
    peer, ours = bench.bench(plan)["rows"]
    assert (peer["role"], peer["loop"], ours["loop"]) == ("a", "package's own", "ours")
    assert peer["spec"] == ours["spec"] == bench.PEERS[name][1]
    network = bench.Runner(plan.checked().published(), bench.read_images("sample"))
    losses = [float(network.step()) for _ in range(8)]
    assert all(0 < loss < 100 for loss in losses)
    assert min(losses) < losses[0], losses
