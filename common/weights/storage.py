"""Canonical weights in a safetensors file, and the digest that identifies them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from common.errors import WeightsError, one_line
from common.files import write_whole
from common.spec import Spec
from common.weights.canonical import Weights, check, shapes

KEY = "googlenet"  #: of the metadata; safetensors writes several keys in any order


def sha256(weights: Mapping[str, np.ndarray]) -> str:
    """One digest of all names, dtypes, shapes and little-endian values, in the order of names."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        array = np.ascontiguousarray(weights[name])
        little = array.astype(array.dtype.newbyteorder("<"), copy=False)
        digest.update(json.dumps([name, array.dtype.name, weights[name].shape]).encode())
        digest.update(little.tobytes())
    return digest.hexdigest()


def save(path: Path, weights: Mapping[str, np.ndarray], spec: Spec) -> None:
    """Write the weights as one safetensors file that names its spec and its `sha256`."""
    from safetensors.numpy import save as encode

    check(spec, weights)
    # safetensors writes the bytes as they lie: an array that is not contiguous would be scrambled.
    arrays = {name: np.ascontiguousarray(weights[name]) for name in shapes(spec)}
    data = encode(arrays, {KEY: json.dumps({"spec": spec.name, "sha256": sha256(arrays)})})
    try:
        write_whole(path, data)
    except OSError as error:
        raise WeightsError(f"{path} cannot be written: {error.strerror or error}.") from error


def load(path: Path, spec: Spec) -> Weights:
    """Read a safetensors file of this spec's weights; anything else is refused.

    One that names no digest, as other programs write them, is read without that check.
    """
    from safetensors.numpy import load as read

    try:
        data = path.read_bytes()
        weights: Weights = read(data)
        named = metadata(data).get(KEY)
        digest = json.loads(named)["sha256"] if named else None
    except Exception as error:  # safetensors raises many kinds: a dtype unknown to NumPy is another
        reason = one_line(error)
        raise WeightsError(f"{path} is not a readable safetensors file: {reason}.") from error
    check(spec, weights)
    if digest and digest != sha256(weights):
        raise WeightsError(f"{path} is damaged: its tensors have not the SHA-256 that it names.")
    return weights


def metadata(data: bytes) -> dict[str, str]:
    """The metadata in the bytes of a safetensors file."""
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    found: dict[str, str] = header.get("__metadata__", {})
    return found


def seal(arrays: Mapping[str, np.ndarray], content: str) -> bytes:
    """Tensors and a JSON text as the bytes of a safetensors file with one digest of both."""
    from safetensors.numpy import save as encode

    named = json.dumps({"content": content, "sha256": _sealed_digest(arrays, content)})
    data: bytes = encode(dict(arrays), {KEY: named})
    return data


def open_sealed(data: bytes) -> tuple[Weights, str]:
    """The inverse of `seal`; ValueError with half a sentence where the digest does not hold."""
    from safetensors.numpy import load as decode

    try:
        arrays: Weights = decode(data)
        outer = json.loads(metadata(data)[KEY])
        content, digest = outer["content"], outer["sha256"]
        actual = _sealed_digest(arrays, content)
    except Exception as error:  # safetensors raises many kinds
        raise ValueError(f"is no checkpoint: {one_line(error)[:120]}") from error
    if digest != actual:
        raise ValueError("is damaged: its contents do not have the SHA-256 that it names")
    return arrays, content


def _sealed_digest(arrays: Mapping[str, np.ndarray], content: str) -> str:
    return hashlib.sha256((sha256(arrays) + content).encode()).hexdigest()
