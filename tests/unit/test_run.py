"""A run's files: what is written is read again, whole, and nothing else is taken for it.

Long because every file of a run has its own kinds of damage.
"""

# ruff: noqa: D102 - the methods of a fake file

import contextlib
import errno
import json
import os
import struct
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.numpy import save

from common.data.sources import load
from common.errors import DataError, RunError
from common.files import write_whole
from common.recipe import Recipe
from common.training import fields, history
from common.training.checkpoint import (
    FORMAT,
    Checkpoint,
    Config,
    Progress,
    fingerprint,
    read_checkpoint,
    same_data,
)
from common.training.history import Epoch, read_history
from common.training.run import Run, open_run
from common.weights import KEY, draw, is_running, open_sealed, storage

EPOCH = Epoch(
    number=1,
    loss=2.25,
    train_accuracy=0.125,
    test_loss=0.1 + 0.2,  # no short decimal
    test_accuracy=1 / 3,
    examples=8,
    seconds=1.5,
    wait=0.25,
    backend="torch",
    version="2.0",
    device="gpu:1",
    places={"batch": ["gpu:1"], "state": []},
    losses=(2.5, 2.0, 0.1),
)


@pytest.fixture
def recipe(pocket):
    return Recipe(spec=pocket, size=9, optimizer="adam", lr=0.001, flip=True, seed=2**32 - 1)


@pytest.fixture
def checkpoint(recipe, pictures):
    """One in the middle of a second epoch, with random numbers everywhere."""
    config = Config.of(recipe, "torch", pictures(8, 4), "pictures/", (8, None))
    random = np.random.RandomState(0)
    weights = {
        name: random.standard_normal(array.shape).astype(np.float32)
        for name, array in draw(config.network(), 0).items()
    }
    weights["head.bias"][:3] = [np.float32(-0.0), np.float32(1e-45), np.finfo(np.float32).max]
    state = {
        slot: {name: array + 1 for name, array in weights.items() if not is_running(name)}
        for slot in recipe.slots()
    }
    later = replace(EPOCH, number=2, backend="tf", losses=(0.5,))
    progress = Progress(17, [EPOCH, later], [0.1, 0.7], 5, 2.5, 0.125, {"batch": ["cpu"]})
    return Checkpoint(config, weights, state, progress)


def content(found):
    """All of a checkpoint in things that `==` compares, every bit."""
    tensors = {"weights": found.weights, **found.state}
    bits = {
        (slot, name): (array.dtype, array.shape, array.tobytes())
        for slot, part in tensors.items()
        for name, array in part.items()
    }
    return found.config, found.progress, bits


def same(one, other):
    return content(one) == content(other)


# Checkpoints


def test_a_checkpoint_comes_back_whole(checkpoint, tmp_path):
    found = Checkpoint.decode(checkpoint.encode())
    assert same(found, checkpoint)
    assert isinstance(found.config.recipe, Recipe)
    assert found.config.network() == checkpoint.config.network()
    run = Run(tmp_path)
    run.save(checkpoint)
    assert same(run.load(), checkpoint)
    assert same(read_checkpoint(run.checkpoint("last")), checkpoint)


def test_the_same_checkpoint_is_always_the_same_bytes(checkpoint):
    assert len({checkpoint.encode() for _ in range(20)}) == 1
    assert Checkpoint.decode(checkpoint.encode()).encode() == checkpoint.encode()


def test_arrays_that_are_not_contiguous_come_back_whole(checkpoint):
    name = "stage1.0.conv.weight"
    weights = checkpoint.weights | {name: np.asfortranarray(checkpoint.weights[name])}
    assert not weights[name].flags.c_contiguous
    assert same(Checkpoint.decode(replace(checkpoint, weights=weights).encode()), checkpoint)


def test_the_first_checkpoint_is_the_initial_weights(checkpoint):
    first = Checkpoint.first(checkpoint.config)
    assert (first.state, first.progress) == ({}, Progress())
    want = draw(checkpoint.config.network(), 2**32 - 1)
    assert all((first.weights[name] == want[name]).all() for name in want)
    assert same(Checkpoint.decode(first.encode()), first)


def refused_or_same(data, path, want):
    """Whether the bytes are refused, in one sentence that names the file."""
    path.write_bytes(data)
    try:
        found = read_checkpoint(path)
    except RunError as error:
        sentence = str(error)
        assert sentence.startswith(f"{path} is ")
        assert sentence.endswith(".")
        assert "\n" not in sentence
        assert len(sentence) < len(str(path)) + 300
        return True
    assert same(found, want)
    return False


def test_a_flipped_byte_anywhere_is_seen(checkpoint, tmp_path):
    data, random = checkpoint.encode(), np.random.RandomState(0)
    header = 8 + int.from_bytes(data[:8], "little")
    where = [*range(8), *random.randint(8, header, 150), *random.randint(header, len(data), 150)]
    refused = 0
    for at in where:
        bad = bytearray(data)
        bad[at] ^= random.randint(1, 256)
        refused += refused_or_same(bytes(bad), tmp_path / "bad", checkpoint)
    assert refused >= len(where) - 3, "only what pads the header may differ and mean the same"


def test_a_single_bit_of_every_tensor_is_seen(checkpoint, tmp_path):
    data = checkpoint.encode()
    header = json.loads(data[8 : (start := 8 + int.from_bytes(data[:8], "little"))])
    del header["__metadata__"]
    for place in header.values():
        bad = bytearray(data)
        bad[start + place["data_offsets"][0]] ^= 1
        assert refused_or_same(bytes(bad), tmp_path / "bad", checkpoint)


def test_a_cut_anywhere_is_seen(checkpoint, tmp_path):
    data, random = checkpoint.encode(), np.random.RandomState(0)
    header = 8 + int.from_bytes(data[:8], "little")
    cuts = [*range(10), header - 1, header, header + 1, len(data) - 1, len(data) - 4]
    for length in [*cuts, *random.randint(0, len(data), 90)]:
        assert refused_or_same(data[:length], tmp_path / "bad", checkpoint), length
        padded = data[:length] + bytes(len(data) - length)  # as some file systems leave it
        refused_or_same(padded, tmp_path / "bad", checkpoint)
    assert refused_or_same(data + b"\0", tmp_path / "bad", checkpoint)
    assert refused_or_same(data * 2, tmp_path / "bad", checkpoint)


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=200))
@example(b"")
@example(struct.pack("<Q", 2**63) + b"{}")
@example(struct.pack("<Q", 2**64 - 1) + b"{}")
@example(struct.pack("<Q", 2) + b"{}")
@example(struct.pack("<Q", 100_000) + b"[" * 100_000)
def test_no_bytes_raise_anything_but_a_value_error(data):
    with pytest.raises(ValueError, match=r"^is "):
        Checkpoint.decode(data)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


def sealed(arrays, found):
    """A file of these tensors and this JSON whose digest is right: only its sense can be wrong."""
    text = found if isinstance(found, str) else json.dumps(found)
    outer = {"content": text, "sha256": storage._sealed_digest(arrays, text)}
    return save(arrays, {KEY: json.dumps(outer)})


def opened(checkpoint):
    arrays, text = open_sealed(checkpoint.encode())
    return arrays, json.loads(text)


@settings(deadline=None, max_examples=50)
@given(json_values)
def test_no_json_raises_anything_but_a_value_error(found):
    arrays = {"weights/head.bias": np.zeros(10, np.float32)}
    whole = {"format": FORMAT, "config": found, "progress": found}
    for each in (found, whole, {"format": FORMAT, "config": {"recipe": found}, "progress": {}}):
        with pytest.raises(ValueError, match=r"^(is (no|not a) checkpoint|has format)"):
            Checkpoint.decode(sealed(arrays, each))
    with pytest.raises(ValueError, match=r"^is (no|not a) checkpoint"):
        Checkpoint.decode(save(arrays, {KEY: json.dumps(found)}))


def test_a_sealed_file_of_ours_is_taken(checkpoint):
    assert same(Checkpoint.decode(sealed(*opened(checkpoint))), checkpoint)


def change(checkpoint, what):
    """The checkpoint's tensors and JSON with something in them that no run of ours writes."""
    arrays, found = opened(checkpoint)
    match what:
        case "weight missing":
            del arrays["weights/stage4.0.conv.bias"]
        case "weight more":
            arrays["weights/stage9.0.conv.bias"] = np.zeros(3, np.float32)
        case "weight shape":
            arrays["weights/head.bias"] = np.zeros((1, 10), np.float32)
        case "weight double":
            arrays["weights/head.bias"] = np.zeros(10)
        case "weight half":
            arrays["weights/head.bias"] = np.zeros(10, np.float16)
        case "weight integer":
            arrays["weights/head.bias"] = np.zeros(10, np.int32)
        case "no weights":
            arrays = {name: a for name, a in arrays.items() if not name.startswith("weights")}
        case "no tensors":
            arrays = {}
        case "state missing":
            del arrays["mean/stage4.0.conv.bias"]
        case "state more":
            arrays["mean/stage4.0.norm.running_mean"] = np.zeros(4, np.float32)
        case "state shape":
            arrays["mean/head.bias"] = np.zeros(11, np.float32)
        case "state double":
            arrays["square/head.bias"] = np.zeros(10)
        case "slot missing":
            arrays = {name: a for name, a in arrays.items() if not name.startswith("square")}
        case "slot more":
            arrays |= {f"velocity{n[4:]}": a for n, a in arrays.items() if n.startswith("mean")}
        case "no state":
            arrays = {name: a for name, a in arrays.items() if name.startswith("weights")}
        case "no slot":
            arrays["stray"] = np.zeros(3, np.float32)
        case "other spec":
            found["config"]["recipe"]["spec"] = "mini"
        case "no spec":
            found["config"]["recipe"]["spec"] = "resnet"
        case "other optimizer":
            found["config"]["recipe"]["optimizer"] = "sgd"
        case "bad recipe":
            found["config"]["recipe"]["lr"] = float("nan")
        case "text for a number":
            found["config"]["recipe"]["lr"] = "fast"
        case "field more":
            found["config"]["recipe"]["wings"] = 2
        case "field missing":
            del found["config"]["channels"]
        case "other classes":
            found["config"]["classes"] = ["one", "two"]
        case "epoch's field":
            del found["progress"]["epochs"][0]["places"]
        case "no progress":
            del found["progress"]
    return sealed(arrays, found)


WEIGHTS = ("missing", "more", "shape", "double", "half", "integer")


@pytest.mark.parametrize(
    "what",
    [
        *(f"weight {how}" for how in WEIGHTS),
        *(f"state {how}" for how in ("missing", "more", "shape", "double")),
        *("no weights", "no tensors", "slot missing", "slot more", "no state", "no slot"),
        *("other spec", "no spec", "other optimizer", "bad recipe", "text for a number"),
        *("field more", "field missing", "other classes", "epoch's field", "no progress"),
    ],
)
def test_what_does_not_fit_together_is_refused_even_with_a_right_digest(checkpoint, what, tmp_path):
    data = change(checkpoint, what)
    assert refused_or_same(data, tmp_path / "bad", checkpoint)
    with pytest.raises(ValueError, match=r"^is not a checkpoint"):
        Checkpoint.decode(data)


def test_another_format_is_named(checkpoint, tmp_path):
    arrays, found = opened(checkpoint)
    (tmp_path / "new").write_bytes(sealed(arrays, found | {"format": FORMAT + 1}))
    with pytest.raises(
        RunError, match=rf"new has format {FORMAT + 1}, this version reads {FORMAT}\.$"
    ):
        read_checkpoint(tmp_path / "new")


def test_a_file_of_weights_alone_is_no_checkpoint(checkpoint, tmp_path):
    for metadata in (None, {"spec": "pocket"}, {KEY: "{}"}, {KEY: "null"}, {KEY: "x"}):
        (tmp_path / "weights").write_bytes(save(checkpoint.weights, metadata))
        with pytest.raises(RunError, match=r"weights is (no|not a) checkpoint"):
            read_checkpoint(tmp_path / "weights")


def test_weights_without_float32_are_never_written_unseen(checkpoint):
    double = {name: array.astype(float) for name, array in checkpoint.weights.items()}
    with pytest.raises(ValueError, match="is float64, not float32"):
        Checkpoint.decode(replace(checkpoint, weights=double).encode())


# Fingerprints


def test_a_fingerprint_tells_other_data(pictures):
    data = pictures(8, 4)
    assert fingerprint(data) == fingerprint(replace(data, source="elsewhere"))
    assert fingerprint(data) == fingerprint(
        replace(data, train_labels=data.train_labels.astype(">i8"))
    )
    others = [
        data.limit(7),
        data.limit(8, 3),
        replace(data, train_labels=data.train_labels[::-1]),
        replace(data, test_labels=data.test_labels[::-1]),
        replace(data, train_images=data.train_images.repeat(3, 1)),
        replace(data, train_images=data.train_images.reshape(8, 1, 14, 56)),
        replace(data, train_images=data.train_images ^ np.uint8(1)),
        replace(data, test_images=data.test_images[::-1]),
    ]
    assert len({fingerprint(each) for each in [data, *others]}) == 9


def test_a_fingerprint_of_an_older_version_is_compared_without_the_pixels(pictures):
    data = pictures(8, 4)
    old = "00b343e922876d4f"  # as version 0.1 wrote it
    config = Config.of(Recipe(spec="mini", size=33), "torch", data)
    assert len(config.fingerprint) == 32
    others = replace(data, train_images=255 - data.train_images)
    assert same_data(config, data)
    assert not same_data(config, others)
    assert not same_data(config, replace(data, classes=tuple("ABCDEFGHIJ")))
    config = replace(config, fingerprint=old)
    assert same_data(config, data)
    assert same_data(config, others)
    assert not same_data(config, data.limit(7))


def test_a_fingerprint_covers_every_image_of_a_folder(tmp_path):
    for part in ("train", "test"):
        for name in "ab":
            (tmp_path / part / name).mkdir(parents=True)
            Image.new("L", (8, 6), 9).save(tmp_path / part / name / "x.png")
    config = Config.of(Recipe(spec="mini", size=33), "torch", load(str(tmp_path)))
    assert same_data(config, load(str(tmp_path)))
    for path in tmp_path.glob("*/*/x.png"):
        before = path.read_bytes()
        Image.new("L", (8, 6), 8).save(path)
        assert not same_data(config, load(str(tmp_path))), path
        path.write_bytes(before)
    data = load(str(tmp_path))
    path.unlink()
    with pytest.raises(DataError, match=r"x\.png cannot be read as an image \(No such file"):
        fingerprint(data)


# The folder


def files(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_run_is_made_once(checkpoint, tmp_path):
    folder = tmp_path / "new" / "run"
    run = Run.create(folder, Checkpoint.first(checkpoint.config))
    assert list(files(folder)) == ["checkpoints/last.safetensors", "config.json"]
    assert json.loads(run.config_file.read_text()) == json.loads(
        json.dumps(asdict(checkpoint.config) | {"recipe": checkpoint.config.recipe.as_json()})
    )
    assert same(run.load(), Checkpoint.first(checkpoint.config))
    before = files(folder)
    with pytest.raises(RunError, match=f"{folder} holds a run already: .*`--resume {folder}`, "):
        Run.create(folder, Checkpoint.first(replace(checkpoint.config, backend="tf")))
    assert files(folder) == before


def test_a_run_that_was_killed_before_it_saved_anything_can_be_started_again(checkpoint, tmp_path):
    run = Run.create(tmp_path, Checkpoint.first(checkpoint.config))
    run.checkpoint("last").unlink()
    with pytest.raises(RunError, match=rf"holds no checkpoint: .*`--out {tmp_path}`"):
        open_run(tmp_path)
    first = Checkpoint.first(checkpoint.config)
    assert same(Run.create(tmp_path, first).load(), first)


def test_a_best_checkpoint_alone_is_a_run_too(checkpoint, tmp_path):
    run = Run.create(tmp_path, Checkpoint.first(checkpoint.config))
    run.checkpoint("last").rename(run.checkpoint("best"))
    with pytest.raises(RunError, match="holds a run already"):
        Run.create(tmp_path, Checkpoint.first(checkpoint.config))
    with pytest.raises(RunError, match=r"best.safetensors"):
        run.load()


def test_a_damaged_checkpoint_points_at_the_other(checkpoint, tmp_path):
    run = Run(tmp_path)
    run.save(checkpoint)
    run.checkpoint("last").write_bytes(b"x")
    with pytest.raises(RunError, match=r"last.safetensors is (no|not a) checkpoint: [^.]*\.$"):
        run.load()
    run.save(checkpoint, "best")
    with pytest.raises(RunError) as caught:
        open_run(tmp_path)
    assert str(run.checkpoint("best")) in str(caught.value)
    run, found = open_run(run.checkpoint("best"))
    assert (run.folder, same(found, checkpoint)) == (tmp_path, True)
    run.save(checkpoint)
    run.checkpoint("best").write_bytes(b"x")
    with pytest.raises(RunError, match=r"best.* is .*last.safetensors"):
        run.load("best")


def test_a_checkpoint_is_opened_by_any_path_to_it(checkpoint, tmp_path, monkeypatch):
    run = Run(tmp_path / "run")
    run.save(checkpoint)
    for there, path in (
        (tmp_path, "run"),
        (tmp_path, "run/checkpoints/last.safetensors"),
        (run.folder, "."),
        (run.folder, "checkpoints/last.safetensors"),
        (run.folder / "checkpoints", "last.safetensors"),
    ):
        monkeypatch.chdir(there)
        found, opened = open_run(Path(path))
        assert found.folder.resolve() == run.folder.resolve(), path
        assert same(opened, checkpoint)
    (tmp_path / "stray.safetensors").write_bytes(checkpoint.encode())
    with pytest.raises(RunError, match=r"stray.safetensors is not in the folder `checkpoints`"):
        open_run(tmp_path / "stray.safetensors")


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(RunError, match=f"{tmp_path / 'no'} is not a run"):
        open_run(tmp_path / "no")
    with pytest.raises(RunError, match="holds no checkpoint"):
        open_run(tmp_path)
    (tmp_path / "checkpoints" / "last.safetensors").mkdir(parents=True)
    with pytest.raises(RunError, match=r"last.safetensors cannot be read"):
        open_run(tmp_path)


# Writing

STEPS = ("mkdir", "open", "write", "flush", "fsync", "replace", "folder")


class Full:
    """A file on a disk that is full."""

    def __init__(self, file, step):
        self.file, self.step = file, step

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.file.close()

    def write(self, data):
        self.file.write(data[: len(data) // 2] if self.step == "write" else data)
        if self.step == "write":
            raise full()

    def flush(self):
        if self.step == "flush":
            raise full()
        self.file.flush()

    def fileno(self):
        return self.file.fileno()


def full(*arguments, **options):
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def fill(monkeypatch, step):
    """Let the disk be full at a step of `Run.write`."""

    def fail(*arguments, **options):
        raise full()

    match step:
        case "mkdir":
            monkeypatch.setattr(Path, "mkdir", fail)
        case "open":
            monkeypatch.setattr("common.files._create", fail)
        case "write" | "flush":
            opened = lambda *a: Full(open(*a), step)  # noqa: E731, SIM115
            monkeypatch.setattr("common.files.open", opened, raising=False)
        case "fsync" | "replace":
            monkeypatch.setattr(os, step, fail)
        case "folder":
            monkeypatch.setattr("common.files._sync_folder", fail)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("there", [True, False], ids=["over an old one", "the first"])
def test_a_full_disk_leaves_the_old_file_whole(checkpoint, tmp_path, monkeypatch, step, there):
    run = Run(tmp_path)
    old, new = checkpoint, replace(checkpoint, progress=replace(checkpoint.progress, steps=18))
    if there:
        run.save(old)
    before = files(tmp_path)
    with monkeypatch.context() as patch:
        fill(patch, step)
        with pytest.raises(RunError) as caught:
            run.save(new)
    path = run.checkpoint("last")
    assert str(caught.value).startswith(f"{path} cannot be written (No space left on device); ")
    if there or step == "folder":
        assert f"`--resume {tmp_path}`" in str(caught.value)
    else:
        assert "nothing was saved yet" in str(caught.value)
    if step == "folder":  # the new one has its name; that it survives a power failure is unsure
        assert same(run.load(), new)
        assert len(files(tmp_path)) == 1
    else:
        assert files(tmp_path) == before
    run.save(new)
    assert same(run.load(), new)


def test_a_file_is_synced_before_it_gets_its_name_and_its_folder_after(
    checkpoint, tmp_path, monkeypatch
):
    done, fsync, rename = [], os.fsync, os.replace

    def sync(handle):
        size = os.fstat(handle).st_size
        done.append("folder" if os.path.isdir(f"/proc/self/fd/{handle}") else size)
        fsync(handle)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "replace", lambda *a: (done.append("rename"), rename(*a)))
    Run(tmp_path).save(checkpoint)
    assert done == [len(checkpoint.encode()), "rename", "folder"]


def test_what_a_kill_leaves_half_written_is_never_read_and_removed_by_the_next_run(
    checkpoint, tmp_path
):
    run = Run(tmp_path)
    run.save(checkpoint)
    run.write(tmp_path / "mine.txt", b"")
    parts = [
        run.checkpoint("last").with_name(".last.safetensors.part"),  # as earlier versions named it
        run.checkpoint("best").with_name(".best.safetensors.0123456789abcdef.part"),
        tmp_path / ".history.jsonl.0123456789abcdef.part",
    ]
    others = [tmp_path / ".mine.txt.0123456789abcdef.part", tmp_path / ".history.jsonl.note"]
    for part in (*parts, *others):
        part.write_bytes(checkpoint.encode()[:100])
    assert same(open_run(tmp_path)[1], checkpoint)
    with run.locked():
        assert [part for part in parts if part.exists()] == []
    assert all(each.exists() for each in others)


def test_two_writers_of_a_file_never_mix_and_a_reader_beside_them_sees_one_whole(
    checkpoint, tmp_path, monkeypatch
):
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    run = Run(tmp_path)
    run.save(checkpoint)
    others = [replace(checkpoint, progress=replace(checkpoint.progress, steps=n)) for n in (1, 2)]

    over = threading.Event()

    def write(one):
        saved = 0
        while saved < 25 or not over.is_set():
            run.save(one)
            saved += 1

    with ThreadPoolExecutor(2) as pool:
        writers = [pool.submit(write, each) for each in others]
        try:
            for _ in range(25):
                assert run.load().progress.steps in (1, 2, checkpoint.progress.steps)
        finally:
            over.set()
    assert [writer.result() for writer in writers] == [None, None]
    assert list(files(tmp_path)) == ["checkpoints/last.safetensors"]


# A folder from a stranger


NAMES = ("config.json", "history.jsonl", "curve.png", "checkpoints/last.safetensors")


def write_all(run, checkpoint):
    """Write each file of a run."""
    run.write(run.config_file, b"{}")
    run.save(checkpoint)
    run.record(checkpoint.progress.epochs)


def test_a_write_never_follows_a_link(checkpoint, tmp_path, monkeypatch):
    victim, folder = tmp_path / "victim", tmp_path / "run"
    victim.write_text("mine")
    (folder / "checkpoints").mkdir(parents=True)
    monkeypatch.setattr("secrets.token_hex", lambda size: "random")
    links = []
    for name in NAMES:
        path = folder / name
        path.symlink_to(victim)
        for part in (f".{path.name}.part", f".{path.name}.random.part"):
            links.append(path.with_name(part))
            links[-1].symlink_to(victim)
    with pytest.raises(RunError, match="cannot be written"):
        Run(folder).save(checkpoint)
    assert victim.read_text() == "mine"
    for link in links:
        link.unlink(missing_ok=True)
    write_all(Run(folder), checkpoint)
    assert victim.read_text() == "mine"
    assert not any((folder / name).is_symlink() for name in NAMES)


def test_an_existing_temporary_file_is_never_written(tmp_path, monkeypatch):
    monkeypatch.setattr("secrets.token_hex", lambda size: "random")
    theirs = tmp_path / ".x.random.part"
    os.mkfifo(theirs)
    with pytest.raises(FileExistsError):
        write_whole(tmp_path / "x", b"new")
    assert not (tmp_path / "x").exists()


def test_a_file_gets_the_permissions_of_any_new_file(tmp_path):
    (tmp_path / "plain").write_bytes(b"")
    write_whole(tmp_path / "whole", b"")
    assert (tmp_path / "whole").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_name_of_any_length_that_the_system_takes_can_be_written(tmp_path):
    for name in ("x" * 255, "猫" * 85, os.fsdecode(b"\xff" * 255)):
        write_whole(tmp_path / name, b"x")
        assert (tmp_path / name).read_bytes() == b"x"


@pytest.mark.parametrize("where", ["checkpoints", "checkpoints/last.safetensors", "history.jsonl"])
def test_a_link_that_leads_out_is_refused_and_one_inside_is_followed(checkpoint, tmp_path, where):
    run, elsewhere = Run(tmp_path / "run"), tmp_path / "elsewhere"
    write_all(run, checkpoint)
    (run.folder / where).rename(elsewhere)
    (run.folder / where).symlink_to(elsewhere)
    before = files(tmp_path)
    for read in (lambda: open_run(run.folder), run.history):
        if ("history" in where) == (read == run.history):
            with pytest.raises(RunError, match=rf"{where}.* leads out of .* by a link"):
                read()
    if where == "checkpoints":
        with pytest.raises(RunError, match="leads out"):
            run.save(checkpoint)
        with pytest.raises(RunError, match="leads out"):
            open_run(run.checkpoint("last"))
        with run.locked():
            pass
    assert files(tmp_path) == before
    (run.folder / where).unlink()
    elsewhere.rename(run.folder / "inside")
    (run.folder / where).symlink_to(run.folder / "inside")
    assert same(open_run(run.folder)[1], checkpoint)
    assert run.history() == checkpoint.progress.epochs


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_what_is_no_ordinary_file_is_refused_at_once(checkpoint, tmp_path, kind, monkeypatch):
    run = Run(tmp_path)
    for read, path in ((run.load, run.checkpoint("last")), (run.history, run.history_file)):
        path.parent.mkdir(exist_ok=True)
        match kind:
            case "pipe":
                os.mkfifo(path)
            case "device":
                path.symlink_to("/dev/zero")
                monkeypatch.setattr(Run, "require_inside", lambda run, path: None)
            case "folder":
                path.mkdir()
        with pytest.raises(RunError, match=r"cannot be read \(it is not an ordinary file\)\.$"):
            read()


def test_a_file_that_is_too_large_is_refused_before_it_is_read_whole(checkpoint, tmp_path):
    run = Run(tmp_path)
    write_all(run, checkpoint)
    for read, path, most in (
        (run.load, run.checkpoint("last"), 2**30),
        (run.history, run.history_file, 2**28),
    ):
        os.truncate(path, most + 1)  # without blocks on the disk
        with pytest.raises(RunError, match=rf"cannot be read \(it is larger than {most} bytes"):
            read()


CONFIG_FIELDS = [
    ("pixels", [28, 28, 28]),
    ("pixels", [40_000, 40_000]),
    ("pixels", [0, 28]),
    ("pixels", [28, 29]),
    ("pixels", 28),
    ("pixels", [28.0, 28]),
    ("pixels", [True, True]),
    ("classes", [1, 2, *"cdefghij"]),
    ("classes", [[], *"bcdefghij"]),
    ("classes", "abcdefghij"),
    ("classes", ["a" * 256, *"bcdefghij"]),
    ("backend", []),
    ("backend", "torch\n"),
    ("backend", None),
    ("data", 5),
    ("data", ["x"]),
    ("limit_train", 0),
    ("limit_train", "8"),
    ("limit_test", -1),
    ("channels", "1"),
    ("channels", 2),
    ("channels", 10**9),
    ("fingerprint", 7),
    ("fingerprint", "x\x1b[2J"),
]
RECIPE_FIELDS = [
    ("name", []),
    ("name", "\x1b[2J"),
    ("spec", {}),
    ("size", 10**6),
    ("size", 9.0),
    ("epochs", 10**12),
    ("batch_size", 2**40),
    ("nesterov", "no"),
    ("flip", 1),
    ("lr", []),
    ("precision", None),
    ("seed", True),
]
PROGRESS_FIELDS = [
    ("steps", -1),
    ("steps", 1.5),
    ("right", None),
    ("seconds", -1),
    ("seconds", float("inf")),
    ("wait", "1"),
    ("losses", [None]),
    ("losses", [float("nan")]),
    ("losses", 5),
    ("places", []),
    ("places", {"batch": "cpu"}),
    ("epochs", [5]),
    ("epochs", {}),
]
EPOCH_FIELDS = [
    ("number", 2),
    ("number", "1"),
    ("loss", None),
    ("loss", float("nan")),
    ("loss", 2**1024),
    ("test_accuracy", 2.0),
    ("train_accuracy", -0.5),
    ("examples", 0),
    ("seconds", 0),
    ("wait", float("inf")),
    ("backend", []),
    ("version", "2\n0"),
    ("device", "gpu\x1b]0;x\x07"),
    ("places", {"batch": ["cpu\u202e"]}),
    ("losses", []),
    ("losses", ["2"]),
]
FIELDS = {
    "config": CONFIG_FIELDS,
    "recipe": RECIPE_FIELDS,
    "progress": PROGRESS_FIELDS,
    "epoch": EPOCH_FIELDS,
}


def part(found, name):
    """A part of a checkpoint's JSON."""
    inner = {"recipe": ("config", "recipe"), "epoch": ("progress", "epochs", 0)}
    for key in inner.get(name, (name,)):
        found = found[key]
    return found


@pytest.mark.parametrize(
    ("where", "field", "value"),
    [(where, *row) for where, rows in FIELDS.items() for row in rows],
)
def test_each_field_of_a_checkpoint_is_checked_for_type_and_range(
    checkpoint, tmp_path, where, field, value
):
    arrays, found = opened(checkpoint)
    part(found, where)[field] = value
    path = tmp_path / "bad"
    path.write_bytes(sealed(arrays, found))
    with pytest.raises(RunError) as caught:
        read_checkpoint(path)
    sentence = str(caught.value)
    assert sentence.startswith(f"{path} is not a checkpoint of this program: ")
    assert field.removesuffix("s") in sentence
    assert sentence.isprintable()
    assert len(sentence) < len(str(path)) + 300


@pytest.mark.parametrize(("field", "value"), EPOCH_FIELDS)
def test_each_field_of_a_history_is_checked_for_type_and_range(tmp_path, field, value):
    path = tmp_path / "history.jsonl"
    path.write_text(json.dumps(history.signed(asdict(EPOCH) | {field: value})))
    with pytest.raises(RunError, match=r"history.jsonl, line 1, is not a valid epoch \(") as caught:
        read_history(path)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("where", FIELDS)
def test_a_field_of_a_newer_version_is_named(checkpoint, tmp_path, where):
    arrays, found = opened(checkpoint)
    part(found, where)["wings"] = 2
    (tmp_path / "new").write_bytes(sealed(arrays, found))
    with pytest.raises(RunError, match=r"has the field 'wings', .*: update this program\.$"):
        read_checkpoint(tmp_path / "new")


def test_json_that_would_fill_the_memory_is_refused(checkpoint, tmp_path, monkeypatch):
    arrays, _ = opened(checkpoint)
    for name, text in (("MOST_PARTS", "[" + "[]," * 50 + "[]]"), ("MOST_TEXT", " " * 50 + "{}")):
        with monkeypatch.context() as patch:
            patch.setattr(fields, name, 40)
            (tmp_path / "bomb").write_bytes(sealed(arrays, text))
            with pytest.raises(RunError, match="its JSON is larger than that of any run"):
                read_checkpoint(tmp_path / "bomb")


def test_a_run_that_could_not_be_read_again_is_not_begun(recipe, pictures):
    data = pictures(8, 4)
    for change in ({"classes": ("a" * 256, "b")}, {"classes": ("a",)}):
        with pytest.raises(RunError, match=r"^This run is not possible: its classes"):
            Config.of(recipe, "torch", replace(data, **change))
    with pytest.raises(RunError, match=r"^This run is not possible: its recipe's size"):
        Config.of(replace(recipe, size=5000), "torch", data)


# A picture


@pytest.mark.parametrize(
    "error", [ValueError("of\nmatplotlib\x1b"), MemoryError(), OSError(28, "x")]
)
def test_a_picture_that_cannot_be_drawn_is_a_warning(
    checkpoint, tmp_path, monkeypatch, capsys, error
):
    def fail(epochs, title):
        raise error

    monkeypatch.setattr("common.training.plots.curve", fail)
    run = Run(tmp_path)
    run.record(checkpoint.progress.epochs)
    assert read_history(run.history_file) == checkpoint.progress.epochs
    err = capsys.readouterr().err
    assert err.startswith(f"warning: {run.curve_file} is not drawn: ")
    assert err.rstrip("\n").isprintable()


@pytest.mark.parametrize("name", ["${MODEL}_$SEED", os.fsdecode(b"\xff\xfe$"), "猫\n\x1b", "_x"])
def test_a_run_may_have_any_name(checkpoint, tmp_path, capsys, name):
    run = Run(tmp_path / name)
    run.record(checkpoint.progress.epochs)
    assert run.curve_file.read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().err == ""


# The history


def test_the_history_comes_back_whole(checkpoint, tmp_path):
    run = Run(tmp_path)
    epochs = checkpoint.progress.epochs
    for each in ([], epochs[:1], epochs):
        run.record(each)
        assert read_history(run.history_file) == each
        assert run.curve_file.read_bytes().startswith(b"\x89PNG")
    assert len(run.history_file.read_text().splitlines()) == 2


DAMAGE = {
    "cut": lambda text: text[:-20],
    "flipped": lambda text: text.replace('"loss": 2.25', '"loss": 2,25'),
    "digit": lambda text: text.replace('"loss": 2.25', '"loss": 2.26'),
    "swapped": lambda text: "".join(text.splitlines(True)[::-1]),
    "name": lambda text: text.replace('"loss"', '"lass"'),
    "more": lambda text: text.replace('"loss"', '"more": 1, "loss"'),
    "empty": lambda text: "\n" + text,
    "number": lambda text: "5\n" + text,
    "null": lambda text: text + "null\n",
    "list": lambda text: "[]\n" + text,
    "deep": lambda text: "[" * 100_000 + "\n" + text,
    "text": lambda text: text.replace('"loss": 2.25', '"loss": "2.25"'),
    "no losses": lambda text: text.replace("[2.5, 2.0, 0.1]", "null"),
    "losses": lambda text: text.replace("[2.5, 2.0, 0.1]", '["a"]'),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_line_of_the_history_is_named(checkpoint, tmp_path, damage):
    run = Run(tmp_path)
    run.record(checkpoint.progress.epochs)
    text = run.history_file.read_text()
    bad = DAMAGE[damage](text)
    assert bad != text
    run.history_file.write_text(bad)
    line = {"cut": 2, "null": 3}.get(damage, 1)
    with pytest.raises(RunError, match=rf"history.jsonl, line {line}, .*`--resume` "):
        read_history(run.history_file)


def test_a_history_that_is_no_text_or_not_there_is_refused(tmp_path):
    for data in (None, b"\xff\xfe\x00"):
        if data:
            (tmp_path / "history.jsonl").write_bytes(data)
        with pytest.raises(RunError, match=r"history.jsonl cannot be read "):
            read_history(tmp_path / "history.jsonl")


@settings(deadline=None, max_examples=100)
@given(st.text(max_size=50) | json_values.map(json.dumps))
def test_no_text_raises_anything_but_a_run_error(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with contextlib.suppress(RunError):
        assert read_history(path) == []
