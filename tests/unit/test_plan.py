"""`googlenet train` around its loop: what is planned, refused, said, written and resumed.

The reference stands where a framework would.

Long because begin and resume share their fixtures.
"""

import errno
import json
import os
import re
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from common.cli import app
from common.errors import BackendError, RunError, SpecError
from common.files import ROOT
from common.formats import sandbox
from common.formats.identify import identify
from common.recipe import Recipe, find_recipe
from common.spec import SPECS
from common.training import lock, plan, report
from common.training.checkpoint import Config, fingerprint
from common.training.history import read_history
from common.training.loggers import logging
from common.training.loop import TrainingLoop
from common.training.plan import begin, free_folder, resume, run_name
from common.training.run import Run, open_run
from common.training.train import train
from common.weights import draw, is_running, save, with_eps


@pytest.fixture
def names(reference, monkeypatch, tmp_path):
    """Let every backend be the reference, and the current folder be empty; the names asked for."""
    asked = []
    monkeypatch.setattr(plan, "load", lambda name: (asked.append(name), reference)[1])
    monkeypatch.setattr("os.fsync", lambda handle: None)
    monkeypatch.setattr("common.training.plots.curve", lambda epochs, title: repr(epochs).encode())
    monkeypatch.chdir(tmp_path)
    return asked


@pytest.fixture
def call(names, pocket, capsys):
    """Run `googlenet train` in this process: the exit status, stdout and stderr."""

    def run(words):
        with pytest.raises(SystemExit) as left:
            app.main(["train", *words.split()], "googlenet")
        return (left.value.code, *capsys.readouterr())

    return run


SMALL = "--data sample --spec pocket --size 9 --batch-size 8 --limit-train 20 --limit-test 10"
NEW = f"--backend torch {SMALL} --epochs 2"


def files(folder="."):
    found = {p: p.read_bytes() for p in sorted(Path(folder).rglob("*")) if p.is_file()}
    return {str(path): data for path, data in found.items()}


# In words


def test_a_run_says_what_it_does_and_keeps_it(call, names):
    code, out, err = call(f"{NEW} --verbose --seed 3 --lr 0.25")
    assert (code, err) == (0, "")
    first, one, two, where, kept, book, speed = out.splitlines()
    assert first == (
        "torch 0.0 on cpu, float32: recipe d2l with pocket at 9, 20 images from sample, batch 8; "
        "in runs/d2l-pocket-torch"
    )
    numbers = r"loss \d\.\d{3}, train acc \d\.\d{3}, test loss \d\.\d{3}, test acc \d\.\d{3}"
    for number, line in ((1, one), (2, two)):
        rest = r"\d+\.\d s(, \d+% of it waiting for images)?"
        assert re.fullmatch(rf"epoch {number}: {numbers}, {rest}", line)
    assert where == (
        "parameters on cpu; gradients on cpu; batch on cpu; outputs on cpu; evaluation on cpu"
    )
    assert kept == "kept in runs/d2l-pocket-torch"
    assert re.fullmatch(r"loss \d\.\d{3}, train acc \d\.\d{3}, test acc \d\.\d{3}", book)
    assert book.split(", ")[0] in two
    assert re.fullmatch(r"\d+\.\d examples/sec on cpu", speed)
    assert names == ["torch"]
    run = "runs/d2l-pocket-torch"
    assert list(files()) == [
        f"{run}/checkpoints/best.safetensors",
        f"{run}/checkpoints/last.safetensors",
        f"{run}/config.json",
        f"{run}/curve.png",
        f"{run}/history.jsonl",
    ]
    recipe = json.loads(files()[f"{run}/config.json"])["recipe"]
    assert (recipe["seed"], recipe["lr"], recipe["batch_size"], recipe["epochs"]) == (3, 0.25, 8, 2)
    assert len(read_history(Path(run, "history.jsonl"))) == 2


def test_json_is_an_object_a_line(call):
    code, out, err = call(f"{NEW} --json --out here --recipe best --precision bfloat16")
    assert (code, err) == (0, "")
    first, *epochs = map(json.loads, out.splitlines())
    assert set(first) == {"backend", "device", "folder", "recipe", "data"}
    assert (first["backend"], first["device"]) == ("torch", "cpu")
    assert (first["folder"], first["data"]) == ("here", "sample")
    assert first["recipe"]["precision"] == "bfloat16"
    assert first["recipe"]["nesterov"] is True
    history = read_history(Path("here/history.jsonl"))
    assert epochs == [{k: v for k, v in asdict(e).items() if k != "losses"} for e in history]
    assert [epoch["number"] for epoch in epochs] == [1, 2]


# Dry


def test_a_dry_run_tells_all_and_writes_nothing(call):
    code, out, err = call(f"{NEW} --dry-run")
    assert (code, err, files()) == (0, "", {})
    lines = {tuple(re.split(r" {2,}", line.strip(), maxsplit=1)) for line in out.splitlines()}
    for wanted in (
        ("backend", "torch 0.0"),
        ("device", "cpu"),
        ("data", "sample"),
        ("training images", "20"),
        ("test images", "10"),
        ("classes", "10"),
        ("steps", "6"),
        ("steps done", "0"),
        ("folder", "runs/d2l-pocket-torch"),
    ):
        assert wanted in lines, wanted
    for word in ("parameters", "multiply-adds", "total size (MB)", "batch_size 8", "stage3"):
        assert word in out, word
    code, out, err = call(f"{NEW} --dry-run --json --tensorboard")
    assert (code, err, files()) == (0, "", {}), "no events either"
    found = json.loads(out)
    assert (found["steps"], found["steps done"], found["folder"]) == (6, 0, "runs/d2l-pocket-torch")
    assert found["recipe"]["batch_size"] == 8
    assert {"parameters", "multiply_adds", "memory"} <= set(found["network"])


def test_a_dry_resume_tells_how_far_it_is_and_writes_nothing(call):
    assert call(f"{NEW} --out here")[0] == 0
    before = files()
    code, out, err = call("--resume here --dry-run --json")
    assert (code, err, files() == before) == (0, "", True)
    found = json.loads(out)
    assert (found["steps"], found["steps done"], found["folder"]) == (6, 6, "here")


# What is refused


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (SMALL, 2, "--backend is needed: torch, tf, mxnet, paddle."),
        (f"{NEW} --recipe worst", 2, "There is no recipe named 'worst'; choose one of d2l, "),
        (f"{NEW} --recipe my.yaml", 2, "fast, or give a file that ends in .toml."),
        ("--backend tf --data sample --spec resnet", 2, "no spec named 'resnet'"),
        ("--backend tf --data sample --spec blog-224 --size 20", 2, "stage2.2: the kernel 3x3"),
        ("--backend tf --data sample --lr -1", 2, "--lr is -1.0: it must be at least 0 and finite"),
        (f"{NEW} --limit-train 0", 5, "--limit-train 0 is not possible"),
        (f"{NEW} --device gpu", 6, "--device gpu is not there: found cpu"),
        ("--backend tf --data nowhere", 5, "nowhere"),
        ("--resume nowhere", 7, "nowhere is not a run"),
    ],
)
def test_what_cannot_be_begun_is_refused_in_a_sentence_and_writes_nothing(
    call, words, status, said
):
    code, out, err = call(words)
    assert (code, out) == (status, ""), err
    assert re.fullmatch(r"googlenet: [^\n]+\n", err)
    assert said in err
    assert files() == {}


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("--size", 0), ("--batch-size", 0), ("--epochs", 0), ("--seed", -1), ("--seed", 2**32)),
        *(("--precision", "float16"), ("--logger", "none"), ("--lr", "x")),
    ],
)
def test_a_value_that_no_run_can_have_is_refused_by_its_option(call, option, value):
    code, out, err = call(f"{NEW} {option} {value}")
    assert (code, out, files()) == (2, "", {})
    assert re.fullmatch(rf"googlenet: {option}: .+ See `googlenet train --help`.\n", err)


@pytest.mark.parametrize(
    "option",
    [
        *("--recipe best", "--out there", "--limit-train 9", "--limit-test 9", "--spec mini"),
        *("--size 33", "--batch-size 9", "--lr 9", "--seed 0"),
    ],
)
def test_what_cannot_change_with_resume_is_refused_by_name(call, option):
    code, out, err = call(f"--resume here {option}")
    name = option.split()[0]
    said = f"{name} cannot change with --resume: the run has its own. Leave it out, "
    said += "or begin a new run without --resume."
    assert (code, out, err) == (2, "", f"googlenet: {said}\n")


@pytest.mark.parametrize("more", ["", "--dry-run", "--tensorboard"])
def test_a_folder_that_holds_a_run_is_refused_and_left_alone(call, more):
    assert call(f"{NEW} --out here")[0] == 0
    before = files()
    code, out, err = call(f"--backend tf {SMALL} --out here {more}")
    assert (code, out, files() == before) == (7, "", True)
    assert "`--resume here`" in err


def test_a_folder_that_holds_something_else_is_taken(call):
    Path("here").mkdir()
    Path("here/notes.txt").write_text("mine")
    assert call(f"{NEW} --out here")[0] == 0
    assert Path("here/notes.txt").read_text() == "mine"


def test_each_run_gets_a_folder_of_its_own(call, tmp_path):
    for folder in ("runs/d2l-pocket-torch", "runs/d2l-pocket-torch-2", "runs/d2l-pocket-torch-3"):
        assert free_folder(Path("runs"), "d2l-pocket-torch") == Path(folder)
        code, out, _ = call(f"{NEW} --epochs 1")
        assert code == 0
        assert f"kept in {folder}\n" in out
    assert free_folder(Path("runs"), "d2l-tf") == Path("runs/d2l-tf")


# Two at once


@pytest.fixture
def held():
    """Hold the lock of a run's folder, in a process of its own; the process."""
    program = (
        "import sys, pathlib\n"
        "from common.training.run import Run\n"
        "with Run(pathlib.Path(sys.argv[1])).locked():\n"
        "    print('held', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    processes = []

    def hold(folder):
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(Path(folder).absolute())],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        processes.append(process)
        assert process.stdout.readline() == b"held\n"
        return process

    yield hold
    for process in processes:
        process.kill()
        process.communicate()


def test_the_second_in_a_folder_is_refused_and_told_who_holds_it(call, held):
    other = held("here")
    before = files()
    code, out, err = call(f"{NEW} --out here")
    assert (code, out, files()) == (7, "", before)
    assert re.fullmatch(
        rf"googlenet: here is in use: process {other.pid} on {re.escape(socket.gethostname())}, "
        r"since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d[+-]\d\d:\d\d, trains in it; wait until that run has "
        r"ended, or choose another folder with `--out`\.\n",
        err,
    )
    assert call(f"{NEW} --out here --dry-run")[0] == 0, "it writes nothing"
    other.communicate()
    assert call(f"{NEW} --epochs 1 --out here")[0] == 0
    other = held("here")
    assert f"here is in use: process {other.pid} on" in call(f"{NEW} --out here")[2]
    other.kill()
    other.communicate()
    assert "here holds a run already" in call(f"{NEW} --out here")[2]


def test_a_lock_ends_with_its_process_however_that_ends(call, stopped, held):
    stopped()
    before = files()
    other = held("here")
    assert call("--resume here")[0] == 7
    other.communicate()  # ends by itself
    assert files() == before, "the lock is removed"
    other = held("here")
    other.kill()
    other.communicate()
    assert set(files()) - set(before) == {"here/.lock"}
    assert call("--resume here")[0] == 0
    assert set(files()) == set(before)


def test_a_run_holds_its_lock_while_it_trains(call, monkeypatch):
    finish, seen = TrainingLoop.finish, []

    def look(self, *arguments):
        with pytest.raises(RunError, match="in use: process"), Run(Path("here")).locked():
            pass
        seen.append(json.loads(Path("here/.lock").read_text())["pid"])
        finish(self, *arguments)

    monkeypatch.setattr(TrainingLoop, "finish", look)
    assert call(f"{NEW} --out here")[0] == 0
    assert seen == [os.getpid()] * 2
    assert call("--resume here --backend tf")[0] == 0


def test_the_default_folder_names_the_spec_if_it_is_another_than_the_recipe_s():
    d2l, best = (find_recipe(name) for name in ("d2l", "best"))
    assert run_name(d2l, "tf") == "d2l-tf"
    assert run_name(replace(d2l, spec="d2l-bn"), "tf") == "d2l-d2l-bn-tf"
    assert run_name(replace(best, spec="mini"), "tf") == "best-mini-tf"
    assert run_name(replace(best, name="mine", spec="mini"), "tf") == "mine-tf"


def test_of_two_that_take_the_default_folder_each_gets_its_own(call, pocket):
    changes = {"spec": pocket, "size": 9}
    plans = [begin("torch", "d2l", changes, "sample", (8, 4), None) for _ in range(3)]
    assert {plan.run.folder for plan in plans} == {Path("runs/d2l-pocket-torch")}
    with ExitStack() as stack:
        claimed = [stack.enter_context(plan.claimed()) for plan in plans]
        plans = [begin("torch", "d2l", changes, "sample", (8, 4), None) for _ in range(2)]
        claimed += [stack.enter_context(plan.claimed()) for plan in plans]  # they planned "-4"
        folders = [plan.run.folder for plan in claimed]
        ends = ("", "-2", "-3", "-4", "-5")
        assert folders == [Path(f"runs/d2l-pocket-torch{end}") for end in ends]
    assert list(Path("runs").iterdir()) == [], "nothing was written in them"


def test_of_two_that_take_the_same_folder_one_is_refused(call, pocket):
    changes = {"spec": pocket, "size": 9}
    one, two = (begin("torch", "d2l", changes, "sample", (8, 4), Path("here")) for _ in "ab")
    with one.claimed():
        with pytest.raises(RunError, match="here is in use"), two.claimed():
            pass
        Run.create(one.run.folder, one.checkpoint)
    with pytest.raises(RunError, match="here holds a run already"), two.claimed():
        pass
    with two.claimed(rank=1, workers=2), two.claimed(rank=2, workers=3):
        pass  # only the first worker claims


def test_workers_keep_the_folder_that_they_agreed_on(call, pocket):
    plan = begin("torch", "d2l", {"spec": pocket, "size": 9}, "sample", (8, 4), None)
    Path("runs/d2l-pocket-torch").mkdir(parents=True)
    with plan.claimed(0, 2) as claimed:
        assert claimed.run.folder == Path("runs/d2l-pocket-torch")


def test_a_run_that_went_on_while_it_was_resumed_elsewhere_is_not_overwritten(call, stopped):
    stopped()
    for start in ("here", "here/checkpoints/best.safetensors"):
        plan = resume(Path(start), None, None, None)
        run = Run(Path("here"))
        run.save(run.load())
        before = files()
        with pytest.raises(RunError, match="here was trained by another process"), plan.claimed():
            pass
        assert files() == before
        with resume(Path(start), None, None, None).claimed() as plan:
            assert plan.run.folder.resolve() == Path("here").resolve()


@pytest.mark.parametrize("kind", ["link", "second name", "pipe", "folder"])
def test_a_lock_from_a_stranger_overwrites_nothing(call, kind):
    Path("here").mkdir()
    Path("victim").write_text("mine")
    path = Path("here/.lock")
    match kind:
        case "link":
            path.symlink_to(Path("victim").absolute())
        case "second name":
            path.hardlink_to("victim")
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
    code, out, err = call(f"{NEW} --out here")
    assert (code, out) == (7, "")
    assert re.fullmatch(r"googlenet: here/.lock cannot be written [^\n]+\n", err)
    assert Path("victim").read_text() == "mine"
    assert set(files()) <= {"here/.lock", "victim"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "another process"),
        (b"[]", "another process"),
        (b"[" * 4000, "another process"),
        (b"x" * 5000, "another process"),
        (b'{"pid": "1", "host": "a", "since": "b"}', "another process"),
        (rb'{"pid": 1, "host": "\u001b[2J", "since": "b"}', r"process 1 on \x1b[2J, since b,"),
    ],
)
def test_who_holds_a_lock_is_read_with_care(call, held, text, said):
    held("here")
    Path("here/.lock").write_bytes(text)
    code, _, err = call(f"{NEW} --out here")
    assert code == 7
    assert f"in use: {said} trains in it" in err
    assert err.rstrip("\n").isprintable()


def test_a_lock_whose_file_was_removed_and_made_anew_is_not_taken(tmp_path, monkeypatch):
    """The holder before removes the file when it ends: someone may have just opened it."""
    path, real, stack = tmp_path / ".lock", lock._try_lock, ExitStack()

    def raced(handle):
        monkeypatch.setattr(lock, "_try_lock", real)
        path.unlink()
        stack.enter_context(lock.held(tmp_path))
        return real(handle)

    monkeypatch.setattr(lock, "_try_lock", raced)
    with stack, pytest.raises(RunError, match="is in use"), lock.held(tmp_path):
        pass


def test_a_file_system_without_locks_is_a_warning(call, monkeypatch):
    def fail(handle):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("common.training.lock._try_lock", fail)
    code, _, err = call(f"{NEW} --out here")
    assert code == 0
    assert err == (
        "warning: here cannot be locked (No locks available): start no second run in it.\n"
    )
    assert "here/.lock" not in files()


# Folders that are none


@pytest.mark.parametrize("out", ["file", "file/x", "x" * 300, f"{'x' * 300}/y"])
@pytest.mark.parametrize("more", ["", "--dry-run"])
def test_an_out_that_can_be_no_folder_is_refused_first(call, names, out, more):
    Path("file").write_text("mine")
    code, printed, err = call(f"{NEW} --out {out} {more}")
    assert (code, printed, names) == (7, "", []), "before a framework is imported"
    assert re.fullmatch(rf"googlenet: {out} cannot be the folder of a run \([^\n]+\n", err)
    assert "choose another with `--out`" in err
    assert files() == {"file": b"mine"}


def test_a_default_folder_that_cannot_be_made_is_refused(call):
    Path("runs").write_text("mine")
    code, _, err = call(NEW)
    assert code == 7
    assert "(runs is a file)" in err


def test_a_name_that_is_too_long_is_one_sentence_everywhere(call):
    for option in ("--resume", "--data"):
        code, _, err = call(f"{NEW} {option} {'x' * 300}".replace(f"{NEW} --resume", "--resume"))
        assert code in (2, 5, 7)
        assert re.fullmatch(r"googlenet: [^\n]+\n", err)


@pytest.mark.parametrize("name", ["$MODEL", "猫", os.fsdecode(b"\xff"), "a\x1b[2J"])
def test_a_run_in_a_folder_of_any_name_trains_and_prints_it_safely(call, monkeypatch, name):
    drawn = []
    monkeypatch.setattr(
        "common.training.plots.curve", lambda epochs, title: drawn.append(title) or b""
    )
    code, out, err = call(f"{NEW} --out {name}")
    assert (code, err) == (0, "")
    assert drawn == [name] * 2
    assert out.replace("\n", "").isprintable()


# Resumed


@pytest.fixture
def stopped(call, monkeypatch):
    """A run that got SIGTERM after its fourth step of six."""

    def stop(signum=signal.SIGTERM, more=""):
        check = TrainingLoop.check_devices

        def raising(self):
            if self.progress.steps == 4 and len(self.progress.epochs) == 1:
                signal.raise_signal(signum)
            return check(self)

        with monkeypatch.context() as patch:
            patch.setattr("common.training.loop.LOG_EVERY", 1)
            patch.setattr(TrainingLoop, "check_devices", raising)
            # the signal comes within the fourth step; the loop polls for it after the fifth
            return call(f"{NEW} --out here --recipe best {more}")

    return stop


def without_time(path):
    return [replace(epoch, seconds=0, wait=0) for epoch in read_history(Path(path))]


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_a_run_that_then_goes_on_where_it_was(call, stopped, signum):
    handlers = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    code, out, err = stopped(signum)
    assert code == 128 + signum
    assert err == "googlenet: stopped after step 5; go on with `--resume here`.\n"
    assert len(out.splitlines()) == 2, "the start and an epoch"
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert Run(Path("here")).load().progress.steps == 5
    code, out, err = call("--resume here")
    assert (code, err) == (0, "")
    assert "batch 8; after 5 steps, in here" in out.splitlines()[0]
    assert call(f"{NEW} --recipe best --out whole")[0] == 0
    assert without_time("here/history.jsonl") == without_time("whole/history.jsonl")
    one, other = (Run(Path(name)).load().weights for name in ("here", "whole"))
    assert all((one[name] == other[name]).all() for name in one)


def test_a_resumed_run_goes_on_in_another_backend_and_precision(call, stopped, names):
    stopped()
    names.clear()
    code, out, _ = call("--resume here --backend paddle --precision bfloat16 --json")
    assert (code, names) == (0, ["paddle"])
    first, second = map(json.loads, out.splitlines())
    assert (first["backend"], first["recipe"]["precision"]) == ("paddle", "bfloat16")
    assert (second["number"], second["backend"]) == (2, "paddle")
    history = read_history(Path("here/history.jsonl"))
    assert [epoch.backend for epoch in history] == ["torch", "paddle"]
    assert open_run(Path("here"))[1].config.recipe.precision == "bfloat16"
    assert json.loads(Path("here/config.json").read_text())["recipe"]["precision"] == "bfloat16"


@pytest.mark.parametrize(("device", "precision"), [("cpu", "float32"), ("gpu:0", "bfloat16")])
def test_auto_is_the_precision_that_is_fastest_on_the_device(call, reference, device, precision):
    plan = begin("torch", "best", {"spec": "pocket", "size": 9}, "sample", (8, 8), None)
    assert plan.recipe.precision == "auto"
    assert plan.decided(device).recipe == replace(plan.recipe, precision=precision)


def test_the_precision_that_was_decided_is_the_runs(call):
    assert call(f"{NEW} --precision auto --out here")[0] == 0
    assert open_run(Path("here"))[1].config.recipe.precision == "float32"


def test_a_precision_that_was_given_is_left_alone(call):
    plan = begin("torch", "d2l", {"spec": "pocket", "size": 9}, "sample", (8, 8), None)
    assert plan.decided("gpu:0").recipe == plan.recipe


def test_a_run_records_its_threads_and_warns_when_it_goes_on_in_others(call, reference):
    reference.threads = lambda: 2
    assert call(f"{NEW} --epochs 2 --out here")[::2] == (0, "")
    assert open_run(Path("here"))[1].config.threads == 2
    assert json.loads(Path("here/config.json").read_text())["threads"] == 2
    assert call("--resume here --dry-run")[::2] == (0, "")
    reference.threads = lambda: 1
    status, _, warned = call("--resume here --dry-run")
    assert status == 0
    assert "OMP_NUM_THREADS=2" in warned


def test_the_threads_of_a_cpu_are_no_matter_on_a_gpu(call):
    plan = begin("torch", "d2l", {"spec": "pocket", "size": 9}, "sample", (8, 8), None)
    assert (plan.decided("cpu").checkpoint.config.threads or 0) >= 1
    decided = plan.decided("gpu:0")
    assert decided.checkpoint.config.threads is None
    assert decided.warning("cpu") is None  # nothing to compare with


def test_worker_0_alone_writes_and_prints(call, capsys):
    changes = {"spec": "pocket", "size": 9, "batch_size": 8, "epochs": 1}
    plan = begin("torch", "d2l", changes, "sample", (20, 10), Path("here"))
    for rank in (1, 0):
        assert not files()
        show, seen = report.Lines(False, silent=rank > 0), []
        train(plan, "cpu", show, seen.append, lambda: 0, 0, rank, 2)
        assert len(seen) == 1
        assert bool(capsys.readouterr().out) is (rank == 0)
    assert "here/history.jsonl" in files()


def test_a_history_that_a_kill_left_behind_is_written_anew(call, stopped, monkeypatch):
    stopped()
    whole = files()["here/history.jsonl"]
    for damaged in (b"", whole[:50], whole * 3, b"nonsense"):
        Path("here/history.jsonl").write_bytes(damaged)
        Path("here/curve.png").unlink(missing_ok=True)
        plan = resume(Path("here"), None, None, None)
        with monkeypatch.context() as patch:
            patch.setattr(TrainingLoop, "__call__", lambda loop: loop.progress)  # trains nothing
            train(plan, "cpu", report.Lines(True), lambda epoch: None, lambda: 0, 300)
        assert files()["here/history.jsonl"] == whole
        assert Path("here/curve.png").exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda progress: replace(progress, steps=6),
        lambda progress: replace(progress, losses=progress.losses[:-1]),
        lambda progress: replace(progress, losses=progress.losses * 2, steps=7),
        lambda progress: replace(progress, epochs=[]),
        lambda progress: replace(progress, epochs=[replace(progress.epochs[0], losses=(1.0,))]),
    ],
)
def test_steps_that_do_not_fit_the_losses_are_refused(call, stopped, change):
    stopped()
    run = Run(Path("here"))
    found = run.load()
    run.save(replace(found, progress=change(found.progress)))
    code, out, err = call("--resume here")
    assert (code, out) == (7, "")
    assert re.fullmatch(r"googlenet: The checkpoint's \d steps do not fit [^\n]+\n", err)


def test_steps_of_a_run_with_an_old_fingerprint_are_compared_too(call, stopped):
    stopped()
    run = Run(Path("here"))
    found = run.load()
    config = replace(
        found.config, fingerprint=fingerprint(plan.load_data("sample").limit(20, 10), False)
    )
    run.save(replace(found, config=config))
    assert call("--resume here --dry-run")[0] == 0
    run.save(replace(found, config=config, progress=replace(found.progress, epochs=[])))
    assert call("--resume here")[0] == 7


def test_a_run_of_more_steps_than_a_checkpoint_can_hold_is_refused(call, stopped):
    code, out, err = call(f"{NEW} --batch-size 1 --epochs 400000 --out there --dry-run")
    assert (code, out) == (2, "")
    assert "8,000,000 steps, and a run has at most 2,500,000" in err
    stopped()
    code, out, err = call("--resume here --epochs 4000000 --dry-run")
    assert (code, out) == (2, "")
    assert "fewer `--epochs`" in err


def test_images_that_are_larger_than_the_input_name_the_option(call, monkeypatch):
    large = replace(plan.load_data("sample"), train_images=np.zeros((20, 1, 40, 40), np.uint8))
    monkeypatch.setattr(plan, "load_data", lambda *_: large)
    code, out, err = call(NEW)
    assert (code, out) == (7, "")
    assert "images in sample are 40 x 40, larger than the input of 9 x 9: give `--size 40`" in err


def test_a_finished_run_says_what_it_came_to_again(call):
    _, before, _ = call(f"{NEW} --out here")
    code, out, err = call("--resume here")
    assert (code, err) == (0, "")
    assert out.splitlines()[1] == "here is complete after 2 epochs; `--epochs 4` would extend it"
    assert out.splitlines()[2:] == before.splitlines()[3:]
    call(f"{NEW} --epochs 1 --out short")
    assert "short is complete after 1 epoch; `--epochs 2` " in call("--resume short")[1]


def test_more_epochs_extend_a_run_and_its_files_say_so(call):
    assert call(f"{NEW} --out here")[0] == 0
    code, out, err = call("--resume here --epochs 3")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[1].startswith("extended from 2 to 3 epochs: the learning rate goes on as in a run")
    assert [line.partition(":")[0] for line in lines[2:3]] == ["epoch 3"]
    assert json.loads(Path("here/config.json").read_text())["recipe"]["epochs"] == 3
    assert len(read_history(Path("here/history.jsonl"))) == 3
    assert Run(Path("here")).load().config.recipe.epochs == 3
    assert "complete after 3 epochs" in call("--resume here --epochs 3")[1]


def test_an_extended_run_is_the_longer_run_if_the_rate_is_constant(call):
    assert call(f"{NEW} --out short")[0] == 0
    assert call("--resume short --epochs 3")[0] == 0
    assert call(f"{NEW} --out long --epochs 3")[0] == 0
    short, long = (Run(Path(each)).load().weights for each in ("short", "long"))
    assert all(np.array_equal(short[name], long[name]) for name in long)


def test_a_resumed_run_cannot_lose_epochs(call):
    assert call(f"{NEW} --out here")[0] == 0
    before = files()
    code, out, err = call("--resume here --epochs 1")
    assert (code, out, files() == before) == (2, "", True)
    assert "--epochs 1" in err


def test_a_recipe_may_stand_in_a_file(call, pocket):
    Path("mine.toml").write_text(f'spec = "{pocket}"\nsize = 9\nepochs = 1\nlr = 0.05\n')
    code, out, err = call(
        "--backend tf --data sample --limit-train 8 --limit-test 4 --recipe mine.toml"
    )
    assert (code, err) == (0, "")
    assert "kept in runs/mine-tf\n" in out
    assert json.loads(Path("runs/mine-tf/config.json").read_text())["recipe"]["lr"] == 0.05


def test_an_option_that_has_no_sense_is_named_and_not_our_class(call):
    for value in ("nan", "inf", "-1"):
        code, out, err = call(f"{NEW} --lr {value}")
        assert (code, out) == (2, "")
        assert err.startswith(f"googlenet: --lr is {float(value)}: it must be at least 0")


def test_a_run_that_was_killed_before_its_first_step_is_resumed(call, names, pocket):
    config = {"spec": pocket, "size": 9, "epochs": 1}
    plan = begin("torch", "d2l", config, "sample", (8, 4), Path("here"))
    Run.create(plan.run.folder, plan.checkpoint)
    code, out, err = call("--resume here")
    assert (code, err) == (0, "")
    assert "steps" not in out.splitlines()[0]


@pytest.mark.parametrize("part", ["train_labels", "train_images"])
def test_other_data_is_refused_and_its_way_out_is_taken(call, stopped, monkeypatch, part):
    stopped()
    load = plan.load_data
    before = files()

    def other(source, *size):
        data = load("sample", *size)
        return data if source == "moved" else replace(data, **{part: getattr(data, part)[::-1]})

    monkeypatch.setattr(plan, "load_data", other)
    code, _, err = call("--resume here")
    assert code == 7
    assert "`--data`" in err
    assert files() == before
    assert call("--resume here --data moved")[0] == 0
    assert Run(Path("here")).load().config.data == "moved"


# Plans


def test_a_plan_knows_its_data(names, pocket):
    changes = {"spec": pocket, "size": 9, "epochs": 3, "batch_size": 7}
    plan = begin("mxnet", "d2l", changes, "sample", (20, 10), Path("here"))
    assert (plan.new, plan.backend_name, plan.run.folder) == (True, "mxnet", Path("here"))
    assert plan.recipe == replace(Recipe(), **changes)
    config = plan.checkpoint.config
    assert isinstance(config, Config)
    assert (config.backend, config.data, config.limit_train, config.limit_test) == (
        *("mxnet", "sample", 20, 10),
    )
    assert (len(plan.data.train_labels), len(plan.data.test_labels)) == (20, 10)
    assert (config.channels, len(config.classes)) == (1, 10)
    assert plan.describe("cpu")["steps"] == 9, "the last batch of an epoch is not whole"
    with pytest.raises(SpecError):
        begin("mxnet", "d2l", {"lr": -1.0}, "sample", (None, None), None)


# TensorBoard


def scalars(folder):
    """Every (tag, step, value) in a folder's event files; the format is length, crc, data, crc."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for path in sorted(Path(folder).glob("events.out.tfevents.*")):
        data = path.read_bytes()
        while data:
            length = int.from_bytes(data[:8], "little")
            event = Event.FromString(data[12 : 12 + length])
            found += [(v.tag, event.step, v.simple_value) for v in event.summary.value]
            data = data[16 + length :]
    return found


def test_the_events_hold_every_step_and_epoch(call):
    assert call(f"{NEW} --out here --tensorboard")[0] == 0
    found, history = scalars("here/tensorboard"), read_history(Path("here/history.jsonl"))
    losses = [(step, value) for tag, step, value in found if tag == "step/loss"]
    want = [loss for epoch in history for loss in epoch.losses]
    assert [step for step, _ in losses] == [1, 2, 3, 4, 5, 6]
    assert [value for _, value in losses] == [np.float32(loss) for loss in want]
    for name in ("loss", "train_accuracy", "test_loss", "test_accuracy"):
        values = [(step, value) for tag, step, value in found if tag == f"epoch/{name}"]
        assert values == [(e.number, np.float32(getattr(e, name))) for e in history]
    assert len(found) == 6 + 2 * 4


def test_no_events_are_written_unless_they_are_wanted(call):
    assert call(f"{NEW} --out here")[0] == 0
    assert not Path("here/tensorboard").exists()


def test_events_without_their_package_name_the_line_that_installs_it(names, pocket, monkeypatch):
    for module in {"tensorboardX", *sys.modules}:
        if module.split(".")[0] == "tensorboardX":  # another test may have imported it
            monkeypatch.setitem(sys.modules, module, None)
    plan = begin("torch", "d2l", {"spec": pocket, "size": 9}, "sample", (8, 4), Path("here"))
    with (
        pytest.raises(BackendError, match=r"pip install .*tensorboard"),
        logging(plan, ("tensorboard",)),
    ):
        pass
    with logging(plan, ()) as write:
        assert write(None) is None


def test_events_that_cannot_be_written_are_refused(names, pocket):
    Path("here").mkdir()
    Path("here/tensorboard").write_text("in the way")
    plan = begin("torch", "d2l", {"spec": pocket, "size": 9}, "sample", (8, 4), Path("here"))
    with (
        pytest.raises(RunError, match="here/tensorboard cannot be written"),
        logging(plan, ("tensorboard",)),
    ):
        pass


class Fake:
    """A logging package that notes its calls."""

    # ruff: noqa: D102 - the packages' own methods

    def __init__(self):
        self.calls = []

    def init(self, **options):
        self.calls.append(("init", options["name"], options["config"]["size"]))
        return self

    def log(self, metrics, step):
        self.calls.append((step, metrics))

    def finish(self):
        self.calls.append("finish")

    @contextmanager
    def start_run(self, run_name):
        self.calls.append(("init", run_name))
        yield
        self.calls.append("finish")

    def log_params(self, params):
        self.calls.append(params["size"])

    def log_metrics(self, metrics, step):
        self.calls.append((step, metrics))


@pytest.mark.parametrize("package", ["wandb", "mlflow"])
def test_other_packages_log_every_epoch_and_are_ended(call, monkeypatch, package):
    fake = Fake()
    monkeypatch.setitem(sys.modules, package, fake)
    assert call(f"{NEW} --out here --logger {package}")[0] == 0
    history = read_history(Path("here/history.jsonl"))
    logged = [each for each in fake.calls if isinstance(each, tuple) and isinstance(each[1], dict)]
    assert [step for step, _ in logged] == [1, 2]
    assert [m["test_accuracy"] for _, m in logged] == [epoch.test_accuracy for epoch in history]
    assert (fake.calls[0][:2], fake.calls[-1]) == (("init", "here"), "finish")


@pytest.mark.parametrize("package", ["wandb", "mlflow"])
def test_a_logger_that_cannot_begin_is_refused_and_one_that_fails_ends_no_run(
    call, monkeypatch, package
):
    def fails(*_, **__):
        raise ConnectionError("no\nserver")

    @contextmanager
    def ends_badly(run_name):
        yield
        fails()

    fake = Fake()
    monkeypatch.setitem(sys.modules, package, fake)
    fake.log = fake.log_metrics = fake.finish = fails
    fake.start_run = ends_badly
    code, _, err = call(f"{NEW} --out here --logger {package}")
    assert code == 0
    assert f"warning: {package} did not log epoch 2: no server\n" in err
    assert f"warning: {package} did not end its log: no server\n" in err
    fake.init = fake.start_run = fails
    code, _, err = call(f"{NEW} --out there --logger {package}")
    assert code == 7
    assert err.startswith(f"googlenet: --logger {package} does not work (no server): log in or")
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("package", ["wandb", "mlflow"])
def test_a_logger_that_is_not_installed_is_refused(call, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    code, _, err = call(f"{NEW} --out here --logger {package}")
    assert code == 4
    assert f"`pip install {package}`" in err
    assert not Path("here/history.jsonl").exists()


# --- a start from weights


def written(network, seed=3):
    weights = draw(network, seed)
    save(Path("w.safetensors"), weights, network)
    return weights


def test_a_run_starts_from_a_file_of_weights(call, pocket):
    network = SPECS[pocket].at(size=9, eps=1e-5)
    weights = written(network)
    words = SMALL.replace("--spec pocket", "--weights w.safetensors")
    code, _, err = call(f"--backend torch {words} --lr 0 --out here")
    assert code == 0, err
    assert "our names, network pocket" in err
    assert "gamma is multiplied by" in err
    _, last = open_run(Path("here"))
    want = with_eps(weights, network.norm.eps, SPECS[pocket].norm.eps)
    for name, array in want.items():
        if not is_running(name):
            np.testing.assert_allclose(last.weights[name], array, rtol=1e-6)


def test_another_number_of_classes_gets_a_new_head_and_says_so(names, pocket):
    network = SPECS[pocket].at(size=9, classes=4)
    weights = written(network)
    known = identify(sandbox.read_file(Path("w.safetensors")), None, "it")
    made = begin("torch", "d2l", {"size": 9}, "sample", (8, 4), None, known)
    assert made.notes == (
        "The weights are of 4 classes, and the data have 10: the head is new, drawn with the "
        "seed 0.",
    )
    fresh = draw(SPECS[pocket].at(size=9), 0)
    for name, array in made.checkpoint.weights.items():
        want = fresh if name.startswith("head.") else weights
        np.testing.assert_array_equal(array, want[name])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--resume here --weights w.safetensors", "--weights cannot change with --resume"),
        ("--backend torch --data sample --key model", "--key and --eps are for --weights"),
        ("--backend torch --data sample --weights none.pt", "is not there"),
    ],
)
def test_weights_that_make_no_sense_are_refused(call, pocket, words, said):
    code, _, err = call(words)
    assert code == 2
    assert said in err


def test_weights_for_other_channels_are_refused(names, pocket):
    written(SPECS[pocket].at(size=9, channels=3))
    known = identify(sandbox.read_file(Path("w.safetensors")), None, "it")
    with pytest.raises(RunError, match=r"images of 3 channel\(s\), and the data have 1"):
        begin("torch", "d2l", {"size": 9}, "sample", (8, 4), None, known)
