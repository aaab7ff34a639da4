"""The names and axis orders of weights in the files of other programs.

A naming has the name of every layer of a spec in one kind of program: our backends, the book (d2l's
`nn.Sequential` of five blocks, and its Inception with p1_1 to p4_2), torchvision or paddle.vision.
A format has the names of a layer's tensors in one framework, and the order of their axes. Namings
are computed from the spec, so a new spec needs no table. A new naming is one function in NAMINGS.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from string import ascii_lowercase

import numpy as np

from common.formats.family_names import (
    BN_INCEPTION,
    FAMILY_NAMINGS,
    FAMILY_OWNERS,
    GLUON_V3,
    TIMM_RESNET,
    TIMM_V4,
    TORCH_V3,
)
from common.spec import Branches, Conv, Inception, Residual, Row, Spec, inner_rows
from common.weights import shapes

Layers = dict[str, str]  #: canonical name of a layer (`stage1.0.conv`): its name in the file

#: the number of the book's path (p1_1, p2_1, p2_2, ...) for each of our branches
PATHS = {"branch1x1": 1, "branch3x3": 2, "branch5x5": 3, "branch_pool": 4}


@dataclass(frozen=True)
class Format:
    """The names of a layer's tensors in a framework's files, and the order of their axes.

    `norm` and `other` have the suffixes after a layer's name. `conv` and `linear` have the
    canonical axes in the order of the file.
    """

    backend: str | None  #: the backend whose `save` writes it
    suffix: str
    norm: Mapping[str, str]
    other: Mapping[str, str]
    conv: tuple[int, int, int, int] = (0, 1, 2, 3)
    linear: tuple[int, int] = (0, 1)

    def name(self, layers: Layers, canonical: str) -> str:
        """The name of a canonical tensor in the file."""
        layer, _, leaf = canonical.rpartition(".")
        return layers[layer] + (self.norm if layer.endswith("norm") else self.other)[leaf]

    def shape(self, canonical: tuple[int, ...]) -> tuple[int, ...]:
        """The shape in the file of a tensor with this canonical shape."""
        return tuple(canonical[axis] for axis in self.axes(len(canonical)))

    def axes(self, ndim: int) -> tuple[int, ...]:
        """The canonical axes in the order of the file, for a tensor of `ndim` axes."""
        return {4: self.conv, 2: self.linear}.get(ndim, tuple(range(ndim)))

    def native(self, array: np.ndarray) -> np.ndarray:
        """A canonical array, contiguous, with its axes in the order of the file."""
        return np.ascontiguousarray(array.transpose(self.axes(array.ndim)))

    def canonical(self, array: np.ndarray) -> np.ndarray:
        """An array of the file, contiguous, with its axes in the canonical order."""
        return np.ascontiguousarray(array.transpose(np.argsort(self.axes(array.ndim))))


OTHER = {"weight": ".weight", "bias": ".bias"}
NORM = {**OTHER, "running_mean": ".running_mean", "running_var": ".running_var"}
BY_NUMBER = {"weight": "/vars/0", "bias": "/vars/1"}

FORMATS = {
    "torch": Format("torch", ".pt", NORM, OTHER),
    "tf": Format(
        "tf",
        ".weights.h5",
        {**BY_NUMBER, "running_mean": "/vars/2", "running_var": "/vars/3"},
        BY_NUMBER,
        conv=(2, 3, 1, 0),  # HWIO
        linear=(1, 0),  # (in, out)
    ),
    "mxnet": Format("mxnet", ".params", {**NORM, "weight": ".gamma", "bias": ".beta"}, OTHER),
    "paddle": Format(
        "paddle",
        ".pdparams",
        {**NORM, "running_mean": "._mean", "running_var": "._variance"},
        OTHER,
        linear=(1, 0),  # (in, out)
    ),
    "safetensors": Format(None, ".safetensors", NORM, OTHER),
    "npz": Format(None, ".npz", NORM, OTHER),
    "onnx": Format(None, ".onnx", NORM, OTHER),
}

SUFFIXES = {form.suffix: name for name, form in FORMATS.items()}
SUFFIXES |= {".pth": "torch", ".keras": "tf"}  #: a `.keras` file is the whole model

#: the layouts that the arrays of a format may have, by the format that always has them
LAYOUTS = {
    "torch": ("torch",),
    "tf": ("tf",),
    "mxnet": ("torch",),
    "paddle": ("paddle", "torch"),
    "safetensors": ("torch", "paddle", "tf"),
    "npz": ("torch", "paddle", "tf"),
    "onnx": ("torch",),
}


# --- names by attribute and index: PyTorch, Paddle, MXNet, and ours in a safetensors file
def ours(spec: Spec) -> Iterator[Layers]:
    """The canonical names."""
    layers = dict.fromkeys(name.rpartition(".")[0] for name in shapes(spec))
    yield {layer: layer for layer in layers}


def book(spec: Spec) -> Iterator[Layers]:
    """The book's blocks in a Sequential, with paths p1_1 or b1_1.

    A ReLU that is a layer is counted (PyTorch,
    Paddle); a ReLU that is an argument of the convolution is not (MXNet). The book has no norm in
    this network. Its readers write convolution and norm in sequence or in a Sequential, both in
    the blocks and in the paths.
    """
    for letter, relus in product("pb", (True, False)):
        if not spec.norm:
            yield _book(spec, letter, relus, False, "{}_{}", "")
            continue
        for nested in (False, True):
            yield _book(spec, letter, relus, nested, "{}_{}.0", "{}_{}.1")
            yield _book(spec, letter, relus, nested, "{}_{}", "bn{}_{}")
            yield _book(spec, letter, relus, nested, "{}_{}", "{}_{}_bn")


def _book(spec: Spec, letter: str, relus: bool, nested: bool, conv: str, norm: str) -> Layers:
    layers = {}
    for number, (stage, rows) in enumerate(spec.stages()):
        index = 0
        for place, row in enumerate(rows):
            at = f"{number}.{index}"
            if isinstance(row, Conv):
                layers[f"{stage}.{place}.conv"] = f"{at}.0" if nested else at
                if spec.norm:
                    follows = f"{at}.1" if nested else f"{number}.{index + 1}"
                    layers[f"{stage}.{place}.norm"] = follows
                    index += 0 if nested else 1
                index += 1 if relus and row.activation and not nested else 0
            elif isinstance(row, Inception):
                for layer, path, step in _paths(row, f"{stage}.{place}"):
                    word = f"{at}.{letter}{conv}".format(path, step)
                    layers[f"{layer}.conv"] = word
                    if spec.norm:
                        own = norm if norm.startswith("bn") else letter + norm
                        layers[f"{layer}.norm"] = f"{at}.{own}".format(path, step)
            index += 1
    return layers | {"head": f"{len(spec.stages())}"}


def gluon_book(spec: Spec) -> Iterator[Layers]:
    """The same names; first those of a ReLU that is an argument, unless a norm precedes it."""
    found = list(book(spec))
    if not spec.norm:
        found = found[1::2] + found[::2]
    yield from found


def _paths(row: Inception, block: str) -> Iterator[tuple[str, int, int]]:
    """Each convolution of a block: its canonical name, the book's path and the step in it."""
    for branch, rows in row.branches():
        for place, inner in enumerate(rows):
            if isinstance(inner, Conv):
                yield f"{block}.{branch}.{place}", PATHS[branch], place + 1


def _numbered(spec: Spec) -> Iterator[tuple[str, Conv | Inception, str]]:
    """The rows with weights by canonical name: convolutions as 1, 2, ..., blocks as 3a, 3b, ..."""
    number = 0
    for stage, rows in spec.stages():
        letters = iter(ascii_lowercase)
        for place, row in enumerate(rows):
            if isinstance(row, Conv):
                number += 1
                yield f"{stage}.{place}", row, str(number)
            elif isinstance(row, Inception):
                yield f"{stage}.{place}", row, stage[-1] + next(letters)


def torchvision(spec: Spec) -> Iterator[Layers]:
    """torchvision's `GoogLeNet`: conv1 to conv3, inception3a to 5b, aux1 and aux2, fc."""
    layers = {"head": "fc"}
    for name, row, word in _numbered(spec):
        if isinstance(row, Conv):
            layers |= _with_norm(name, f"conv{word}")
            continue
        for layer, path, step in _paths(row, name):
            inside = f".{step - 1}" if len(row.branches()[path - 1][1]) > 1 else ""
            layers |= _with_norm(layer, f"inception{word}.branch{path}{inside}")
    for index, _ in enumerate(spec.auxiliary):
        ours, theirs = f"auxiliary.{index}", f"aux{index + 1}"
        layers |= _with_norm(f"{ours}.conv", f"{theirs}.conv")
        layers |= {f"{ours}.hidden": f"{theirs}.fc1", f"{ours}.head": f"{theirs}.fc2"}
    yield layers


def _with_norm(layer: str, name: str) -> Layers:
    return {f"{layer}.conv": f"{name}.conv", f"{layer}.norm": f"{name}.bn"}


def paddle_vision(spec: Spec) -> Iterator[Layers]:
    """paddle.vision's `GoogLeNet`: _conv to _conv_2, _ince3a to _ince5b, _fc_out, _out1, _out2."""
    inside = {(1, 1): "_conv1", (2, 1): "_conv3r", (2, 2): "_conv3", (3, 1): "_conv5r"}
    inside |= {(3, 2): "_conv5", (4, 2): "_convprj"}
    layers = {"head": "_fc_out"}
    for name, row, word in _numbered(spec):
        if isinstance(row, Conv):
            before = int(word) - 1
            layers[f"{name}.conv"] = f"_conv{f'_{before}' if before else ''}._conv"
            continue
        for layer, path, step in _paths(row, name):
            if (path, step) in inside:
                layers[f"{layer}.conv"] = f"_ince{word}.{inside[path, step]}._conv"
    for index, _ in enumerate(spec.auxiliary):
        ours, theirs = f"auxiliary.{index}", index + 1
        layers[f"{ours}.conv.conv"] = f"_conv_o{theirs}._conv"
        layers |= {f"{ours}.hidden": f"_fc_o{theirs}", f"{ours}.head": f"_out{theirs}"}
    yield layers


GLUONCV = "GluonCV's names"


def gluoncv(spec: Spec) -> Iterator[Layers]:
    """GluonCV's `GoogLeNet`: torchvision's words; a convolution and its norm in a Sequential.

    A block's branches have numbers, and so has everything in them, pools included.
    """
    layers = {"head": "output"}

    def add(layer: str, name: str) -> None:
        layers[f"{layer}.conv"], layers[f"{layer}.norm"] = f"{name}.0", f"{name}.1"

    for name, row, word in _numbered(spec):
        if isinstance(row, Conv):
            add(name, f"conv{word}")
            continue
        for layer, path, _ in _paths(row, name):
            add(layer, f"inception{word}.{path - 1}.{layer.rpartition('.')[2]}")
    for index, _ in enumerate(spec.auxiliary):
        ours, theirs = f"auxiliary.{index}", f"aux{index + 1}"
        add(f"{ours}.conv", f"{theirs}.1")
        layers |= {f"{ours}.hidden": f"{theirs}.3", f"{ours}.head": f"{theirs}.6"}
    yield layers


# --- names by class and order: Keras
class Container:
    """Names the layers of a Keras container: `conv2d`, `conv2d_1`, ... for each class.

    Keras stores an attribute under its own name instead if that name sorts before `layers`.
    """

    def __init__(self, path: str) -> None:
        self.path, self.count = path, Counter[str]()

    def add(self, kind: str, folder: str = "layers/") -> str:
        """The path of the next layer of a class; in a list there is no folder."""
        number = self.count[kind]
        self.count[kind] += 1
        return f"{self.path}{folder}{kind}{f'_{number}' if number else ''}"


def keras_ours(spec: Spec) -> Iterator[Layers]:
    """Our own `GoogLeNet` in Keras."""
    layers, net = {}, Container("")

    def add(rows: tuple[Row, ...], path: str, prefix: str) -> None:
        inside = Container(f"{path}/")
        for place, row in enumerate(rows):
            layer = f"{prefix}.{place}"
            if isinstance(row, Conv):
                at = inside.add("conv")
                layers[f"{layer}.conv"] = f"{at}/conv"
                if spec.norm:
                    layers[f"{layer}.norm"] = f"{at}/norm"
            elif isinstance(row, (Inception, Residual)):
                at = inside.add(type(row).__name__.lower())
                for part, inner in inner_rows(row):
                    add(inner, f"{at}/{part}", f"{layer}.{part}")
            elif isinstance(row, Branches):
                branches = Container(f"{inside.add('branches')}/branches/")  # a list
                for part, inner in inner_rows(row):
                    add(inner, branches.add("sequential", ""), f"{layer}.{part}")

    for stage, rows in spec.stages():
        add(rows, net.add("sequential"), stage)
    for index, _ in enumerate(spec.auxiliary):  # a list, not a container
        at, name = f"auxiliary/auxiliary{f'_{index}' if index else ''}", f"auxiliary.{index}"
        layers |= {f"{name}.{layer}": f"{at}/{layer}" for layer in ("hidden", "head")}
        for conv, layer in product(("conv", "hidden"), ("conv", "norm")):
            layers[f"{name}.{conv}.{layer}"] = f"{at}/{conv}/{layer}"
    yield layers | {"head": "head"}


def keras_book(spec: Spec) -> Iterator[Layers]:
    """The book's blocks in a Sequential; see `book`.

    If the Inception block is a Model, Keras stores p1_1 to p4_2 by class and order. If it is a
    Layer, Keras stores them by name. It stores b1_1 to b4_2 by name in both.
    """
    for letter in ("", "p", "b"):
        for nested in (False, True) if spec.norm else (False,):
            for inside in ("sequential", "bn{}_{}", "{}_{}_bn") if spec.norm else ("",):
                yield _keras_book(spec, letter, nested, inside)


def _keras_book(spec: Spec, letter: str, nested: bool, inside: str) -> Layers:
    layers, net = {}, Container("")

    def add(layer: str, block: Container, attribute: str, nest: bool, norm: str) -> None:
        """A convolution and its norm, in sequence or in a Sequential."""
        if nest:
            block = Container(f"{attribute or block.add('sequential')}/")
            attribute = norm = ""
        layers[f"{layer}.conv"] = attribute or block.add("conv2d")
        if spec.norm:
            layers[f"{layer}.norm"] = norm or block.add("batch_normalization")

    for stage, rows in spec.stages():
        block = Container(f"{net.add('sequential')}/")
        for place, row in enumerate(rows):
            if isinstance(row, Conv):
                add(f"{stage}.{place}", block, "", nested, "")
            elif isinstance(row, Inception):
                at = block.add("inception")
                paths = Container(f"{at}/")
                for layer, path, step in _paths(row, f"{stage}.{place}"):
                    attribute = f"{at}/{letter}{path}_{step}" if letter else ""
                    own = inside if inside.startswith("bn") else letter + inside
                    norm = f"{at}/{own}".format(path, step) if letter else ""
                    add(layer, paths, attribute, inside == "sequential", norm)
    return layers | {"head": net.add("dense")}


PADDLE_VISION = "paddle.vision's names"

#: namings that belong only to some specs: the beginnings of their names. Other networks may have
#: these names too, but then their pools and paddings are not known.
OWNERS = {
    "torchvision's names": ("torchvision",),
    GLUONCV: ("torchvision",),
    PADDLE_VISION: ("paddle-vision",),
    **FAMILY_OWNERS,
}

#: the namings that `--names` writes; the first layers of a naming are those that its class has
WRITTEN = {
    "ours": ("our names",),
    "book": ("the book's names",),
    "torchvision": ("torchvision's names", TORCH_V3),
    "timm": (TORCH_V3, TIMM_V4, TIMM_RESNET),
    "pretrainedmodels": (BN_INCEPTION,),
    "paddle-vision": (PADDLE_VISION,),
    "gluoncv": (GLUONCV, GLUON_V3),
}


def belongs(naming: str, spec: Spec) -> bool:
    """Whether a naming may be used for a spec."""
    return naming not in OWNERS or spec.name.startswith(OWNERS[naming])


#: the namings to try for each format, in this order; a function yields one or more for a spec
NAMINGS: dict[str, dict[str, Callable[[Spec], Iterator[Layers]]]] = {
    "torch": {
        "our names": ours,
        "the book's names": book,
        "torchvision's names": torchvision,
    },
    "tf": {"our names": keras_ours, "the book's names": keras_book},
    "mxnet": {"our names": ours, "the book's names": gluon_book, GLUONCV: gluoncv},
    "paddle": {
        "our names": ours,
        "the book's names": book,
        PADDLE_VISION: paddle_vision,
    },
    "safetensors": {
        "our names": ours,
        "the book's names": book,
        "torchvision's names": torchvision,
    },
    "npz": {
        "our names": ours,
        "the book's names": book,
        "torchvision's names": torchvision,
    },
    "onnx": {"our names": ours},
}
for _format, _more in FAMILY_NAMINGS.items():
    NAMINGS[_format] |= _more
