"""A simulated second device for each framework, for machines without a GPU.

The training loop really runs on it, so whatever was left on the CPU is found as it would be beside
a GPU. It computes on the CPU, is called simulated (or `cpu:1`, as two of the frameworks name it),
and is never among a backend's `devices()`.
"""

from __future__ import annotations

from types import ModuleType

from backends import load_module


def module(name: str) -> ModuleType:
    """The module of one framework, which has `start` and `copies`; no other is imported."""
    return load_module(name, f"backends.simulated.{name}")


def start(name: str) -> str:
    """Make the device available, and give its name in the contract's words.

    To be called before the framework's first use, and before `backends.load`: Paddle and TensorFlow
    look for devices once. A second call does nothing. DeviceError where it cannot be had.
    """
    device: str = module(name).start()
    return device


def copies(name: str) -> int:
    """How often something was copied from the device to the host, since `start`."""
    count: int = module(name).copies()
    return count
