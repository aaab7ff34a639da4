"""A run begun in one framework goes on in any other, its optimizer's state included."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_specs import BEGUN, CLOSE, FILE, INJECTED, MORE, NARROW, RECIPE  # in tests/support

from backends import FRAMEWORKS
from common import spec
from common.data.sources import load
from common.distributed import launcher
from common.parity.report import tensor_error
from common.training.checkpoint import Checkpoint, Config, Progress, read_checkpoint
from common.weights import load as load_weights

SUPPORT = Path(__file__).parents[1] / "support"

# an eps above the rounding errors of the gradients, which Adam would blow up to whole steps
ADAM = replace(RECIPE, optimizer="adam", lr=0.0002, momentum=0.0, nesterov=False, eps=1e-4)
RECIPES = {"momentum": RECIPE, "adam": ADAM}
FRAMEWORKS_AFTER = dict(zip(FRAMEWORKS, [*FRAMEWORKS][1:] + [*FRAMEWORKS][:1], strict=True))


def follow(backend, steps, *files):
    """The files' runs go on in a process of the backend's own."""
    command = [sys.executable, SUPPORT / "resume_worker.py", backend, str(steps), *files]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the runs are."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def runs(folder):
    """The checkpoints of every pair: begun in one framework, gone on with in the other."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(spec.SPECS, "narrow", NARROW)
        for kind, recipe in RECIPES.items():
            config = Config.of(recipe, "none", load("sample"))
            start = Checkpoint(config, load_weights(FILE, NARROW), {}, Progress())
            (folder / f"{kind}-start").write_bytes(start.encode())
        for one in FRAMEWORKS:
            pairs = [(folder / f"{k}-start", folder / f"{k}-{one}") for k in RECIPES]
            follow(one, BEGUN, *(file for pair in pairs for file in pair))
        for bug in INJECTED:
            for kind in RECIPES:
                injected = INJECTED[bug](read_checkpoint(folder / f"{kind}-torch"))
                (folder / f"{kind}-{bug}").write_bytes(injected.encode())
        for other in FRAMEWORKS:
            pairs = [
                (folder / f"{kind}-{one}", folder / f"{kind}-{one}-{other}")
                for kind in RECIPES
                for one in (*FRAMEWORKS, *(INJECTED if other == "torch" else ()))
            ]
            follow(other, MORE, *(file for pair in pairs for file in pair))
        found = {
            (kind, one, other): read_checkpoint(folder / f"{kind}-{one}-{other}")
            for kind in RECIPES
            for other in FRAMEWORKS
            for one in (*FRAMEWORKS, *(INJECTED if other == "torch" else ()))
        }
    return found


def follow_in_two(backend, steps, folder, *files):
    """The same in two workers, by the framework's own launcher."""
    command = [
        sys.executable,
        str(SUPPORT / "resume_worker.py"),
        backend,
        str(steps),
        *map(str, files),
    ]
    children = [
        subprocess.Popen(each, env=launcher.environment(2) | more, stderr=subprocess.DEVNULL)
        for each, more in launcher.LAUNCHERS[backend](2, command, folder)
    ]
    assert {child.wait(300) for child in children} == {0}


@pytest.mark.parametrize("one", FRAMEWORKS)
def test_a_run_of_two_workers_goes_on_in_one_of_another_framework(runs, folder, one, monkeypatch):
    monkeypatch.setitem(spec.SPECS, "narrow", NARROW)
    other = FRAMEWORKS_AFTER[one]
    files = folder / "momentum-start", folder / f"two-{one}", folder / f"two-{one}-{other}"
    follow_in_two(one, BEGUN, folder, *files[:2])
    follow(other, MORE, *files[1:])
    loss, weight = distances(runs["momentum", one, other], read_checkpoint(files[2]))
    assert loss < CLOSE
    assert weight < CLOSE


def distances(one, other):
    """The largest difference of the last losses, and of the weights over their tensor's largest."""
    assert one.progress.steps == other.progress.steps == BEGUN + MORE
    losses = zip(one.progress.losses[-MORE:], other.progress.losses[-MORE:], strict=True)
    weights = [tensor_error(other.weights[n], w) for n, w in one.weights.items()]
    return max(abs(a - b) for a, b in losses), max(weights)


@pytest.mark.parametrize("kind", RECIPES)
@pytest.mark.parametrize("other", FRAMEWORKS)
@pytest.mark.parametrize("one", FRAMEWORKS)
def test_a_run_goes_on_elsewhere_as_it_would_have_at_home(runs, kind, one, other):
    home, away = runs[kind, one, one], runs[kind, one, other]
    assert np.mean(home.progress.losses) < 1.5, "on the plateau this proves nothing"
    loss, weight = distances(home, away)
    assert loss < CLOSE
    assert weight < CLOSE


@pytest.mark.parametrize("kind", RECIPES)
@pytest.mark.parametrize("inject", INJECTED)
def test_a_wrong_handover_is_another_run(runs, kind, inject):
    loss, weight = distances(runs[kind, "torch", "torch"], runs[kind, inject, "torch"])
    assert loss > 10 * CLOSE
    assert weight > 10 * CLOSE
