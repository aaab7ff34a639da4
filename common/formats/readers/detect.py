"""Detects the format of a file from its first bytes, and reads it."""

from __future__ import annotations

import io
import struct
import warnings
from pathlib import Path
from typing import BinaryIO

from common.errors import one_line
from common.formats.readers.base import LONGEST_NAME, File, Reader, Unreadable, numbers
from common.formats.readers.keras import read_keras
from common.formats.readers.mxnet import MXNET_LIST, read_mxnet
from common.formats.readers.paddle import read_paddle
from common.formats.readers.safetensors import read_safetensors
from common.formats.readers.torch import LEGACY_TORCH, read_old_torch, read_torch

#: how messages name each format
TITLES = {
    "torch": "a PyTorch state_dict",
    "tf": "Keras weights",
    "mxnet": "MXNet parameters",
    "paddle": "a Paddle state_dict",
    "safetensors": "a safetensors file",
}


def parse(path: Path) -> File:
    """The arrays in a file; Unreadable if it is damaged or holds anything else."""
    with path.open("rb") as file:
        return parse_open(file, path.suffix)


def parse_open(file: BinaryIO, suffix: str = "") -> File:
    """The same for an open file; the suffix only improves the message."""
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            form, read_as = detect_format(file, suffix)
            file.seek(0)
            return numbers(form, read_as(file), size)
    except (Unreadable, MemoryError):
        raise
    except Exception as error:  # the libraries raise many types
        reason = ascii(one_line(error) or type(error).__name__)[1:-1]
        raise Unreadable(f"is cut or damaged: {reason[:LONGEST_NAME]}.") from error


def detect_format(file: BinaryIO, suffix: str) -> tuple[str, Reader]:
    """The format of a file, from its first bytes, and its reader."""
    start = file.read(16)
    if start.startswith(b"PK\x03\x04"):
        return "torch", read_torch
    if start.startswith(b"\x89HDF\r\n\x1a\n"):
        return "tf", read_keras
    if start.startswith(struct.pack("<QQ", MXNET_LIST, 0)):
        return "mxnet", read_mxnet
    if start.startswith(LEGACY_TORCH):
        return "torch", read_old_torch
    if start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04"):
        return "paddle", read_paddle
    if len(start) > 8 and start[8:9] == b"{":
        return "safetensors", read_safetensors
    if not start:
        raise Unreadable("is empty.")
    if suffix == ".onnx":
        raise Unreadable(
            "is an ONNX file, which is written but not read: name the file that it was made from."
        )
    raise Unreadable(
        "is in none of the formats that are read: PyTorch .pt, Keras .weights.h5, MXNet .params, "
        "Paddle .pdparams, .safetensors."
    )
