"""Reads NumPy's `.npz` archives, which MXNet 2 writes too, under the name `.params`.

Source: the description of the format in numpy/lib/format.py. The header of an entry is the text of
a Python dict; a regular expression reads it, so nothing is evaluated.
"""

from __future__ import annotations

import re
import struct
import zipfile

import numpy as np

from common.formats.readers.base import NUMPY_TYPES, Content, Unreadable, array_of, require_few

MAGIC = b"\x93NUMPY"
LONGEST_HEADER = 10_000  #: bytes
HEADER = re.compile(
    r"\{'descr': '([<|])(\w\d)', 'fortran_order': (True|False), 'shape': \(([\d, ]*)\), \} *\n?"
)


def read_npz(archive: zipfile.ZipFile) -> Content:
    """The arrays of an archive by name."""
    found = dict[str, np.ndarray]()
    for entry in archive.namelist():
        require_few(len(found) + 1)
        array = npy(archive.read(entry))
        if array is not None:
            found[entry.removesuffix(".npy")] = array
    return Content(found)


def npy(data: bytes) -> np.ndarray | None:
    """The array in the bytes of a `.npy` file; None if it has no value."""
    if data[:6] != MAGIC or data[6:7] not in (b"\1", b"\2"):
        raise Unreadable("is an archive with an entry that is not an array.")
    form = "<H" if data[6] == 1 else "<I"
    start = 8 + struct.calcsize(form)
    (length,) = struct.unpack(form, data[8:start])
    if length > LONGEST_HEADER:
        raise Unreadable("is damaged: the header of an array is too long.")
    header = HEADER.fullmatch(data[start : start + length].decode("ascii"))
    if not header or header[2] not in NUMPY_TYPES:
        raise Unreadable("holds arrays that are not little-endian numbers.")
    shape = [int(word) for word in header[4].split(",") if word.strip()]
    if 0 in shape:
        return None
    fortran = header[3] == "True"
    array = array_of(
        data[start + length :], NUMPY_TYPES[header[2]], shape[::-1] if fortran else shape
    )
    if array.nbytes != len(data) - start - length:
        raise Unreadable("is damaged: an array has more bytes than values.")
    return array.T if fortran else array
