"""A training step in several threads: each takes a part of the batch through a copy of the network.

Of Paddle's operations on a CPU only the products of matrices use several threads. Two halves of a
batch side by side take 0.6 of the time of one step in one thread, and 0.83 of one in two. The
copies share the weights, and their gradients add up. A network with batch norm or dropout runs as a
whole: a norm would see a part alone, and threads would draw dropout in no fixed order.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy

import paddle
from paddle import Tensor, nn
from paddle.base import core

from backends.paddle.device import device_name, threads
from backends.paddle.googlenet import GoogLeNet
from backends.paddle.layers import BatchNorm

SMALLEST = 16  # examples of a part; 4 and 8 gained as much, on steps of a second or less


class SplitPasses:
    """Runs `passes(network, inputs, labels, weight)`, the parts of a batch side by side."""

    def __init__(self, network: nn.Layer, passes: Callable[..., tuple[Tensor, Tensor]]) -> None:
        self.network, self.passes = network, passes
        self.copies: list[GoogLeNet] = []
        self.most = threads() if is_separable(network) else 1
        self.pool = ThreadPoolExecutor(self.most, "part", paddle.set_device, ("cpu",))

    def __call__(self, inputs: Tensor, labels: Tensor, weight: float) -> tuple[Tensor, Tensor]:
        """What `passes` gives for the whole batch; the gradients are left in the network."""
        examples = len(labels)
        count = min(self.most, examples // SMALLEST)
        if count < 2:
            return self.passes(self.network, inputs, labels, weight)
        parts = list(zip(inputs.tensor_split(count), labels.tensor_split(count), strict=True))
        shares = [len(answers) / examples for _, answers in parts]
        copies = self.share_weights(count - 1)
        core.set_num_threads(1)  # of each operation
        try:
            running = [
                self.pool.submit(self.passes, network, *part, weight * share)
                for network, part, share in zip([self.network, *copies], parts, shares, strict=True)
            ]
            losses, correct = zip(*(each.result() for each in running), strict=True)
        finally:
            core.set_num_threads(threads())
        with paddle.no_grad():
            for copy in copies:
                for own, other in zip(self.network.parameters(), copy.parameters(), strict=True):
                    own.grad.add_(other.grad)
                copy.clear_gradients()
        return sum(s * loss for s, loss in zip(shares, losses, strict=True)), sum(correct)

    def share_weights(self, count: int) -> list[GoogLeNet]:
        """That many copies, whose parameters lie where the network's do now."""
        while len(self.copies) < count:
            self.copies.append(deepcopy(self.network))
        for copy in self.copies[:count]:
            for own, other in zip(self.network.parameters(), copy.parameters(), strict=True):
                other.get_tensor()._share_data_with(own.get_tensor())
        return self.copies[:count]


def is_separable(network: nn.Layer) -> bool:
    """Whether it is a model on the CPU whose gradient is the sum of those of a batch's parts."""
    if not isinstance(network, GoogLeNet) or device_name(network.head.weight) != "cpu":
        return False
    layers = network.sublayers()
    drops = any(isinstance(layer, nn.Dropout) and layer.p for layer in layers)
    return not drops and not any(isinstance(layer, BatchNorm) for layer in layers)
