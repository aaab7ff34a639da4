"""Reads NumPy's `.npz` archives, which MXNet 2 writes too, under the name `.params`.

Source: the description of the format in numpy/lib/format.py. The header of an entry is the text of
a Python dict; a regular expression reads it, so nothing is evaluated.
"""

from __future__ import annotations

import re
import struct
import zipfile

import numpy as np

from common.formats.readers.base import (
    NUMPY_TYPES,
    Content,
    Opaque,
    Unreadable,
    array_of,
    require_few,
)

MAGIC = b"\x93NUMPY"
LONGEST_HEADER = 10_000  #: bytes
HEADER = re.compile(
    r"\{'descr': (.+), 'fortran_order': (True|False), 'shape': \(([\d, ]*)\), \} *\n?"
)
NUMBERS = re.compile(rf"'([<>|])({'|'.join(NUMPY_TYPES)})'")


def read_npz(archive: zipfile.ZipFile) -> Content:
    """The arrays of an archive by name."""
    found = dict[str, np.ndarray | Opaque]()
    for entry in archive.namelist():
        require_few(len(found) + 1)
        array = npy(archive.read(entry))
        if array is not None:
            found[entry.removesuffix(".npy")] = array
    return Content(found)


def npy(data: bytes) -> np.ndarray | Opaque | None:
    """The array in the bytes of a `.npy` file; None if it has no value."""
    if data[:6] != MAGIC or data[6:7] not in (b"\1", b"\2", b"\3"):
        raise Unreadable("is an archive with an entry that is not an array.")
    form = "<H" if data[6] == 1 else "<I"
    start = 8 + struct.calcsize(form)
    (length,) = struct.unpack(form, data[8:start])
    if length > LONGEST_HEADER:
        raise Unreadable("is damaged: the header of an array is too long.")
    header = HEADER.fullmatch(data[start : start + length].decode())
    if not header:
        raise Unreadable("is damaged: the header of an array is not as NumPy writes it.")
    kind, fortran = NUMBERS.fullmatch(header[1]), header[2] == "True"
    if not kind:
        return Opaque(f"NumPy's type {ascii(header[1][:20])[1:-1]}")
    shape = [int(word) for word in header[3].split(",") if word.strip()]
    if 0 in shape:
        return None
    dtype = NUMPY_TYPES[kind[2]]
    array = array_of(data[start + length :], dtype, shape[::-1] if fortran else shape, kind[1])
    if array.nbytes != len(data) - start - length:
        raise Unreadable("is damaged: an array has more bytes than values.")
    return array.T if fortran else array
