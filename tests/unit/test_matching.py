"""Files of other people's code: their names differ, the layers lead to the same places.

Every tensor of `noise` is different, so an exchange of two of equal shape is seen. Long because a
name can differ in many ways, and each is small.
"""

import re
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from named_files import layers_of, noise, refusal, written  # in tests/support
from small_specs import thin  # in tests/support

from common import spec
from common.formats import identify as identifying
from common.formats import matching
from common.formats.identify import BY_SHAPE, identify
from common.formats.naming import FORMATS, OWNERS
from common.formats.readers.base import File
from common.spec import MINI, SPECS, Conv, Inception, inception
from common.weights import shapes

#: the specs with thin layers, and names that begin alike
PLAIN = [name for name in SPECS if name.startswith(("d2l", "blog", "torchv", "paddle-v"))]
THIN = {
    name: replace(thin(SPECS[name]), name=f"{name}-thin")
    for name in PLAIN
    if name not in ("d2l-v2", "d2l-factorized", "d2l-residual")
}
D2L, D2L_BN, BLOG_224 = THIN["d2l"], THIN["d2l-bn"], THIN["blog-224"]
TORCHVISION = THIN["torchvision"]
BOOK = "the book's names"


@pytest.fixture(autouse=True)
def thin_specs():
    """Only these specs are known. Afterwards all are again, in their order, which can matter."""
    before = dict(SPECS)
    known = [before["mini"], *THIN.values()]
    SPECS.clear()
    SPECS.update({network.name: network for network in known})
    yield
    SPECS.clear()
    SPECS.update(before)


def book(network, form="torch"):
    """A file with the book's names, and the weights in it."""
    weights = noise(network)
    return written(form, network, layers_of(form, network, BOOK), weights), weights


def renamed(file, rename):
    """The same tensors by other names; those that become None are left out."""
    names = {name: rename(name) for name in file.arrays}
    return replace(file, arrays={new: file.arrays[old] for old, new in names.items() if new})


def leads_to(file, network, weights, **how):
    """The file is read as exactly these weights of this network."""
    known = identify(file, None, "it", **how)
    assert known.spec == network
    assert list(known.weights) == list(weights)
    for name, array in weights.items():
        np.testing.assert_array_equal(known.weights[name], array, name)
    return known


# --- wrappers

PREFIXES = ["module.", "model.", "_orig_mod.", "backbone.", "net.", "_orig_mod.module.model."]


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("form", [*FORMATS])
def test_a_wrapper_s_prefix_changes_nothing(form, prefix):
    """In every format, with our names and those of others."""
    weights = noise(MINI)
    if form == "tf":
        prefix = prefix.replace(".", "/")
    namings = ("our names",) if form in ("npz", "onnx") else ("our names", "the book's names")
    for layers in namings:
        file = written(form, MINI, layers_of(form, MINI, layers), weights)
        known = leads_to(renamed(file, prefix.__add__), MINI, weights)
        assert known.naming == layers
        assert known.key == prefix[:-1]


def test_torchvision_s_names_behind_a_wrapper():
    weights = noise(TORCHVISION)
    file = written("torch", TORCHVISION, layers_of("torch", TORCHVISION, TV), weights)
    known = leads_to(renamed(file, "module.".__add__), TORCHVISION, weights)
    assert (known.naming, known.also) == (TV, ("torchvision-imagenet-thin",))


TV = "torchvision's names"


def test_tensors_beside_the_network_are_left_out_and_said():
    file, weights = book(MINI)
    file = renamed(file, "state_dict.model.".__add__)
    file.arrays["state_dict.criterion.weight"] = np.ones(10, np.float32)
    file.arrays["history.loss"] = np.ones(3, np.float32)
    known = leads_to(file, MINI, weights)
    assert known.key == "state_dict.model"
    assert (
        "2 other tensor(s) are left out, the first is state_dict.criterion.weight." in known.notes
    )


@pytest.mark.parametrize("network", [MINI, THIN["torchvision-imagenet"]])
def test_images_that_the_file_s_network_scales_are_reported(network):
    """Unless our network scales them too, as torchvision's does."""
    file = written("torch", network, layers_of("torch", network, "our names"), noise(network))
    known = leads_to(replace(file, scales="Sub"), network, noise(network))
    assert any("scales its images first (Sub)" in note for note in known.notes) == (network is MINI)


@pytest.mark.parametrize("leaf", ["weight", "bias"])
def test_three_vectors_of_keras_norms_are_gamma_if_all_are_positive(leaf):
    """Else they are beta, mean and variance; what is left out is one or zero."""
    weights = noise(MINI)
    norms = [name.rpartition(".")[0] for name in weights if name.endswith("running_mean")]
    for norm in norms:
        vectors = {"weight": np.ones_like, "bias": np.zeros_like}
        for each in vectors:
            array = weights[f"{norm}.{each}"]
            array = array + 9 if leaf == "weight" else array - array.max()
            weights[f"{norm}.{each}"] = array if each == leaf else vectors[each](array)
    file = written("tf", MINI, layers_of("tf", MINI, "our names"), weights)
    arrays = {}
    for name, array in file.arrays.items():
        path, _, number = name.rpartition("/vars/")
        if f"{path}/vars/3" in file.arrays:
            path, number = f"batch_normalization/{path}", int(number)
            if number == (leaf == "weight"):
                continue
            number -= number > (leaf == "weight")
        arrays[f"{path}/vars/{number}"] = array
    if leaf == "weight":  # one that is not positive may be either
        odd = dict(arrays)
        first = next(name for name in odd if name.startswith("batch_") and name.endswith("/0"))
        odd[first] = odd[first] * np.r_[0, np.ones(len(odd[first]) - 1)].astype(np.float32)
        with pytest.raises(identifying.WeightsError, match="whether the first is gamma or beta"):
            identify(replace(file, arrays=odd), None, "it")
    known = leads_to(replace(file, arrays=arrays), MINI, weights)
    missing = "beta" if leaf == "weight" else "gamma"
    assert any(f"norms have no {missing}" in note for note in known.notes) == (leaf == "weight")


def test_two_dicts_that_fit_are_named_and_a_key_chooses():
    file, weights = book(MINI)
    other = {name: array + 1 for name, array in file.arrays.items()}
    both = {f"model.{name}": array for name, array in file.arrays.items()}
    both |= {f"ema.module.{name}": array for name, array in other.items()}
    both = replace(file, arrays=both)
    said = refusal(both)
    assert "`--key model`" in said
    leads_to(both, MINI, weights, key="model")
    average = {name: array + 1 for name, array in weights.items()}
    for key in ("ema", "ema.module"):
        leads_to(both, MINI, average, key=key)
    with pytest.raises(identifying.WeightsError, match="nothing under 'none': it has model, ema"):
        identify(both, None, "it", key="none")


def test_two_dicts_with_the_same_weights_are_no_question():
    file, weights = book(MINI)
    both = {f"{key}.{name}": a for key in ("model", "best") for name, a in file.arrays.items()}
    leads_to(replace(file, arrays=both), MINI, weights)


# --- names


def blocks_named(name):
    first, rest = name.split(".", 1)
    return f"{['b1', 'b2', 'b3', 'b4', 'b5', 'fc'][int(first)]}.{rest}"


def by_branch(name):
    """conv, norm and ReLU in one module; branches by name; `classifier` at the end."""
    first, rest = name.split(".", 1)
    if first == "5":
        return f"classifier.{rest}"
    if first in "01":
        index, leaf = rest.split(".")
        return f"block{int(first) + 1}.{int(index) // 3}.{int(index) % 3}.{leaf}"
    block, path, rest = rest.split(".", 2)
    branches = {"p1_1": "branch1x1", "p2_1": "branch3x3.0", "p2_2": "branch3x3.1"}
    branches |= {"p3_1": "branch5x5.0", "p3_2": "branch5x5.1", "p4_2": "branch_pool.1"}
    return f"block{int(first) + 1}.{block}.{branches[path]}.{rest}"


@pytest.mark.parametrize("network", [D2L, MINI], ids=lambda network: network.name)
@pytest.mark.parametrize(
    ("rename", "naming"),
    [
        pytest.param(lambda name: re.sub(r"^5\.", "6.", name), BOOK, id="a layer before the head"),
        pytest.param(lambda name: re.sub(r"^5\.", "classifier.1.", name), BOOK, id="a head in two"),
        pytest.param(blocks_named, BY_SHAPE, id="named blocks"),
    ],
)
def test_names_of_the_reader_s_own(network, rename, naming):
    file, weights = book(network)
    known = leads_to(renamed(file, rename), network, weights)
    assert known.naming == naming
    leads_to(renamed(renamed(file, rename), "module.".__add__), network, weights)
    alphabetic = dict(sorted(renamed(file, rename).arrays.items()))
    leads_to(replace(file, arrays=alphabetic), network, weights)


@pytest.mark.parametrize("channels", [2, 3])
def test_channels_are_those_of_the_first_convolution_whatever_its_name(channels):
    network = MINI.at(channels=channels)
    file, weights = book(network)
    assert leads_to(renamed(file, blocks_named), network, weights).naming == BY_SHAPE


@pytest.mark.parametrize("network", [D2L_BN, MINI], ids=lambda network: network.name)
def test_branches_by_name_with_norms(network):
    file, weights = book(network)
    leads_to(renamed(file, by_branch), network, weights)


def flat(network, order, word, form="torch"):
    """A file of a flat program: no container, and the convolutions of a block in this order."""
    weights = noise(network)
    layers, count = {}, {"conv": 0, "norm": 0, "dense": 0}

    def add(layer):
        for kind in ("conv", "norm") if f"{layer}.norm.weight" in weights else ("conv",):
            number = count[kind]
            count[kind] += 1
            layers[f"{layer}.{kind}"] = word(kind, number)

    for stage, rows in network.stages():
        for place, row in enumerate(rows):
            if isinstance(row, Conv):
                add(f"{stage}.{place}")
            elif isinstance(row, Inception):
                for inner in order:
                    add(f"{stage}.{place}.{inner}")
    layers["head"] = word("dense", 0)
    made = written(form, network, layers, weights)
    names = [
        made_name
        for layer in layers
        for leaf in ("weight", "bias", "running_mean", "running_var")
        if f"{layer}.{leaf}" in weights
        for made_name in [FORMATS[form].name(layers, f"{layer}.{leaf}")]
    ]
    return replace(made, arrays={name: made.arrays[name] for name in names}), weights


BRANCHES = ("branch1x1.0", "branch3x3.0", "branch3x3.1", "branch5x5.0", "branch5x5.1")
BY_BRANCH = (*BRANCHES, "branch_pool.1")
#: as Keras sorts the layers of a functional model, by their distance from the output
BY_DEPTH = ("branch3x3.0", "branch5x5.0", "branch1x1.0", "branch3x3.1", "branch5x5.1")
BY_DEPTH = (*BY_DEPTH, "branch_pool.1")
REDUCED_FIRST = ("branch1x1.0", "branch3x3.0", "branch5x5.0", "branch_pool.1")
REDUCED_FIRST = (*REDUCED_FIRST, "branch3x3.1", "branch5x5.1")
ORDERS = {"branches": BY_BRANCH, "depth": BY_DEPTH, "reduced first": REDUCED_FIRST}

KERAS = {"conv": "conv2d", "norm": "batch_normalization", "dense": "dense"}
WORDS = {
    "tf": lambda kind, number: f"layers/{KERAS[kind]}" + (f"_{number}" if number else ""),
    "mxnet": lambda kind, number: f"net0_{kind}{number}",
    "torch": lambda kind, number: f"{kind}{number}",
}


@pytest.mark.parametrize("sort", [False, True])
@pytest.mark.parametrize("form", WORDS)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("network", [D2L, D2L_BN, BLOG_224], ids=lambda network: network.name)
def test_a_flat_program_in_any_order_of_its_branches(network, order, form, sort):
    """3b and 4c have two convolutions of one shape; the other blocks tell which is which."""
    file, weights = flat(network, ORDERS[order], WORDS[form], form)
    if sort:
        file = replace(file, arrays=dict(sorted(file.arrays.items())))
    leads_to(file, network, weights)


def test_what_the_order_alone_would_exchange(monkeypatch):
    """The check of the check: taken as if the branches came in the spec's order, it is wrong."""
    file, weights = flat(D2L, BY_DEPTH, WORDS["tf"], "tf")
    monkeypatch.setattr(
        matching.Matcher,
        "roles",
        lambda self, group: {
            f"{name}.{each.role}": next(
                index for index in members if self.units[index].shape == each.shape
            )
            for name, (layers, members) in group.items()
            for each in layers
        },
    )
    with pytest.raises(AssertionError):
        leads_to(file, D2L, weights)


def twin(monkeypatch):
    """A network of one block whose branches 1x1 and 3x3 begin with equal convolutions."""
    stages = {
        "stage3": (inception(4, (4, 6), (2, 3), 5),),
        "stage4": (Conv(8),),
        "stage5": (Conv(9), MINI.stage5[-1]),
    }
    network = replace(MINI, name="twin", norm=None, **stages)
    monkeypatch.setitem(spec.SPECS, "twin", network)
    return network


def test_an_ambiguity_is_refused_with_the_candidates(monkeypatch):
    network = twin(monkeypatch)
    file, _ = flat(network, BY_BRANCH, WORDS["torch"])
    said = refusal(file)
    assert "conv3 and conv4" in said
    assert "stage3.0.branch1x1.0.conv" in said
    leaves = {"weight": "w_0", "bias": "b_0"}
    file, _ = flat(network, BY_BRANCH, WORDS["torch"])
    paddle = renamed(file, lambda n: f"{n.rpartition('.')[0]}_0.{leaves[n.rpartition('.')[2]]}")
    assert "numbers its layers, and does not say which is which: " in refusal(paddle)
    assert "save `paddle.save(net.state_dict(), 'NAME.pdparams')`" in refusal(paddle)


def test_names_that_begin_alike_in_a_branch_decide(monkeypatch):
    network = twin(monkeypatch)
    file, weights = flat(network, BY_DEPTH, WORDS["torch"])
    words = ("two_a", "three_a", "one", "two_b", "three_b", "pool")
    names = {f"conv{index + 3}": f"block/{word}" for index, word in enumerate(words)}
    own = renamed(file, lambda name: re.sub(r"^conv[3-8]\b", lambda m: names[m[0]], name))
    leads_to(own, network, weights)


# --- heads, biases, norms


def test_a_fine_tuned_head_has_its_own_name_and_classes():
    network = TORCHVISION.at(classes=5)
    weights = noise(network)
    file = written("torch", network, layers_of("torch", network, TV), weights)
    own = renamed(file, lambda name: name.replace("fc.", "fc.1."))
    assert leads_to(own, network, weights).also == ("torchvision-imagenet-thin",)


def test_auxiliary_heads_with_other_classes_are_left_out():
    whole, own = THIN["torchvision-aux"], TORCHVISION.at(classes=5)
    weights = noise(whole)
    file = written("torch", whole, layers_of("torch", whole, TV), weights)
    file.arrays["fc.weight"], file.arrays["fc.bias"] = (
        file.arrays["fc.weight"][:5],
        file.arrays["fc.bias"][:5],
    )
    kept = {name: weights[name] for name in shapes(own)}
    kept |= {"head.weight": weights["head.weight"][:5], "head.bias": weights["head.bias"][:5]}
    known = leads_to(file, own, kept)
    assert any("have 10 classes and its head has 5. Eval" in note for note in known.notes)
    asked = identify(file, "torchvision-thin", "it")
    assert asked.spec == own


def test_convolutions_without_bias_before_a_norm_get_zeros():
    file, weights = book(MINI)
    biases = {name for name in weights if name.endswith("conv.bias")}
    layers = layers_of("torch", MINI, "the book's names")
    drop = {FORMATS["torch"].name(layers, name) for name in biases}
    zeros = {name: a * 0 if name in biases else a for name, a in weights.items()}
    known = leads_to(renamed(file, lambda name: None if name in drop else name), MINI, zeros)
    assert known.notes == ("Its convolutions have no bias: they get zeros, the same function.",)
    some = sorted(drop)[0]
    said = refusal(renamed(file, lambda name: None if name == some else name))
    assert f"{some} (stage1.0.conv.bias) is missing" in said


def test_without_a_norm_biases_are_not_made_up():
    """paddle.vision's trunk is the book's without biases, and another function."""
    file, _ = book(D2L)
    without = renamed(file, lambda n: None if n.endswith(".bias") and n[0] != "5" else n)
    assert "0.0.bias (stage1.0.conv.bias) is missing" in refusal(without)


def test_biases_before_norms_go_into_the_running_means():
    network = TORCHVISION.at(classes=7)
    weights = noise(network)
    file = written("torch", network, layers_of("torch", network, TV), weights)
    names = [name for name in file.arrays if name.endswith("conv.weight")]
    random = np.random.RandomState(3)
    want = dict(weights)
    layers = layers_of("torch", network, TV)
    back = {FORMATS["torch"].name(layers, name): name for name in weights}
    for name in names:
        bias = random.standard_normal(len(file.arrays[name])).astype(np.float32)
        file.arrays[name.replace("weight", "bias")] = bias
        mean = back[name.replace("conv.weight", "bn.running_mean")]
        want[mean] = weights[mean] - bias
    known = leads_to(file, network, want)
    assert any("subtracted from their running means" in note for note in known.notes)


def test_norms_without_gamma_or_beta_have_ones_and_zeros():
    file, weights = book(MINI)
    layers = layers_of("torch", MINI, "the book's names")
    for leaf, value in (("norm.weight", 1), ("norm.bias", 0)):
        gone = {FORMATS["torch"].name(layers, n) for n in weights if n.endswith(leaf)}
        own = {n: a * 0 + value if n.endswith(leaf) else a for n, a in weights.items()}
        leads_to(renamed(file, lambda name, gone=gone: None if name in gone else name), MINI, own)


def test_parameters_without_running_statistics_are_refused():
    file, _ = book(MINI)
    assert "running" in refusal(renamed(file, lambda n: None if "running" in n else n))


def test_a_norm_without_its_mean_is_named_where_no_name_is_known():
    """The convolutions all fit, so the spec is clear, and the reason is that of its norm."""
    file, _ = book(D2L_BN)
    own = renamed(file, blocks_named)
    mean = next(name for name in own.arrays if "b4.1" in name and name.endswith("running_mean"))
    norm = mean.removesuffix(".running_mean")
    said = refusal(renamed(own, lambda name: None if name == mean else name))
    assert f"{norm} has no running_mean" in said


def test_a_keras_norm_of_three_vectors_is_not_guessed():
    weights = noise(MINI)
    file = written("tf", MINI, layers_of("tf", MINI), weights)
    cut = renamed(file, lambda n: None if n.endswith("vars/3") else n)
    refusal(cut)


# --- whose function


def test_a_package_s_names_with_the_layers_of_another_network_are_refused():
    """Its pools are the package's, not d2l's."""
    weights = noise(D2L)
    layers = layers_of("torch", D2L, TV)
    file = written("torch", D2L, layers, weights)
    said = refusal(file)
    assert "d2l-thin" in said
    assert "use `--spec d2l-thin`" in said
    assert identify(file, "d2l-thin", "it").spec == D2L
    assert OWNERS[TV] == ("torchvision",)


@pytest.mark.parametrize(
    ("drop", "said"),
    [
        (r"3\.4\.", r"3\.4\.p1_1\.weight"),
        (r"5\.", r"head is missing|5\.weight"),
        (r"4\.1\.p4_2\.", r"4\.1\.p4_2"),
    ],
)
def test_what_is_missing_is_named(drop, said):
    file, _ = book(D2L)
    assert re.search(said, refusal(renamed(file, lambda n: None if re.match(drop, n) else n)))


def test_a_network_that_is_not_known_is_said_to_be_so():
    arrays = {"prelayer.0.weight": np.zeros((64, 3, 3, 3), np.float32)}
    arrays["a3.b1.0.weight"] = np.zeros((64, 192, 1, 1), np.float32)
    arrays["linear.weight"] = np.zeros((100, 1024), np.float32)
    assert "prelayer.0.weight" in refusal(File("torch", arrays, "float32"))


FORMS = [*product(("torch", "paddle", "tf"), ("npz", "paddle", "safetensors"))]
FORMS.remove(("tf", "paddle"))


@pytest.mark.parametrize(("made", "form"), FORMS)
def test_the_layout_of_a_plain_dict_is_found(form, made):
    """A pickle or archive of arrays may come from any framework."""
    weights = noise(D2L)
    file = written(made, D2L, layers_of(made, D2L, "the book's names"), weights)
    leads_to(replace(file, format=form), D2L, weights)
