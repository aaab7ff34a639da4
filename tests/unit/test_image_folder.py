"""Folders of class folders: what is read, how it is decoded, what is refused.

Long because every kind of image file has its case.
"""

# ruff: noqa: D102 - common/contract.py says what a backend's methods do

import os
import re
import signal
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from common.data import fashion_mnist, image_decoder, image_files, image_folder, sources
from common.data.sources import load
from common.errors import DataError
from common.recipe import Recipe
from common.training.checkpoint import Checkpoint, Config
from common.training.loop import TrainingLoop

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def put(path, colour=RED, size=(8, 6), mode="RGB", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path, **options)
    return path


@pytest.fixture
def home(tmp_path):
    """Three classes of colour, of unequal counts; the label of an image can be seen in it."""
    for part, count in (("train", 3), ("test", 1)):
        for extra, (name, colour) in enumerate((("blue", BLUE), ("green", GREEN), ("red", RED))):
            for number in range(count + extra):
                put(tmp_path / "d" / part / name / f"{number}.png", colour)
    return tmp_path / "d"


def refusal(home, *words, use=lambda data: None):
    with pytest.raises(DataError) as caught:
        use(load(str(home)))
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert ". " not in sentence
    assert len(sentence) < 500
    assert [word for word in words if word not in sentence] == [], sentence


def test_classes_labels_and_pixels_belong_together(home):
    found = load(str(home))
    assert found.classes == ("blue", "green", "red")
    assert found.source == str(home)
    for images, labels, count in (
        (found.train_images, found.train_labels, 12),
        (found.test_images, found.test_labels, 6),
    ):
        assert (len(images), images.shape) == (count, (count, 3, 6, 8))
        assert (labels.dtype, labels.shape) == (np.int64, (count,))
        pixels = images[:]
        assert (pixels.dtype, pixels.shape) == (np.uint8, images.shape)
        want = np.array([BLUE, GREEN, RED], np.uint8)[labels]
        assert (pixels == want[:, :, None, None]).all()
    assert np.bincount(found.train_labels).tolist() == [3, 4, 5]


def test_an_index_array_and_a_slice_pick_images_in_their_order(home):
    images = load(str(home)).train_images
    whole = images[:]
    for which in (np.array([7, 0, 7]), slice(2, 9, 3), slice(10, 99), np.array([], int)):
        assert images[which].shape == whole[which].shape
        assert (images[which] == whole[which]).all()
    with pytest.raises(IndexError):
        images[np.array([12])]


def test_limit_decodes_nothing_and_keeps_as_many_of_each_class(home, monkeypatch):
    monkeypatch.setattr(image_files, "decode", lambda *_: pytest.fail("decoded"))
    found = load(str(home)).limit(6, 3)
    assert found.train_labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert (len(found.train_images), len(found.test_images)) == (6, 3)
    assert found.test_images.shape == (3, 3, 6, 8)
    monkeypatch.undo()
    assert found.train_images[np.array([2])][0, :, 0, 0].tolist() == [255, 0, 0]
    with pytest.raises(DataError, match="--limit-train 13"):
        load(str(home)).limit(13)


def test_grey_only_if_all_are(home, tmp_path):
    for part in image_folder.PARTS:
        for name in "ab":
            put(tmp_path / "grey" / part / name / "x.png", 7, mode="L")
            put(tmp_path / "grey" / part / name / "y.gif", 9, mode="L")
            put(tmp_path / "grey" / part / name / "z.bmp", 1, mode="1")
    found = load(str(tmp_path / "grey"))
    assert found.train_images.shape == (6, 1, 6, 8)
    assert sorted(found.train_images[:][:, 0, 0, 0]) == [7, 7, 9, 9, 255, 255]
    put(tmp_path / "grey" / "test" / "a" / "colour.png")
    found = load(str(tmp_path / "grey"))
    assert found.train_images.shape == (6, 3, 6, 8)
    assert (found.train_images[:][:, 0] == found.train_images[:][:, 2]).all()


def test_the_common_size(home):
    assert load(str(home), 8).train_images.shape[2:] == (6, 8), "all alike and small enough"
    assert load(str(home), 7).train_images.shape[2:] == (7, 7), "larger than the network's input"
    put(home / "test" / "red" / "other.jpg", RED, (50, 40))
    found = load(str(home), 20)
    assert (found.train_images.shape[2:], found.test_images.shape[2:]) == ((20, 20), (20, 20))
    assert found.test_images[:].shape == (7, 3, 20, 20)


def test_shrinking_is_bilinear_and_averages(tmp_path):
    board = np.indices((64, 64)).sum(0) % 2 * 255
    Image.fromarray(board.astype(np.uint8)).save(tmp_path / "board.png")
    small = image_files.decode(tmp_path / "board.png", 1, 8, 8)
    assert small.shape == (1, 8, 8)
    assert abs(small.astype(int) - 127.5).max() < 3, "nearest would be all black or white"


def corners(size=(8, 6)):
    """An image whose four quarters have colours of their own."""
    image = Image.new("RGB", size, "black")
    image.paste(RED, (0, 0, size[0] // 2, size[1] // 2))
    image.paste(GREEN, (size[0] // 2, 0, size[0], size[1] // 2))
    image.paste(BLUE, (0, size[1] // 2, size[0] // 2, size[1]))
    return image


def test_another_height_and_width_keep_what_is_where(tmp_path):
    corners((80, 60)).save(tmp_path / "x.png")
    found = image_files.decode(tmp_path / "x.png", 3, 20, 50)
    assert found.shape == (3, 20, 50)
    quarters = [found[:, y, x].tolist() for y, x in ((3, 5), (3, 45), (16, 5), (16, 45))]
    assert quarters == [list(RED), list(GREEN), list(BLUE), [0, 0, 0]]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["jpg", "png", "tif", "webp"])
def test_the_camera_s_orientation_is_undone(tmp_path, orientation, ending):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"x.{ending}"
    options = (
        {"quality": 100} if ending == "jpg" else {"lossless": True} if ending == "webp" else {}
    )
    corners((64, 48)).save(path, exif=exif, **options)
    with Image.open(path) as image:
        want = np.asarray(ImageOps.exif_transpose(image).convert("RGB")).transpose(2, 0, 1)
    assert image_files.inspect_image(path) == (3, *want.shape[1:])
    assert want.shape[1:] == ((64, 48) if orientation > 4 else (48, 64))
    assert (image_files.decode(path, 3, *want.shape[1:]) == want).all()


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_is_white(tmp_path, mode):
    image = Image.new("RGBA", (4, 2), (0, 0, 0, 0))
    image.paste((0, 0, 0, 255), (0, 0, 2, 2))
    image.putpixel((1, 1), (0, 0, 0, 128))
    if mode == "P":
        image = image.quantize()
    image.convert(mode).save(tmp_path / "x.png")
    found = image_files.decode(tmp_path / "x.png", 1, 2, 4)[0].astype(int)
    assert (found[:, 2:] == 255).all()
    assert (found[:, 0] == 0).all()
    assert abs(found[1, 1] - 127) <= 1
    assert image_files.inspect_image(tmp_path / "x.png") == (3 if mode == "RGBA" else 1, 2, 4)


@pytest.mark.parametrize("ending", ["png", "tif", "pgm"])
def test_sixteen_bits_are_cut_to_eight(tmp_path, ending):
    values = np.array([[0, 256, 30_000], [32_768, 65_000, 65_535]], np.uint16)
    Image.fromarray(values).save(tmp_path / f"x.{ending}")
    found = image_files.decode(tmp_path / f"x.{ending}", 1, 2, 3)
    assert (found == np.round(values / 257)).all()
    assert image_files.inspect_image(tmp_path / f"x.{ending}") == (1, 2, 3)
    assert (image_files.decode(tmp_path / f"x.{ending}", 3, 2, 3) == found).all()


def test_palettes_and_other_colours(tmp_path):
    corners().quantize().save(tmp_path / "p.png")
    corners().convert("CMYK").save(tmp_path / "cmyk.tif")
    frames = [corners(), Image.new("RGB", (8, 6))]
    frames[0].save(tmp_path / "frames.gif", save_all=True, append_images=frames[1:])
    want = np.asarray(corners()).transpose(2, 0, 1)
    for name in ("p.png", "cmyk.tif", "frames.gif"):
        assert image_files.inspect_image(tmp_path / name) == (3, 6, 8)
        assert (image_files.decode(tmp_path / name, 3, 6, 8) == want).all(), name
    (tmp_path / "none.png").write_bytes(png(2, 1, colour=3, rows=b"\0\1\2"))
    assert image_files.inspect_image(tmp_path / "none.png") == (1, 1, 2), "black without a palette"
    assert not image_files.decode(tmp_path / "none.png", 1, 1, 2).any()


def test_hidden_and_other_files_are_passed_over(home):
    before = len(load(str(home)).train_images)
    for name in ("Thumbs.db", "notes.txt", ".hidden.png"):
        (home / "train" / "red" / name).write_text("no image")
    (home / "train" / ".cache").mkdir()
    (home / "train" / "red" / ".cache").mkdir()
    (home / "labels.csv").write_text("")
    put(home / "train" / "red" / "UPPER.PNG")
    assert len(load(str(home)).train_images) == before + 1


def empty(folder):
    for file in folder.iterdir():
        file.unlink()


WRONG = {
    "no train": (lambda home: (home / "train").rename(home / "training"), "train is missing"),
    "no test": (lambda home: (home / "test").rename(home / "other"), "test is missing"),
    "a class in one": (lambda home: put(home / "train" / "violet" / "x.png"), "train/violet"),
    "a class in the other": (lambda home: put(home / "test" / "violet" / "x.png"), "test/violet"),
    "an empty class": (lambda home: empty(home / "test" / "red"), "test/red holds no image"),
    "an image in no class": (lambda home: put(home / "train" / "x.png"), "train/x.png"),
    "a folder in a class": (lambda home: put(home / "train/red/deep/x.png"), "train/red/deep"),
    "a text": (lambda home: (home / "train/red/0.png").write_text("text"), "train/red/0.png"),
    "nothing": (lambda home: (home / "train/red/0.png").write_bytes(b""), "train/red/0.png"),
    "a loop": (lambda home: (home / "train/red/l.png").symlink_to("l.png"), "train/red/l.png"),
    "a loop of a class": (lambda home: (home / "train/l").symlink_to("l"), "train/l"),
    "the folder in itself": (lambda home: (home / "train/red/l").symlink_to(home), "train/red/l"),
    "a dead link": (lambda home: (home / "train/red/l.png").symlink_to("no"), "train/red/l.png"),
    "a pipe": (lambda home: os.mkfifo(home / "train/red/pipe.png"), "train/red/pipe.png"),
    "floats": (
        lambda home: Image.new("F", (2, 2)).save(home / "train/red/f.tif"),
        "train/red/f.tif",
    ),
}


@pytest.mark.parametrize("fault", WRONG)
def test_what_is_wrong_is_named(home, fault):
    inject, name = WRONG[fault]
    load(str(home))
    inject(home)
    refusal(home, name, ";")


def test_one_class_is_too_few(tmp_path):
    for part in image_folder.PARTS:
        put(tmp_path / part / "only" / "x.png")
    refusal(tmp_path, str(tmp_path), "two classes")


def png(width, height, colour=0, rows=b""):
    import zlib

    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    parts = chunk(b"IHDR", head), chunk(b"IDAT", rows and zlib.compress(rows)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("side", [9_500, 20_000])  # beyond Pillow's warning, beyond its error
def test_an_image_that_unpacks_to_too_much_is_refused(home, side):
    (home / "train" / "red" / "bomb.png").write_bytes(png(side, side))
    refusal(home, "bomb.png", "pixels")


@pytest.mark.parametrize("ending", ["png", "jpg", "bmp", "gif", "webp", "tif", "ppm"])
def test_a_cut_image_is_refused_by_name_when_it_is_asked_for(home, ending):
    noise = np.random.RandomState(0).randint(0, 256, (40, 40, 3)).astype(np.uint8)
    path = home / "train" / "blue" / f"0cut.{ending}"
    Image.fromarray(noise).save(path)
    load(str(home)).train_images[:]
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    first = np.arange(4)
    refusal(home, path.name, "replace it", use=lambda data: data.train_images[first])


# --- the process that decodes


@pytest.fixture
def decoder():
    """The process that decodes images, new and started."""
    image_files._decoder.stop()
    yield image_files._decoder.running()
    image_files._decoder.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems cannot ask for the limits")
def test_an_image_is_decoded_with_1_gb_and_10_seconds(tmp_path, decoder):
    import resource

    image_files.decode(put(tmp_path / "x.png"), 3, 6, 8)
    memory, _ = resource.prlimit(decoder.pid, resource.RLIMIT_AS)
    seconds, _ = resource.prlimit(decoder.pid, resource.RLIMIT_CPU)
    written, _ = resource.prlimit(decoder.pid, resource.RLIMIT_FSIZE)
    assert (memory, written) == (2**30, 0)
    assert 10 < seconds <= 13, "since it started"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems cannot set the limits")
@pytest.mark.parametrize("mode", ["L", "RGBA", "I;16"])
def test_an_image_that_needs_more_memory_is_refused_and_the_next_one_is_read(
    tmp_path, decoder, mode
):
    import resource

    bomb, good = put(tmp_path / "bomb.png", None, (4000, 4000), mode), put(tmp_path / "good.png")
    assert bomb.stat().st_size < 100_000
    image_files.decode(good, 3, 6, 8)
    status = Path(f"/proc/{decoder.pid}/status").read_text()
    used = int(re.search(r"VmSize:\s+(\d+) kB", status)[1]) * 1024
    resource.prlimit(decoder.pid, resource.RLIMIT_AS, (used + 2**23, 2**30))
    with pytest.raises(DataError, match=r"bomb\.png .*\(it needs more than 1 GB of memory\); "):
        image_files.decode(bomb, 3, 20, 20)
    assert image_files.decode(good, 3, 6, 8)[:, 0, 0].tolist() == list(RED)
    assert image_files._decoder.process is decoder


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
@pytest.mark.parametrize(
    ("name", "said"),
    [("SIGXCPU", r"takes more than 10 seconds"), ("SIGSEGV", r"ended the process .*, status -11")],
)
def test_an_image_that_ends_the_process_is_refused_and_the_next_one_is_read(
    tmp_path, decoder, monkeypatch, name, said
):
    path = put(tmp_path / "x.png")
    decoder.send_signal(getattr(signal, name))
    decoder.wait()
    monkeypatch.setattr(image_files.Decoder, "running", lambda self: decoder)
    with pytest.raises(DataError, match=rf"x\.png cannot be read as an image \(it {said}\); "):
        image_files.decode(path, 3, 6, 8)
    monkeypatch.undo()
    assert image_files.decode(path, 3, 6, 8).shape == (3, 6, 8)


def test_an_interrupt_does_not_give_the_next_image_these_pixels(tmp_path, decoder, monkeypatch):
    put(tmp_path / "red.png")
    put(tmp_path / "blue.png", BLUE)

    def interrupted(text):
        raise KeyboardInterrupt

    monkeypatch.setattr(image_files.json, "loads", interrupted)
    with pytest.raises(KeyboardInterrupt):
        image_files.decode(tmp_path / "red.png", 3, 6, 8)
    monkeypatch.undo()
    assert image_files.decode(tmp_path / "blue.png", 3, 6, 8)[:, 0, 0].tolist() == list(BLUE)


@pytest.mark.parametrize("mode", ["RGB", "L", "LA", "I;16"])
def test_a_large_image_is_converted_in_strips_without_a_seam(tmp_path, monkeypatch, mode):
    noise = np.random.RandomState(0).randint(0, 65_536, (40, 30)).astype(np.uint16)
    image = Image.fromarray(noise if mode == "I;16" else noise.astype(np.uint8)).convert(mode)
    image.save(tmp_path / "x.png")
    for channels in (1, 3):
        want = image_decoder.decode(tmp_path / "x.png", channels, 40, 30)[0]
        monkeypatch.setattr(image_decoder, "STRIP", 200)
        assert (image_decoder.decode(tmp_path / "x.png", channels, 40, 30)[0] == want).all()
        monkeypatch.undo()


def test_any_damage_is_refused_in_one_sentence_or_decodes(tmp_path):
    noise = np.random.RandomState(0).randint(0, 256, (24, 24, 3)).astype(np.uint8)
    draws, refused = np.random.RandomState(1), []
    for ending in ("png", "jpg", "bmp", "gif", "webp", "tif", "ppm", "jp2"):
        path = tmp_path / f"x.{ending}"
        Image.fromarray(noise).save(path)
        whole = np.frombuffer(path.read_bytes(), np.uint8)
        for _ in range(30):
            raw = whole.copy()
            raw[draws.randint(0, min(len(raw), 400), 3)] = draws.randint(0, 256, 3)
            path.write_bytes(raw.tobytes())
            try:
                _, height, width = image_files.inspect_image(path)
                if height * width < 10**6:
                    assert image_files.decode(path, 3, 24, 24).shape == (3, 24, 24)
            except DataError as error:
                refused.append((path.name, str(error)))
    assert len(refused) > 40
    assert all(name in said and "\n" not in said for name, said in refused)


def test_fashion_mnist_is_known_from_class_folders_by_its_files(home, tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "FULL", fashion_mnist.SAMPLE)
    mixed = tmp_path / "mixed"
    (mixed / "a folder beside").mkdir(parents=True)
    for file in fashion_mnist.SAMPLE_FOLDER.glob("*.gz"):
        (mixed / file.name).write_bytes(file.read_bytes())
    assert load(str(mixed)).train_images.shape == (800, 1, 28, 28)
    (tmp_path / "nothing").mkdir()
    refusal(tmp_path / "nothing", "train-images-idx3-ubyte", "train/CLASS/")


class Notes:
    """A backend whose trainer checks that each image has the colour of its label."""

    VERSION = "0"

    def __init__(self):
        self.seen, self.tested = [], 0

    def build(self, spec, dtype, device):
        assert (spec.input, spec.head.width) == ((3, 33, 33), 3)
        return "model"

    def write_weights(self, model, weights):
        assert weights["stage1.0.conv.weight"].shape[1] == 3

    def Trainer(self, model, recipe):
        return self

    def set_step(self, rate, seed):
        pass

    def check(self, images, labels):
        assert (images.dtype, images.shape) == (np.uint8, (len(labels), 3, 6, 8))
        want = np.array([BLUE, GREEN, RED], np.uint8)[labels]
        assert (images == want[:, :, None, None]).all()

    def prepare(self, images, flip_mask=None):
        return images

    def place_labels(self, model, labels):
        return labels

    def train_step(self, inputs, labels, weight=1.0, last=True):
        self.check(inputs, labels)
        self.seen += labels.tolist()
        return 0.5, len(labels)

    def evaluate(self, batches):
        before = self.tested
        for images, labels in batches:
            self.check(images, labels)
            self.tested += len(labels)
        count = self.tested - before
        return 0.25 * count, count, count

    def tensor_devices(self, trainer):
        return {}

    def device_name(self, tensor):
        return "cpu"

    def out_of_memory(self, error):
        return False


def test_a_run_trains_on_three_classes_in_colour(home):
    found, backend = load(str(home)), Notes()
    config = Config.of(Recipe(spec="mini", size=33, batch_size=5, epochs=2), "fake", found)
    assert (config.channels, config.classes, config.pixels) == (3, found.classes, (6, 8))
    TrainingLoop(backend, "fake", Checkpoint.first(config), found, "cpu")()
    assert np.bincount(backend.seen).tolist() == [6, 8, 10]
    assert backend.tested == 12


def test_a_damaged_image_stops_a_run_with_its_name(home):
    (home / "train" / "red" / "4.png").write_bytes(
        (home / "train" / "red" / "4.png").read_bytes()[:45]
    )
    found = load(str(home))
    config = Config.of(Recipe(spec="mini", size=33, batch_size=5, epochs=1), "fake", found)
    with pytest.raises(DataError, match=r"red/4\.png"):
        TrainingLoop(Notes(), "fake", Checkpoint.first(config), found, "cpu")()


def test_a_16_bit_image_with_a_smaller_range_is_warned_of_once(tmp_path, capsys):
    """Microscopes and scanners write 12 bits into 16: read as 16 they are almost black."""
    for name, most in (("a", 4095), ("b", 4095), ("full", 65_535)):
        values = np.linspace(0, most, 64).reshape(8, 8).astype(np.uint16)
        (tmp_path / name).mkdir()
        Image.fromarray(values).save(tmp_path / name / "x.png")
    for name in ("a", "a", "full"):
        image_files.decode(tmp_path / name / "x.png", 1, 8, 8)
    said = capsys.readouterr().err
    assert said.count("warning:") == 1
    assert "at most 4095" in said
