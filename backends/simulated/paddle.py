"""Paddle's simulated device: `simulated:0`, a custom device compiled from `paddle.cc`.

Paddle looks for custom devices once, when it is imported. An operation with an input elsewhere
moves it in silence; what was left where is seen by the places of the tensors. Copies to the host
are counted at the three methods that every way to a NumPy array or a Python number ends in: the
device itself would also count those for Paddle's own detours, as it has no kernels.
"""

import atexit
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from common.errors import DeviceError

READS = ("numpy", "item", "_copy_to")

folder = None
count = 0


def start():
    """Compile the device into a folder that lasts as long as this process; its name."""
    global folder
    if folder is None:
        if "paddle" in sys.modules:
            raise DeviceError(
                "Paddle is running already: start its simulated device in a fresh process."
            )
        folder = Path(tempfile.mkdtemp(prefix="googlenet-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        compile_into(folder)
        os.environ["CUSTOM_DEVICE_ROOT"] = str(folder)
        os.environ.setdefault("GLOG_minloglevel", "1")  # else it tells of each step of loading it
        from backends.paddle.train import paddle  # by way of what comes before its import

        for name in READS:
            setattr(paddle.Tensor, name, counted(getattr(paddle.Tensor, name)))
    return "simulated:0"


def copies():
    """How often a tensor of the device was read on the host."""
    return count


def compile_into(folder):
    """Make the library of `paddle.cc`; DeviceError without a compiler."""
    package = Path(importlib.util.find_spec("paddle").origin).parent
    source = Path(__file__).with_suffix(".cc")
    command = ["g++", "-shared", "-fPIC", "-std=c++17", "-I", package / "include", source]
    try:
        library = folder / "libpaddle-simulated.so"
        subprocess.run([*command, "-o", library], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise DeviceError(
            "Paddle's simulated device needs a C++17 compiler named g++: install one."
        ) from error


def counted(method):
    """The method, counted where it takes a tensor off the simulated device."""

    def wrapped(self, *args):
        global count
        stays = any("simulated" in str(arg) for arg in args)  # `_copy_to` a place
        count += "simulated" in str(self.place) and not stays
        return method(self, *args)

    return wrapped
