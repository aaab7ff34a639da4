"""Splits a protocol buffer into its fields, for ONNX and for Paddle's programs.

Source: the description of the wire format, https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from common.formats.readers.base import Unreadable

MOST_FIELDS = 2_000_000  #: of one file, in all its messages

Value = int | bytes


class Message:
    """The fields of a message by number; a nested message is read when it is asked for."""

    def __init__(self, data: bytes, count: list[int] | None = None) -> None:
        self.fields: dict[int, list[Value]] = {}
        self.count = count if count is not None else [0]  # shared by all messages of a file
        for number, value in fields(data):
            self.count[0] += 1
            if self.count[0] > MOST_FIELDS:
                raise Unreadable(f"has more than {MOST_FIELDS:,} fields.")
            self.fields.setdefault(number, []).append(value)

    def messages(self, number: int) -> list[Message]:
        """The nested messages of a field."""
        return [Message(data, self.count) for data in self.bytes(number)]

    def bytes(self, number: int) -> list[bytes]:
        """The values of a field of bytes."""
        return [value for value in self.fields.get(number, []) if isinstance(value, bytes)]

    def text(self, number: int) -> str:
        """The first text of a field, or none."""
        return next((value.decode() for value in self.bytes(number)), "")

    def texts(self, number: int) -> list[str]:
        """The texts of a field."""
        return [value.decode() for value in self.bytes(number)]

    def whole(self, number: int) -> list[int]:
        """The whole numbers of a field, packed or not."""
        found: list[int] = []
        for value in self.fields.get(number, []):
            if isinstance(value, int):
                found.append(value)
                continue
            at = 0
            while at < len(value):
                one, at = varint(value, at)
                found.append(one)
        return found


def fields(data: bytes) -> Iterator[tuple[int, Value]]:
    """The number and value of each field; bytes for everything but a varint."""
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value, at = varint(data, at)
            yield number, value
            continue
        if kind == 2:
            size, at = varint(data, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise Unreadable("is cut or damaged: it is not a protocol buffer.")
        if size > len(data) - at:
            raise Unreadable("is cut or damaged: a field of it is incomplete.")
        yield number, data[at : at + size]
        at += size


def varint(data: bytes, at: int) -> tuple[int, int]:
    """The whole number at a position, and the position behind it."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            break
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise Unreadable("is cut or damaged: a number of it is incomplete.")


def float32(data: bytes) -> float:
    """The number in a field of four bytes."""
    return float(struct.unpack("<f", data)[0])
