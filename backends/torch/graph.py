"""A training step's forward and backward pass as CUDA graphs: one launch instead of a thousand.

Launched one by one, the kernels of a GoogLeNet take longer to start than to run. Source: PyTorch's
notes on CUDA graphs.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from backends.torch.streams import parallel_branches

WARM = 2  # steps of a shape before it is captured, in which the libraries choose their kernels


class Graphs:
    """Runs `passes(inputs, labels, weight)`; on a GPU captured as a graph.

    There is one graph for each shape of batch and each weight, from its third step on: an epoch has
    at most two, or four if batches are divided into parts.
    """

    def __init__(self, model: nn.Module, passes: Callable[..., tuple[Tensor, ...]]) -> None:
        self.model, self.passes = model, passes
        self.steps: dict[tuple[torch.Size, float], int] = {}
        self.graphs: dict[tuple[torch.Size, float], Graph] = {}

    def __call__(self, inputs: Tensor, labels: Tensor, weight: float) -> tuple[Tensor, ...]:
        """What `passes` returns; a replay's outputs are copied, so the next leaves them alone."""
        if inputs.device.type != "cuda":
            return self.passes(inputs, labels, weight)
        kind = inputs.shape, weight
        self.steps[kind] = self.steps.get(kind, 0) + 1
        if self.steps[kind] <= WARM:
            return self.passes(inputs, labels, weight)
        if kind not in self.graphs:
            self.graphs[kind] = Graph(self.model, self.passes, inputs, labels, weight)
        return self.graphs[kind](inputs, labels)


class Graph:
    """One captured pass: its tensors stay where they are, and each replay writes them anew.

    So gradients of earlier parts of a batch are added to it afterwards.
    """

    def __init__(
        self,
        model: nn.Module,
        passes: Callable[..., tuple[Tensor, ...]],
        inputs: Tensor,
        labels: Tensor,
        weight: float,
    ) -> None:
        self.inputs, self.labels = inputs.clone(), labels.clone()
        self.parameters = list(model.parameters())
        earlier = [parameter.grad for parameter in self.parameters]
        self.replace_gradients([None] * len(earlier))  # or the pass would add to them
        self.graph = torch.cuda.CUDAGraph()
        stream = torch.cuda.Stream(inputs.device)  # the default one is of the current GPU
        with parallel_branches(model), torch.cuda.graph(self.graph, stream=stream):
            # nothing is computed here
            self.outputs = passes(self.inputs, self.labels, weight)
        self.gradients = [parameter.grad for parameter in self.parameters]
        self.replace_gradients(earlier)

    def __call__(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        """The same pass over another batch."""
        found = [parameter.grad for parameter in self.parameters]
        earlier = [gradient.clone() for gradient in found if gradient is not None]
        self.inputs.copy_(inputs)
        self.labels.copy_(labels)
        self.graph.replay()
        self.replace_gradients(self.gradients)
        if earlier:
            torch._foreach_add_(self.gradients, earlier)
        return tuple(output.clone() for output in self.outputs)

    def replace_gradients(self, gradients: Sequence[Tensor | None]) -> None:
        """Give every parameter its gradient."""
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient
