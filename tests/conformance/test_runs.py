"""A run that is killed, stopped, spoilt or starved loses nothing, in each framework.

Short versions of tests/durability/fault_injection.py; only what kills or limits a process gets one.
"""

import runpy
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest

from common.training.run import Run

durability = SimpleNamespace(
    **runpy.run_path(
        Path(__file__).parents[2] / "tests" / "durability" / "fault_injection.py",
        run_name="fault_injection",
    )
)


def go_on(folder, name, *codes):
    """Begin a run, or go on with it, in this process; the sentence that it ended with."""
    words = durability.words_for(folder, name, durability.SHORT)
    return durability.check_end(*durability.attempt(*words), *codes)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, pytestconfig):
    """A run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("undisturbed") / "whole"
    go_on(folder, pytestconfig.getoption("--backend"), 0)
    return folder


def test_a_run_killed_twice_ends_like_an_undisturbed_one(name, whole, tmp_path):
    folder = tmp_path / "whole"
    # between the best checkpoint and the last, before an epoch is over; then amid the next one
    for phase, nth, steps in (("write", 9, 4), ("step", 3, 4)):
        words = durability.words_for(folder, name, durability.SHORT)
        process = durability.here("at", phase, nth, "SIGKILL", *words)
        durability.end(process, -signal.SIGKILL)
        durability.require_whole(folder)
        assert Run(folder).load().progress.steps == steps
    go_on(folder, name, 0)
    durability.require_same(folder, whole)


def test_a_stopped_run_is_saved_and_ends_like_an_undisturbed_one(name, whole, tmp_path):
    folder = tmp_path / "whole"
    for phase, nth, signals, steps in (
        ("evaluation", 1, (signal.SIGINT,), 4),
        ("step", 2, (signal.SIGTERM,), 6),
        ("write", 1, (signal.SIGTERM, signal.SIGTERM), 6),  # the second one does not wait
    ):
        with durability.signalled(phase, nth, signals):
            sentence = go_on(folder, name, 128 + signals[0])
        assert ("--resume" in sentence) == (len(signals) == 1)
        assert Run(folder).load().progress.steps == steps
    go_on(folder, name, 0)
    durability.require_same(folder, whole)


def test_a_loss_that_is_no_number_keeps_the_last_good_checkpoint(name, tmp_path):
    sentences = durability.diverging(tmp_path, name)
    assert "The loss became" in sentences["steps"]
    assert "The test loss became" in sentences["the test loss"]


def test_a_batch_that_does_not_fit_names_a_smaller_one(name, tmp_path):
    durability.out_of_memory(tmp_path, name)
