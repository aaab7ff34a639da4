"""Paddle's simulated device: `simulated:0`, a custom device compiled from `paddle.cc`.

Paddle looks for custom devices only once, when it is imported. An operation copies an input from
another device without a warning, so the tests read the place of each tensor. Copies to the host are
counted in three methods, which all conversions to NumPy arrays and Python numbers use. Counting in
the device would include Paddle's own copies, which it makes because the device has no kernels.
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

COMPILERS = (["g++"], [sys.executable, "-m", "ziglang", "c++"])  # the second comes as a wheel

READS = ("numpy", "item", "_copy_to")

folder = None
count = 0


def start():
    """Compile the device into a temporary folder of this process, and return its name."""
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
        os.environ.setdefault(
            "GLOG_minloglevel", "1"
        )  # without it Paddle logs each step of loading the device
        from backends.paddle.train import paddle  # through our module, which prepares the import

        for name in READS:
            setattr(paddle.Tensor, name, counted(getattr(paddle.Tensor, name)))
    return "simulated:0"


def copies():
    """How many times the host read a tensor of the device."""
    return count


def compile_into(folder):
    """Compile `paddle.cc` into a library; DeviceError if there is no compiler."""
    found = importlib.util.find_spec("paddle")
    assert found
    assert found.origin
    include, source = Path(found.origin).parent / "include", Path(__file__).with_suffix(".cc")
    words = ["-shared", "-fPIC", "-std=c++17", "-I", str(include), str(source)]
    compiler = COMPILERS[0 if shutil.which("g++") else 1]
    try:
        library = folder / "libpaddle-simulated.so"
        subprocess.run([*compiler, *words, "-o", str(library)], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise DeviceError(
            "Paddle's simulated device needs a C++17 compiler: install g++, or `pip install "
            "ziglang`."
        ) from error


def counted(method):
    """The method, with a count of the calls that copy from the simulated device."""

    def wrapped(self, *args):
        global count
        stays = any("simulated" in str(arg) for arg in args)  # `_copy_to` a place
        count += "simulated" in str(self.place) and not stays
        return method(self, *args)

    return wrapped
