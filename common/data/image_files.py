"""Image files, decoded when they are indexed, in a process with limited memory and time."""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

import click
import numpy as np
import numpy.typing as npt

from common.data.image_decoder import UInt8
from common.errors import DataError, one_line, printable
from common.files import ROOT
from common.limits import TOO_LONG, ended_by_time, environment
from common.terminal import tracked


class Files:
    """Images in files, uint8 (N, C, H, W), decoded when they are indexed."""

    def __init__(self, paths: Sequence[Path], channels: int, height: int, width: int) -> None:
        self.paths = list(paths)
        self.shape = (len(self.paths), channels, height, width)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, which: slice | npt.NDArray[Any]) -> UInt8:
        """Return the images of a slice or an index array; DataError if a file is damaged."""
        chosen = np.arange(len(self))[which]
        images = np.empty((len(chosen), *self.shape[1:]), np.uint8)
        for image, index in zip(images, chosen, strict=True):
            image[:] = decode(self.paths[index], *self.shape[1:])
        return images

    @cached_property
    def digest(self) -> bytes:
        """A digest of the bytes of all files, in their order; DataError if one cannot be read."""
        digest = hashlib.sha256()
        for path in tracked(self.paths, "comparing", "images"):
            try:
                with path.open("rb") as file:
                    digest.update(hashlib.file_digest(file, "sha256").digest())
            except OSError as error:
                raise unreadable(path, error.strerror or one_line(error)) from error
        return digest.digest()

    def first(self, count: int | None) -> Files:
        """Return the first `count` images without decoding them; None returns all."""
        return Files(self.paths[:count], *self.shape[1:])


def decode(path: Path, channels: int, height: int, width: int) -> UInt8:
    """Return the image in a file, uint8 (C, H, W); DataError if it cannot be decoded."""
    (_, largest), pixels = _decoder.ask(path, (channels, height, width))
    if 0 < largest < DARK:
        warn_of_dark(path, largest)
    return np.frombuffer(pixels, np.uint8).reshape(channels, height, width)


def inspect_image(path: Path) -> tuple[int, int, int]:
    """Return channels (1 for grey, else 3), height and width from the header of an image file.

    DataError if it cannot be read.
    """
    (channels, height, width), _ = _decoder.ask(path, None)
    return channels, height, width


def unreadable(path: Path, reason: str) -> DataError:
    """The error for an image file that cannot be read."""
    return DataError(f"{path} cannot be read as an image ({reason}); replace it, or leave it out")


DARK = 2**14  #: 16-bit images without larger values hold 14 bits or fewer


warned: set[str] = set()  # the folders of dark images: one warning each


def warn_of_dark(path: Path, largest: int) -> None:
    """Warn of a 16-bit image that uses a small part of its range, once a folder."""
    if str(path.parent) not in warned:
        warned.add(str(path.parent))
        click.echo(
            f"warning: {printable(path)} has 16-bit pixels of at most {largest}, and 65535 is "
            "white: if its range is smaller, scale your images to 16 bits, or save 8 bits.",
            err=True,
        )


class Decoder:
    """The process that decodes images. It starts with the first image, and again if it died."""

    def __init__(self) -> None:
        self.lock = Lock()  # one thread reads the next batch while another one evaluates
        self.process: subprocess.Popen[bytes] | None = None
        self.owner = 0  # a forked process must not use its parent's pipes

    def ask(self, path: Path, shape: tuple[int, int, int] | None) -> tuple[Any, bytes]:
        """Return the answer for a file, and its pixels if a shape is given; DataError if none."""
        request = json.dumps([str(path.absolute()), shape]).encode() + b"\n"
        with self.lock:
            process = self.running()
            assert process.stdin
            assert process.stdout
            complete, answer, pixels = False, None, b""
            try:
                process.stdin.write(request)
                process.stdin.flush()
                answer = json.loads(process.stdout.readline())
                length = answer[0] if shape and isinstance(answer, list) else 0
                pixels = process.stdout.read(length)
                complete = len(pixels) == length
            except (OSError, ValueError):
                pass  # it died
            finally:  # after an interrupt, the next answer would be of this file
                status = 0 if complete else self.stop()
            if not complete:
                answer = death(status)
        if isinstance(answer, str):
            raise unreadable(path, answer)
        return answer, pixels

    def running(self) -> subprocess.Popen[bytes]:
        """The process, started if there is none."""
        if not self.process or self.owner != os.getpid() or self.process.poll() is not None:
            self.stop()
            self.owner = os.getpid()
            self.process = subprocess.Popen(
                [sys.executable, "-m", "common.data.image_decoder"],
                cwd=ROOT,
                env=environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for the run, which reads on until it is saved
            )
        return self.process

    def stop(self) -> int:
        """End the process, if this process started one, and return its status."""
        process, self.process = self.process, None
        if not process or self.owner != os.getpid():
            return 0
        assert process.stdin
        assert process.stdout
        process.kill()
        with contextlib.suppress(OSError):  # a request may be left in the pipe
            process.stdin.close()
        process.stdout.close()
        return process.wait()


def death(status: int) -> str:
    """Why the process that decodes ended."""
    if ended_by_time(status):
        return f"it {TOO_LONG}"
    return f"it ended the process that reads it, status {status}"


_decoder = Decoder()
atexit.register(_decoder.stop)
