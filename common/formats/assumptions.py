"""What weights do not tell about their network: what was assumed, and how to say otherwise."""

from __future__ import annotations

from common.formats.identify import Known
from common.formats.readers.base import File
from common.spec import Affine, AvgPool, Conv, MaxPool, Spec, pair

#: eps of batch norm where nothing is given
DEFAULTS = {"PyTorch, MXNet, Paddle": 1e-5, "Keras": 1e-3}


def assumptions(known: Known, file: File) -> list[str]:
    """The assumptions as lines. A file that has its graph tells of pools and padding."""
    spec = known.spec
    lines = []
    if spec.norm:
        eps, momentum = spec.norm.eps, spec.norm.momentum
        line = f"norm: eps {eps:.6g} ({known.eps}), momentum {momentum:.6g} of the old value"
        if known.eps == "the spec's":
            others = ", ".join(f"{value:g} in {name}" for name, value in DEFAULTS.items())
            line += f"; defaults are {others}: say yours with `--eps`"
        lines.append(line)
    if file.steps:
        return [*lines, f"input: {scaling(spec)}"]
    windows = [row for _, rows in spec.stages() for row in rows]
    pools = dict.fromkeys(pool(row) for row in windows if isinstance(row, (MaxPool, AvgPool)))
    if pools:
        lines.append(f"pools between the blocks: {', '.join(pools)}")
    padded = [row for row in windows if isinstance(row, Conv) and pair(row.stride) != (1, 1)]
    line = "; ".join(
        f"{pair(row.kernel)[0]}x{pair(row.kernel)[1]} convolution with stride "
        f"{pair(row.stride)[0]}: {pair(row.padding)[0]} pixels on every side"
        for row in padded
    )
    if line:
        lines.append(f"padding: {line}")
    if file.format == "tf":
        lines.append(
            "TensorFlow's 'same' pads other sides at even image sizes: trained so, the network is "
            "the same only at sizes 32 k + 1 (docs/files.md)"
        )
    lines.append(f"input: {scaling(spec)}")
    if known.also:
        lines.append(
            f"{' and '.join(known.also)} has the same tensors but computes another function: if "
            f"the weights were trained as that network, use `--spec {known.also[0]}`"
        )
    return lines


def pool(row: MaxPool | AvgPool) -> str:
    """A pool in words."""
    kernel, stride = pair(row.kernel), pair(row.stride)
    text = f"{kernel[0]}x{kernel[1]} with stride {stride[0]}"
    if isinstance(row, AvgPool):
        return f"average {text}"
    if row.ceil:
        return f"{text}, rounded up"
    padding = pair(row.padding)[0]
    return f"{text}, padded by {padding}" if padding else f"{text}, not padded"


def scaling(spec: Spec) -> str:
    """What the network does with its input."""
    if isinstance(spec.stage1[0], Affine):
        return "scaled by the network as torchvision's `transform_input` does"
    return "not scaled by the network: give what it was trained with"
