"""The names that other packages give to the layers of the later Inception networks.

A naming here is the list of a package's convolutions in the order of the network. It is put beside
the canonical layers, which have the same order: `tests/upstream` and `tests/packages` hold the
files and logits of the packages against that. So a naming is tried only for a spec with as many
convolutions. Names do not say everything: the Inception-v3 of torchvision and all of timm's have
the same names, but some of timm's weights were trained as another function. Only `--spec` can
choose there.

`normalise` undoes what two packages do to the tensors themselves.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from common.formats.readers.base import File, Unreadable
from common.spec import Spec
from common.weights import shapes

Layers = dict[str, str]  #: as in `naming`
Convs = list[tuple[str, str]]  #: the names of a convolution and of its norm; "" where it has none


def beside(spec: Spec, convs: Convs, heads: list[str]) -> Iterator[Layers]:
    """The naming that has these convolutions, auxiliary ones last, and these linear layers.

    The head is the last of `heads`. Nothing, if the spec has other layers.
    """
    layers = dict.fromkeys(name.rpartition(".")[0] for name in shapes(spec))
    ours = [name for name in layers if name.endswith(".conv")]
    linear = [name for name in layers if not name.endswith((".conv", ".norm"))]
    norms = [f"{name.removesuffix('.conv')}.norm" for name in ours]
    if len(ours) != len(convs) or len(linear) != len(heads):
        return
    if any(
        (norm in layers) != bool(theirs) for norm, (_, theirs) in zip(norms, convs, strict=True)
    ):
        return
    found = dict(zip(linear, heads, strict=True))
    for conv, norm, (their_conv, their_norm) in zip(ours, norms, convs, strict=True):
        found[conv] = their_conv
        found |= {norm: their_norm} if their_norm else {}
    yield found


def _inside(names: list[str], conv: str, norm: str) -> Convs:
    """Each name with the words that follow it."""
    return [(f"{name}{conv}", f"{name}{norm}") for name in names]


# --- Inception-v3

_STEM = ["1a_3x3", "2a_3x3", "2b_3x3", "3b_1x1", "4a_3x3"]
_DOUBLE = [f"branch3x3dbl_{step}" for step in (1, 2, 3)]
_A = ["branch1x1", "branch5x5_1", "branch5x5_2", *_DOUBLE, "branch_pool"]
_B = ["branch3x3", *_DOUBLE]
_C = [
    "branch1x1",
    *(f"branch7x7_{step}" for step in (1, 2, 3)),
    *(f"branch7x7dbl_{step}" for step in (1, 2, 3, 4, 5)),
    "branch_pool",
]
_D = ["branch3x3_1", "branch3x3_2", *(f"branch7x7x3_{step}" for step in (1, 2, 3, 4))]
_E = [
    "branch1x1",
    *(f"branch3x3_{step}" for step in ("1", "2a", "2b")),
    *(f"branch3x3dbl_{step}" for step in ("1", "2", "3a", "3b")),
    "branch_pool",
]
_V3 = {
    **{"5b": _A, "5c": _A, "5d": _A, "6a": _B},
    **{"6b": _C, "6c": _C, "6d": _C, "6e": _C, "7a": _D, "7b": _E, "7c": _E},
}


def torchvision_v3(spec: Spec) -> Iterator[Layers]:
    """`inception_v3` of torchvision and timm: Conv2d_1a_3x3, Mixed_5b to 7c, AuxLogits, fc."""
    names = [f"Conv2d_{word}" for word in _STEM]
    names += [f"Mixed_{block}.{inner}" for block in _V3 for inner in _V3[block]]
    names += ["AuxLogits.conv0", "AuxLogits.conv1"][: 2 * len(spec.auxiliary)]
    heads = ["AuxLogits.fc"][: len(spec.auxiliary)]
    yield from beside(spec, _inside(names, ".conv", ".bn"), [*heads, "fc"])


def paddle_v3(spec: Spec) -> Iterator[Layers]:
    """paddle.vision's `inception_v3`: inception_stem, inception_block_list.0 to 10, fc."""
    names = [f"inception_stem.conv_{word}" for word in _STEM]
    for index, block in enumerate(_V3.values()):
        inner = ["branch_pool_conv" if name == "branch_pool" else name for name in block]
        names += [f"inception_block_list.{index}.{name}" for name in inner]
    yield from beside(spec, _inside(names, ".0", ".1"), ["fc"])


#: the places of a block's convolutions in Gluon: branch, step, and again in a fork
_GLUON_A = ["0.0", "1.0", "1.1", "2.0", "2.1", "2.2", "3.1"]
_GLUON_B = ["0.0", "1.0", "1.1", "1.2"]
_GLUON_C = ["0.0", *(f"1.{step}" for step in range(3)), *(f"2.{step}" for step in range(5)), "3.1"]
_GLUON_D = ["0.0", "0.1", *(f"1.{step}" for step in range(4))]
_GLUON_E = [
    *("0.0", "1.0.0", "1.1.0.0", "1.1.1.0"),
    *("2.0.0", "2.0.1", "2.1.0.0", "2.1.1.0", "3.1"),
]


def gluon_v3(spec: Spec) -> Iterator[Layers]:
    """`inception_v3` of Gluon's model zoo and of GluonCV: features.0 to 17, output."""
    blocks = [*[_GLUON_A] * 3, _GLUON_B, *[_GLUON_C] * 4, _GLUON_D, *[_GLUON_E] * 2]
    names = [f"features.{index}" for index in (0, 1, 2, 4, 5)]
    names += [f"features.{index}.{at}" for index, block in enumerate(blocks, 7) for at in block]
    yield from beside(spec, _inside(names, ".0", ".1"), ["output"])


# --- Keras Applications

#: Keras makes the layers in the order of the network and numbers them. A `.weights.h5` counts them
#: again in the order of `model.layers`, which is sorted by depth: the places of a block's
#: convolutions in the file, each with its place in the network.
_DEPTH = {
    "A": (3, 1, 4, 0, 2, 5, 6),
    "B": (1, 2, 0, 3),
    "C": (4, 5, 1, 6, 2, 7, 0, 3, 8, 9),
    "D": (2, 3, 0, 4, 1, 5),
    "E": (4, 1, 5, 2, 3, 6, 7, 0, 8),
}
_BLOCKS = "AAABCCCCDEE"
_CONVS = 5 + sum(len(_DEPTH[block]) for block in _BLOCKS)
BY_NAME = "by_name"  #: stands for `layers` where the layers are in the order of their numbers


def keras_v3(spec: Spec) -> Iterator[Layers]:
    """`InceptionV3` of Keras Applications, in a `.weights.h5`, or in an `.h5` after `normalise`."""
    order = list(range(5))
    for block in _BLOCKS:
        order += [len(order) + place for place in _DEPTH[block]]
    for folder, places in (("layers", order), (BY_NAME, range(len(order)))):
        numbered = {ours: f"_{number}" if number else "" for number, ours in enumerate(places)}
        convs = [
            (f"{folder}/conv2d{numbered[ours]}", f"{folder}/batch_normalization{numbered[ours]}")
            for ours in range(len(order))
        ]
        yield from beside(spec, convs, [f"{folder}/dense"])


# --- timm's Inception-v4 and Inception-ResNet-v2, pretrainedmodels' batch-norm Inception


def _branches(*lengths: int) -> list[str]:
    """branch0, branch1.0, branch1.1, ... for the numbers of convolutions in the branches."""
    return [
        f"branch{index}{f'.{step}' if length > 1 else ''}"
        for index, length in enumerate(lengths)
        for step in range(length)
    ]


def timm_v4(spec: Spec) -> Iterator[Layers]:
    """timm's `inception_v4`: features.0 to 21, last_linear."""
    fork = ["branch0", "branch1_0", "branch1_1a", "branch1_1b", "branch2_0", "branch2_1"]
    fork += ["branch2_2", "branch2_3a", "branch2_3b", "branch3.1"]
    blocks = [["conv"], _branches(2, 4), ["conv"]]
    blocks += [[*_branches(1, 2, 3), "branch3.1"]] * 4
    blocks += [_branches(1, 3), *[[*_branches(1, 3, 5), "branch3.1"]] * 7]
    blocks += [_branches(2, 4), *[fork] * 3]
    names = ["features.0", "features.1", "features.2"]
    names += [
        f"features.{index}.{inner}" for index, block in enumerate(blocks, 3) for inner in block
    ]
    yield from beside(spec, _inside(names, ".conv", ".bn"), ["last_linear"])


def timm_resnet(spec: Spec) -> Iterator[Layers]:
    """timm's `inception_resnet_v2`: conv2d_1a, mixed_5b, repeat, repeat_1, repeat_2, classif."""
    convs: Convs = []

    def add(prefix: str, names: list[str]) -> None:
        convs.extend(_inside([f"{prefix}{name}" for name in names], ".conv", ".bn"))

    def residual(prefix: str, *lengths: int) -> None:
        add(f"{prefix}.", _branches(*lengths))
        convs.append((f"{prefix}.conv2d", ""))

    add("conv2d_", ["1a", "2a", "2b", "3b", "4a"])
    add("mixed_5b.", [*_branches(1, 2, 3), "branch3.1"])
    for index in range(10):
        residual(f"repeat.{index}", 1, 2, 3)
    add("mixed_6a.", _branches(1, 3))
    for index in range(20):
        residual(f"repeat_1.{index}", 1, 3)
    add("mixed_7a.", _branches(2, 2, 3))
    for name in (*(f"repeat_2.{index}" for index in range(9)), "block8"):
        residual(name, 1, 3)
    add("", ["conv2d_7b"])
    yield from beside(spec, convs, ["classif"])


def bninception(spec: Spec) -> Iterator[Layers]:
    """pretrainedmodels' `bninception`: conv1_7x7_s2, inception_3a_1x1, ..., last_linear."""
    double = ["double_3x3_reduce", "double_3x3_1", "double_3x3_2"]
    names = ["conv1_7x7_s2", "conv2_3x3_reduce", "conv2_3x3"]
    for block in ("3a", "3b", "3c", "4a", "4b", "4c", "4d", "4e", "5a", "5b"):
        inner = ["3x3_reduce", "3x3", *double]
        inner = inner if block in ("3c", "4e") else ["1x1", *inner, "pool_proj"]
        names += [f"inception_{block}_{name}" for name in inner]
    yield from beside(spec, _inside(names, "", "_bn"), ["last_linear"])


PADDLE_V3 = "paddle.vision's names of Inception-v3"

TORCH_V3, TIMM_V4, TIMM_RESNET, BN_INCEPTION = (
    "torchvision's and timm's names of Inception-v3",
    "timm's names of Inception-v4",
    "timm's names of Inception-ResNet-v2",
    "pretrainedmodels' names of batch-norm Inception",
)
GLUON_V3 = "Gluon's names of Inception-v3"

_TORCH: dict[str, Callable[[Spec], Iterator[Layers]]] = {
    TORCH_V3: torchvision_v3,
    TIMM_V4: timm_v4,
    TIMM_RESNET: timm_resnet,
    BN_INCEPTION: bninception,
}

#: the namings for each format, to be tried after those of `naming`
FAMILY_NAMINGS: dict[str, dict[str, Callable[[Spec], Iterator[Layers]]]] = {
    "torch": _TORCH,
    "safetensors": _TORCH,
    "npz": _TORCH,
    "tf": {"Keras Applications' names of Inception-v3": keras_v3},
    "mxnet": {GLUON_V3: gluon_v3},
    "paddle": {PADDLE_V3: paddle_v3},
}

#: the specs that a naming belongs to, by the beginning of their names
FAMILY_OWNERS = {
    TORCH_V3: ("inception-v3",),
    TIMM_V4: ("inception-v4",),
    TIMM_RESNET: ("inception-resnet-v2",),
    BN_INCEPTION: ("bn-inception",),
    PADDLE_V3: ("inception-v3-paddle",),
    "Keras Applications' names of Inception-v3": ("inception-v3-keras",),
    GLUON_V3: ("inception-v3",),
}


# --- what is not a matter of names


def normalise(file: File) -> File:
    """The file without what two packages do to its tensors.

    GluonCV stores its output layer twice. Keras Applications' norms have no weight (`scale=False`),
    and an `.h5` of Keras 2 names layers by a count that goes on from model to model.
    """
    arrays = dict(file.arrays)
    if file.format == "mxnet":
        for leaf in ("weight", "bias"):
            copy, own = (arrays.get(f"{layer}.{leaf}") for layer in ("head.2", "output"))
            if copy is not None and own is not None and np.array_equal(copy, own, equal_nan=True):
                del arrays[f"head.2.{leaf}"]
    if file.format == "tf":
        arrays = _with_norm_weights(_by_number(arrays))
    return replace(file, arrays=arrays)


_LEGACY = re.compile(
    r"(?P<above>(?:\w+/)*?)(?P<kind>conv2d|batch_normalization|predictions)(?:_(?P<number>\d+))?/"
    r"(?:.*/)?(?P<leaf>kernel|bias|gamma|beta|moving_mean|moving_variance)(?::0)?"
)
_LEGACY_LEAVES = {
    "kernel": "0",
    "bias": "1",
    "gamma": "0",
    "beta": "1",
    "moving_mean": "2",
    "moving_variance": "3",
}


def _by_number(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """An `.h5` by layer names, with the names that `keras_v3` expects; other networks as they are.

    The layers of a class are counted in the order of their numbers, which may begin anywhere.
    """
    found = {name: match for name in arrays if (match := _LEGACY.fullmatch(name))}
    numbers = defaultdict[tuple[str, str], set[int]](set)
    for match in found.values():
        numbers[match["above"], match["kind"]].add(int(match["number"] or 0))
    places = {
        (above, kind, number): f"_{place}" if place else ""
        for (above, kind), own in numbers.items()
        if len(numbers.get((above, "conv2d"), ())) == _CONVS
        for place, number in enumerate(sorted(own))
    }
    new = {name: name for name in arrays}
    for name, match in found.items():
        above, kind, number = match["above"], match["kind"], int(match["number"] or 0)
        if (above, kind, number) in places:
            word = f"{'dense' if kind == 'predictions' else kind}{places[above, kind, number]}"
            new[name] = f"{above}{BY_NAME}/{word}/vars/{_LEGACY_LEAVES[match['leaf']]}"
    renamed = {new[name]: arrays[name] for name in arrays}
    return renamed if len(renamed) == len(arrays) else arrays


#: fewer than one value in so many that is not positive: a gamma or a beta
SELDOM = 20


def _with_norm_weights(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays with a weight of ones in each Keras norm that has none.

    Three vectors without names are beta, mean and variance (`scale=False`), or gamma, mean and
    variance (`center=False`) if the first is positive in all norms. Then they get their names.
    Unreadable if a few of many values are not positive: they may be either.
    """
    layers = {name.rpartition("/vars/")[0] for name in arrays if "batch_normalization" in name}
    leaves = {
        layer: {leaf for leaf in "0123" if f"{layer}/vars/{leaf}" in arrays} for layer in layers
    }
    three = [layer for layer in layers if leaves[layer] == set("012")]
    firsts = [arrays[f"{layer}/vars/0"] for layer in three]
    few = sum(int((~(each > 0)).sum()) for each in firsts)
    if len(three) != _CONVS and 0 < few * SELDOM < sum(each.size for each in firsts):
        raise Unreadable(
            "holds norms of three vectors, and does not say whether the first is gamma or beta: "
            "give the whole model, saved with `model.save('NAME.keras')`."
        )
    if three and not few:
        words = {
            f"{layer}/vars/{number}": f"{layer}/{word}"
            for layer in three
            for number, word in enumerate(("gamma", "moving_mean", "moving_variance"))
        }
        return {words.get(name, name): array for name, array in arrays.items()}
    for layer in three:
        for leaf in "210":
            arrays[f"{layer}/vars/{int(leaf) + 1}"] = arrays.pop(f"{layer}/vars/{leaf}")
    for layer in layers:
        if layer in three or leaves[layer] == set("123"):  # the same after `_by_number`
            beta = arrays[f"{layer}/vars/1"]
            arrays[f"{layer}/vars/0"] = np.ones(beta.shape, beta.dtype)
    return arrays
