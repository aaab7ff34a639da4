"""The injected bugs: typical mistakes of a port of GoogLeNet, each of which a check must catch.

This module has the facts that do not depend on a framework. `backends/mutations/<name>.py` injects
each bug in the way a port to that framework would have it: one function for each bug, with the
bug's name, that returns a context manager.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from common.errors import SpecError
from common.spec import D2L, D2L_BN, MINI_FAMILY, AdaptiveAvgPool, Auxiliary, Conv, Linear, Spec

#: d2l with one Inception block in each stage: enough for most bugs, in a third of the time.
SMALL = replace(
    D2L, name="d2l-small", stage3=D2L.stage3[1:], stage4=D2L.stage4[4:], stage5=D2L.stage5[1:]
)
SMALL_BN = replace(SMALL, name="d2l-bn-small", norm=D2L_BN.norm)

#: Without a ReLU before it, the first pool gets negative values.
LINEAR_STEM = replace(
    SMALL,
    name="d2l-linear-stem",
    stage1=(Conv(64, 7, stride=2, padding=3, activation=False), D2L.stage1[1]),
)

#: With an auxiliary head, the only place that flattens more than one pixel.
SMALL_AUX = replace(
    SMALL,
    name="d2l-aux-small",
    auxiliary=(
        Auxiliary(
            after=0,
            pool=AdaptiveAvgPool(2),
            conv=Conv(16),
            features=16 * 2 * 2,
            hidden=Linear(32, activation=True),
            dropout=0.0,
        ),
    ),
)


@dataclass(frozen=True)
class InjectedBug:
    """A mistake: its description, the checks that may catch it first, and where it shows."""

    name: str
    what: str
    caught_by: tuple[str, ...]
    spec: Spec = SMALL
    size: int = 33
    simulated: bool = False  #: shows only on a device other than the CPU: simulated, or a GPU


#: Where gradients are clear before the first step, the wrong sum shows only in the second step.
_STEPS = ("one step", "ten steps")
_PLACES = ("one step", "device")

INJECTED_BUGS = {
    bug.name: bug
    for bug in (
        InjectedBug(
            "missing-bias", "the converter leaves the convolutions' biases at zero", ("parameters",)
        ),
        InjectedBug("ceil-pool", "pools round their output size up", ("shapes",), D2L, 96),
        InjectedBug(
            "same-padding", "TensorFlow's `'same'` where the stride is 2", ("forward",), D2L, 96
        ),
        InjectedBug(
            "zero-padded-pool", "a pool before any ReLU padded with 0", ("forward",), LINEAR_STEM
        ),
        InjectedBug("missing-relu", "no ReLU after the 3x3 branches' reduction", ("forward",)),
        InjectedBug(
            "swapped-branches", "5x5 and pool branch joined in the wrong order", ("forward",), D2L
        ),
        InjectedBug(
            "transposed-head", "the head reshaped where it should be transposed", ("forward",)
        ),
        InjectedBug(
            "flatten-order",
            "an auxiliary head's features flattened as (H, W, C)",
            ("forward",),
            SMALL_AUX,
        ),
        InjectedBug(
            "counted-padding",
            "the mean of a padded average pool as in Keras's `'same'`",
            ("forward",),
            MINI_FAMILY,
        ),
        InjectedBug(
            "swapped-forks", "a block's branches joined in reverse", ("forward",), MINI_FAMILY
        ),
        InjectedBug(
            "unscaled-residual", "a residual added without its scale", ("forward",), MINI_FAMILY
        ),
        InjectedBug(
            "local-norm-alpha",
            "a local norm's alpha not divided by its size",
            ("forward",),
            MINI_FAMILY,
        ),
        InjectedBug("norm-eps", "batch norm's eps 1e-5 instead of 1e-3", ("forward",), SMALL_BN),
        InjectedBug("double-softmax", "probabilities given to a loss that wants logits", ("loss",)),
        InjectedBug(
            "detached-branch", "no gradient flows back through pool branches", ("gradients",)
        ),
        InjectedBug(
            "frozen-head", "the optimizer is not given the head's parameters", ("one step",)
        ),
        InjectedBug("gradient-twice", "a gradient summed twice, or never cleared", _STEPS),
        InjectedBug(
            "norm-momentum",
            "batch norm's momentum taken for the weight of the new value",
            ("running statistics",),
            SMALL_BN,
        ),
        InjectedBug(
            "norm-variance", "the unbiased running variance", ("running statistics",), SMALL_BN
        ),
        # Some frameworks refuse to mix devices, so the step raises; others move tensors silently.
        InjectedBug("batch-not-moved", "the batch left on the CPU", _PLACES, simulated=True),
        InjectedBug(
            "labels-not-moved", "the labels left on the CPU", ("loss", *_PLACES), simulated=True
        ),
        InjectedBug("model-not-moved", "the model left on the CPU", _PLACES, simulated=True),
        InjectedBug(
            "optimizer-before-move",
            "the optimizer and its state made before the model was moved",
            _PLACES,
            simulated=True,
        ),
        InjectedBug("silent-fallback", "the CPU, whatever was chosen", ("device",), simulated=True),
    )
}


def find(name: str) -> InjectedBug:
    """The bug of that name; SpecError with the known names if there is none."""
    if name not in INJECTED_BUGS:
        raise SpecError(
            f"There is no bug named {name!r}; choose one of {', '.join(INJECTED_BUGS)}."
        )
    return INJECTED_BUGS[name]
