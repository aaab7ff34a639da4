"""Data as people have it: torchvision's folder, CSV files, other IDX sets, folders not divided."""

import gzip
import os
import struct
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from common.data import sources
from common.data.fashion_mnist import CLASSES, SAMPLE, SAMPLE_FOLDER
from common.errors import DataError


def idx(array):
    """The bytes of an IDX file."""
    header = struct.pack(">4B", 0, 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.tobytes()


def other_set(folder, size=20, classes=6, packed=True):
    """Four files of a set that is not Fashion-MNIST; its arrays."""
    random, found = np.random.RandomState(3), {}
    folder.mkdir(parents=True, exist_ok=True)
    for part, count in (("train", 40), ("t10k", 12)):
        images = random.randint(0, 256, (count, size, size)).astype(np.uint8)
        labels = (np.arange(count) % classes).astype(np.uint8)
        for name, array in ((f"{part}-images-idx3", images), (f"{part}-labels-idx1", labels)):
            data = idx(array)
            path = folder / f"{name}-ubyte{'.gz' if packed else ''}"
            path.write_bytes(gzip.compress(data) if packed else data)
        found[part] = images, labels
    return found


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("nested", ["", "MNIST/raw", "raw"])
def test_another_set_in_the_same_files_is_read_as_what_it_is(tmp_path, packed, nested):
    found = other_set(tmp_path / nested, packed=packed)
    data = sources.load(str(tmp_path))
    assert data.classes == tuple("012345")
    assert data.source == str(tmp_path)
    np.testing.assert_array_equal(data.train_images[:, 0], found["train"][0])
    np.testing.assert_array_equal(data.train_labels, found["train"][1])
    np.testing.assert_array_equal(data.test_images[:, 0], found["t10k"][0])


def test_the_folder_that_torchvision_was_given_is_enough(tmp_path, monkeypatch):
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    monkeypatch.setattr(sources, "FULL", SAMPLE)
    for path in SAMPLE_FOLDER.glob("*.gz"):
        (raw / path.name).write_bytes(path.read_bytes())
    data = sources.load(str(tmp_path))
    assert data.classes == CLASSES
    np.testing.assert_array_equal(data.train_images, sources.load("sample").train_images)


def test_one_damaged_file_of_fashion_mnist_is_not_another_set(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "FULL", SAMPLE)
    for path in SAMPLE_FOLDER.glob("*.gz"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    name = "train-labels-idx1-ubyte"
    data = gzip.decompress((tmp_path / f"{name}.gz").read_bytes())
    (tmp_path / f"{name}.gz").unlink()
    (tmp_path / name).write_bytes(data[:-1] + b"\0")
    with pytest.raises(DataError, match="train-labels-idx1-ubyte is damaged"):
        sources.load(str(tmp_path))


@pytest.mark.parametrize("fault", ["labels", "sizes", "text", "many"])
def test_files_that_are_no_images_and_labels_are_refused(tmp_path, fault):
    other_set(tmp_path, packed=False)
    bad = {
        "labels": ("train-labels-idx1-ubyte", idx(np.zeros(3, np.uint8))),
        "sizes": ("t10k-images-idx3-ubyte", idx(np.zeros((12, 5, 5), np.uint8))),
        "text": ("train-images-idx3-ubyte", b"hello"),
        "many": ("train-images-idx3-ubyte", idx(np.zeros((40, 20), np.uint8))),
    }[fault]
    (tmp_path / bad[0]).write_bytes(bad[1])
    with pytest.raises(DataError):
        sources.load(str(tmp_path))


def csv(path, images, labels, header=None):
    count = images[0].size
    lines = [header or ",".join(["label", *(f"pixel{n}" for n in range(1, count + 1))])]
    lines += [
        ",".join(map(str, (label, *image.ravel())))
        for image, label in zip(images, labels, strict=True)
    ]
    path.write_text("\n".join(lines) + "\n")


def test_a_pipe_for_a_csv_file_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "set_train.csv")
    os.mkfifo(tmp_path / "set_test.csv")
    with pytest.raises(DataError, match=r"set_train\.csv cannot be read .* give another file"):
        sources.load(str(tmp_path))


@pytest.mark.parametrize(("name", "classes"), [("fashion-mnist", CLASSES), ("mnist", None)])
def test_kaggle_s_csv_files_are_read(tmp_path, name, classes):
    random = np.random.RandomState(1)
    found = {}
    for part, count in (("train", 20), ("test", 10)):
        images = random.randint(0, 256, (count, 4, 4))
        found[part] = images, np.arange(count) % 10
        csv(tmp_path / f"{name}_{part}.csv", *found[part])
    data = sources.load(str(tmp_path))
    assert data.classes == (classes or tuple("0123456789"))
    np.testing.assert_array_equal(data.train_images[:, 0], found["train"][0])
    np.testing.assert_array_equal(data.test_labels, found["test"][1])
    assert data.train_images.dtype == np.uint8


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,b\n1,2\n", "does not begin with `label,pixel1"),
        ("label,pixel1,pixel2\n1,2,3\n", "a square number of pixels"),
        ("label,pixel1\n1,2\n1\n", "lines that are not 2 whole numbers"),
        ("label,pixel1\n1,x\n", "lines that are not 2 whole numbers"),
        ("label,pixel1\n1,256\n", "a pixel outside of 0 to 255"),
        ("label,pixel1\n-1,2\n", "a label outside of 0 to 999"),
        ("label,pixel1\n", "lines that are not 2 whole numbers"),
    ],
)
def test_csv_files_that_are_something_else_are_refused(tmp_path, text, said):
    for part in ("train", "test"):
        (tmp_path / f"{part}.csv").write_text(text)
    with pytest.raises(DataError, match=said):
        sources.load(str(tmp_path))


def pictures(folder, classes=("daisy", "tulip"), count=10):
    for name in classes:
        (folder / name).mkdir(parents=True)
        for number in range(count):
            Image.new("L", (8, 8), number).save(folder / name / f"{number}.png")


@pytest.mark.parametrize("second", ["val", "valid", "validation"])
def test_the_test_images_may_be_called_validation(tmp_path, second):
    pictures(tmp_path / "train")
    pictures(tmp_path / second, count=3)
    data = sources.load(str(tmp_path))
    assert (len(data.train_labels), len(data.test_labels)) == (20, 6)


def test_a_folder_of_classes_is_divided_on_demand(tmp_path):
    """Class by class, the same way each time, and no image is in both parts."""
    pictures(tmp_path)
    with pytest.raises(DataError, match=r"divide the class folders in .* with `--split 0\.2`"):
        sources.load(str(tmp_path))
    one, two = (sources.load(str(tmp_path), split=0.2) for _ in "ab")
    assert one.classes == ("daisy", "tulip")
    assert Counter(one.train_labels.tolist()) == {0: 8, 1: 8}
    assert Counter(one.test_labels.tolist()) == {0: 2, 1: 2}
    assert one.test_images.paths == two.test_images.paths
    assert not set(one.train_images.paths) & set(one.test_images.paths)
    assert [path.name for path in one.test_images.paths] != ["0.png", "0.png", "1.png", "1.png"]


def test_a_split_that_makes_no_sense_is_refused(tmp_path):
    pictures(tmp_path / "few", count=2)
    with pytest.raises(DataError, match=r"holds 2 image\(s\), of which `--split 0\.1` takes 0"):
        sources.load(str(tmp_path / "few"), split=0.1)
    pictures(tmp_path / "done" / "train")
    pictures(tmp_path / "done" / "test")
    with pytest.raises(DataError, match="is divided into train and test already"):
        sources.load(str(tmp_path / "done"), split=0.2)
    for source in ("sample", None):
        with pytest.raises(DataError, match="--split divides"):
            sources.load(source, split=0.2)
