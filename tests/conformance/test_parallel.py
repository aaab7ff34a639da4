"""Several workers compute the same function as one, by the framework's own launcher and sums.

The exact comparisons use specs without norm. They start from trained weights, because on the first
plateau wrong weights look right. An error is an error of the change that the steps made, relative
to the largest change of the tensor. Long because all its tests share the same pairs of workers.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import two_workers  # in tests/support
from small_specs import NARROW

from backends.numpy import GoogLeNet, resize
from common.distributed import launcher, watchdog, workers
from common.distributed.private_network import private_network
from common.errors import RunError
from common.parity.fixtures import draw_fixture
from common.parity.report import tensor_error
from common.recipe import Recipe
from common.spec import MINI, SPECS
from common.training.loop import TrainingLoop
from common.training.run import Run
from common.weights import is_running

ROOT = Path(__file__).parents[2]
COUNT = 2
PATIENCE = 400  # seconds: a process that is still there hangs
SYNCHRONISED = {"tf"}  # batch norms on a CPU


def environment():
    """A worker's; without the simulated device of the tests, which Paddle's launcher would take."""
    found = launcher.environment(COUNT)
    found.pop("CUSTOM_DEVICE_ROOT", None)
    return found


def streams(file):
    """Output into a file; and signals to the tests are not the children's."""
    return {"stdout": file, "stderr": file, "start_new_session": True}


def start_two(name, folder):
    """Run two_workers.py in two workers: the processes' statuses, and what they printed."""
    script = [sys.executable, str(ROOT / "tests" / "support" / "two_workers.py"), name, str(folder)]
    log = folder / "log"
    with log.open("w") as file:
        children = [
            subprocess.Popen(command, env=environment() | more, **streams(file))
            for command, more in launcher.LAUNCHERS[name](COUNT, script, folder)
        ]

        def statuses():
            return {child.poll() for child in children}

        try:
            until(lambda: statuses() == {0} or statuses() - {0, None})
            found = statuses()
        finally:
            for child in children:
                with suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
                child.wait()
    logs = [log, *folder.glob("logs/*")]
    return found, "\n".join(path.read_text()[-3000:] for path in logs)


@pytest.fixture(scope="module")
def two(pytestconfig, tmp_path_factory):
    """What two workers came to: by name, the arrays of each."""
    name, folder = pytestconfig.getoption("--backend"), tmp_path_factory.mktemp("two")
    statuses, said = start_two(name, folder)
    assert statuses == {0}, said
    found = {}
    for path in folder.glob("*.npz"):
        what, rank = path.stem.split("-")
        found[what, int(rank)] = dict(np.load(path))
    return found, folder


@pytest.fixture(scope="module")
def one(pytestconfig):
    """What one worker comes to, each network once."""
    kept = {}

    def alone(network):
        if network not in kept:
            kept[network] = two_workers.steps(pytestconfig.backend, network, 0, 1)
        return kept[network]

    return alone


def change_of(found, network):
    """How far each weight went from where it began."""
    _, weights, *_ = two_workers.NETWORKS[network]
    begun = weights()
    return {n: found[n].astype(np.float64) - begun[n] for n in begun if not is_running(n)}


def apart(found, wanted, network):
    """The largest difference, over the largest change of its tensor, and in itself."""
    got, want = change_of(found, network), change_of(wanted, network)
    relative = max(tensor_error(got[n], change) for n, change in want.items())
    return relative, max(float(np.abs(got[n] - want[n]).max()) for n in want)


def test_a_sum_is_that_of_all_workers(two):
    for rank in range(COUNT):
        assert two[0]["total", rank]["sum"].tolist() == [3.0, 1.0, 11.0]


TOLERANCES = {
    "narrow float32": (1e-4, 3e-6),
    "narrow float64": (1e-12, 1e-12),
    "parts float32": (1e-4, 3e-6),
    "parts float64": (1e-12, 1e-12),
    "d2l float32": (2e-2, 3e-6),
    "d2l float64": (1e-11, 1e-12),
}


@pytest.mark.parametrize("network", TOLERANCES)
def test_two_workers_are_one(two, one, name, network):
    if network not in two_workers.networks(name):
        pytest.skip("MXNet sums in float32; for the others float64 decides")
    found, _ = two
    alone = one(network)
    for rank in range(COUNT):
        changes, largest = apart(found[network, rank], alone, network)
        print(network, rank, changes, largest)
        assert changes < TOLERANCES[network][0]
        assert largest < TOLERANCES[network][1]
    assert sum(found[network, rank]["losses"] for rank in range(COUNT)) == pytest.approx(
        alone["losses"], rel=1e-5 if "32" in network else 1e-12
    )
    rights = sum(found[network, rank]["rights"] for rank in range(COUNT))
    assert rights.tolist() == alone["rights"]


@pytest.mark.parametrize("bug", two_workers.INJECTED)
def test_an_injected_bug_is_caught(two, one, bug):
    found, _ = two
    caught = [apart(found[bug, rank], one("narrow float32"), "narrow float32") for rank in (0, 1)]
    print(caught)
    for changes, largest in caught:
        assert changes > 100 * TOLERANCES["narrow float32"][0]
        assert largest > 100 * TOLERANCES["narrow float32"][1]


def by_the_reference(sizes):
    """Batch norm in shards of so many: the weights after one step, and each shard's statistics."""
    fixture = draw_fixture(MINI)
    (batch,) = list(two_workers.parts((32,), 0, 1))
    edges, gradients, running = np.cumsum([0, *sizes]), {}, []
    for first, behind in pairwise(edges):
        model = GoogLeNet(MINI, fixture.weights)
        inputs = resize(batch[0][first:behind], *MINI.input[1:])
        _, found = model.gradients(inputs, batch[1][first:behind])
        for name, gradient in found.items():
            gradients[name] = gradients.get(name, 0) + gradient * (behind - first) / 32
        running.append({n: array for n, array in model.weights.items() if is_running(n)})
    rate = Recipe(lr=two_workers.NETWORKS["norm float32"][3]).lr  # in float32
    return {n: fixture.weights[n] - rate * g for n, g in gradients.items()}, running


def far(found, wanted):
    """The largest difference over the largest change, of all tensors."""
    begun = draw_fixture(MINI).weights
    largest = max(np.abs(wanted[n] - begun[n]).max() for n in wanted)
    return max(np.abs(found[n] - wanted[n]).max() for n in wanted) / largest


def test_batch_norm_takes_each_part_s_statistics_or_the_whole_batch_s(two, name):
    """And all workers evaluate with the running statistics of the first."""
    found, _ = two
    network = "norm float32" if name in two_workers.WITHOUT_FLOAT64 else "norm float64"
    tolerance = 1e-3 if "32" in network else 1e-11
    (whole, (of_whole,)), (parted, (of_first, of_second)) = map(by_the_reference, ((32,), (16, 16)))
    right, wrong = (whole, parted) if name in SYNCHRONISED else (parted, whole)
    running, other = (of_whole, of_first) if name in SYNCHRONISED else (of_first, of_second)
    for rank in range(COUNT):
        print(far(found[network, rank], right), far(found[network, rank], wrong))
        print(far(found[network, rank], running), far(found[network, rank], other))
        assert far(found[network, rank], right) < tolerance
        assert far(found[network, rank], wrong) > 0.05
        assert far(found[network, rank], running) < tolerance
        assert far(found[network, rank], other) > 0.05
    losses = [found[network, rank]["evaluated"] for rank in range(COUNT)]
    assert losses[0].tolist() == losses[1].tolist()


@pytest.fixture(scope="module")
def alone(pytestconfig):
    """The run of one worker: its progress and its weights."""
    name, backend = pytestconfig.getoption("--backend"), pytestconfig.backend
    checkpoint, data = two_workers.small()
    fit = TrainingLoop(backend, name, checkpoint, data, "cpu")
    return fit().epochs, backend.read_weights(fit.model)


@pytest.fixture(autouse=True, scope="module")
def narrow_for_all():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SPECS, NARROW.name, NARROW)
        yield


def images_once():
    _, data = two_workers.small()
    return sorted(int(image.sum()) for image in data.train_images)


def test_a_run_of_two_is_the_run_of_one(two, alone):
    """The same losses, metrics of the whole, every image once an epoch, the same weights."""
    found, _ = two
    epochs, weights = alone
    shown = np.concatenate([found["run", rank]["shown"] for rank in range(COUNT)])
    assert sorted(shown.tolist()) == images_once()
    for rank in range(COUNT):
        run = found["run", rank]
        assert run["losses"] == pytest.approx(epochs[0].losses, rel=1e-5)
        first = epochs[0]
        metrics = [first.loss, first.train_accuracy, first.test_loss, first.test_accuracy]
        assert run["metrics"] == pytest.approx(metrics, rel=1e-5)
        assert max(tensor_error(run[n], array) for n, array in weights.items()) < 1e-4


def test_a_run_that_is_not_sharded_is_caught(two):
    shown = np.concatenate([two[0]["unsharded run", rank]["shown"] for rank in range(COUNT)])
    assert sorted(shown.tolist()) != images_once()


def test_workers_stop_together_and_one_goes_on_with_their_run(two, alone, backend, name):
    found, folder = two
    for rank in range(COUNT):
        assert found["run", rank]["stopped"].tolist() == [143, 4]
    checkpoint = Run(folder / "kept").load()
    assert checkpoint.progress.steps == 4
    fit = TrainingLoop(backend, name, checkpoint, two_workers.small()[1], "cpu")
    epochs, (wanted, weights) = fit().epochs, alone
    for epoch, other in zip(epochs, wanted, strict=True):
        assert epoch.losses == pytest.approx(other.losses, rel=1e-5)
    found = backend.read_weights(fit.model)
    assert max(tensor_error(found[n], array) for n, array in weights.items()) < 1e-4


class Command:
    """`googlenet train --workers 2` of a run in a folder, with all its processes."""

    def __init__(self, folder, *words):
        self.folder = folder
        common = ["--workers", "2", "--save-every", "0", "--device", "cpu"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "common.cli", "train", *words, *common],
            env={**environment(), "TMPDIR": str(folder), workers.JOIN: "300"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.kill()
        print(*self.process.communicate())

    def processes(self):
        """Those that run, by what they say in their environment."""
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):
                if f"{watchdog.FOLDER}={self.folder}/".encode() in path.read_bytes():
                    found.append(int(path.parent.name))
        return found

    def exposed(self):
        """The addresses that its processes listen at and that another machine could reach."""
        processes = self.processes()
        assert any(listening(pid) for pid in processes)
        outside = [pid for pid in processes if interfaces(pid) != ["lo"]]
        return [each for pid in outside for each in listening(pid) if each not in LOOPBACK]

    def workers(self):
        """What the workers have noted."""
        (place,) = self.folder.glob("googlenet-*")
        found = {pid: each for pid, each in launcher.notes(place).items() if "worker" in each}
        return {pid: each for pid, each in found.items() if each["role"] == "worker"}

    def end(self, status):
        """Its sentence, once nothing of it runs any more."""
        _, errors = self.process.communicate(timeout=PATIENCE)
        until(lambda: not self.processes())
        print(errors)
        assert self.process.returncode == status
        return errors


LOOPBACK = {"0100007F", "00000000000000000000000001000000"}  # as Linux writes 127.0.0.1 and ::1


def interfaces(pid):
    """The network interfaces that the process has."""
    lines = Path(f"/proc/{pid}/net/dev").read_text().splitlines()[2:]
    return [line.partition(":")[0].strip() for line in lines]


def listening(pid):
    """The addresses of the process's own TCP sockets that listen."""
    own, found = set(), []
    for path in Path(f"/proc/{pid}/fd").glob("*"):
        with suppress(OSError):
            own.add(os.readlink(path))
    for table in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
                _, local, _, state, *_, inode = line.split()[:10]
                if state == "0A" and f"socket:[{inode}]" in own:
                    found.append(local.partition(":")[0])
    return found


def until(holds, while_run=()):
    """Wait for it; fail if one of these processes has ended."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline
        assert all(process.poll() is None for process in while_run)
        time.sleep(0.2)


def steps_of(folder):
    """The steps of the run's last checkpoint."""
    with suppress(RunError):
        return Run(folder).load().progress.steps
    return 0


LONG = ["--size", "33", "--data", "sample", "--batch-size", "8", "--epochs", "1000"]


def test_a_killed_worker_ends_all_and_the_run_goes_on(name, tmp_path):
    """Then it is stopped by a signal; then its first process is killed."""
    run = tmp_path / "run"
    way_on = f"go on with `--resume {run}`."
    begun = ["--backend", name, "--out", str(run), *LONG, "--limit-train", "64"]
    with Command(tmp_path, *begun) as command:
        until(lambda: steps_of(run) > 1, while_run=[command.process])
        with private_network() as allowed:
            warning = "" if allowed else f"warning: {launcher.EXPOSED}\n"
        assert command.exposed() == [] or warning
        (second,) = [pid for pid, each in command.workers().items() if each["worker"] == 1]
        os.kill(second, signal.SIGKILL)
        assert command.end(10) == f"{warning}googlenet: Worker 1 of 2 was killed: {way_on}\n"
        steps = steps_of(run)
    with Command(tmp_path, "--resume", str(run)) as command:
        until(lambda: steps_of(run) > steps, while_run=[command.process])
        command.process.send_signal(signal.SIGTERM)
        sentence = command.end(143)
        steps = steps_of(run)
        assert sentence == f"googlenet: stopped after step {steps}; {way_on}\n"
    with Command(tmp_path, "--resume", str(run)) as command:
        until(
            lambda: any(tmp_path.glob("googlenet-*/*.json")) and len(command.workers()) == 2,
            while_run=[command.process],
        )
        assert len(command.processes()) >= 2
        command.process.kill()
        until(lambda: not command.processes())
        assert steps_of(run) >= steps


def listened_at():
    """A socket that listens, and its port."""
    server = socket.create_server(("", 0))
    return server, server.getsockname()[1]


def by_hand(name, port):
    """The environment of two workers, the first of them, or what is its root, at that port.

    MXNet's scheduler and server come before them.
    """
    here, there = f"127.0.0.1:{port}", f"127.0.0.1:{launcher.free_ports(1)[0]}"
    workers = {"worker": [here, there]}
    rendezvous = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    root = {"DMLC_PS_ROOT_URI": "127.0.0.1", "DMLC_PS_ROOT_PORT": str(port)}
    root |= {"DMLC_NUM_WORKER": "2", "DMLC_NUM_SERVER": "1"}
    trainers = {"PADDLE_TRAINERS_NUM": "2", "PADDLE_TRAINER_ENDPOINTS": f"{here},{there}"}
    trainers["PADDLE_MASTER"] = here
    return {
        "torch": [{"RANK": rank, **rendezvous} for rank in "01"],
        "tf": [
            {"TF_CONFIG": json.dumps({"cluster": workers, "task": {"type": "worker", "index": i}})}
            for i in (0, 1)
        ],
        "mxnet": [{"DMLC_ROLE": r, **root} for r in ("scheduler", "server", "worker", "worker")],
        "paddle": [
            {"PADDLE_TRAINER_ID": rank, "PADDLE_CURRENT_ENDPOINT": address, **trainers}
            for rank, address in zip("01", (here, there), strict=True)
        ],
    }[name]


@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_worker_ends_the_others_whatever_started_them(name, tmp_path, victim):
    """They say which. gloo aborts Paddle's own in C++, with a report of its own.

    MXNet's scheduler and server go on: whoever started them ends them.
    """
    run, (port,) = tmp_path / "run", launcher.free_ports(1)
    words = ["--backend", name, "--out", str(run), *LONG, "--limit-train", "64"]
    command = [sys.executable, "-m", "common.cli", "train", "--device", "cpu", "--save-every", "0"]
    children, outs = [], []
    for index, more in enumerate(by_hand(name, port)):
        outs.append([tmp_path / f"{index}.{stream}" for stream in ("out", "err")])
        with outs[-1][0].open("w") as out, outs[-1][1].open("w") as err:
            env = {**environment(), workers.JOIN: "300", **more}
            children.append(subprocess.Popen([*command, *words], env=env, stdout=out, stderr=err))
    killed = len(children) - COUNT + victim
    try:
        until(lambda: steps_of(run) > 1, while_run=children)
        children[killed].kill()
        others = children[-COUNT:]
        until(lambda: None not in [child.poll() for child in others])
    finally:
        for child, (_, err) in zip(children, outs, strict=True):
            child.kill()
            child.wait()
            print(err.read_text())
    number = 0 if outs[killed][0].read_text() else 1  # MXNet's scheduler gave it; 0 alone prints
    of_worker = f"Worker {number} of 2 is gone: go on with `--resume {run}`."
    for index, (child, (_, err)) in enumerate(zip(children, outs, strict=True)):
        if index != killed and index >= len(children) - COUNT:
            errors = err.read_text()
            said = [line for line in errors.splitlines() if line.startswith("googlenet: ")]
            if name == "paddle" and not said:
                assert child.returncode == -signal.SIGABRT
                assert "terminate called" in errors
                continue
            assert child.returncode == 10
            assert said == [f"googlenet: {of_worker}"]
            assert "Traceback" not in errors


def alone_in(folder, name, more):
    """The command as a launcher would start it; its status, and the sentence it ended with."""
    words = ["--backend", name, *LONG, "--limit-train", "8", "--out", str(folder / "run")]
    done = subprocess.run(
        [sys.executable, "-m", "common.cli", "train", "--device", "cpu", *words],
        env={**environment(), workers.JOIN: "5", **more},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert not (folder / "run").exists()
    lines = [line for line in done.stderr.splitlines() if line.startswith("googlenet: ")]
    assert "Traceback" not in done.stderr
    assert len(lines) == 1, done.stderr
    return done.returncode, lines[0]


def test_a_worker_that_never_joins_ends_the_others(name, tmp_path):
    (port,) = launcher.free_ports(1)
    *_, first, _ = by_hand(name, port)
    status, sentence = alone_in(tmp_path, name, first)
    assert status == 10
    assert "Not all workers joined within 5 s" in sentence


def test_a_port_that_is_taken_is_reported(name, tmp_path):
    server, port = listened_at()
    with server:
        first, *_ = by_hand(name, port)  # of MXNet the scheduler, which listens there
        status, sentence = alone_in(tmp_path, name, first)
    assert status == 10
    assert f"Port {port} of this machine is taken" in sentence
