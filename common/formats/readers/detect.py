"""Detects the format of a file from its first bytes, and reads it."""

from __future__ import annotations

import io
import struct
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from common.errors import one_line
from common.formats.readers.base import (
    LARGEST,
    LONGEST_NAME,
    Content,
    File,
    Reader,
    Unreadable,
    numbers,
)
from common.formats.readers.keras import WEIGHTS, read_keras, read_keras_archive
from common.formats.readers.mxnet import MXNET_LIST, read_mxnet
from common.formats.readers.npz import MAGIC, read_npz
from common.formats.readers.onnx import read_onnx
from common.formats.readers.paddle import read_paddle
from common.formats.readers.program import START, read_parameters
from common.formats.readers.safetensors import read_safetensors
from common.formats.readers.torch import LEGACY_TORCH, read_old_torch, read_torch

#: how messages name each format
TITLES = {
    "torch": "a PyTorch state_dict",
    "tf": "Keras weights",
    "mxnet": "MXNet parameters",
    "paddle": "a Paddle state_dict",
    "safetensors": "a safetensors file",
    "npz": "a NumPy archive",
    "onnx": "an ONNX graph",
}
READ = "PyTorch .pt, Keras .weights.h5, .h5 and .keras, MXNet .params, Paddle .pdparams and "
READ += ".pdiparams, .safetensors, .npz, .onnx"

TF_CHECKPOINT = (
    "is a TensorFlow checkpoint: load it into the model that wrote it, and write "
    "`model.save_weights('NAME.weights.h5')`."
)
SHARDS = (
    "has its weights in several files: join them first, as `save_file({name: tensor for file in "
    "FILES for name, tensor in load_file(file).items()}, 'all.safetensors')` of "
    "safetensors.torch (of .bin files with PyTorch's own functions)."
)
DISTRIBUTED = (
    "has its weights in several files: join them first with `python -m "
    "torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER all.pt`."
)
COMPRESSED = "is compressed: unpack it first."
#: by the first bytes, in small letters: what is known and not read, and the way out
NO_WEIGHTS = {
    b"version https://": "is a Git LFS pointer: fetch the file itself with `git lfs pull`.",
    b"<!doctype": "is a web page, not weights: the download failed.",
    b"<html": "is a web page, not weights: the download failed.",
    b"\x1f\x8b": COMPRESSED,
}
#: by the end of the name: what is known and not read, and the way out
NOT_READ = {
    ".index": TF_CHECKPOINT,
    ".ckpt.meta": TF_CHECKPOINT,
    ".pb": "is a TensorFlow graph: load the model, and write `save_weights('NAME.weights.h5')`.",
    ".tflite": "is a TensorFlow Lite model: convert the model that it was made from.",
    ".caffemodel": "is a Caffe model, which is not read: use torchvision's or paddle.vision's "
    "weights of the network.",
    ".prototxt": "is a Caffe network without weights.",
    ".pdmodel": "is a Paddle program without weights: name the .pdiparams file beside it.",
    ".pdopt": "is the state of a Paddle optimizer: name the .pdparams file beside it.",
    ".index.json": SHARDS,
    ".weights.json": "has its weights in several files: load it into the model that wrote it, and "
    "write `model.save_weights('NAME.weights.h5')`.",
    ".json": "describes a network without its weights: name the file of weights beside it.",
    ".mlmodel": "is a Core ML model: convert the model that it was made from.",
    ".t7": "is a Torch 7 file: save its weights with PyTorch first.",
    ".tar": "is an archive of files: unpack it, and name the file of weights in it.",
    ".gz": COMPRESSED,
}


def parse(path: Path) -> File:
    """The arrays in a file; Unreadable if it is damaged or holds anything else."""
    with path.open("rb") as file:
        return parse_open(file, path.name, path)


def parse_open(file: BinaryIO, name: str = "", path: Path | None = None) -> File:
    """The same for an open file; its name tells the format where the first bytes do not.

    `path` is where a file of Paddle's parameters finds the program with their names, and an ONNX
    graph the file of its values.
    """
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            form, read_as = detect_format(file, name, path)
            file.seek(0)
            return numbers(form, read_as(file), size)
    except (Unreadable, MemoryError):
        raise
    except Exception as error:  # the libraries raise many types
        reason = ascii(one_line(error) or type(error).__name__)[1:-1]
        raise Unreadable(f"is cut or damaged: {reason[:LONGEST_NAME]}.") from error


def detect_format(file: BinaryIO, name: str, path: Path | None = None) -> tuple[str, Reader]:
    """The format of a file, from its first bytes, and its reader."""
    start = file.read(16)
    if name.endswith((".metadata", ".distcp")):
        raise Unreadable(DISTRIBUTED)
    if start.startswith(b"PK\x03\x04"):
        file.seek(0)
        return archive_format(file)
    if start.startswith(b"\x89HDF\r\n\x1a\n"):
        return "tf", read_keras
    if start.startswith(struct.pack("<QQ", MXNET_LIST, 0)):
        return "mxnet", read_mxnet
    if start.startswith(LEGACY_TORCH):
        return "torch", read_old_torch
    if start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "paddle", read_paddle
    if len(start) > 8 and start[8:9] == b"{":
        return "safetensors", read_safetensors
    if start == START and not name.endswith(".index"):
        if path is None:
            raise Unreadable("holds parameters without names.")
        return "paddle", lambda file: read_parameters(path)
    if not start:
        raise Unreadable("is empty.")
    if start.startswith(MAGIC):
        raise Unreadable(
            "is a NumPy array without names (.npy): write the weights with their names, as "
            "`numpy.savez('NAME.npz', **named)`."
        )
    for first, said in NO_WEIGHTS.items():
        if start.lstrip().lower().startswith(first):
            raise Unreadable(said)
    if ".data-0" in name:
        raise Unreadable(TF_CHECKPOINT)
    for end, said in NOT_READ.items():
        if name.endswith(end):
            raise Unreadable(said)
    if name.endswith(".onnx") or start[:1] == b"\x08":
        return "onnx", lambda file: read_onnx(file, path)
    raise Unreadable(f"is in none of the formats that are read: {READ}.")


def archive_format(file: BinaryIO) -> tuple[str, Reader]:
    """The format of an archive, from the names of its entries."""
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        if len(names) != len(set(names)):
            raise Unreadable("is an archive with two entries of the same name.")
    if WEIGHTS in names:
        return "tf", in_archive(read_keras_archive)
    if names and all(name.endswith(".npy") for name in names):
        return "npz", in_archive(read_npz)
    return "torch", read_torch


def in_archive(read: Callable[[zipfile.ZipFile], Content]) -> Reader:
    """The reader of a file that is an archive, whose entries together are at most LARGEST."""

    def read_file(file: BinaryIO) -> Content:
        with zipfile.ZipFile(file) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
            if unpacked > LARGEST:
                raise Unreadable(f"unpacks to {unpacked:,} bytes, more than weights have.")
            return replace(read(archive), beside=unpacked)

    return read_file
