"""Several workers without a framework: how a batch is divided, and who says what went wrong."""

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from backends import FRAMEWORKS
from common import fit as module
from common import launch
from common.errors import BackendError, Stopped, WorkersError
from common.fit import Fit, shard
from common.recipe import Recipe
from common.run import Checkpoint, Config
from common.spec import SPECS
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


class Together:
    """So many workers as threads: what each gives to `total` is summed once all have."""

    def __init__(self, count):
        self.barrier, self.given = threading.Barrier(count), {}

    def total(self, rank):
        """The function of one of them."""

        def total(numbers):
            self.given[rank] = np.asarray(numbers, np.float64)
            self.barrier.wait(20)
            found = sum(self.given.values())
            self.barrier.wait(20)
            return found

        return total


def run(arbiter, recipe, data, count, stops=None, seen=None):
    """A run of the arbiter in so many threads; the Fits."""
    together, fits, threads = Together(count), [None] * count, []
    checkpoint = Checkpoint.first(Config.of(recipe, "arbiter", data))

    def work(rank):
        class Part(arbiter.Trainer):
            """Sums the gradients of all, each by its share."""

            def step(self, images, labels, flips=None, share=1.0):
                if seen is not None:
                    seen[rank].append(len(labels) if share else 0)
                self.share = share
                return super().step(images, labels, flips, share)

            def apply(self, gradients):
                flat = np.concatenate([self.share * g.ravel() for g in gradients.values()])
                flat, at, summed = total(flat), 0, {}
                for name, gradient in gradients.items():
                    summed[name] = flat[at : at + gradient.size].reshape(gradient.shape)
                    at += gradient.size
                super().apply(summed)

        total = together.total(rank)
        backend = type("Backend", (), {**vars(arbiter), "Trainer": Part, "total": total})
        backend.total = staticmethod(total)
        stop = (stops or {}).get(rank, lambda fit: 0)
        fit = Fit(backend, "a", checkpoint, data, "cpu", rank=rank, workers=count)
        fit.stop = lambda: stop(fit)
        fits[rank] = fit
        try:
            fit()
        except module.Stopped as error:
            fit.stopped = error.exit_code

    for rank in range(count):
        threads.append(threading.Thread(target=work, args=(rank,)))
        threads[-1].start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    return fits


@pytest.fixture
def recipe(pocket, monkeypatch):
    """Without norm, whose statistics are each worker's own."""
    monkeypatch.setitem(SPECS, pocket, replace(SPECS[pocket], norm=None))
    return Recipe(spec=pocket, size=9, batch_size=8, epochs=2, momentum=0.9, lr=0.05, flip=True)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_whatever_the_number_of_workers_a_run_is_the_same(arbiter, recipe, pictures, count):
    """The last of three batches has 2 images: with more workers some get none."""
    data, seen = pictures(18, 7), {rank: [] for rank in range(count)}
    (alone,) = run(arbiter, recipe, data, 1)
    fits = run(arbiter, recipe, data, count, seen=seen)
    for fit in fits:
        for epoch, other in zip(fit.progress.epochs, alone.progress.epochs, strict=True):
            assert epoch.losses == pytest.approx(other.losses, rel=1e-6)
            assert epoch.train_accuracy == other.train_accuracy
            assert epoch.test_loss == pytest.approx(other.test_loss, rel=1e-6)
            assert epoch.test_accuracy == pytest.approx(other.test_accuracy)
        for name, array in alone.model.weights.items():
            assert is_running(name) or np.abs(fit.model.weights[name] - array).max() < 1e-6
    assert [sum(step) for step in zip(*seen.values(), strict=True)] == [8, 8, 2] * 2


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_all_stop_after_the_same_step_when_one_hears_a_signal(
    arbiter, recipe, pictures, monkeypatch, signum
):
    monkeypatch.setattr(module, "HEARING", 0.0)
    stops = {1: lambda fit: signum * (fit.progress.steps >= 2)}
    fits = run(arbiter, recipe, pictures(18, 7), 3, stops)
    assert [fit.progress.steps for fit in fits] == [2, 2, 2]
    assert [fit.stopped for fit in fits] == [128 + signum] * 3


def test_a_port_that_is_taken_is_told_with_the_way_out():
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(WorkersError, match=f"Port {port} .* taken .* choose another with X"):
            launch.need_port(port, "X")
    launch.need_port(port, "X")


def test_workers_meet_once_all_have_come():
    ports = launch.free_ports(3)
    addresses = [f"127.0.0.1:{port}" for port in ports]
    threads = [
        threading.Thread(target=launch.meet, args=(addresses, rank, "X")) for rank in range(3)
    ]
    for thread in threads[:2]:
        thread.start()
    threads[0].join(0.5)
    assert threads[0].is_alive(), "it did not wait for the third"
    threads[2].start()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    for port in ports:
        launch.need_port(port, "X")


def test_when_a_worker_has_met_the_others_nobody_listens_any_more(monkeypatch):
    """Or it would take the first one's old socket for what the framework opens there."""

    class Slow(socket.socket):
        def close(self):
            time.sleep(0.3)
            super().close()

    create = socket.create_server

    def slow(address, **options):
        server = create(address, **options)
        return Slow(fileno=server.detach()) if address[1] == ports[0] else server

    monkeypatch.setattr(launch.socket, "create_server", slow)
    ports = launch.free_ports(2)
    addresses = [f"127.0.0.1:{port}" for port in ports]
    first = threading.Thread(target=launch.meet, args=(addresses, 0, "X"))
    first.start()
    launch.meet(addresses, 1, "X")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", ports[0]), 1)
    first.join()


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_every_framework_has_a_launcher(name, tmp_path):
    started = launch.LAUNCHERS[name](3, [sys.executable, "-m", "common.cli", "train"], tmp_path)
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
    assert launch.environment(2)["OMP_NUM_THREADS"] == "4"
    assert launch.environment(16)["OMP_NUM_THREADS"] == "1"
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert launch.environment(2)["OMP_NUM_THREADS"] == "3"


def test_each_worker_gets_its_own_gpu(monkeypatch):
    found = ["cpu", "gpu:0", "gpu:1"]
    for rank, own in ((0, "gpu:0"), (1, "gpu:1"), (2, "gpu:0")):
        monkeypatch.setenv("LOCAL_RANK", str(rank))
        assert launch.own_device("gpu:0", "auto", found) == own
        assert launch.own_device("gpu:0", "gpu", found) == own
        assert launch.own_device("gpu:1", "gpu:1", found) == "gpu:1"
        assert launch.own_device("cpu", "auto", ["cpu"]) == "cpu"


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
def test_one_sentence_tells_most(first, second, dead, status, sentence, tmp_path):
    for pid, each in ((100, first), (101, second)):
        facts = {"worker": pid - 100, "role": "worker", **each}
        (tmp_path / f"{pid}.json").write_text(json.dumps(facts))
    (tmp_path / "100.err").write_text("Traceback ...\nValueError: oh\n\n")
    with pytest.raises(WorkersError) as caught:
        launch.judge(tmp_path, 2, [] if dead is None else [100 + dead], 0)
    assert str(caught.value) == sentence
    assert caught.value.exit_code == status


def test_a_run_that_went_well_is_not_judged(tmp_path):
    for pid in (100, 101):
        facts = {"worker": pid - 100, "role": "worker", "status": 0}
        (tmp_path / f"{pid}.json").write_text(json.dumps(facts))
    launch.judge(tmp_path, 2, [], 0)


def test_a_launcher_that_fails_is_quoted(tmp_path):
    (tmp_path / "launcher").write_text("No module named torch\n")
    with pytest.raises(WorkersError, match="The launcher failed: No module named torch"):
        launch.judge(tmp_path, 2, [], 0)


def in_worker(folder, code):
    """A process that runs this code as a worker of that folder."""
    script = f"from common import launch, errors\nwith launch.worker():\n    {code}"
    return subprocess.Popen(
        [sys.executable, "-c", script],
        env={**os.environ, launch.FOLDER: str(folder), "PYTHONPATH": str(launch.ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_a_worker_notes_its_end_and_prints_into_the_folder(tmp_path):
    with (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        child = in_worker(tmp_path, "print('a line'); raise errors.DataError('No data.')")
        assert child.communicate(timeout=60) == (b"", b"")
    noted = launch.notes(tmp_path)[child.pid]
    assert noted == {"worker": 0, "role": "worker", "status": 5, "sentence": "No data."}
    assert (tmp_path / f"{child.pid}.out").read_text() == "a line\n"
    assert "No data." in (tmp_path / f"{child.pid}.err").read_text()


def test_a_worker_does_not_outlive_the_process_that_started_it(tmp_path):
    with (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        child = in_worker(tmp_path, "import time; time.sleep(60)")
        while child.pid not in launch.notes(tmp_path):
            assert child.poll() is None
    child.communicate(timeout=20)
    assert child.returncode == WorkersError.exit_code


def test_bad_input_is_told_once():
    """A recipe that does not exist is found by both workers, and said by one process."""
    words = ["--backend", "tf", "--recipe", "none"]
    done = subprocess.run(
        [sys.executable, "-m", "common.cli", "train", "--workers", "2", *words],
        capture_output=True,
        text=True,
        cwd=Path(launch.ROOT),
        timeout=60,
    )
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "There is no recipe named 'none'" in done.stderr


def test_a_launcher_that_is_not_installed_is_told_with_the_way_to_install_it(monkeypatch):
    def missing(count, command, folder):
        return [([sys.executable, "-m", "no_such_launcher"], {})]

    def refuse(name):
        raise BackendError(f"{name} is not installed.")

    monkeypatch.setitem(launch.LAUNCHERS, "torch", missing)
    monkeypatch.setattr(launch, "require", refuse)
    with pytest.raises(BackendError, match=r"^torch is not installed\.$"):
        launch.start("torch", 2, [], lambda: 0)
    monkeypatch.setattr(launch, "require", lambda name: None)
    with pytest.raises(WorkersError, match=r"^The launcher failed: .*no_such_launcher"):
        launch.start("torch", 2, [], lambda: 0)


# From joining to leaving


@pytest.fixture
def plan(monkeypatch):
    """A plan of one worker of two; what it was asked, in order."""
    asked = []

    def total(numbers):
        asked.append("total")
        return numbers

    backend = SimpleNamespace(
        join=lambda device: (1, 2), total=total, leave=lambda: asked.append("leave")
    )
    run = SimpleNamespace(folder=Path("here"))

    def end(error):
        asked.append("end")
        raise error  # the process would be gone

    class Line:
        """A lifeline without others."""

        stopped = None

        def __init__(self, plan, rank, count):
            assert (rank, count) == (1, 2)
            asked.append("line")

        def tell(self, gone):
            asked.append({launch.NOBODY: "bye"}[gone])

    monkeypatch.setattr(launch, "end_with", end)
    monkeypatch.setattr(launch, "Lifeline", Line)
    monkeypatch.setattr(launch, "VERDICT", 0.1)
    monkeypatch.setattr(launch, "LEAVING", threading.Event())
    return SimpleNamespace(backend=backend, run=run, asked=asked)


def test_workers_leave_together_when_all_are_done(plan):
    with launch.joined(plan, "cpu") as found:
        assert found == (1, 2)
        assert plan.asked == ["line"], "all have come"
    assert plan.asked == ["line", "total", "bye", "leave"]


def test_workers_that_stop_leave_together_too(plan):
    with pytest.raises(Stopped), launch.joined(plan, "cpu"):
        raise Stopped("stopped.", signal.SIGTERM)
    assert plan.asked == ["line", "total", "bye", "leave"]


def test_a_worker_that_fails_waits_for_no_other(plan):
    with pytest.raises(WorkersError), launch.joined(plan, "cpu"):
        raise WorkersError("gone")
    assert plan.asked == ["line", "end"]


@pytest.mark.parametrize("last", [False, True])
def test_what_a_framework_raises_waits_for_the_lifeline_to_speak(plan, monkeypatch, last):
    """In the middle of a run, or when all leave."""
    slept = []
    monkeypatch.setattr(launch.time, "sleep", lambda seconds: slept.append((seconds, *plan.asked)))

    def reset(numbers):
        raise RuntimeError("Connection reset by peer")

    def nothing(numbers):
        pass

    plan.backend.total = reset
    with pytest.raises(RuntimeError), launch.joined(plan, "cpu"):
        (nothing if last else reset)(0)
    assert (launch.VERDICT, "line") in slept
    assert plan.asked[:2] == ["line", "end"]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_a_second_signal_goes_on_as_it_is_and_waits_for_no_other(plan, kind):
    with pytest.raises(kind), launch.joined(plan, "cpu"):
        raise kind
    assert plan.asked == ["line"]


# When one is gone

WORKER = """
import sys, time
from pathlib import Path
from types import SimpleNamespace
import numpy as np
from common import errors, launch
folder, rank = Path(sys.argv[1]), int(sys.argv[2])
def total(numbers):
    if rank == 0:
        np.save(folder / "new.npy", numbers)
        (folder / "new.npy").rename(folder / "told.npy")
    while not (folder / "told.npy").exists():
        time.sleep(0.05)
    return np.load(folder / "told.npy")
plan = SimpleNamespace(
    backend=SimpleNamespace(total=total), run=SimpleNamespace(folder="runs/x")
)
line = launch.Lifeline(plan, rank, 3)
(folder / str(rank)).touch()
"""


@pytest.fixture
def three(tmp_path):
    """Starts three workers that join and then do something; their processes."""
    children = []

    def start(code):
        for rank in range(3):
            command = [sys.executable, "-c", WORKER + code, str(tmp_path), str(rank)]
            env = {**os.environ, "PYTHONPATH": str(launch.ROOT)}
            pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
            children.append(subprocess.Popen(command, env=env, **pipes))
        deadline = time.monotonic() + 30
        while not all((tmp_path / str(rank)).exists() for rank in range(3)):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        return children

    yield start
    for child in children:
        child.kill()
        child.communicate()


@pytest.mark.parametrize("killed", range(3))
def test_whichever_worker_is_killed_all_others_say_which(three, killed):
    children = three("time.sleep(60)")
    children[killed].kill()
    for rank in {0, 1, 2} - {killed}:
        said = children[rank].communicate(timeout=20)
        which = f"Worker {killed} of 3 is gone: go on with `--resume runs/x`."
        assert said == ("", f"googlenet: {which}\n")
        assert children[rank].returncode == WorkersError.exit_code


@pytest.mark.parametrize("first", range(3))
def test_nobody_is_missed_who_says_goodbye(three, first):
    """Whoever ends first, after all have come to the end."""
    code = f"line.tell(launch.NOBODY); time.sleep(0 if rank == {first} else 3)"
    for child in three(code):
        assert child.communicate(timeout=20) == ("", "")
        assert child.returncode == 0


def test_a_worker_s_own_error_comes_before_that_of_others(three):
    """All fail at once; and one that was stopped says that, whoever is gone."""
    code = """
if rank == 2:
    line.stopped = errors.Stopped("stopped.", 15)
    time.sleep(60)
time.sleep(1 + 0.5 * rank)
launch.end_with(errors.DataError(f"No data {rank}."))
"""
    children = three(code)
    found = [(child.communicate(timeout=20)[1], child.returncode) for child in children]
    own = [(f"googlenet: No data {rank}.\n", 5) for rank in (0, 1)]
    assert found == [*own, ("googlenet: stopped.\n", 143)]


def test_a_stranger_is_no_worker():
    line = object.__new__(launch.Lifeline)
    line.lines = {}
    for said, taken in ((b"GET / HTTP", {}), (b"", {}), (bytes([0, 0, 0, 2, 0, 0, 0, 7]), {2})):
        ours, other = socket.socketpair()
        with ours, other:
            other.sendall(said)
            other.shutdown(socket.SHUT_WR)
            line.admit(ours, 7)
            assert set(line.lines) == set(taken)
            assert (ours.fileno() < 0) == (not taken), "it is closed"


def test_workers_meet_where_the_environment_says(monkeypatch):
    for name in ("TF_CONFIG", "PADDLE_TRAINER_ENDPOINTS", "DMLC_PS_ROOT_URI", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    config = {"cluster": {"worker": ["host0:2222", "host1:2222"]}}
    for name, value, host in (
        ("MASTER_ADDR", "host3", "host3"),
        ("DMLC_PS_ROOT_URI", "10.0.0.1", "10.0.0.1"),
        ("PADDLE_TRAINER_ENDPOINTS", "host2:6170,host1:6170", "host2"),
        ("TF_CONFIG", json.dumps(config), "host0"),
    ):
        monkeypatch.setenv(name, value)
        assert launch.meeting_place() == host
        monkeypatch.delenv(name)
    assert launch.own_address() == "127.0.0.1"


ABORT = """
import ctypes, os, threading, time
from common import launch
threading.Timer(1, os._exit, (10,)).start()
with launch.slow_abort({count}):
    ctypes.PyDLL("libstdc++.so.6")._ZSt9terminatev()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="its C++ library")
@pytest.mark.parametrize(("count", "status"), [(1, -signal.SIGABRT), (2, 10)])
def test_cplusplus_does_not_end_a_worker_before_the_lifeline_speaks(count, status):
    """With Python's lock held, as Paddle holds it."""
    env = {**os.environ, "PYTHONPATH": str(launch.ROOT)}
    command = [sys.executable, "-c", ABORT.format(count=count)]
    assert subprocess.run(command, env=env, capture_output=True, timeout=30).returncode == status


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_mxnet_s_servers_end_when_a_connection_with_the_scheduler_is_gone(monkeypatch):
    ended = threading.Event()
    monkeypatch.setattr(launch, "VERDICT", 1.5)
    monkeypatch.setattr(launch, "end_with", lambda error: ended.set())
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        monkeypatch.setenv("DMLC_PS_ROOT_PORT", str(port))
        threading.Thread(target=launch.accompany, args=(2,), daemon=True).start()
        assert not ended.wait(3), "nobody has come yet"
        with socket.create_connection(("127.0.0.1", port)), server.accept()[0]:
            assert launch.connections(port) == 2
            assert not ended.wait(3)
        assert ended.wait(10)
