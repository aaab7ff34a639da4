"""Several workers without a framework: how a batch is divided, and who says what went wrong."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from backends import FRAMEWORKS
from common.data.sampling import shard
from common.distributed import launcher
from common.distributed.private_network import private_network
from common.errors import BackendError, Stopped, WorkersError
from common.files import ROOT
from common.recipe import Recipe
from common.spec import SPECS
from common.training import loop
from common.training.checkpoint import Checkpoint, Config
from common.training.loop import TrainingLoop
from common.weights import is_running


@pytest.mark.parametrize("workers", [1, 2, 3, 64])
@pytest.mark.parametrize("size", [1, 2, 7, 128])
def test_a_batch_is_divided_and_nothing_is_left_or_twice(size, workers):
    indices = np.arange(100, 100 + size)
    parts = [shard(indices, rank, workers) for rank in range(workers)]
    counted = [part for part, share in parts if share]
    assert np.concatenate(counted).tolist() == indices.tolist()
    assert sum(share for _, share in parts) == pytest.approx(1, abs=1e-12)
    for part, share in parts:
        assert share in (0.0, len(part) / size)
        assert len(part)
    lengths = [len(part) for part in counted]
    assert max(lengths) - min(lengths) <= 1
    assert parts[0][1] > 0, "worker 0 keeps the running statistics"


class Workers:
    """So many workers as threads: what each gives to `all_reduce_sum` is summed once all have."""

    def __init__(self, count):
        self.barrier, self.given = threading.Barrier(count), {}

    def all_reduce_sum(self, rank):
        """The function of one of them."""

        def all_reduce_sum(numbers):
            self.given[rank] = np.asarray(numbers, np.float64)
            self.barrier.wait(100)
            found = sum(self.given.values())
            self.barrier.wait(100)
            return found

        return all_reduce_sum


def run(reference, recipe, data, count, stops=None, seen=None):
    """A run of the reference in so many threads; their loops."""
    group, loops, threads = Workers(count), [None] * count, []
    checkpoint = Checkpoint.first(Config.of(recipe, "reference", data))

    def work(rank):
        class Part(reference.Trainer):
            """Sums the gradients of all."""

            def train_step(self, inputs, labels, weight=1.0, last=True):
                if seen is not None:
                    seen[rank].append(len(labels) if weight else 0)
                return super().train_step(inputs, labels, weight, last)

            def apply(self, gradients):
                flat = np.concatenate([g.ravel() for g in gradients.values()])
                flat, at, summed = all_reduce_sum(flat), 0, {}
                for name, gradient in gradients.items():
                    summed[name] = flat[at : at + gradient.size].reshape(gradient.shape)
                    at += gradient.size
                super().apply(summed)

        all_reduce_sum = group.all_reduce_sum(rank)
        own = {"Trainer": Part, "all_reduce_sum": all_reduce_sum}
        backend = SimpleNamespace(**{**vars(reference), **own})
        stop = (stops or {}).get(rank, lambda one: 0)
        one = TrainingLoop(backend, "a", checkpoint, data, "cpu", rank=rank, workers=count)
        one.stop = lambda: stop(one)
        loops[rank] = one
        try:
            one()
        except Stopped as error:
            one.stopped = error.exit_code

    for rank in range(count):
        threads.append(threading.Thread(target=work, args=(rank,)))
        threads[-1].start()
    for thread in threads:
        thread.join(200)
        assert not thread.is_alive()
    return loops


@pytest.fixture
def recipe(pocket, monkeypatch):
    """Without norm, whose statistics are each worker's own."""
    monkeypatch.setitem(SPECS, pocket, replace(SPECS[pocket], norm=None))
    return Recipe(spec=pocket, size=9, batch_size=8, epochs=2, momentum=0.9, lr=0.05, flip=True)


@pytest.mark.parametrize(
    ("count", "parts"), [(2, [8]), (3, [8]), (5, [8]), (1, [3, 3, 2]), (3, [3, 3, 2])]
)
def test_whatever_the_number_of_workers_and_parts_a_run_is_the_same(
    reference, recipe, pictures, count, parts
):
    """The last of three batches has 2 images: with more workers, or parts, some get none."""
    data, seen = pictures(18, 7), {rank: [] for rank in range(count)}
    recipe = replace(recipe, clip=1.0)
    (alone,) = run(reference, recipe, data, 1)
    recipe = replace(recipe, accumulate=len(parts))
    for one in run(reference, recipe, data, count, seen=seen):
        for epoch, other in zip(one.progress.epochs, alone.progress.epochs, strict=True):
            assert epoch.losses == pytest.approx(other.losses, rel=1e-6)
            assert epoch.train_accuracy == other.train_accuracy
            assert epoch.test_loss == pytest.approx(other.test_loss, rel=1e-6)
            assert epoch.test_accuracy == pytest.approx(other.test_accuracy)
        for name, array in alone.model.weights.items():
            assert is_running(name) or np.abs(one.model.weights[name] - array).max() < 1e-6
    few = [2] if parts == [8] else [1, 1]
    assert [sum(step) for step in zip(*seen.values(), strict=True)] == [*parts, *parts, *few] * 2


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_all_stop_after_the_same_step_when_one_gets_a_signal(
    reference, recipe, pictures, monkeypatch, signum
):
    monkeypatch.setattr(loop, "SIGNAL_POLL_SECONDS", 0.0)
    stops = {1: lambda one: signum * (one.progress.steps >= 2)}
    loops = run(reference, recipe, pictures(18, 7), 3, stops)
    assert [one.progress.steps for one in loops] == [2, 2, 2]
    assert [one.stopped for one in loops] == [128 + signum] * 3


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_every_framework_has_a_launcher(name, tmp_path):
    started = launcher.LAUNCHERS[name](3, [sys.executable, "-m", "common.cli", "train"], tmp_path)
    words = [" ".join(command) for command, _ in started]
    assert all(each.endswith("-m common.cli train") for each in words)
    own = {"torch": "torch.distributed.run", "paddle": "paddle.distributed.launch"}
    if name in own:
        assert len(words) == 1
        assert f"-m {own[name]} " in words[0]
    elif name == "tf":
        tasks = [json.loads(more["TF_CONFIG"]) for _, more in started]
        assert [task["task"]["index"] for task in tasks] == [0, 1, 2]
        assert len(set(tasks[0]["cluster"]["worker"])) == 3
        assert all(task["cluster"] == tasks[0]["cluster"] for task in tasks)
    else:
        roles = [more["DMLC_ROLE"] for _, more in started]
        assert roles == ["scheduler", "server", "worker", "worker", "worker"]


def test_the_cores_are_divided_unless_the_user_says_otherwise(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    assert launcher.environment(2)["OMP_NUM_THREADS"] == "4"
    assert launcher.environment(16)["OMP_NUM_THREADS"] == "1"
    monkeypatch.setenv("OMP_NUM_THREADS", "")
    assert launcher.environment(2)["OMP_NUM_THREADS"] == "4"
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert launcher.environment(2)["OMP_NUM_THREADS"] == "3"


JOINED = {"folder": "runs/x"}
LOST = {"status": 10, "sentence": "Worker 1 of 2 is gone."}
STOPPED = {"status": 143, "sentence": "stopped after step 3."}


@pytest.mark.parametrize(
    ("first", "second", "dead", "status", "sentence"),
    [
        (LOST | JOINED, JOINED, 1, 10, "Worker 1 of 2 was killed: go on with `--resume runs/x`."),
        (LOST, {"status": 5, "sentence": "No data."}, None, 5, "No data."),
        (STOPPED | JOINED, STOPPED | JOINED, None, 143, "stopped after step 3."),
        (LOST, {}, None, 10, "Worker 1 of 2 never joined: the others waited in vain."),
        (LOST, LOST, None, 10, "Worker 1 of 2 is gone."),
        ({"status": 1}, LOST, None, 1, "A worker failed: ValueError: oh"),
    ],
)
def test_the_most_informative_error_is_reported(first, second, dead, status, sentence, tmp_path):
    for pid, each in ((100, first), (101, second)):
        facts = {"worker": pid - 100, "role": "worker", **each}
        (tmp_path / f"{pid}.json").write_text(json.dumps(facts))
    (tmp_path / "100.err").write_text("Traceback ...\nValueError: oh\n\n")
    with pytest.raises(WorkersError) as caught:
        launcher.raise_if_failed(tmp_path, 2, [] if dead is None else [100 + dead], 0)
    assert str(caught.value) == sentence
    assert caught.value.exit_code == status


FAILING = """
import os, time
from pathlib import Path
from common import errors
from common.distributed import watchdog, workers
with workers.worker():
    while not (Path(os.environ[watchdog.FOLDER]) / "{file}").exists():
        time.sleep(0.05)
    raise errors.{error}
"""


def test_after_a_first_error_the_others_have_time_to_report_theirs(monkeypatch):
    """The cause is reported two rounds after the launcher has seen the first error."""

    def noted(folder, shown):
        seen.extend(1 for each in launcher.notes(folder).values() if "status" in each)
        if len(seen) == 3:
            (folder / "seen").touch()
        show(folder, shown)

    def two(count, command, folder):
        lost = FAILING.format(file="lock", error="WorkersError('Worker 1 of 2 is gone.')")
        cause = FAILING.format(file="seen", error="DataError('No data.')")
        scripts = enumerate([lost, cause])
        return [([sys.executable, "-c", code], {"LOCAL_RANK": str(n)}) for n, code in scripts]

    seen, show = [], launcher.show
    monkeypatch.setattr(launcher, "PATIENCE", 200.0)  # seconds: a busy machine starts it late
    monkeypatch.setattr(launcher, "show", noted)
    monkeypatch.setitem(launcher.LAUNCHERS, "torch", two)
    with pytest.raises(WorkersError, match=r"^No data\.$") as caught:
        launcher.start("torch", 2, [], lambda: 0)
    assert caught.value.exit_code == 5


def test_warnings_of_the_first_worker_are_shown_and_all_output(tmp_path, capsys):
    for pid, worker in ((100, 0), (101, 1)):
        (tmp_path / f"{pid}.json").write_text(json.dumps({"role": "worker", "worker": worker}))
        (tmp_path / f"{pid}.out").write_text(f"out {worker}\n")
        text = f"I0000 of a framework\nwarning: {worker} is slow\nnote: of {worker}\nwarning: ha"
        (tmp_path / f"{pid}.err").write_text(text)
    shown = {}
    launcher.show(tmp_path, shown)
    out, err = capsys.readouterr()
    assert sorted(out.splitlines()) == ["out 0", "out 1"]
    assert err == "warning: 0 is slow\nnote: of 0\n"
    with (tmp_path / "100.err").open("a") as file:
        file.write("lf\n")
    launcher.show(tmp_path, shown)
    assert capsys.readouterr() == ("", "warning: half\n")
    for pid, worker in ((100, 1), (101, 0)):  # as MXNet's scheduler may number them
        (tmp_path / f"{pid}.json").write_text(json.dumps({"role": "worker", "worker": worker}))
    (tmp_path / "101.err").write_text("note: of 0\nnote: more\n")
    launcher.show(tmp_path, shown)
    assert capsys.readouterr() == ("", "note: more\n")


def test_the_killed_worker_is_named_and_not_the_one_that_cplusplus_aborted(tmp_path):
    """Paddle's gloo aborts a worker whose peer is gone: both exit without reporting."""
    for pid in (100, 101):
        facts = {"worker": pid - 100, "role": "worker", **JOINED}
        (tmp_path / f"{pid}.json").write_text(json.dumps(facts))
    (tmp_path / "100.err").write_text("terminate called after throwing an instance of 'gloo'\n")
    with pytest.raises(WorkersError, match=r"^Worker 1 of 2 was killed: go on with"):
        launcher.raise_if_failed(tmp_path, 2, [100, 101], 0)


def test_a_process_that_is_gone_without_a_status_has_not_reported(tmp_path):
    gone = [subprocess.Popen(["true"]) for _ in range(2)]
    for child, more in zip(gone, ({"status": 0}, {}), strict=True):
        assert child.wait() == 0
        (tmp_path / f"{child.pid}.json").write_text(json.dumps({"role": "worker"} | more))
    (tmp_path / f"{os.getpid()}.json").write_text(json.dumps({"role": "worker"}))
    assert launcher.unreported(tmp_path) == [gone[1].pid]


def test_a_run_that_went_well_raises_nothing(tmp_path):
    for pid in (100, 101):
        facts = {"worker": pid - 100, "role": "worker", "status": 0}
        (tmp_path / f"{pid}.json").write_text(json.dumps(facts))
    launcher.raise_if_failed(tmp_path, 2, [], 0)


def test_a_launcher_that_fails_is_quoted(tmp_path):
    (tmp_path / "launcher").write_text("No module named torch\n")
    with pytest.raises(WorkersError, match="The launcher failed: No module named torch"):
        launcher.raise_if_failed(tmp_path, 2, [], 0)


def test_bad_input_is_reported_once():
    """A recipe that does not exist is found by both workers, and said by one process."""
    words = ["--backend", "tf", "--recipe", "none"]
    done = subprocess.run(
        [sys.executable, "-m", "common.cli", "train", "--workers", "2", *words],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=200,
    )
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "There is no recipe named 'none'" in done.stderr


def test_a_launcher_that_is_not_installed_is_reported_with_the_way_to_install_it(monkeypatch):
    def missing(count, command, folder):
        return [([sys.executable, "-m", "no_such_launcher"], {})]

    def refuse(name):
        raise BackendError(f"{name} is not installed.")

    monkeypatch.setitem(launcher.LAUNCHERS, "torch", missing)
    monkeypatch.setattr(launcher, "require", refuse)
    with pytest.raises(BackendError, match=r"^torch is not installed\.$"):
        launcher.start("torch", 2, [], lambda: 0)
    monkeypatch.setattr(launcher, "require", lambda name: None)
    with pytest.raises(WorkersError, match=r"^The launcher failed: .*no_such_launcher"):
        launcher.start("torch", 2, [], lambda: 0)


PARENT = """
import os, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
open(sys.argv[1], "w").write(f"{os.getpgrp()} {child.pid}")
"""


def test_processes_get_no_signal_but_the_forwarded_one_and_end_with_all_that_they_started(
    monkeypatch, tmp_path
):
    """Ctrl-C goes to the whole group of the terminal's process."""
    command = [sys.executable, "-c", PARENT, str(tmp_path / "noted")]
    monkeypatch.setitem(launcher.LAUNCHERS, "torch", lambda *_: [(command, {})])
    monkeypatch.setattr(launcher, "require", lambda name: None)
    with pytest.raises(WorkersError):
        launcher.start("torch", 1, [], lambda: 0)
    group, child = map(int, (tmp_path / "noted").read_text().split())
    assert group != os.getpgrp()
    deadline = time.monotonic() + 200
    while launcher.alive(child):
        assert time.monotonic() < deadline
        time.sleep(0.05)


IN_IT = """
import socket
server = socket.create_server(("", 0))
socket.create_connection(("127.0.0.1", server.getsockname()[1])).close()
print([name for _, name in socket.if_nameindex()])
"""


def test_a_private_network_has_loopback_alone():
    with private_network() as enter:
        if enter is None:
            pytest.skip("this system allows no network namespace")
        command = [*enter, sys.executable, "-c", IN_IT]
        assert subprocess.run(command, capture_output=True, text=True).stdout == "['lo']\n"
        assert subprocess.run([sys.executable, "-c", IN_IT], capture_output=True).returncode == 0


@pytest.mark.parametrize(
    ("user", "made", "entered"),
    [
        (0, "--net", ["--net"]),
        (1000, "--user --map-root-user --net", ["--user", "--preserve-credentials", "--net"]),
    ],
)
def test_root_makes_a_network_alone_and_another_user_with_a_user_namespace(
    user, made, entered, monkeypatch, tmp_path
):
    """`unshare` is played by a script, whose process ends with the network."""
    (tmp_path / "unshare").write_text('#!/bin/sh\necho "$@" > "$0.asked"\necho up\nread line\n')
    (tmp_path / "unshare").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: user)
    with private_network() as enter:
        *words, holder = enter
        assert words == ["nsenter", *entered, "--target"]
        assert launcher.alive(int(holder))
        assert os.getsid(int(holder)) == int(holder)  # Ctrl+C of the terminal does not reach it
    assert not launcher.alive(int(holder))
    assert (tmp_path / "unshare.asked").read_text().startswith(f"{made} {sys.executable} ")


def test_where_there_is_no_private_network_one_warning_says_so(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))  # without `unshare`
    monkeypatch.setitem(launcher.LAUNCHERS, "torch", lambda *_: [([sys.executable, "-c", ""], {})])
    monkeypatch.setattr(launcher, "require", lambda name: None)
    with pytest.raises(WorkersError):
        launcher.start("torch", 2, [], lambda: 0)
    assert capsys.readouterr().err == f"warning: {launcher.EXPOSED}\n"
