"""Short versions of `tests/durability/fault_injection.py`, as far as no framework is needed."""

import random
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

from common.errors import RunError
from common.spec import MINI
from common.training.run import Run
from common.weights import save

durability = SimpleNamespace(
    **runpy.run_path(
        Path(__file__).parents[2] / "tests" / "durability" / "fault_injection.py",
        run_name="fault_injection",
    )
)


def test_a_killed_writer_loses_nothing_that_it_acknowledged(tmp_path):
    found = durability.kills_writer(tmp_path, 20, seed=1)
    assert found["kills"] == 20
    assert found["checkpoints written"] >= 5, "killed before there was anything to lose"


def test_one_process_at_a_time_holds_a_lock_and_a_kill_releases_it(tmp_path):
    found = durability.contenders(tmp_path, 6, seed=1, processes=3)
    assert found["kills"] == 6
    assert found["locks taken"] > 0


def test_links_and_pipes_in_a_run_overwrite_nothing_and_are_not_read(tmp_path):
    found = durability.links(tmp_path, 25, seed=1)
    assert all(count > 0 for count in found.values()), found


def test_a_damaged_file_is_refused_or_read_as_it_was(tmp_path):
    for name, found in durability.corruption(tmp_path, 12, seed=1).items():
        assert found["refused"] + found["read as it was"] == 12, name
        assert found["refused"] > 6, name


def test_a_run_with_a_damaged_checkpoint_is_refused_by_the_command(tmp_path):
    durability.corruption_of_commands(tmp_path, 3, seed=1)


def test_damage_is_always_some(tmp_path):
    chance, whole = random.Random(0), bytes(range(256)) * 40
    assert all(durability.damage(whole, chance) != whole for _ in range(200))


@pytest.mark.parametrize("size", [0, 1, 4096, 100_000])
def test_a_full_disk_leaves_the_checkpoint_before(tmp_path, size):
    run = Run(tmp_path / "run")
    with durability.no_room(None, size), pytest.raises(RunError, match=r"nothing was saved yet"):
        run.save(durability.checkpoint_of(1))
    assert list(tmp_path.rglob("*.*")) == [], "a half-written file"
    run.save(durability.checkpoint_of(1))
    with durability.no_room(None, size), pytest.raises(RunError, match=r"--resume .*run`\.$"):
        run.save(durability.checkpoint_of(2))
    assert run.load().progress.steps == 1
    assert [path.name for path in tmp_path.rglob("*.*")] == ["last.safetensors"]
    run.save(durability.checkpoint_of(2))
    assert run.load().progress.steps == 2


@pytest.mark.parametrize("name", ["history.jsonl", "curve.png", "config.json"])
def test_a_full_disk_leaves_each_file_as_it_was(tmp_path, name):
    run = Run(tmp_path)
    run.write(tmp_path / name, b"old")
    with durability.no_room(None, 10), pytest.raises(RunError, match=f"{name} cannot be written"):
        run.write(tmp_path / name, b"new" * 10)
    assert (tmp_path / name).read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_weights_that_find_no_room_leave_those_before(tmp_path):
    path = tmp_path / "weights.safetensors"
    save(path, durability.DRAWN, MINI)
    before = path.read_bytes()
    with durability.no_room(None, 1000), pytest.raises(Exception, match="cannot be written"):
        save(path, durability.checkpoint_of(1).weights, MINI)
    assert path.read_bytes() == before
