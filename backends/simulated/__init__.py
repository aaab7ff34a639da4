"""A simulated second device for each framework, for machines without a GPU.

The training loop runs on it, so the tests find tensors that were left on the CPU, as on a machine
with a GPU. The device computes on the CPU. It is called `simulated:0`, or `cpu:1` in MXNet and
TensorFlow. A backend's `devices()` does not list it.
"""

from __future__ import annotations

from types import ModuleType

from backends import load_module


def module(name: str) -> ModuleType:
    """The module of one framework, with `start` and `copies`; no other framework is imported."""
    return load_module(name, f"backends.simulated.{name}")


def start(name: str) -> str:
    """Make the device available and return its name, in the form of `devices()`.

    Call it before `backends.load` and before the first use of the framework: Paddle and TensorFlow
    look for devices only once. A second call does nothing. DeviceError if it is not possible.
    """
    device: str = module(name).start()
    return device


def copies(name: str) -> int:
    """How many copies from the device to the host there were since `start`."""
    count: int = module(name).copies()
    return count
