"""Ports of GoogLeNet to PyTorch as people write them, with an eighth of the widths.

`RIGHT` has networks that are the reference's function, `WRONG` those with mistakes and their names.
Long because each network is written out, as in the files of users.
"""

import warnings

import torch
import torch.nn.functional as F
from torch import nn

BLOCKS = [
    (24, 8, (12, 16), (2, 4), 4),
    (32, 16, (16, 24), (4, 12), 8),
    None,
    (60, 24, (12, 26), (2, 6), 8),
    (64, 20, (14, 28), (3, 8), 8),
    (64, 16, (16, 32), (3, 8), 8),
    (64, 14, (18, 36), (4, 8), 8),
    (66, 32, (20, 40), (4, 16), 16),
    None,
    (104, 32, (20, 40), (4, 16), 16),
    (104, 48, (24, 48), (6, 16), 16),
]


class Block(nn.Module):
    """The book's block."""

    def __init__(self, i, c1, c2, c3, c4):
        super().__init__()
        self.p1_1 = nn.Conv2d(i, c1, kernel_size=1)
        self.p2_1 = nn.Conv2d(i, c2[0], kernel_size=1)
        self.p2_2 = nn.Conv2d(c2[0], c2[1], kernel_size=3, padding=1)
        self.p3_1 = nn.Conv2d(i, c3[0], kernel_size=1)
        self.p3_2 = nn.Conv2d(c3[0], c3[1], kernel_size=5, padding=2)
        self.p4_1 = nn.MaxPool2d(kernel_size=3, stride=1, padding=1)
        self.p4_2 = nn.Conv2d(i, c4, kernel_size=1)

    def forward(self, x):
        p1 = F.relu(self.p1_1(x))
        p2 = F.relu(self.p2_2(F.relu(self.p2_1(x))))
        p3 = F.relu(self.p3_2(F.relu(self.p3_1(x))))
        p4 = F.relu(self.p4_2(self.p4_1(x)))
        return torch.cat((p1, p2, p3, p4), dim=1)


def stem():
    return [
        nn.Conv2d(1, 8, kernel_size=7, stride=2, padding=3),
        nn.ReLU(),
        nn.MaxPool2d(kernel_size=3, stride=2, padding=1),
        nn.Conv2d(8, 8, kernel_size=1),
        nn.ReLU(),
        nn.Conv2d(8, 24, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(kernel_size=3, stride=2, padding=1),
    ]


def book(block=Block, first=None, pool=lambda: nn.MaxPool2d(3, 2, 1), blocks=None, end=None):
    """The book's network, from its parts."""
    layers = stem() if first is None else first
    for row in blocks or BLOCKS:
        layers.append(pool() if row is None else block(*row))
    end = [nn.AdaptiveAvgPool2d((1, 1)), nn.Flatten(), nn.Linear(128, 10)] if end is None else end
    return nn.Sequential(*layers, *end)


class OtherOrder(Block):
    def forward(self, x):
        d = self.p4_2(self.p4_1(x)).relu()
        c = self.p3_2(self.p3_1(x).relu()).relu()
        b = self.p2_2(self.p2_1(x).relu()).relu()
        return torch.cat([self.p1_1(x).relu(), b, c, d], 1)


class ReluOnce(Block):
    """A ReLU after the concatenation is one in each branch."""

    def forward(self, x):
        p2 = self.p2_2(F.relu(self.p2_1(x)))
        p3 = self.p3_2(F.relu(self.p3_1(x)))
        return F.relu(torch.cat((self.p1_1(x), p2, p3, self.p4_2(self.p4_1(x))), 1))


class ZeroPadded(Block):
    """A pool padded with zeros behind a ReLU."""

    def forward(self, x):
        p1 = F.relu(self.p1_1(x))
        p2 = F.relu(self.p2_2(F.relu(self.p2_1(x))))
        p3 = F.relu(self.p3_2(F.relu(self.p3_1(x))))
        p4 = F.relu(self.p4_2(F.max_pool2d(F.pad(x, (1, 1, 1, 1)), 3, 1)))
        return torch.cat((p1, p2, p3, p4), 1)


class Swapped(Block):
    def forward(self, x):
        p1 = F.relu(self.p1_1(x))
        p2 = F.relu(self.p2_2(F.relu(self.p2_1(x))))
        p3 = F.relu(self.p3_2(F.relu(self.p3_1(x))))
        p4 = F.relu(self.p4_2(self.p4_1(x)))
        return torch.cat((p1, p3, p2, p4), dim=1)


class NoRelu(Block):
    def forward(self, x):
        p1 = F.relu(self.p1_1(x))
        p2 = F.relu(self.p2_2(self.p2_1(x)))
        p3 = F.relu(self.p3_2(F.relu(self.p3_1(x))))
        p4 = F.relu(self.p4_2(self.p4_1(x)))
        return torch.cat((p1, p2, p3, p4), dim=1)


class AveragePool(Block):
    def __init__(self, *row):
        super().__init__(*row)
        self.p4_1 = nn.AvgPool2d(kernel_size=3, stride=1, padding=1)


class Leaky(Block):
    def forward(self, x):
        p1 = F.leaky_relu(self.p1_1(x))
        p2 = F.relu(self.p2_2(F.relu(self.p2_1(x))))
        p3 = F.relu(self.p3_2(F.relu(self.p3_1(x))))
        p4 = F.relu(self.p4_2(self.p4_1(x)))
        return torch.cat((p1, p2, p3, p4), dim=1)


class Capped(Block):
    """A ReLU that ends at 6: small values do not show it."""

    def forward(self, x):
        p1 = F.relu6(self.p1_1(x))
        p2 = F.relu6(self.p2_2(F.relu6(self.p2_1(x))))
        p3 = F.relu6(self.p3_2(F.relu6(self.p3_1(x))))
        p4 = F.relu6(self.p4_2(self.p4_1(x)))
        return torch.cat((p1, p2, p3, p4), dim=1)


class Clamped(Block):
    """The input of a block ends at 1."""

    def forward(self, x):
        return super().forward(x.clamp(max=1))


class Shuffled(Block):
    """The channels change places behind the concatenation."""

    def forward(self, x):
        return super().forward(x).flip(1)


class Turned(nn.Module):
    """The network gets its images with height and width exchanged."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x.transpose(2, 3))


class Twice(nn.Module):
    """The head's bias is added again."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x) + self.net[-1].bias


class BiasTwice(nn.Conv2d):
    def forward(self, x):
        return super().forward(x) + self.bias[:, None, None]


class Skipping(nn.Module):
    """The block 4c reads 4a, and nothing reads 4b."""

    def __init__(self):
        super().__init__()
        self.net = book()

    def forward(self, x):
        stem, (a, b, c), rest = self.net[:11], self.net[11:14], self.net[14:]
        x = a(stem(x))
        b(x)
        return rest(c(x))


class Single(nn.Module):
    """A network that casts what it gets to float32."""

    def __init__(self):
        super().__init__()
        self.net = book()

    def forward(self, x):
        return self.net.float()(x.float())


class OnePool(Block):
    """The reducing convolution of the 3x3 branch runs in the 5x5 branch too."""

    def __init__(self, i, c1, c2, c3, c4):
        super().__init__(i, c1, c2, c3, c4)
        self.same = c2[0] == c1

    def forward(self, x):
        p1 = F.relu(self.p1_1(x))
        p2 = F.relu(self.p2_2(F.relu((self.p1_1 if self.same else self.p2_1)(x))))
        p3 = F.relu(self.p3_2(F.relu(self.p3_1(x))))
        p4 = F.relu(self.p4_2(self.p4_1(x)))
        return torch.cat((p1, p2, p3, p4), dim=1)


class DropAlways(nn.Module):
    def forward(self, x):
        return F.dropout(x, 0.4)


class Scaled(nn.Module):
    """The network that scales its input first."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net((x - 0.5) / 0.5)


class Odd(nn.Module):
    """An input that no simple step makes."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(torch.sin(3 * x) + 0.2 * x.flip(3))


class Channels(nn.Module):
    """Takes (N, H, W, C)."""

    def __init__(self):
        super().__init__()
        self.net = book()

    def forward(self, x):
        assert x.shape[3] == 1, "channels last"
        return self.net(x.permute(0, 3, 1, 2))


class Dictionary(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = book()

    def forward(self, x):
        features = self.body[:-1](x)
        return {"logits": self.body[-1](features), "features": features}


class Pair(Dictionary):
    def forward(self, x):
        logits = self.body(x)
        return logits, None


def lazy():
    """Layers that learn their incoming channels."""

    class LazyBlock(Block):
        def __init__(self, c1, c2, c3, c4):
            nn.Module.__init__(self)
            self.p1_1 = nn.LazyConv2d(c1, kernel_size=1)
            self.p2_1 = nn.LazyConv2d(c2[0], kernel_size=1)
            self.p2_2 = nn.LazyConv2d(c2[1], kernel_size=3, padding=1)
            self.p3_1 = nn.LazyConv2d(c3[0], kernel_size=1)
            self.p3_2 = nn.LazyConv2d(c3[1], kernel_size=5, padding=2)
            self.p4_1 = nn.MaxPool2d(kernel_size=3, stride=1, padding=1)
            self.p4_2 = nn.LazyConv2d(c4, kernel_size=1)

    return book(lambda i, *row: LazyBlock(*row))


def functional():
    """Raw parameters and one function."""
    weights = {}

    def conv(x, name, o, k, stride=1, pad=0):
        if name not in weights:
            shape = (o, x.shape[1], k, k)
            weights[name] = torch.randn(shape) * 0.1, torch.zeros(o)
        return F.relu(F.conv2d(x, *weights[name], stride, pad))

    def net(x):
        x = F.max_pool2d(conv(x, "a", 8, 7, 2, 3), 3, 2, 1)
        x = F.max_pool2d(conv(conv(x, "b", 8, 1), "c", 24, 3, 1, 1), 3, 2, 1)
        for n, row in enumerate(BLOCKS):
            if row is None:
                x = F.max_pool2d(x, 3, 2, 1)
                continue
            _, c1, c2, c3, c4 = row
            a = conv(x, f"{n}a", c1, 1)
            b = conv(conv(x, f"{n}b", c2[0], 1), f"{n}c", c2[1], 3, 1, 1)
            c = conv(conv(x, f"{n}d", c3[0], 1), f"{n}e", c3[1], 5, 1, 2)
            d = conv(F.max_pool2d(x, 3, 1, 1), f"{n}f", c4, 1)
            x = torch.cat([a, b, c, d], 1)
        x = x.mean((2, 3))
        if "head" not in weights:
            weights["head"] = torch.randn(128, 10) * 0.1, torch.zeros(10)
        return x @ weights["head"][0] + weights["head"][1]

    net(torch.zeros(1, 1, 33, 33))
    return net


def pool_then_relu():
    layers = stem()
    layers[1], layers[2] = layers[2], layers[1]
    return book(first=layers)


def without(*gone):
    return [layer for n, layer in enumerate(stem()) if n not in gone]


def exchanged():
    """The blocks 4b and 4c are exchanged."""
    rows = list(BLOCKS)
    rows[4], rows[5] = rows[5], rows[4]
    return book(blocks=rows)


def changed(index, kind=nn.Conv2d, **kwargs):
    """The stem with one convolution or pool made anew."""
    layers = stem()
    old = layers[index]
    if isinstance(old, nn.Conv2d):
        size = {"kernel_size": old.kernel_size, "stride": old.stride, "padding": old.padding}
        layers[index] = kind(old.in_channels, old.out_channels, **{**size, **kwargs})
    else:
        layers[index] = nn.MaxPool2d(**{"kernel_size": 3, "stride": 2, "padding": 1, **kwargs})
    return book(first=layers)


#: a last pool with a window of its own: right at 96 pixels
FIXED = book, {"end": [nn.AvgPool2d(3), nn.Flatten(), nn.Linear(128, 10)]}


class Slices(Block):
    """Written part by part, not concatenated."""

    def forward(self, x):
        whole = super().forward(x)
        parts = whole.split([self.p1_1.out_channels, whole.shape[1] - self.p1_1.out_channels], 1)
        joined, at = torch.empty_like(whole), 0
        for part in parts:
            joined[:, at : at + part.shape[1]] = part
            at += part.shape[1]
        return joined


class Groups(Block):
    """The channels in groups, and back."""

    def forward(self, x):
        return super().forward(x).unflatten(1, (2, -1)).flatten(1, 2)


class Fused(nn.Module):
    """One convolution makes three branches."""

    def __init__(self, i, c1, c2, c3, c4):
        super().__init__()
        self.widths = c1, c2[0], c3[0]
        self.first = nn.Conv2d(i, sum(self.widths), 1)
        self.p2_2 = nn.Conv2d(c2[0], c2[1], 3, padding=1)
        self.p3_2 = nn.Conv2d(c3[0], c3[1], 5, padding=2)
        self.p4_2 = nn.Conv2d(i, c4, 1)

    def forward(self, x):
        p1, p2, p3 = F.relu(self.first(x)).split(self.widths, 1)
        p4 = F.relu(self.p4_2(F.max_pool2d(x, 3, 1, 1)))
        return torch.cat([p1, F.relu(self.p2_2(p2)), F.relu(self.p3_2(p3)), p4], 1)


class Each(nn.Module):
    """A loop over the images."""

    def __init__(self):
        super().__init__()
        self.net = book()

    def forward(self, x):
        return torch.cat([self.net(image[None]) for image in x])


class Cast(nn.Module):
    """Computes in half precision."""

    def __init__(self):
        super().__init__()
        self.net = book()

    def forward(self, x):
        with torch.autocast("cpu", torch.bfloat16):
            return self.net(x).float()


def scripted(*row):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is deprecated
        return torch.jit.script(Block(*row))


def weight_norm():
    net = book()
    nn.utils.parametrizations.weight_norm(net[3])
    return net


RIGHT = {
    "sequential": book,
    "a convolution, then the mean": lambda: book(
        end=[nn.Conv2d(128, 10, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    ),
    "written part by part": lambda: book(Slices),
    "channels in groups": lambda: book(Groups),
    "class": lambda: Dictionary,
    "factory": lambda: book,
    "another order": lambda: book(OtherOrder),
    "one relu after the concatenation": lambda: book(ReluOnce),
    "pool, then relu": pool_then_relu,
    "zeros around a pool behind a relu": lambda: book(ZeroPadded),
    "channels last": Channels,
    "dictionary": Dictionary,
    "tuple": Pair,
    "lazy": lazy,
    "float32": Single,
    "functional": functional,
}
WRONG = {
    "swapped": (lambda: book(Swapped), {"swapped-branches"}),
    "no relu": (lambda: book(NoRelu), {"missing-relu"}),
    "average pool": (lambda: book(AveragePool), {"avg-pool"}),
    "leaky": (lambda: book(Leaky), {"activation"}),
    "relu6": (lambda: book(Capped), {"activation"}),
    "reflected": (lambda: changed(0, padding_mode="reflect"), {"padding-mode"}),
    "replicated": (lambda: changed(5, padding_mode="replicate"), {"padding-mode"}),
    "clamped": (lambda: book(Clamped), {"extra-activation"}),
    "bias twice": (lambda: Twice(book()), {"bias-twice"}),
    "bias of a convolution twice": (lambda: changed(5, kind=BiasTwice), {"bias-twice"}),
    "shuffled": (lambda: book(Shuffled), {"channel-order"}),
    "turned": (lambda: Turned(book()), {"turned-image"}),
    "another input": (Skipping, {"other-input"}),
    "ceil": (lambda: changed(2, ceil_mode=True), {"ceil-pool"}),
    "no padding in a pool": (lambda: changed(2, padding=0), {"pool-window"}),
    "padding 2": (lambda: changed(0, padding=2), {"padding"}),
    "stride 1": (lambda: changed(0, stride=1), {"stride"}),
    "dilation": (lambda: changed(5, dilation=2, padding=2), {"dilation", "padding"}),
    "off centre": (
        lambda: book(first=[nn.ZeroPad2d((2, 3, 2, 3)), *changed(0, padding=0)[:8]]),
        {"same-padding"},
    ),
    "no first relu": (lambda: book(first=without(1)), {"missing-relu"}),
    "no stem pool": (lambda: book(first=without(7)), {"missing-pool"}),
    "softmax": (
        lambda: nn.Sequential(*book(), nn.Softmax(1)),
        {"softmax-at-end"},
    ),
    "log softmax and swapped": (
        lambda: nn.Sequential(*book(Swapped), nn.LogSoftmax(1)),
        {"softmax-at-end", "swapped-branches"},
    ),
    "relu on the logits": (lambda: nn.Sequential(*book(), nn.ReLU()), {"activation-at-end"}),
    "global max": (
        lambda: book(end=[nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(128, 10)]),
        {"global-pool"},
    ),
    "dropout": (
        lambda: nn.Sequential(*book()[:-1], DropAlways(), nn.Linear(128, 10)),
        {"dropout-active"},
    ),
    "flatten": (
        lambda: book(end=[nn.Flatten(), nn.Linear(128 * 4, 10)]),
        {"missing-global-pool"},
    ),
    "scaled input": (lambda: Scaled(book()), {"input-scaled"}),
    "scaled input and no relu": (lambda: Scaled(book(NoRelu)), {"input-scaled", "missing-relu"}),
    "width": (
        lambda: book(blocks=[(24, 8, (12, 16), (2, 4), 8), (36, *BLOCKS[1][1:]), *BLOCKS[2:]]),
        {"layer-shape"},
    ),
    "no 4c": (
        lambda: book(blocks=[row for n, row in enumerate(BLOCKS) if n != 5]),
        {"missing-block"},
    ),
    "exchanged": (exchanged, {"exchanged-blocks"}),
    "twice": (lambda: book(OnePool), {"shared-layer"}),
    "no head bias": (
        lambda: book(end=[nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10, bias=False)]),
        {"missing-bias"},
    ),
}
#: networks that no list of mistakes explains: the outcome, and names that may be said beside it
REFUSED = {
    "one convolution for three branches": (lambda: book(Fused), "makes several branches"),
    "a loop over the images": (Each, "takes one image at a time at "),
    "bfloat16": (Cast, "computes in bfloat16"),
    "weight norm": (weight_norm, "A weight is computed in each run, at "),
    "a compiled block": (lambda: book(scripted), "8 is compiled by TorchScript"),
}
OPEN = {
    "odd input": (lambda: Odd(book()), "unexplained", set()),
    "odd input and no relu": (lambda: Odd(book(NoRelu)), "unexplained", {"missing-relu"}),
    "extra layer": (
        lambda: book(first=[*stem()[:5], nn.Conv2d(8, 8, 1), nn.ReLU(), *stem()[5:]]),
        "structure",
        {"extra-layer"},
    ),
    "extra block": (
        lambda: book(blocks=[*BLOCKS[:5], BLOCKS[5], *BLOCKS[5:]]),
        "structure",
        {"extra-block"},
    ),
}


class ConvNorm(nn.Sequential):
    """A published variant's unit."""

    def __init__(
        self, i, o, k, stride=1, pad=0, eps=1e-3, bias=True, norm=nn.BatchNorm2d, first="norm", **kw
    ):
        layers = [nn.Conv2d(i, o, k, stride, pad, bias=bias)]
        units = [norm(o, eps=eps, **kw)] if norm else []
        units.append(nn.ReLU(inplace=bool(norm)))
        super().__init__(*layers, *(units if first == "norm" else units[::-1]))


class NormBlock(nn.Module):
    def __init__(self, unit, i, c1, c2, c3, c4):
        super().__init__()
        self.branch1 = unit(i, c1, 1)
        self.branch2 = nn.Sequential(unit(i, c2[0], 1), unit(c2[0], c2[1], 3, pad=1))
        self.branch3 = nn.Sequential(unit(i, c3[0], 1), unit(c3[0], c3[1], 5, pad=2))
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, 1, 1), unit(i, c4, 1))

    def forward(self, x):
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)


class WithNorm(nn.Module):
    def __init__(self, unit=ConvNorm, lone=None):
        super().__init__()
        self.unit, parts = unit, []
        parts += [unit(1, 8, 7, 2, 3), nn.MaxPool2d(3, 2, 1), unit(8, 8, 1)]
        parts += [(lone or unit)(8, 24, 3, pad=1), nn.MaxPool2d(3, 2, 1)]
        parts += [nn.MaxPool2d(3, 2, 1) if r is None else NormBlock(unit, *r) for r in BLOCKS]
        self.features = nn.Sequential(*parts)
        self.fc = nn.Linear(128, 10)

    def forward(self, x):
        x = self.features(x)
        x = F.adaptive_avg_pool2d(x, 1)
        return self.fc(x.view(x.size(0), -1))


def unit(**kwargs):
    return lambda *args, **more: ConvNorm(*args, **more, **kwargs)


class OwnNorm(nn.Module):
    """The book's norm, written out; its running statistics are no buffers."""

    def __init__(self, channels, eps=1e-3, folded=False):
        super().__init__()
        self.eps, self.folded, shape = eps, folded, (1, channels, 1, 1)
        self.gamma, self.beta = nn.Parameter(torch.ones(shape)), nn.Parameter(torch.zeros(shape))
        self.mean, self.var = torch.zeros(shape), torch.ones(shape)

    def forward(self, x):
        if self.folded:
            scale = self.gamma * torch.rsqrt(self.var + self.eps)
            return x * scale + (self.beta - self.mean * scale)
        y = self.gamma * ((x - self.mean) / torch.sqrt(self.var + self.eps)) + self.beta
        self.mean, self.var = self.mean.data, self.var.data
        return y


RIGHT_NORM = {
    "norm": WithNorm,
    "own norm": lambda: WithNorm(unit(norm=OwnNorm)),
    "own norm, folded": lambda: WithNorm(unit(norm=OwnNorm, folded=True)),
    "no bias in front of a norm": lambda: WithNorm(unit(bias=False)),
}
WRONG_NORM = {
    "eps": (lambda: WithNorm(unit(eps=1e-5)), {"norm-eps"}),
    "relu before the norm": (lambda: WithNorm(unit(first="relu")), {"norm-order"}),
    "batch statistics": (
        lambda: WithNorm(unit(track_running_stats=False)),
        {"norm-batch-statistics"},
    ),
    "no scale and shift": (lambda: WithNorm(unit(affine=False)), {"norm-affine"}),
    "an instance norm": (
        lambda: WithNorm(lone=unit(norm=nn.InstanceNorm2d, affine=True)),
        {"other-norm"},
    ),
    "a group norm": (
        lambda: WithNorm(lone=unit(norm=lambda n, eps: nn.GroupNorm(4, n, eps))),
        {"other-norm"},
    ),
    "a norm is missing": (lambda: WithNorm(lone=unit(norm=False)), {"norm-missing"}),
    "eps, and a norm is missing": (
        lambda: WithNorm(unit(eps=1e-5), lone=unit(norm=False)),
        {"norm-eps", "norm-missing"},
    ),
}
