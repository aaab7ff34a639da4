"""Runs the parity checks of one backend: the default specs, one spec, or one injected bug."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from backends import load, simulated
from backends.mutations import inject
from common.contract import Backend
from common.device import choose
from common.errors import DeviceError
from common.files import ROOT
from common.parity.checks import FORWARD, ParityChecks
from common.parity.fixtures import fixture_of
from common.parity.mutations import InjectedBug
from common.parity.report import Report
from common.spec import (
    BLOG_224,
    D2L,
    D2L_BN,
    INCEPTION_V3,
    MINI_FAMILY,
    PADDLE_VISION,
    TORCHVISION_IMAGENET_AUX,
    Spec,
    arithmetic,
    find,
)
from common.terminal import doing

#: What `googlenet verify` covers by default; the other specs are parts of these.
DEFAULTS = {
    D2L.name: (96, 97, 33, 1),
    BLOG_224.name: (96, 97, 33, 21),
    D2L_BN.name: (96, 97),
    TORCHVISION_IMAGENET_AUX.name: (96,),
    PADDLE_VISION.name: (189,),
    MINI_FAMILY.name: (33,),
    INCEPTION_V3.name: (107,),  # the least at which every tap of its kernels meets a pixel
}


def run_checks(
    backend: Backend, name: str, spec: Spec, sizes: Sequence[int], dtype: str, device: str
) -> Iterator[Report]:
    """One run for each size, all with one model: its weights do not depend on the size.

    The optimizer steps are taken at the first size alone: another size changes the gradients, which
    are compared at every size, and not what a step makes of them.
    """
    model = None
    for size in sizes:
        doing(f"{name}: {spec.name} at {size}, {dtype}")
        one = ParityChecks(backend, fixture_of(spec, size), dtype, device, model)
        checks = list(one.run_checks(steps=size == sizes[0]))
        yield Report(name, backend.VERSION, spec.name, size, dtype, checks)
        model = one.model


def verify(
    name: str, spec: str | None = None, size: int | None = None, device: str = "auto"
) -> Iterator[Report]:
    """Run the checks of one backend: the defaults, one spec, or one spec (or d2l) at one size."""
    backend = load(name)
    chosen = choose(device, backend.devices())
    names = list(DEFAULTS) if spec is None and size is None else [spec or D2L.name]
    for case in map(find, names):
        sizes = DEFAULTS.get(case.name, case.input[1:2]) if size is None else (size,)
        for each in sizes:
            arithmetic.layers(case.at(size=each))  # refuses what is too small
        for dtype in FORWARD:
            yield from run_checks(backend, name, case, sizes, dtype, chosen)


def verify_injected(name: str, bug: InjectedBug, device: str = "auto") -> Report:
    """Run the checks with a bug injected into the backend, on the spec and size where it shows."""
    second = second_device(name, device) if bug.simulated and device in ("auto", "cpu") else None
    backend = load(name)
    with inject(name, bug.name):
        chosen = second or choose(device, backend.devices())
        return next(run_checks(backend, name, bug.spec, [bug.size], "float64", chosen))


def second_device(name: str, device: str = "auto") -> str:
    """The device for a bug that does not show on the CPU: the simulated device.

    Call it before the framework's first use. PyTorch cannot have a simulated device beside a GPU:
    then it is the device that `device` selects, unless that is the CPU (DeviceError).
    """
    try:
        return simulated.start(name)
    except DeviceError:
        chosen = choose(device, load(name).devices())
        if chosen == "cpu":
            raise
        return chosen


def in_child(name: str, options: Sequence[str], **streams: Any) -> subprocess.CompletedProcess[str]:
    """Run `googlenet verify` in its own process, so that two frameworks never share one."""
    return subprocess.run(
        [sys.executable, "-m", "common.cli", "verify", "--backend", name, *options],
        cwd=ROOT,
        text=True,
        **streams,
    )
