"""A second implementation of every spec, written apart from the reference.

It was written from the docstrings of `common/spec/rows.py` alone, without a look at a backend: a
spec comes as plain data (`to_config`), every row is a call of PyTorch's functional API in float64,
and PyTorch's autograd computes the gradients. No class of a backend is used. Where the reference
and this file disagree, one of them has misread the docstring.
"""

import torch
from torch.nn import functional


class SecondOpinion:
    """A spec as plain data, with weights by canonical name (`stage3.0.branch5x5.1.conv.weight`)."""

    def __init__(self, config, weights):
        self.config = config
        self.weights = {name: torch.tensor(array).double() for name, array in weights.items()}
        for name, tensor in self.weights.items():
            tensor.requires_grad_(not name.endswith(("running_mean", "running_var")))
        self.training = False
        self.running = {}  # what the last forward in training mode makes of the running statistics

    def outputs(self, x, training):
        """The output of every stage and of every head, by name; nothing is dropped."""
        self.training, self.running, found = training, {}, {}
        x = torch.tensor(x).double()
        for number in range(1, 6):
            stage = f"stage{number}"
            for index, row in enumerate(self.config[stage]):
                x = self.row(row, x, f"{stage}.{index}")
                if number == 4:
                    for place, side in enumerate(self.config["auxiliary"]):
                        if side["after"] == index:
                            found[f"auxiliary.{place}"] = self.side(side, x, f"auxiliary.{place}")
            found[stage] = x
        found["head"] = self.row(self.config["head"], x, "head")
        return found

    def side(self, side, x, name):
        """The logits of an auxiliary head: pool, convolution, hidden layer, head."""
        x = self.row(side["pool"], x, f"{name}.pool")
        x = self.row(side["conv"], x, f"{name}.conv")
        x = self.row(side["hidden"], x, f"{name}.hidden")
        if side["hidden"]["type"] == "Conv":
            x = x.mean((2, 3))
        return self.row(self.config["head"], x, f"{name}.head")

    def loss(self, x, labels, smoothing=0.0):
        """The loss in training mode: the head's, and the share of each auxiliary head's."""
        outputs, labels = self.outputs(x, True), torch.tensor(labels)
        total = functional.cross_entropy(outputs["head"], labels, label_smoothing=smoothing)
        for place, side in enumerate(self.config["auxiliary"]):
            logits = outputs[f"auxiliary.{place}"]
            other = functional.cross_entropy(logits, labels, label_smoothing=smoothing)
            total = total + side["share"] * other
        return total

    def gradients(self, x, labels, smoothing=0.0):
        """The loss in training mode, and its gradient by canonical name."""
        trained = {name: each for name, each in self.weights.items() if each.requires_grad}
        loss = self.loss(x, labels, smoothing)
        found = torch.autograd.grad(loss, list(trained.values()))
        return loss.item(), dict(zip(trained, found, strict=True))

    def row(self, row, x, name):
        """The output of a row that has this name."""
        return getattr(self, row["type"])(row, x, name)

    def rows(self, rows, x, name):
        """The output of the last of some rows."""
        for index, row in enumerate(rows):
            x = self.row(row, x, f"{name}.{index}")
        return x

    def Conv(self, row, x, name):
        """A convolution, the network's norm if both want it, and a ReLU if the row has one."""
        weight, bias = self.weights[f"{name}.conv.weight"], None
        if row["bias"]:
            bias = self.weights[f"{name}.conv.bias"]
        x = functional.conv2d(x, weight, bias, row["stride"], row["padding"])
        if self.config["norm"] is not None and row["norm"]:
            x = self.norm(x, f"{name}.norm")
        return functional.relu(x) if row["activation"] else x

    def norm(self, x, name):
        """Batch norm by the batch's statistics in training, else by the running ones."""
        eps, momentum = self.config["norm"]["eps"], self.config["norm"]["momentum"]
        leaves = [f"{name}.{leaf}" for leaf in ("running_mean", "running_var", "weight", "bias")]
        mean, var, weight, bias = (self.weights[leaf] for leaf in leaves)
        if self.training:
            new_var, new_mean = torch.var_mean(x, (0, 2, 3), correction=0)
            for leaf, old, new in ((leaves[0], mean, new_mean), (leaves[1], var, new_var)):
                self.running[leaf] = (momentum * old + (1 - momentum) * new).detach()
            mean, var = new_mean, new_var
        mean, var, weight, bias = (each[:, None, None] for each in (mean, var, weight, bias))
        return (x - mean) / torch.sqrt(var + eps) * weight + bias

    def Linear(self, row, x, name):
        """A fully connected layer over the flattened input."""
        x = functional.linear(
            x.flatten(1), self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        )
        return functional.relu(x) if row["activation"] else x

    def MaxPool(self, row, x, name):
        """The largest value of every window."""
        return functional.max_pool2d(
            x, row["kernel"], row["stride"], row["padding"], ceil_mode=row["ceil"]
        )

    def AvgPool(self, row, x, name):
        """The mean of every window."""
        return functional.avg_pool2d(
            x, row["kernel"], row["stride"], row["padding"], count_include_pad=row["counted"]
        )

    def AdaptiveAvgPool(self, row, x, name):
        """The means of so many windows over the whole image."""
        return functional.adaptive_avg_pool2d(x, row["size"])

    def GlobalAvgPool(self, row, x, name):
        """The mean over height and width, (N, C)."""
        return functional.adaptive_avg_pool2d(x, 1).flatten(1)

    def LocalNorm(self, row, x, name):
        """The norm over neighbouring channels."""
        return functional.local_response_norm(x, row["size"], row["alpha"], row["beta"], row["k"])

    def Affine(self, row, x, name):
        """The constants of each channel."""
        scale, shift = (x.new_tensor(row[leaf])[:, None, None] for leaf in ("scale", "shift"))
        return x * scale + shift

    def Inception(self, row, x, name):
        """Four branches side by side."""
        parts = ("branch1x1", "branch3x3", "branch5x5", "branch_pool")
        return torch.cat([self.rows(row[part], x, f"{name}.{part}") for part in parts], 1)

    def Branches(self, row, x, name):
        """The branches side by side."""
        names = [f"{name}.branches.{index}" for index in range(len(row["branches"]))]
        pairs = zip(row["branches"], names, strict=True)
        return torch.cat([self.rows(rows, x, name) for rows, name in pairs], 1)

    def Residual(self, row, x, name):
        """The input and the scaled output of the rows."""
        x = x + row["scale"] * self.rows(row["rows"], x, f"{name}.rows")
        return functional.relu(x) if row["activation"] else x
