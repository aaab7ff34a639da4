"""Reads safetensors files."""

from __future__ import annotations

import json
from typing import Any, BinaryIO

import numpy as np

from common.formats.readers.base import Content, Opaque, Unreadable, array_of
from common.weights import KEY, metadata, open_sealed, sha256

LONGEST_HEADER = 10**8  #: bytes, as in the safetensors library; a long run's history is in it


def read_safetensors(file: BinaryIO) -> Content:
    """The tensors of a safetensors file; from a checkpoint, the weights without the optimizer.

    The safetensors library checks the format. It gives bfloat16 only to PyTorch, so the values are
    converted here. If the file has a digest, it must be right.
    """
    from safetensors import deserialize

    if int.from_bytes(file.read(8), "little") > LONGEST_HEADER:
        raise Unreadable(f"has a header of more than {LONGEST_HEADER:,} bytes.")
    file.seek(0)
    data = file.read()
    named = json.loads(metadata(data).get(KEY, "{}"))
    if "content" in named:
        arrays, _ = open_sealed(data)
        return Content(
            {
                name.removeprefix("weights/"): array
                for name, array in arrays.items()
                if name.startswith("weights/")
            }
        )
    kinds = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
    kinds |= {"I64": "int64", "I32": "int32", "I8": "int8", "U8": "uint8"}
    found, others = dict[str, np.ndarray](), dict[str, Opaque]()
    for name, tensor in deserialize(data):  # type: ignore[no-untyped-call]
        if 0 in tensor["shape"]:
            continue  # it has no value
        if tensor["dtype"] in kinds:
            found[name] = array_of(bytes(tensor["data"]), kinds[tensor["dtype"]], tensor["shape"])
        else:
            others[name] = Opaque(tensor["dtype"])
    if named.get("sha256") not in (None, sha256(found)):
        raise Unreadable("is damaged: its tensors do not have the SHA-256 that it names.")
    return Content({**found, **others}, eps_of(named))


def eps_of(named: Any) -> float | None:
    """The eps of the norms that the metadata of a canonical file records."""
    eps = named.get("eps")
    if eps is not None and not (type(eps) is float and 0 < eps < 1):
        raise Unreadable("is damaged: the eps of its norms is no number between 0 and 1.")
    return eps
