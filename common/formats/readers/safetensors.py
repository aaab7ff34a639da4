"""Reads safetensors files."""

from __future__ import annotations

import json
from typing import BinaryIO

import numpy as np

from common.formats.readers.base import Unreadable, array_of
from common.weights import KEY, metadata, open_sealed, sha256


def read_safetensors(file: BinaryIO) -> dict[str, np.ndarray]:
    """The safetensors library checks its own format; bfloat16 it gives to PyTorch alone.

    Of a run's checkpoint it gives the weights without the optimizer's state. A digest that the
    file names must hold.
    """
    from safetensors import deserialize

    data = file.read()
    named = json.loads(metadata(data).get(KEY, "{}"))
    if "content" in named:
        arrays, _ = open_sealed(data)
        return {
            name.removeprefix("weights/"): array
            for name, array in arrays.items()
            if name.startswith("weights/")
        }
    kinds = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
    found = {}
    for name, tensor in deserialize(data):  # type: ignore[no-untyped-call]
        if tensor["dtype"] not in kinds:
            raise Unreadable(
                f"holds {tensor['dtype']!s:.8} under {name!r:.200}: weights are floating-point "
                "numbers."
            )
        found[name] = array_of(bytes(tensor["data"]), kinds[tensor["dtype"]], tensor["shape"])
    if named.get("sha256") not in (None, sha256(found)):
        raise Unreadable("is damaged: its tensors have not the SHA-256 that it names.")
    return found
