"""Fashion-MNIST: what is read, refused, found and downloaded. No test needs a network.

Long because one server misbehaves in every way that a download must survive.
"""

import gzip
import hashlib
import io
import os
import re
import subprocess
import sys
import threading
import tracemalloc
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pooch
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.data import downloads, fashion_mnist, sampling, sources
from common.errors import DataError, GoogLeNetError
from common.files import ROOT

FULL, DEBIAN_FOLDER = fashion_mnist.FULL, fashion_mnist.DEBIAN_FOLDER
TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = NAMES = tuple(FULL)
PACKED = {name: (fashion_mnist.SAMPLE_FOLDER / f"{name}.gz").read_bytes() for name in NAMES}
RAW = {name: gzip.decompress(packed) for name, packed in PACKED.items()}


def set_full(monkeypatch, contents):
    """Let these be the four files of the whole set, for what finds them and what downloads them."""
    for module in (sources, fashion_mnist):
        monkeypatch.setattr(module, "FULL", contents)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """Let the sample stand for the whole set, and nothing outside of tmp_path be found."""
    set_full(monkeypatch, fashion_mnist.SAMPLE)
    monkeypatch.setattr(sources, "DEBIAN_FOLDER", tmp_path / "debian")
    monkeypatch.setattr(fashion_mnist, "MIRRORS", ())
    monkeypatch.setenv("GOOGLENET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return tmp_path


def fill(folder, names=NAMES):
    folder.mkdir()
    for name in names:
        (folder / f"{name}.gz").write_bytes(PACKED[name])
    return folder


def refusal(call, *words):
    """Check that `call` raises DataError with one sentence that has the `words`."""
    with pytest.raises(DataError) as caught:
        call()
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert ". " not in sentence, "more than one sentence"
    assert len(sentence) < 600
    assert [word for word in words if word not in sentence] == [], sentence


def head(*shape, kind=8):
    return bytes([0, 0, kind, len(shape)]) + b"".join(n.to_bytes(4, "big") for n in shape)


def idx(array):
    return head(*array.shape) + array.astype(np.uint8).tobytes()


def cut_sample(full):
    """Return the unpacked files of the sample: the first 80 and 20 of each class, in order."""
    files = {}
    for part, images, labels, count in (
        ("train", full.train_images, full.train_labels, 80),
        ("t10k", full.test_images, full.test_labels, 20),
    ):
        keep = np.sort(np.concatenate([np.flatnonzero(labels == k)[:count] for k in range(10)]))
        files[f"{part}-images-idx3-ubyte"] = idx(images[keep, 0])
        files[f"{part}-labels-idx1-ubyte"] = idx(labels[keep])
    return files


def sums(files):
    return {name: (len(raw), hashlib.sha256(raw).hexdigest()) for name, raw in files.items()}


def test_the_sample():
    sample = sources.load("sample")
    images, labels = sample.train_images, sample.train_labels
    assert (images.shape, images.dtype) == ((800, 1, 28, 28), np.uint8)
    assert (sample.test_images.shape, sample.test_labels.dtype) == ((200, 1, 28, 28), np.int64)
    assert np.bincount(labels).tolist() == [80] * 10
    assert np.bincount(sample.test_labels).tolist() == [20] * 10
    assert images.flags.writeable, "torch.from_numpy warns of one that is not"
    names = "T-shirt/top Trouser Pullover Dress Coat Sandal Shirt Sneaker Bag Ankle boot"
    assert (" ".join(sample.classes), sample.source) == (names, "sample")


def test_the_sample_is_cut_from_the_full_set(monkeypatch):
    if not DEBIAN_FOLDER.is_dir():
        pytest.skip(f"no full Fashion-MNIST in {DEBIAN_FOLDER} (dataset-fashion-mnist)")
    set_full(monkeypatch, FULL)
    full = sources.load(str(DEBIAN_FOLDER))
    assert (len(full.train_images), len(full.test_labels)) == (60_000, 10_000)
    assert sums(cut_sample(full)) == fashion_mnist.SAMPLE


def test_limit_takes_the_first_and_refuses_what_is_not_there():
    sample = sources.load("sample")
    few = sample.limit(train=3, test=200)
    assert few.train_images.tolist() == sample.train_images[:3].tolist()
    assert few.train_labels.tolist() == sample.train_labels[:3].tolist()
    assert [len(few.test_images), len(few.test_labels)] == [200, 200]
    assert len(sample.limit(None, 1).train_labels) == 800
    for wanted in (0, -1, 801):
        refusal(lambda n=wanted: sample.limit(n, None), f"--limit-train {wanted}", "800")
    refusal(lambda: sample.limit(None, 201), "--limit-test 201", "200")
    refusal(lambda: sample.limit(0, 0), "--limit-train 0", "800")


def test_a_file_may_be_unpacked(home):
    folder = fill(home / "set", NAMES[:2])
    for name in NAMES[1:]:
        (folder / name).write_bytes(RAW[name])
    (folder / f"{TRAIN_LABELS}.gz").write_bytes(b"not looked at: the unpacked one is there too")
    assert sources.load(str(folder)).train_labels.sum() == 80 * 45


def altered(raw):
    return raw[:5000] + bytes([raw[5000] ^ 1]) + raw[5001:]


HASHES = [
    fashion_mnist.SAMPLE[TEST_IMAGES][1][:12],
    sums({"": altered(RAW[TEST_IMAGES])})[""][1][:12],
]
FAULTS = {  # what is wrong: the file, its ending, its bytes (None: a folder), words of the refusal
    "truncated": (TRAIN_IMAGES, ".gz", PACKED[TRAIN_IMAGES][:-9], ["unpacked", "end"]),
    "no trailer": (TRAIN_LABELS, ".gz", PACKED[TRAIN_LABELS][:-8], ["unpacked"]),
    "altered deflate": (TEST_IMAGES, ".gz", altered(PACKED[TEST_IMAGES]), ["unpacked"]),
    "no deflate": (TEST_LABELS, ".gz", PACKED[TEST_LABELS][:10] + b"\xff" * 99, ["unpacked"]),
    "altered pixel": (TEST_IMAGES, ".gz", gzip.compress(altered(RAW[TEST_IMAGES])), HASHES),
    "altered, unpacked": (TEST_IMAGES, "", altered(RAW[TEST_IMAGES]), HASHES),
    "labels as images": (TRAIN_IMAGES, ".gz", PACKED[TRAIN_LABELS], ["SHA-256", "its 808 bytes"]),
    "not gzip": (TEST_LABELS, ".gz", RAW[TEST_LABELS], ["Not a gzipped file"]),
    "empty": (TEST_LABELS, "", b"", ["its 0 bytes"]),
    "trailing": (TEST_LABELS, "", RAW[TEST_LABELS] + b"\0", ["more than the expected 208"]),
    "a folder": (TRAIN_LABELS, "", None, ["is not a file"]),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("place", ["set", "cache", "partial cache", "debian"])
def test_a_damaged_file_is_refused_wherever_it_is(home, fault, place):
    name, ending, content, words = FAULTS[fault]
    folder = fill(home / place.split()[-1], [] if "partial" in place else NAMES)
    if "cache" in place:
        fill(home / "debian")  # not to be fallen back to in silence
    path = folder / f"{name}{ending}"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    way_out = {"set": "--data DIR", "debian": "--reinstall"}.get(place, "delete it")
    source = str(folder) if place == "set" else None
    refusal(lambda: sources.load(source), str(path), *words, "--data sample", way_out)


def test_folders_that_cannot_be_read(home, monkeypatch):
    refusal(
        lambda: sources.load(str(home / "none")), str(home / "none"), "is missing", "--data DIR"
    )
    folder = fill(home / "set", NAMES[1:])
    refusal(
        lambda: sources.load(str(folder)), str(folder), f"lacks {TRAIN_IMAGES}", "--data sample"
    )
    refusal(lambda: sources.load("a\0b"), "null")
    file = folder / f"{TRAIN_LABELS}.gz"
    refusal(lambda: sources.load(str(file)), f"{file} is a file, not a folder; give")
    monkeypatch.setenv("GOOGLENET_CACHE", str(file))
    refusal(sources.load, f"{file} is a file, not a folder", "GOOGLENET_CACHE")
    os.mkfifo(folder / TRAIN_IMAGES)
    refusal(lambda: sources.load(str(folder)), TRAIN_IMAGES, "is not a file")

    def denied(*_):
        raise PermissionError(13, "Permission denied")  # root, as tests often run, never meets one

    monkeypatch.setattr(gzip, "open", denied)
    refusal(lambda: sources.load("sample"), TRAIN_IMAGES, "(Permission denied)", "git")
    monkeypatch.setattr(os, "listdir", denied)
    refusal(lambda: sources.load(str(folder)), str(folder), "(Permission denied)", "--data")


def test_a_small_file_that_unpacks_to_much_is_not_unpacked(home):
    folder = fill(home / "set")
    (folder / f"{TEST_LABELS}.gz").write_bytes(gzip.compress(bytes(2**26)))
    tracemalloc.start()
    try:
        refusal(lambda: sources.load(str(folder)), TEST_LABELS, "more than the expected 208 bytes")
        assert tracemalloc.get_traced_memory()[1] < 2**23
    finally:
        tracemalloc.stop()


@pytest.fixture
def server():
    """Serve on 127.0.0.1: /good/ the files, /wrong/ others, /cut/ a part of each, else 404.

    /long/ announces too much, /endless/ sends far too much, /slow/ a byte now and then, /mute/
    nothing at all, /head/ a long header; /late/ waits for all before it gives the files.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            _, folder, file = self.path.split("/")
            http.asked.append(self.path)
            good = PACKED[file.removesuffix(".gz")]
            if folder in ("endless", "slow", "mute", "head"):
                self.drip(folder)
                return
            if folder == "late":
                http.barrier.wait(200)
            body = {"wrong": PACKED[TEST_LABELS][:-1], "cut": good[:99], "long": b""}.get(folder)
            body = good if folder in ("good", "late") else body
            self.send_response(404 if body is None else 200)
            length = 10**12 if folder == "long" else len(good if folder == "cut" else body or b"")
            self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(body or b"")

        def drip(self, folder):
            try:
                if folder != "mute":
                    self.wfile.write(b"HTTP/1.0 200 OK\r\n" + b"\r\n" * (folder != "head"))
                for _ in range(400):
                    if http.over.wait(0 if folder == "endless" else 0.05):
                        break
                    self.wfile.write({"endless": bytes(2**16), "mute": b""}.get(folder, b"x"))
                    http.sent += 2**16 * (folder == "endless")
            except OSError:
                pass  # the client has gone

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        http.asked, http.sent, http.over = [], 0, threading.Event()
        http.url = f"http://127.0.0.1:{http.server_port}"
        thread = threading.Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        yield http
        http.over.set()
        http.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("bad", "reason"),
    [("missing", "404"), ("wrong", "damaged"), ("cut", ""), ("unreachable", "127.0.0.1")],
)
def test_a_download_asks_the_next_mirror_and_leaves_nothing_wrong(
    home, server, monkeypatch, bad, reason
):
    first = "http://127.0.0.1:1" if bad == "unreachable" else f"{server.url}/{bad}"

    monkeypatch.setattr(fashion_mnist, "MIRRORS", (first,))
    ways = ("--data DIR", "--data sample", "apt-get install dataset-fashion-mnist")
    refusal(sources.load, TRAIN_IMAGES, "could not be downloaded", reason, *ways)
    assert os.listdir(home / "cache") == []

    monkeypatch.setattr(fashion_mnist, "MIRRORS", (first, f"{server.url}/good"))
    loaded = sources.load()
    assert loaded.source == str(home / "cache")
    assert (loaded.train_images == sources.load("sample").train_images).all()
    assert sorted(os.listdir(home / "cache")) == sorted(f"{name}.gz" for name in NAMES)
    assert [path for path in server.asked if "good" in path] == [f"/good/{n}.gz" for n in NAMES]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("long", "announces 1000000000000 bytes, more than 6"),
        ("endless", "sends more than 6"),
        ("slow", "took more than 0 seconds"),
        ("head", "took more than 0 seconds"),
        ("mute", "took more than 0 seconds"),
    ],
)
def test_a_download_stops_at_the_known_size_and_at_the_deadline(
    home, server, monkeypatch, bad, reason
):
    """The next mirror has as much time; nothing is left of the first."""
    monkeypatch.setattr(sources, "DOWNLOAD_SECONDS", 0.4 if "took" in reason else 60)
    monkeypatch.setattr(fashion_mnist, "MIRRORS", (f"{server.url}/{bad}",))
    refusal(sources.load, TRAIN_IMAGES, "could not be downloaded", reason, "--data DIR")
    assert server.sent < 2**23, "most of it waits in buffers"
    assert os.listdir(home / "cache") == []
    monkeypatch.setattr(sources, "DOWNLOAD_SECONDS", 60)
    monkeypatch.setattr(fashion_mnist, "MIRRORS", (f"{server.url}/good",))
    assert len(sources.load().train_labels) == 800


def test_the_progress_of_a_download_ends_at_the_size_of_the_file(server, monkeypatch):
    drawn = []

    @contextmanager
    def progress(what, total, unit):
        drawn.append([total])
        yield SimpleNamespace(advance=drawn[-1].append)

    monkeypatch.setattr(downloads, "progress", progress)
    packed = PACKED[TRAIN_IMAGES]
    assert downloads.fetch(f"{server.url}/good/{TRAIN_IMAGES}.gz", len(packed), 20) == packed
    ((total, *parts),) = drawn
    assert total == pytest.approx(sum(parts)) == pytest.approx(len(packed) / 1e6)


def test_the_deadline_is_for_all_files_together(home, monkeypatch):
    monkeypatch.setattr(fashion_mnist, "MIRRORS", ("a", "b"))
    monkeypatch.setattr(sources, "DOWNLOAD_SECONDS", 60)
    given = []

    def fetch(url, most, seconds):
        given.append((url, most, seconds))
        if url.startswith("a"):
            raise OSError("no")
        return PACKED[url[2:-3]]

    monkeypatch.setattr(fashion_mnist, "fetch", fetch)
    clock = iter(range(0, 1000, 6))
    monkeypatch.setattr(fashion_mnist.time, "monotonic", lambda: float(next(clock)))
    sources.load()
    assert [url for url, _, _ in given] == [f"{m}/{n}.gz" for n in NAMES for m in "ab"]
    left = range(54, 0, -6)  # one look at the clock for each try
    want = [left[n] / (2 - n % 2) for n in range(8)]
    assert [seconds for _, _, seconds in given] == want
    for url, most, _ in given:
        size = len(RAW[url[2:-3]])
        assert size < most < size * 1.01 + 2000


def test_https_is_asked_before_http():
    source = (ROOT / "common" / "data" / "fashion_mnist.py").read_text()
    mirrors = re.findall(r'"(https?)://[^"]+"', source[source.index("MIRRORS = (") :])
    assert mirrors == ["https", "http"]


def test_processes_that_download_at_once_do_not_disturb_each_other(home, server, monkeypatch):
    """All ask for each file before one of them has it."""
    count = 3
    server.barrier = threading.Barrier(count)
    code = "import sys; from common.data import downloads, fashion_mnist, sources\n"
    code += "downloads.SILENCE = 200\n"  # on a busy machine the last one comes late
    code += "sources.FULL = fashion_mnist.FULL = fashion_mnist.SAMPLE\n"
    code += "sources.DEBIAN_FOLDER = sources.DEBIAN_FOLDER / 'none'\n"
    code += "fashion_mnist.MIRRORS = (sys.argv[1],)\n"
    code += "sources.Folder.present = lambda self: {}\n"
    code += "print(sources.load().train_labels.sum())"
    command = [sys.executable, "-c", code, f"{server.url}/late"]
    options = {"cwd": ROOT, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    running = [subprocess.Popen(command, **options) for _ in range(count)]
    for each in running:
        assert each.communicate(timeout=200) == (f"{80 * 45}\n", "")
    assert len(server.asked) == count * len(NAMES)
    assert sorted(os.listdir(home / "cache")) == sorted(f"{name}.gz" for name in NAMES)
    for name in NAMES:
        assert (home / "cache" / f"{name}.gz").read_bytes() == PACKED[name]


def test_what_another_process_downloaded_meanwhile_is_not_downloaded_again(
    home, server, monkeypatch
):
    monkeypatch.setattr(fashion_mnist, "MIRRORS", (f"{server.url}/good",))
    download = sources.download

    def slow(name, cache, until):
        found = download(name, cache, until)
        for other in NAMES:
            (cache / f"{other}.gz").write_bytes(PACKED[other])
        return found

    monkeypatch.setattr(sources, "download", slow)
    sources.load()
    assert server.asked == [f"/good/{TRAIN_IMAGES}.gz"]


def test_the_order_is_cache_then_debian_then_a_download_of_what_lacks(home, server, monkeypatch):
    monkeypatch.setattr(fashion_mnist, "MIRRORS", (f"{server.url}/good",))
    monkeypatch.setattr(sys, "stderr", terminal := io.StringIO())
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    fill(home / "cache", NAMES[:3])
    fill(home / "debian")
    assert sources.load().source == str(home / "debian")
    assert server.asked == []
    (home / "debian" / f"{TRAIN_IMAGES}.gz").unlink()
    assert sources.load().source == str(home / "cache")
    assert server.asked == [f"/good/{TEST_LABELS}.gz"]
    assert "downloading" in terminal.getvalue()
    (home / "debian" / TRAIN_IMAGES).write_bytes(RAW[TRAIN_IMAGES])
    assert sources.load().source == str(home / "cache")
    assert len(server.asked) == 1
    monkeypatch.delenv("GOOGLENET_CACHE")
    assert fashion_mnist.cache_folder() == Path(pooch.os_cache("googlenet"))


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "ends after 0 bytes"),
        (b"\0\0\x08", "ends after 3 bytes"),
        (b"\0\x01\x08\x01\0\0\0\x01a", "begins with 0x0001"),
        (head(1, kind=13) + b"a", "type 0x0d"),
        (head(), "has 0 dimensions"),
        (head(*[1] * 33) + b"a", "has 33 dimensions"),
        (head(1, 2)[:-1], "truncated"),
        (head(2, 3) + bytes(5), "has 5 bytes of elements, its shape (2, 3) takes 6"),
        (head(2, 3) + bytes(7), "has 7 bytes of elements"),
        (head(2**31, 2**31, 4), "has 0 bytes of elements"),  # their product in 64 bits
        (head(0, 2**32 - 1, 2**32 - 1, 2**32 - 1), "is empty"),  # too much for reshape
    ],
)
def test_a_malformed_idx_file_is_refused(raw, words):
    refusal(lambda: fashion_mnist.parse_idx(raw, "FILE"), "FILE", words)


def mutated(valid):
    """Return a strategy of `valid` with some bytes set, most in its head, cut or grown."""

    def apply(edits, stop, tail):
        raw = bytearray(valid)
        for at, value in edits:
            raw[at] = value
        return bytes(raw[:stop]) + tail

    at = st.integers(0, 20) | st.integers(0, len(valid) - 1)
    edits = st.lists(st.tuples(at, st.integers(0, 255)), max_size=4)
    return st.builds(apply, edits, st.none() | at, st.just(b"") | st.binary(max_size=40))


SHAPES = st.lists(st.integers(0, 3) | st.integers(0, 2**32 - 1) | st.just(1), max_size=40)
HEADED = st.builds(lambda sizes, rest: head(*sizes) + rest, SHAPES, st.binary(max_size=9))


@settings(max_examples=400, deadline=None)
@given(st.binary(max_size=64) | HEADED | mutated(RAW[TEST_LABELS]))
def test_any_bytes_parse_or_are_refused(raw):
    try:
        array = fashion_mnist.parse_idx(raw, "FILE")
    except DataError:
        return
    assert idx(array) == raw


@settings(max_examples=400, deadline=None)
@given(mutated(PACKED[TEST_LABELS]) | st.binary(max_size=64).map(b"\x1f\x8b\x08".__add__))
def test_any_gzip_file_unpacks_to_the_right_bytes_or_is_refused(tmp_path_factory, packed):
    path = tmp_path_factory.getbasetemp() / "fuzzed.gz"
    path.write_bytes(packed)
    try:
        raw = fashion_mnist.unpack(path, *fashion_mnist.SAMPLE[TEST_LABELS])
    except DataError:
        return
    assert raw == RAW[TEST_LABELS]


@pytest.mark.parametrize(
    ("images", "labels", "words"),
    [
        ((2, 28, 27), np.zeros(2), "not (N, 28, 28)"),
        ((2, 784), np.zeros(2), "not (N, 28, 28)"),
        ((2, 28, 28), np.zeros(3), "not (2,)"),
        ((2, 28, 28), np.zeros((2, 1)), "not (2,)"),
        ((2, 28, 28), np.array([9, 10]), "label 10"),
    ],
)
def test_images_and_labels_that_do_not_fit_are_refused(home, monkeypatch, images, labels, words):
    raw = {**RAW, TEST_IMAGES: idx(np.zeros(images)), TEST_LABELS: idx(labels)}
    for name in NAMES:
        (home / name).write_bytes(raw[name])
    set_full(monkeypatch, sums(raw))
    refusal(lambda: sources.load(str(home)), "t10k", str(home), words)


@settings(deadline=None)
@given(st.integers(0, 300), st.integers(1, 400), st.integers(0, 2**32 - 1), st.integers(0, 99))
def test_an_epoch_has_every_example_once(count, size, seed, epoch):
    cut = list(sampling.batches(count, size, seed, epoch))
    assert sorted(np.concatenate([*cut, np.zeros(0, int)])) == list(range(count))
    assert all(len(batch) == size for batch in cut[:-1])
    assert all(1 <= len(batch) <= size and batch.dtype == np.int64 for batch in cut)


def test_the_order_of_an_epoch_is_the_same_with_every_numpy():
    first = next(sampling.batches(800, 8, seed=0, epoch=0))
    assert first.tolist() == [127, 399, 659, 570, 200, 379, 3, 555]
    whole = {
        f"{s} {e}": next(sampling.batches(60_000, 60_000, s, e)) for s in (0, 7) for e in (0, 1)
    }
    found = {
        key: hashlib.sha256(order.astype("<i8")).hexdigest()[:8] for key, order in whole.items()
    }
    assert found == {"0 0": "1cfcb040", "0 1": "22714cd0", "7 0": "d53669c5", "7 1": "c27b6978"}


def test_flips_are_the_same_with_every_numpy_and_drawn_anew_each_epoch():
    found = sampling.flip_mask(16, seed=0, epoch=0)
    assert (found.dtype, found.shape) == (bool, (16,))
    assert found.astype(int).tolist() == [0, 0, 1, 1, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 1, 1]
    whole = {
        (seed, epoch): sampling.flip_mask(60_000, seed, epoch)
        for seed in (0, 7)
        for epoch in (0, 1)
    }
    for drawn in whole.values():
        assert abs(drawn.mean() - 0.5) < 0.01
    keys = list(whole)
    for index, one in enumerate(keys):
        for other in keys[:index]:
            assert abs((whole[one] == whole[other]).mean() - 0.5) < 0.01, (one, other)
    order = next(sampling.batches(60_000, 60_000, 0, 0))
    early = whole[0, 0][order[:30_000]].mean()
    assert abs(early - 0.5) < 0.01, "the order and the flips are drawn apart"


@pytest.mark.parametrize(
    ("size", "seed", "words"),
    [
        (0, 0, "--batch-size 0 "),
        (-1, 0, "--batch-size -1 "),
        (1, -1, "--seed -1 "),
        (1, 2**32, "--seed"),
    ],
)
def test_batches_that_make_no_sense_are_refused_at_once(size, seed, words):
    with pytest.raises(GoogLeNetError, match=words):
        sampling.batches(10, size, seed, 0)


def test_the_import_takes_no_framework_and_no_pooch():
    check = "import sys, common.data.sources, common.data.sampling\n"
    check += "print({'pooch', 'torch', 'requests'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr
