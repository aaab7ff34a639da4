"""Fault injection into runs: kills, full disks, damage, signals, limits, two writers, links, time.

`python tests/durability/fault_injection.py --help`; each command prints a JSON summary and exits
with status 1 if anything was lost. The tests run short versions of the same functions.
Long because it is one script with ten commands that share their runs and their comparisons.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import pkgutil
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from unittest import mock

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

import click  # noqa: E402
import numpy as np  # noqa: E402

from common import weights  # noqa: E402
from common.cli.app import BACKENDS, main  # noqa: E402
from common.data import sources  # noqa: E402
from common.data.dataset import Dataset  # noqa: E402
from common.data.fashion_mnist import SAMPLE, SAMPLE_FOLDER  # noqa: E402
from common.errors import GoogLeNetError, RunError, one_line  # noqa: E402
from common.files import write_whole  # noqa: E402
from common.recipe import Recipe  # noqa: E402
from common.spec import MINI  # noqa: E402
from common.training.checkpoint import Checkpoint, Config, Progress  # noqa: E402
from common.training.history import Epoch, read_history  # noqa: E402
from common.training.run import Run  # noqa: E402

#: momentum, dropout, flips and a schedule: all that a resumed run must take up again
TRAIN = (
    "train --recipe best --precision float32 --spec mini --size 33 --data sample --save-every 0 "
    "--device cpu"
)
BEGIN = [*TRAIN.split(), "--limit-train", "256", "--batch-size", "32", "--epochs", "3"]
#: shorter: four steps in each of two epochs
SHORT = [*TRAIN.split(), "--limit-train", "64", "--batch-size", "16", "--epochs", "2"]


class Lost(AssertionError):
    """Something that must not happen, happened."""


def require(holds: bool, *what: object) -> None:
    """Lost unless it holds."""
    if not holds:
        raise Lost(": ".join(map(str, what)))


# --- what a run is, and whether two are the same


def content(checkpoint: Checkpoint) -> dict[str, Any]:
    """All of a checkpoint that two equal runs share: everything but times and names of folders."""
    found = asdict(replace(checkpoint, weights={}, state={}))
    for part in (found["progress"], *found["progress"]["epochs"]):
        del part["seconds"], part["wait"]
    slots = {name: weights.sha256(tensors) for name, tensors in checkpoint.state.items()}
    return {**found, "weights": weights.sha256(checkpoint.weights), "state": slots}


def require_same(folder: Path, whole: Path) -> None:
    """Lost unless two runs ended bit for bit alike: checkpoints, optimizer state and history."""
    for which in ("last", "best"):
        got, want = (content(Run(each).load(which)) for each in (folder, whole))
        for field in want:
            require(got[field] == want[field], folder, f"{which}: another {field}")
    got, want = (read_history(Run(each).history_file) for each in (folder, whole))
    times = {"seconds": 0.0, "wait": 0.0}
    require(
        [replace(epoch, **times) for epoch in got] == [replace(epoch, **times) for epoch in want],
        folder,
        "another history",
    )


def require_whole(folder: Path) -> None:
    """Lost unless whatever files of a run are there can be read."""
    for which in ("last", "best"):
        if Run(folder).checkpoint(which).exists():
            Run(folder).load(which)
    if Run(folder).history_file.exists():
        read_history(Run(folder).history_file)


# --- processes


def start(
    *words: object, program: tuple[str, ...] = ("-m", "common.cli"), folder: Path | None = None
) -> subprocess.Popen[str]:
    """A `googlenet` process in a folder, with both of its outputs in one pipe."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return subprocess.Popen(
        [sys.executable, *program, *map(str, words)],
        env={**os.environ, "PYTHONPATH": path},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=folder,
    )


def here(*words: object) -> subprocess.Popen[str]:
    """One of this module's own commands, in a process."""
    return start(*words, program=(__file__,))


def end(process: subprocess.Popen[str], *codes: int) -> str:
    """What a process printed; Lost if it left otherwise or said anything but one sentence."""
    output = process.communicate(timeout=600)[0]
    check_end(process.returncode, output, *codes)
    return output


def check_end(code: int | None, output: str, *codes: int) -> str:
    """The sentence that a process left with, if it had to leave with one."""
    require(code in codes, f"left with {code} and not {codes}", output[-2000:])
    require("Traceback" not in output, "a traceback", output[-2000:])
    sentences = [line for line in output.splitlines() if line.startswith("googlenet: ")]
    silent = code == 0 or code < 0  # a negative one: died of a signal
    require(len(sentences) == (0 if silent else 1), "not one sentence", output[-2000:])
    return "".join(sentences)


def words_for(folder: Path, backend: str, begin: list[str] = BEGIN) -> list[str]:
    """How to go on with a run, or to begin it where nothing was saved yet."""
    if Run(folder).checkpoint("last").exists():
        return ["train", "--resume", str(folder), "--save-every", "0", "--device", "cpu"]
    return [*begin, "--backend", backend, "--out", str(folder)]


PHASES = {
    "begin": "common.training.plan.begin",
    "import": "common.training.plan.load",
    "model": "common.training.loop.TrainingLoop.__init__",
    "step": "common.recipe.Recipe.rate",
    "evaluation": "common.training.loop.TrainingLoop.test_batches",
    "save": "common.training.checkpoint.Checkpoint.encode",
    "write": "os.fsync",  # of the temporary file, and then of its folder
    "picture": "common.training.plots.curve",
}


@contextmanager
def signalled(phase: str, nth: int, signals: tuple[int, ...]) -> Iterator[None]:
    """The process sends itself signals at the nth time that it comes to a phase."""
    import common.training.loop
    import common.training.plan
    import common.training.plots  # noqa: F401

    calls = 0

    def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == nth:
                print(f"signalled {time.monotonic()}", flush=True)
                for signum in signals:
                    os.kill(os.getpid(), signum)
            return function(*args, **kwargs)

        return call

    target, _, name = PHASES[phase].rpartition(".")
    owner = pkgutil.resolve_name(target)
    with mock.patch.object(owner, name, wrap(getattr(owner, name))):
        yield


# --- 1. kills of the checkpoint writer

RECIPE = Recipe(spec="mini", size=33, momentum=0.9)
CONFIG = Config(RECIPE, "torch", None, None, None, 1, ("",) * 10, "")
DRAWN = weights.draw(MINI, 0)


def checkpoint_of(step: int) -> Checkpoint:
    """A whole checkpoint of that step, which shows in all of its tensors."""
    trained = {n: a for n, a in DRAWN.items() if not weights.is_running(n)}
    state = {"velocity": {name: np.full_like(array, step) for name, array in trained.items()}}
    shifted = {name: array + np.float32(step) for name, array in DRAWN.items()}
    return Checkpoint(CONFIG, shifted, state, Progress(step, [epoch_of(1, step)]))


def epoch_of(number: int, value: float = 1.0) -> Epoch:
    """An epoch with as many losses as a real one has, and a loss to tell it by."""
    losses = tuple(value + index / 512 for index in range(469))
    return Epoch(
        number,
        value,
        0.5,
        1.0,
        0.5,
        60_000,
        1.0,
        0.0,
        "none",
        "0",
        "cpu",
        {"batch": ["cpu"]},
        losses,
    )


def write_for_ever(folder: Path) -> None:
    """Save checkpoints and histories of growing numbers, and acknowledge each on stdout."""
    run = Run(folder)
    step = run.load().progress.steps if run.checkpoint("last").exists() else 0
    picture = bytes(60_000)
    with mock.patch("common.training.plots.curve", return_value=picture):
        while True:
            step += 1
            run.save(checkpoint_of(step))
            print(step, 0, flush=True)
            run.record([epoch_of(1, step)])
            print(step, step, flush=True)


def kills_writer(folder: Path, count: int, seed: int) -> dict[str, int]:
    """Kill the writer at random moments; what it acknowledged must be there, and whole."""
    chance, run = random.Random(seed), Run(folder)
    saved = recorded = halves = 0
    nursery = here("writer", folder)
    assert nursery.stdin
    assert nursery.stdout
    for _ in range(count):
        print(file=nursery.stdin, flush=True)
        pid = int(nursery.stdout.readline())
        lines = [nursery.stdout.readline() for _ in range(chance.randint(0, 3))]
        time.sleep(chance.uniform(0, 0.05))
        os.kill(pid, signal.SIGKILL)
        for line in (*lines, *iter(nursery.stdout.readline, "killed\n")):
            require(len(line.split()) == 2, "the writer", line)
            now, then = map(int, line.split())
            saved, recorded = max(saved, now), max(recorded, then)
        halves += any(folder.rglob(".*.part"))
        if not saved and not run.checkpoint("last").exists():
            continue
        found = run.load()
        require(saved <= found.progress.steps <= saved + 1, found.progress.steps, saved)
        want = checkpoint_of(found.progress.steps)
        require(content(found) == content(want), "another content", found.progress.steps)
        if recorded:
            (epoch,) = read_history(run.history_file)
            require(recorded <= epoch.loss <= found.progress.steps, epoch.loss, recorded)
            require(epoch == epoch_of(1, epoch.loss), "another history", epoch.loss)
            require(run.curve_file.read_bytes() == bytes(60_000), "another picture")
    nursery.communicate()
    return {
        "kills": count,
        "with a half-written file left": halves,
        "checkpoints written": saved,
    }


# --- 2. kills of whole runs


def undisturbed(folder: Path, backend: str) -> tuple[float, float]:
    """Let a run end; the seconds until its first line, and from there on."""
    begun = time.monotonic()
    process = start(*words_for(folder, backend))
    wait_for_a_line(process)
    ready = time.monotonic() - begun
    end(process, 0)
    return ready, time.monotonic() - begun - ready


def kills_run(folder: Path, backend: str, count: int, seed: int) -> dict[str, Any]:
    """Kill runs at random moments, half during a save, and go on until they end."""
    chance, whole = random.Random(seed), folder / "whole"
    ready, training = undisturbed(whole, backend)
    found: Counter[str] = Counter(kills=0)
    while found["kills"] < count:
        found["runs"] += 1
        one = folder / f"run-{found['runs']}" / "whole"  # the name is in the picture's title
        while found["kills"] < count:
            process = start(*words_for(one, backend))
            aimed = found["kills"] % 2 == 0
            if aimed:
                kill_in_a_save(process, one / "checkpoints", chance.randint(1, 6))
            else:
                early = chance.random() < 0.25
                if not early:
                    wait_for_a_line(process)
                kill_after(process, chance.uniform(0, ready if early else training))
            output = process.communicate()[0]
            if process.returncode == 0:
                found["ended before the kill"] += 1
                training *= 0.8  # the machine may have been busier when it was measured
                break
            check_end(process.returncode, output, -signal.SIGKILL)
            found["kills"] += 1
            click.echo(f"{found['kills']} kills, {found['runs']} runs", err=True)
            found["aimed at a save"] += aimed
            found["with a half-written file left"] += any(one.rglob(".*.part"))
            found["before anything was saved"] += not Run(one).checkpoint("last").exists()
            require_whole(one)
        else:
            end(start(*words_for(one, backend)), 0)
        require_same(one, whole)
    require(
        (one / "curve.png").read_bytes() == (whole / "curve.png").read_bytes(), "another picture"
    )
    return {"backend": backend, **found, "runs like an uninterrupted one": found["runs"]}


def kill_in_a_save(process: subprocess.Popen[str], folder: Path, nth: int) -> None:
    """Kill a process when the nth temporary file of a checkpoint is seen, if it comes to that."""
    seen, before = 0, False
    while process.poll() is None and seen < nth:
        now = any(folder.glob(".*.safetensors.*.part"))
        seen += now and not before
        before = now
        time.sleep(0.0002)
    process.kill()


def wait_for_a_line(process: subprocess.Popen[str]) -> None:
    """Until a run says that it begins to train."""
    assert process.stdout
    while (line := process.stdout.readline()) and " on cpu, float32: " not in line:
        pass


def kill_after(process: subprocess.Popen[str], seconds: float) -> None:
    """Kill a process after some time, unless it has ended."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()


# --- 3. a full disk


@contextmanager
def no_room(disk: Path | None, size: int) -> Iterator[None]:
    """A disk with `size` bytes left; without a disk of our own, files of at most that size."""
    if disk is None:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))  # Python ignores SIGXFSZ
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        return
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(max(0, shutil.disk_usage(disk).free - size)))
    try:
        yield
    finally:
        ballast.unlink()


@contextmanager
def small_disk(parent: Path) -> Iterator[Path]:
    """A file system of 4 MiB in memory; needs the right to mount one."""
    disk = parent / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", disk], check=True)
    try:
        yield disk
    finally:
        subprocess.run(["umount", disk], check=True)


WRITES = ("config.json", "last.safetensors", "best.safetensors", "history.jsonl", "tensorboard")


@contextmanager
def no_room_for(name: str, disk: Path | None) -> Iterator[None]:
    """A disk that is full whenever this one file is written."""
    from tensorboardX.record_writer import RecordWriter

    write, flush = Run.write, RecordWriter.flush

    def write_(self: Run, path: Path, content: bytes) -> None:
        with no_room(disk, 0) if path.name == name else nullcontext():
            write(self, path, content)

    def flush_(self: Any) -> None:
        with no_room(disk, 0) if name == "tensorboard" else nullcontext():
            flush(self)

    with (
        mock.patch.object(Run, "write", write_),
        mock.patch.object(RecordWriter, "flush", flush_),
    ):
        yield


def attempt(*words: object) -> tuple[int, str]:
    """A `googlenet` command in this process: its exit status and all that it printed."""
    from click.testing import CliRunner

    result = CliRunner().invoke(main, [str(word) for word in words])
    fault = result.exception is None or isinstance(result.exception, SystemExit)
    require(fault, "an exception", repr(result.exception))
    return result.exit_code, result.output


def full_disk(
    folder: Path, disk: Path | None, backend: str, cases: Sequence[int | str]
) -> dict[str, Any]:
    """Train with so much room, or none for one of WRITES; then make room and go on.

    `disk` is as in `no_room`.
    """
    begin = [*SHORT, "--tensorboard"]
    whole, place = folder / "whole", (disk or folder) / "whole"
    require(attempt(*words_for(whole, backend, begin))[0] == 0, "the run without trouble")
    failed: Counter[str] = Counter()
    for size in cases:
        shutil.rmtree(place if disk else folder / "there", ignore_errors=True)
        one = place if disk else folder / "there" / "whole"
        with no_room(disk, size) if isinstance(size, int) else no_room_for(size, disk):
            code, output = attempt(*words_for(one, backend, begin))
        if code == 0:
            failed["nothing: there was room"] += 1
        else:
            sentence = check_end(code, output, 7)
            require("cannot be written" in sentence, sentence)
            name = sentence.split(" cannot be written")[0].rpartition("/")[2]
            require(isinstance(size, int) or name == size, "another write failed", name, size)
            failed[name] += 1
            require(not any(one.rglob(".*.part")), "a half-written file", size)
            require_whole(one)
            code, output = attempt(*words_for(one, backend, begin))
            check_end(code, output, 0)
        require_same(one, whole)
    return {"disks": len(cases), "the write that failed": failed}


# --- 4. damaged files


def damage(whole: bytes, chance: random.Random) -> bytes:
    """The bytes with one thing wrong: a flipped bit, other bytes, a cut, a hole, more bytes."""
    at = chance.randrange(len(whole))
    if chance.random() < 0.5:
        at = min(at, chance.randrange(4096))  # headers are where it is interesting
    some = chance.randint(1, 64)
    kind = chance.randrange(6)
    if kind == 0:
        return whole[:at] + bytes([whole[at] ^ 1 << chance.randrange(8)]) + whole[at + 1 :]
    if kind == 1:
        return whole[:at] + chance.randbytes(some) + whole[at + some :]
    if kind == 2:
        return whole[:at]
    if kind == 3:
        return whole[:at] + whole[at + some :]
    if kind == 4:
        return whole[:at] + bytes(len(whole[at : at + 4096])) + whole[at + 4096 :]
    return whole[:at] + chance.randbytes(some) + whole[at:]


def readers(folder: Path) -> dict[str, tuple[Path, int, Callable[[], Any]]]:
    """Every file that the program reads: its path, the exit status of damage, and its reader."""
    run = Run(folder / "run")
    run.save(checkpoint_of(3))
    run.write(run.config_file, b"{}")
    with mock.patch("common.training.plots.curve", return_value=b""):
        run.record([epoch_of(number) for number in range(1, 4)])
    weights.save(folder / "weights.safetensors", DRAWN, MINI)
    found: dict[str, tuple[Path, int, Callable[[], Any]]] = {
        "checkpoint": (run.checkpoint("last"), 7, lambda: content(run.load())),
        "history": (run.history_file, 7, lambda: read_history(run.history_file)),
        "weights": (
            folder / "weights.safetensors",
            2,
            lambda: weights.sha256(weights.load(folder / "weights.safetensors", MINI)),
        ),
    }
    shutil.copytree(SAMPLE_FOLDER, folder / "images")
    (folder / "unpacked").mkdir()
    for name in SAMPLE:
        packed = (folder / "images" / f"{name}.gz").read_bytes()
        (folder / "unpacked" / name).write_bytes(gzip.decompress(packed))

    def images(where: str) -> str:
        # the sample stands for Fashion-MNIST, which is read by the same code, only slower
        with mock.patch.object(sources, "FULL", SAMPLE):
            return digest(sources.load(str(folder / where)))

    def sample() -> str:
        with mock.patch.object(sources, "SAMPLE_FOLDER", folder / "images"):
            return digest(sources.load("sample"))

    for name in SAMPLE:
        found[f"{name}.gz"] = (folder / "images" / f"{name}.gz", 5, lambda: images("images"))
        found[name] = (folder / "unpacked" / name, 5, lambda: images("unpacked"))
    found["sample"] = (folder / "images" / "train-images-idx3-ubyte.gz", 5, sample)
    return found


def digest(images: Dataset) -> str:
    """All of a data set in a few bytes."""
    parts = (images.train_images, images.train_labels, images.test_images, images.test_labels)
    return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()


def corruption(folder: Path, count: int, seed: int) -> dict[str, dict[str, int]]:
    """Damage each file `count` times; it is refused in a sentence, or read as it was."""
    chance, found = random.Random(seed), {}
    for name, (path, code, read) in readers(folder).items():
        whole, read_as = path.read_bytes(), read()
        found[name] = {"damaged": count, "refused": 0, "read as it was": 0}
        for _ in range(count):
            damaged = damage(whole, chance)
            if damaged == whole:
                damaged = whole[:-1]
            path.write_bytes(damaged)
            try:
                got = read()
            except GoogLeNetError as error:
                require(error.exit_code == code, name, error)
                require(str(error) == one_line(error), "more than a line", error)
                found[name]["refused"] += 1
            else:
                keep = folder / "not-refused"
                keep.write_bytes(damaged)
                if isinstance(got, list):  # a history cut between two lines is an earlier, true one
                    got += read_as[len(got) :]
                require(got == read_as, name, f"read as something else, see {keep}")
                found[name]["read as it was"] += 1
        path.write_bytes(whole)
    return found


def corruption_of_commands(folder: Path, count: int, seed: int) -> dict[str, int]:
    """The same through whole commands, of which only refusals are asked: no framework runs."""
    chance = random.Random(seed)
    path = readers(folder)["checkpoint"][0]
    whole = path.read_bytes()
    for _ in range(count):
        cut = whole[: chance.randrange(len(whole))]
        at = chance.randrange(8192, len(whole))
        for damaged in (cut, whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :]):
            path.write_bytes(damaged)
            sentence = check_end(*attempt("train", "--resume", folder / "run"), 7)
            require("checkpoint" in sentence or "damaged" in sentence, sentence)
    return {"commands": 2 * count, "refused": 2 * count}


# --- 5. signals


AT = (("step", 3), ("save", 2), ("evaluation", 1), ("write", 5), ("picture", 1))


def signals(folder: Path, backend: str, seed: int) -> dict[str, Any]:
    """SIGINT and SIGTERM, once and twice, at every phase and in the start-up; then go on."""
    chance, whole = random.Random(seed), folder / "whole"
    ready, _ = undisturbed(whole, backend)
    slowest: dict[str, float] = {}
    died = 0
    for signum in (signal.SIGINT, signal.SIGTERM):
        for moment in (*(chance.uniform(0.1, 1) * ready for _ in range(4)), ready):
            one = folder / f"start-{signum}-{moment}"
            process = start(*words_for(one, backend))
            time.sleep(moment)
            seconds = stop(process, lambda p=process, s=signum: p.send_signal(s), signum)
            slowest["start-up"] = max(slowest.get("start-up", 0), seconds)
            died += process.returncode < 0
        for twice in (False, True):
            one = folder / f"phases-{signum}-{twice}" / "whole"
            for phase, nth in AT:
                again = (signum.name,) * (1 + twice)
                process = here("at", phase, nth, ",".join(again), *words_for(one, backend))
                seconds = stop(process, None, signum)
                slowest[phase] = max(slowest.get(phase, 0), seconds)
                require_whole(one)
            end(start(*words_for(one, backend)), 0)
            require_same(one, whole)
    return {
        "backend": backend,
        "signals": 2 * (5 + 2 * len(AT)),
        "died of the signal before the program had begun": died,
        "slowest exit after the signal, seconds": {k: round(v, 2) for k, v in slowest.items()},
        "start-up, seconds": round(ready, 2),
        "runs like an uninterrupted one": 4,
    }


def stop(process: subprocess.Popen[str], send: Callable[[], None] | None, signum: int) -> float:
    """Seconds from a signal to the exit, which has the right status."""
    sent = time.monotonic()
    if send:
        send()
    output = process.communicate(timeout=600)[0]
    left = time.monotonic()
    if not send:
        require("signalled " in output, "the phase was not reached", output[-500:])
        sent = float(output.split("signalled ")[1].split()[0])
    check_end(process.returncode, output, 128 + signum, -signum)
    return left - sent


# --- 6. losses that are no numbers, and memory that is too small


def diverging(folder: Path, backend: str) -> dict[str, str]:
    """A learning rate that no run survives: what was good stays in the last checkpoint.

    Without `--save-every 0`: the weights after a step may be spoilt, and still finite, when the
    loss of that step is known to be good.
    """
    sentences = {}
    for found_in, more in (("steps", []), ("the test loss", ["--limit-train", 32])):
        one = folder / found_in
        code, output = attempt(*words_for(one, backend), *more, "--lr", "1e30", "--save-every", 300)
        sentences[found_in] = check_end(code, output, 8)
        for array in Run(one).load().weights.values():
            require(bool((np.abs(array) < 1e3).all()), "spoilt weights were kept", found_in)
    return sentences


def out_of_memory(folder: Path, backend: str, room: int = 1000) -> str:
    """A batch that does not fit: the sentence, which names a smaller one."""
    # one tensor of the batch is larger than all the room: what fails is that, no small one of the
    # framework's own, which may end its process
    more = ("--limit-train", 800, "--batch-size", 4096, "--size", 1000)
    output = end(here("limited", room, *words_for(folder / "run", backend), *more), 9)
    sentence = check_end(9, output, 9)
    require("--batch-size 2048" in sentence, sentence)
    return sentence


# --- 7. two writers and readers


def contenders(folder: Path, count: int, seed: int, processes: int = 4) -> dict[str, int]:
    """Processes that contend for a run's lock while the holder is killed, `count` times.

    Each says when it gets the lock, and looks whether a living process is inside already.
    """
    chance, run = random.Random(seed), Run(folder / "run")
    kills, inside = 0, run.folder / "entered"
    started = [here("contender", run.folder) for _ in range(processes)]
    try:
        while kills < count or not inside.exists():  # each may be killed before it is inside
            time.sleep(chance.uniform(0.005, 0.05))
            with suppress(OSError, ValueError):
                pid = json.loads((run.folder / ".lock").read_text())["pid"]
                index = [each.pid for each in started].index(pid)  # ValueError: killed before
                if kills < count:
                    started[index].kill()
                    output = started[index].communicate()[0]
                    require(not output, "two processes held one lock", output)
                    kills += 1
                    started[index] = here("contender", run.folder)
            for each in started:
                require(each.poll() is None, "a contender left", each.returncode)
    finally:
        for each in started:
            each.kill()
            output = each.communicate()[0]
            require(not output, "a contender said", output)
    with run.locked():  # nobody holds it any more
        entered = len(inside.read_bytes())
    return {"kills": kills, "locks taken": entered}


def two_runs(folder: Path, backend: str, count: int) -> dict[str, Any]:
    """Start runs at once: in one folder, and in the default one; read beside them all the time."""
    whole, one = folder / "whole", folder / "same" / "whole"
    undisturbed(whole, backend)
    processes = [start(*words_for(one, backend)) for _ in range(count)]
    reads = read_beside(one, processes)
    outputs = [process.communicate()[0] for process in processes]
    codes = sorted(process.returncode for process in processes)
    require(codes == [0] + [7] * (count - 1), "statuses of one folder", codes, outputs)
    for process, output in zip(processes, outputs, strict=True):
        sentence = check_end(process.returncode, output, 0, 7)
        known = not sentence or "is in use: process" in sentence or "holds a run" in sentence
        require(known, sentence)
    require_same(one, whole)
    begin = [*BEGIN, "--backend", backend]
    processes = [start(*begin, folder=folder) for _ in range(count)]
    for process in processes:
        end(process, 0)
    folders = sorted((folder / "runs").iterdir())
    require(len(folders) == count, "folders of the default name", folders)
    for each in folders:
        require_same(each, whole)
    return {"backend": backend, "runs at once": 2 * count, "reads beside them": reads}


def read_beside(folder: Path, processes: Sequence[subprocess.Popen[str]]) -> int:
    """Read a run until its processes end; Lost if a file is there and cannot be read."""
    reads = 0
    while any(process.poll() is None for process in processes):
        require_whole(folder)
        reads += 1
        time.sleep(0.1)
    return reads


# --- 8. time: a long run, and the same run again

GROWTH = 24.0  #: MiB that the memory may grow between the second and the last third of a long run


def soak(folder: Path, backend: str, epochs: int = 50) -> dict[str, Any]:
    """Train that many epochs of 50 steps; memory, descriptors and threads must stay flat."""
    words = [*TRAIN.replace("--save-every 0", "").split(), "--batch-size", "16"]
    words += ["--epochs", str(epochs)]
    words += ["--backend", backend, "--out", str(folder / "run")]
    output = end(here("measured", *words), 0)
    found = [json.loads(line) for line in output.splitlines() if line.startswith('{"memory"')]
    require(len(found) == epochs, "measured epochs", len(found))
    third = epochs // 3
    ranges = {}
    for what in ("memory", "descriptors", "threads"):
        values = [each[what] for each in found]
        early, late = max(values[third : 2 * third]), max(values[-third:])
        ranges[what] = [early, late]
        require(late - early <= (GROWTH if what == "memory" else 0), what, "grows", values)
    steps = sum(len(epoch.losses) for epoch in Run(folder / "run").history())
    return {"backend": backend, "steps": steps, "epochs": epochs, **ranges}


def repeat(folder: Path, backend: str, count: int = 10) -> dict[str, Any]:
    """Make the same run again and again: every checkpoint has the same bits."""
    digests = Counter[str]()
    for number in range(count):
        run = Run(folder / f"{number}" / "run")
        end(start(*SHORT, "--backend", backend, "--out", run.folder), 0)
        kept = json.dumps(content(run.load()), sort_keys=True).encode()
        digests[hashlib.sha256(kept).hexdigest()[:16]] += 1
    require(len(digests) == 1, "runs with other bits", digests)
    return {"backend": backend, "runs": count, "hash": next(iter(digests))}


# --- 9. links in a folder from a stranger


def links(folder: Path, count: int, seed: int) -> dict[str, int]:
    """Put links, pipes and devices in a run, then write and read it; nothing outside changes."""
    chance, victim = random.Random(seed), folder / "victim"
    found = dict.fromkeys(("written", "write refused", "read", "read refused"), 0)
    for index in range(count):
        run = Run(folder / f"run-{index}")
        write_locked(run)
        paths = [run.config_file, run.history_file, run.curve_file, run.checkpoint("last")]
        for path in chance.sample([*paths, run.checkpoint("last").parent, run.folder / ".lock"], 2):
            names = (
                path.name,
                f".{path.name}.part",
                f".{path.name}.{chance.randbytes(8).hex()}.part",
            )
            place = path.with_name(chance.choice(names))
            if place.is_dir() and not place.is_symlink():
                shutil.rmtree(place)
            if not place.parent.is_dir() or place.parent.is_symlink():
                continue  # placed before
            place.unlink(missing_ok=True)
            victim.write_bytes(b"mine")
            match chance.randrange(4):
                case 0:
                    place.symlink_to(victim)
                case 1:
                    place.symlink_to("/dev/zero")
                case 2:
                    place.symlink_to(folder)
                case 3:
                    os.mkfifo(place)
        before = sorted(folder.iterdir())
        for kind, do in (
            ("read", lambda run=run: (run.load(), run.history())),
            ("written", lambda run=run: write_locked(run)),
        ):
            try:
                do()
                found[kind] += 1
            except GoogLeNetError as error:
                require(error.exit_code == 7, error)
                found["read refused" if kind == "read" else "write refused"] += 1
        require(victim.read_bytes() == b"mine", "another file was written", run.folder)
        require(sorted(folder.iterdir()) == before, "a file outside was made", run.folder)
        shutil.rmtree(run.folder)
    return {"folders": count, **found}


def write_locked(run: Run) -> None:
    """Write every file of a run as a training process does."""
    with mock.patch("common.training.plots.curve", return_value=b""), run.locked():
        run.write(run.config_file, b"{}")
        run.save(checkpoint_of(2))
        run.record([epoch_of(1)])


# --- the commands


@click.group(context_settings={"max_content_width": 100})
def durability() -> None:
    """Kill, starve and damage runs, and see that nothing is lost."""


backend_option = click.option("--backend", required=True, type=click.Choice(BACKENDS))
seed_option = click.option("--seed", type=int, default=0, show_default=True)


def count_option(default: int) -> Any:
    """How often."""
    return click.option("--count", type=click.IntRange(1), default=default, show_default=True)


def show(do: Callable[..., object], *args: object) -> None:
    """Do it in a folder that is gone afterwards, and print what it found as JSON."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        found = do(Path(folder), *args)
    seconds = round(time.monotonic() - begun, 1)
    click.echo(json.dumps({do.__name__: found, "seconds": seconds}, indent=2))


@durability.command("kills-writer")
@count_option(1000)
@seed_option
def _kills_writer(count: int, seed: int) -> None:
    """SIGKILL a process that does nothing but save checkpoints."""
    show(kills_writer, count, seed)


@durability.command("kills-run")
@backend_option
@count_option(25)
@seed_option
def _kills_run(backend: str, count: int, seed: int) -> None:
    """SIGKILL runs, half of the times during a save, and resume them."""
    show(kills_run, backend, count, seed)


@durability.command("full-disk")
@backend_option
@click.option("--step", type=click.IntRange(1), default=16, show_default=True, help="In KiB.")
@click.option("--no-mount", is_flag=True, help="Limit the size of files instead of a disk's.")
def _full_disk(backend: str, step: int, no_mount: bool) -> None:
    """Train on a disk with less and less room; needs root, to mount one, or --no-mount."""

    def full(folder: Path) -> dict[str, Any]:
        if no_mount:
            return full_disk(folder, None, backend, [*WRITES, *range(0, 700 << 10, step << 10)])
        with small_disk(folder) as disk:
            return full_disk(folder, disk, backend, [*WRITES, *range(0, 3 << 20, step << 10)])

    show(full)


@durability.command("corruption")
@count_option(1000)
@seed_option
def _corruption(count: int, seed: int) -> None:
    """Damage every file that the program reads, that often each."""
    show(corruption, count, seed)
    show(corruption_of_commands, max(1, count // 10), seed)


@durability.command("signals")
@backend_option
@seed_option
def _signals(backend: str, seed: int) -> None:
    """SIGINT and SIGTERM at every phase of a run."""
    show(signals, backend, seed)


@durability.command("limits")
@backend_option
def _limits(backend: str) -> None:
    """A loss that is no number; a batch that does not fit."""
    show(diverging, backend)
    show(out_of_memory, backend)


@durability.command("two-writers")
@backend_option
@count_option(100)
@seed_option
def _two_writers(backend: str, count: int, seed: int) -> None:
    """Processes that want one folder; kills of the one that holds its lock."""
    show(contenders, count, seed)
    show(two_runs, backend, 3)


@durability.command("soak")
@backend_option
@click.option("--epochs", type=click.IntRange(3), default=50, show_default=True)
def _soak(backend: str, epochs: int) -> None:
    """Train for long: memory, descriptors and threads stay flat."""
    show(soak, backend, epochs)


@durability.command("repeat")
@backend_option
@count_option(10)
def _repeat(backend: str, count: int) -> None:
    """Make the same run again and again: the same bits each time."""
    show(repeat, backend, count)


@durability.command("links")
@count_option(1000)
@seed_option
def _links(count: int, seed: int) -> None:
    """Links, pipes and devices in the folder of a run."""
    show(links, count, seed)


@durability.command(hidden=True, context_settings={"ignore_unknown_options": True})
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
def measured(words: tuple[str, ...]) -> None:
    """Run `googlenet WORDS`; after each epoch print the process's memory, descriptors, threads."""
    record = Run.record

    def measure(self: Run, epochs: list[Epoch]) -> None:
        record(self, epochs)
        if epochs:
            status = Path("/proc/self/status").read_text()
            facts = dict(line.split(":", 1) for line in status.splitlines())
            found = {
                "memory": round(int(facts["VmRSS"].split()[0]) / 1024, 1),
                "descriptors": len(list(Path("/proc/self/fd").iterdir())),
                "threads": int(facts["Threads"]),
            }
            print(json.dumps(found), flush=True)

    with mock.patch.object(Run, "record", measure):
        main(list(words))


@durability.command(hidden=True)
@click.argument("folder", type=click.Path(path_type=Path))
def contender(folder: Path) -> None:
    """Take the lock of a run again and again; print only what must not happen."""
    inside = folder / "inside"
    while True:
        with suppress(RunError), Run(folder).locked():
            if inside.exists() and works(int(inside.read_text() or 0)):
                print("not alone", flush=True)
            write_whole(inside, str(os.getpid()).encode())
            with (folder / "entered").open("ab") as file:
                file.write(b".")
            time.sleep(0.002)
            inside.unlink()
        time.sleep(0.001)


def works(pid: int) -> bool:
    """Whether the process runs and was not killed.

    A killed process gives its locks back a moment before it becomes a zombie: then its flags in
    /proc say that it is exiting (PF_EXITING, 4).
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return False
    return fields[0] != "Z" and not int(fields[6]) & 4


@durability.command(hidden=True)
@click.argument("folder", type=click.Path(path_type=Path))
def writer(folder: Path) -> None:
    """For every line it reads: a child that saves until it is killed, and need not import."""
    checkpoint_of(1).encode()
    for _ in sys.stdin:
        if not (pid := os.fork()):
            print(os.getpid(), flush=True)
            write_for_ever(folder)
        os.waitpid(pid, 0)
        print("killed", flush=True)


@durability.command(hidden=True, context_settings={"ignore_unknown_options": True})
@click.argument("phase", type=click.Choice(list(PHASES)))
@click.argument("nth", type=int)
@click.argument("names")
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
def at(phase: str, nth: int, names: str, words: tuple[str, ...]) -> None:
    """Run `googlenet WORDS`; it sends itself signals at the nth time that it comes to a phase."""
    sent = tuple(signal.Signals[name].value for name in names.split(","))
    with signalled(phase, nth, sent):
        main(list(words), standalone_mode=True)


@durability.command(hidden=True, context_settings={"ignore_unknown_options": True})
@click.argument("room", type=int)
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
def limited(room: int, words: tuple[str, ...]) -> None:
    """Run `googlenet WORDS` with so many MiB more of address space than the framework took."""
    from backends import load

    load(words[words.index("--backend") + 1])
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    size = pages * resource.getpagesize() + (room << 20)
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    main(list(words))


if __name__ == "__main__":
    durability()
