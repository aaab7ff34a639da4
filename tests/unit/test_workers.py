"""A worker among others: they meet, each learns of a lost one, and all leave together."""

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from common import device, rendezvous
from common.distributed import launcher, watchdog, workers
from common.errors import Stopped, WorkersError
from common.files import ROOT

PATIENCE = 200  # seconds: a process that is still there hangs


def test_a_port_that_is_taken_is_reported_with_the_way_out():
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(WorkersError, match=f"Port {port} .* taken .* choose another with X"):
            rendezvous.need_port(port, "X")
        with pytest.raises(WorkersError, match=f"Port {port} .* choose another with X"):
            rendezvous.meet([f"127.0.0.1:{port}", "127.0.0.1:9"], 0, "X")
    rendezvous.need_port(port, "X")


@pytest.mark.parametrize("number", [-1, 2])
def test_a_worker_whose_number_has_no_address_is_refused(number):
    with pytest.raises(WorkersError, match=rf"number is {number}, .* 2 addresses: correct X\."):
        rendezvous.meet(["127.0.0.1:1", "127.0.0.1:2"], number, "X")


@pytest.mark.parametrize("given", ["5m", "-1", "0", "inf", "nan"])
def test_a_time_to_join_that_is_no_number_is_refused(given, monkeypatch):
    monkeypatch.setenv(workers.JOIN, given)
    with pytest.raises(WorkersError, match=f"{workers.JOIN} is '{given}': give a number"):
        workers.join_seconds()
    monkeypatch.setenv(workers.JOIN, "")
    assert workers.join_seconds() == 20


def test_a_variable_that_a_worker_lacks_is_named(monkeypatch):
    class Ended(Exception):
        pass

    def end(error):
        raise Ended(str(error))

    def lacks(device):
        return os.environ["NOT_SET"]

    monkeypatch.setattr(workers, "end_with", end)
    backend = SimpleNamespace(init_process_group=lacks)
    with (
        pytest.raises(Ended, match=r"NOT_SET is not set for this worker\. Set it"),
        workers.joined(backend, "cpu", "f"),
    ):
        pass


def test_workers_meet_once_all_have_come(monkeypatch):
    def noted(host, port):
        if int(port) == ports[2]:
            waiting.release()
        return connect(host, port)

    connect, waiting = rendezvous.connect, threading.Semaphore(0)
    monkeypatch.setattr(rendezvous, "connect", noted)
    ports = launcher.free_ports(3)
    addresses = [f"127.0.0.1:{port}" for port in ports]
    threads = [
        threading.Thread(target=rendezvous.meet, args=(addresses, rank, "X")) for rank in range(3)
    ]
    for thread in threads[:2]:
        thread.start()
    for _ in threads[:2]:
        assert waiting.acquire(timeout=PATIENCE), "the third is not waited for"
    assert all(thread.is_alive() for thread in threads[:2])
    threads[2].start()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    for port in ports:
        rendezvous.need_port(port, "X")


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

    monkeypatch.setattr(rendezvous.socket, "create_server", slow)
    ports = launcher.free_ports(2)
    addresses = [f"127.0.0.1:{port}" for port in ports]
    first = threading.Thread(target=rendezvous.meet, args=(addresses, 0, "X"))
    first.start()
    rendezvous.meet(addresses, 1, "X")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", ports[0]), 1)
    first.join()


def test_each_worker_gets_its_own_gpu(monkeypatch):
    found = ["cpu", "gpu:0", "gpu:1"]
    for rank, own in ((0, "gpu:0"), (1, "gpu:1"), (2, "gpu:0")):
        monkeypatch.setenv("LOCAL_RANK", str(rank))
        assert device.own_device("gpu:0", "auto", found) == own
        assert device.own_device("gpu:0", "gpu", found) == own
        assert device.own_device("gpu:1", "gpu:1", found) == "gpu:1"
        assert device.own_device("cpu", "auto", ["cpu"]) == "cpu"


def in_worker(folder, code):
    """A process that runs this code as a worker of that folder."""
    imports = "from common import errors\nfrom common.distributed import watchdog, workers\n"
    script = f"{imports}with workers.worker():\n    {code}"
    return subprocess.Popen(
        [sys.executable, "-c", script],
        env={**os.environ, watchdog.FOLDER: str(folder), "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.mark.parametrize(
    ("end", "noted"),
    [
        ("raise errors.DataError('No data.')", {"status": 5, "sentence": "No data."}),
        ("raise ValueError('No data.')", {"status": 1}),
        ("raise KeyboardInterrupt('No data.')", {"status": 128}),
        ("", {"status": 0}),
        ("watchdog.end_with(errors.DataError('No data.'))", {"status": 5, "sentence": "No data."}),
        ("watchdog.end_with(ValueError('No data.'))", {"status": 1}),
    ],
)
def test_a_worker_notes_its_end_and_prints_into_the_folder(end, noted, tmp_path):
    with (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        child = in_worker(tmp_path, f"print('a line'); {end}")
        assert child.communicate(timeout=PATIENCE) == (b"", b"")
    assert launcher.notes(tmp_path)[child.pid] == {"worker": 0, "role": "worker", **noted}
    assert (tmp_path / f"{child.pid}.out").read_text() == "a line\n"
    assert ("No data." in (tmp_path / f"{child.pid}.err").read_text()) == (noted["status"] != 0)


def test_a_worker_does_not_outlive_the_process_that_started_it(tmp_path):
    with (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        child = in_worker(tmp_path, "import time; time.sleep(600)")
        while child.pid not in launcher.notes(tmp_path):
            assert child.poll() is None
            time.sleep(0.05)
    child.communicate(timeout=PATIENCE)
    assert child.returncode == WorkersError.exit_code


def test_mxnet_s_scheduler_and_server_run_until_the_workers_end_whoever_started_them(monkeypatch):
    loaded = []
    monkeypatch.delenv(watchdog.FOLDER, raising=False)
    monkeypatch.setattr(workers, "load", loaded.append)
    for role in ("scheduler", "server"):
        monkeypatch.setenv("DMLC_ROLE", role)
        with pytest.raises(SystemExit), workers.worker():
            pytest.fail("it is no worker")
    assert loaded == ["mxnet", "mxnet"]
    monkeypatch.setenv("DMLC_ROLE", "worker")
    with workers.worker():
        assert len(loaded) == 2


# From joining to leaving


HERE = Path("here")


@pytest.fixture
def backend(monkeypatch):
    """A backend of worker 1 of two; what it and the watchdog were asked, in order."""
    asked = []

    def all_reduce_sum(numbers):
        asked.append("sum")
        return numbers

    def end(error):
        asked.append("end")
        raise error  # the process would be gone

    class Watchdog:
        """A watchdog without others."""

        stopped = None

        def __init__(self, backend, folder, rank, count):
            assert (folder, rank, count) == (HERE, 1, 2)
            asked.append("watchdog")

        def tell(self, gone):
            asked.append({watchdog.CLEAN_EXIT: "bye"}[gone])

    def sleep(seconds):
        asked.append(("sleep", seconds))

    monkeypatch.setattr(workers, "end_with", end)
    monkeypatch.setattr(workers, "PeerWatchdog", Watchdog)
    monkeypatch.setattr(workers, "time", SimpleNamespace(sleep=sleep))
    return SimpleNamespace(
        init_process_group=lambda device: (1, 2),
        all_reduce_sum=all_reduce_sum,
        destroy_process_group=lambda: asked.append("leave"),
        asked=asked,
    )


def test_workers_leave_together_when_all_are_done(backend):
    with workers.joined(backend, "cpu", HERE) as found:
        assert found == (1, 2)
        assert backend.asked == ["watchdog"], "all have come"
    assert backend.asked == ["watchdog", "sum", "bye", "leave"]


def test_workers_that_stop_leave_together_too(backend):
    with pytest.raises(Stopped), workers.joined(backend, "cpu", HERE):
        raise Stopped("stopped.", signal.SIGTERM)
    assert backend.asked == ["watchdog", "sum", "bye", "leave"]


def test_a_worker_that_fails_waits_for_no_other(backend):
    with pytest.raises(WorkersError), workers.joined(backend, "cpu", HERE):
        raise WorkersError("gone")
    assert backend.asked == ["watchdog", "end"]


@pytest.mark.parametrize("last", [False, True])
def test_what_a_framework_raises_waits_for_the_watchdog_to_report(backend, last):
    """In the middle of a run, or when all leave."""

    def reset(numbers):
        raise RuntimeError("Connection reset by peer")

    def nothing(numbers):
        pass

    backend.all_reduce_sum = reset
    with pytest.raises(RuntimeError), workers.joined(backend, "cpu", HERE):
        (nothing if last else reset)(0)
    assert backend.asked[:3] == ["watchdog", ("sleep", watchdog.DEATH_GRACE), "end"]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_a_second_signal_goes_on_as_it_is_and_waits_for_no_other(backend, kind):
    with pytest.raises(kind), workers.joined(backend, "cpu", HERE):
        raise kind
    assert backend.asked == ["watchdog"]


# When one is gone

WORKER = """
import sys, threading, time
from pathlib import Path
from types import SimpleNamespace
import numpy as np
from common import errors
from common.distributed import watchdog
folder, rank = Path(sys.argv[1]), int(sys.argv[2])
def wait_for(name):
    while not (folder / name).exists():
        time.sleep(0.05)
def all_reduce_sum(numbers):
    if rank == 0:
        np.save(folder / "new.npy", numbers)
        (folder / "new.npy").rename(folder / "sum.npy")
    wait_for("sum.npy")
    return np.load(folder / "sum.npy")
backend = SimpleNamespace(all_reduce_sum=all_reduce_sum)
line = watchdog.PeerWatchdog(backend, "runs/x", rank, 3)
(folder / str(rank)).touch()
"""


@pytest.fixture
def three(tmp_path):
    """Starts three workers that join and then do something; their processes."""
    children = []

    def start(code):
        for rank in range(3):
            command = [sys.executable, "-c", WORKER + code, str(tmp_path), str(rank)]
            env = {**os.environ, "PYTHONPATH": str(ROOT)}
            pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
            children.append(subprocess.Popen(command, env=env, **pipes))
        deadline = time.monotonic() + PATIENCE
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
    children = three("time.sleep(600)")
    children[killed].kill()
    for rank in {0, 1, 2} - {killed}:
        said = children[rank].communicate(timeout=PATIENCE)
        which = f"Worker {killed} of 3 is gone: go on with `--resume runs/x`."
        assert said == ("", f"googlenet: {which}\n")
        assert children[rank].returncode == WorkersError.exit_code


@pytest.mark.parametrize("first", range(3))
def test_nobody_is_missed_who_leaves_cleanly(three, first, tmp_path):
    """Whoever ends first, after all have come to the end."""
    code = f"""
line.tell(watchdog.CLEAN_EXIT)
if rank != {first}:
    wait_for("ended")
    for thread in threading.enumerate():
        if thread.daemon:  # the watchdog's: each ends when its worker has left
            thread.join()
"""
    children = three(code)
    children[first].wait(PATIENCE)
    (tmp_path / "ended").touch()
    for child in children:
        assert child.communicate(timeout=PATIENCE) == ("", "")
        assert child.returncode == 0


def test_a_worker_s_own_error_comes_before_that_of_others(three):
    """Worker 1 fails while its watchdog waits; one that was stopped says that, whoever is gone."""
    code = """
if rank == 2:
    line.stopped = errors.Stopped("stopped.", 15)
    (folder / "stopped").touch()
    time.sleep(600)
waits = threading.Event()
watchdog.time = SimpleNamespace(sleep=lambda seconds: (waits.set(), time.sleep(600 * seconds)))
(folder / f"{rank} is set").touch()
wait_for("stopped")
wait_for("1 is set")
if rank == 1:
    waits.wait()
watchdog.end_with(errors.DataError(f"No data {rank}."))
"""
    children = three(code)
    found = [(child.communicate(timeout=PATIENCE)[1], child.returncode) for child in children]
    own = [(f"googlenet: No data {rank}.\n", 5) for rank in (0, 1)]
    assert found == [*own, ("googlenet: stopped.\n", 143)]


def test_an_unknown_process_is_not_taken_for_a_worker():
    line = object.__new__(watchdog.PeerWatchdog)
    line.lines = {}
    for said, taken in ((b"GET / HTTP", {}), (b"", {}), (bytes([0, 0, 0, 2, 0, 0, 0, 7]), {2})):
        ours, other = socket.socketpair()
        with ours, other:
            other.sendall(said)
            other.shutdown(socket.SHUT_WR)
            line.accept_worker(ours, 7)
            assert set(line.lines) == set(taken)
            assert (ours.fileno() < 0) == (not taken), "it is closed"


def test_worker_0_is_sought_at_its_own_address_first(monkeypatch):
    """The environment's host may be a name that leads elsewhere."""
    monkeypatch.setenv("MASTER_ADDR", "host3")
    sought = []

    def refuse(address, timeout):
        sought.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "create_connection", refuse)
    line = object.__new__(watchdog.PeerWatchdog)
    line.rank = 1
    with pytest.raises(WorkersError, match="cannot connect to worker 0 at"):
        line.connect("10.0.0.1", 77, b"hello")
    assert sought == [("10.0.0.1", 77), ("host3", 77)]


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
        assert rendezvous.meeting_place() == host
        monkeypatch.delenv(name)
    assert rendezvous.own_address() == "127.0.0.1"
