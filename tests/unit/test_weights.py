"""Canonical weights: their names, their first values, their digest and their file."""

import hashlib
import json
import math
import struct
from dataclasses import replace

import numpy as np
import pytest

from common.errors import WeightsError
from common.spec import (
    BLOG_224,
    D2L,
    D2L_BN,
    SPECS,
    Conv,
    GlobalAvgPool,
    Linear,
    MaxPool,
    Norm,
    Spec,
    inception,
)
from common.spec.arithmetic import layers, totals
from common.weights import check, draw, is_running, load, save, sha256, shapes

TINY = Spec(
    name="tiny",
    input=(2, 8, 8),
    stage1=(Conv(4, (3, 2)),),
    stage2=(MaxPool(2, 2), Conv(3)),
    stage3=(inception(1, (2, 3), (2, 1), 2),),
    stage4=(Conv(5),),
    stage5=(GlobalAvgPool(),),
    head=Linear(3),
    norm=Norm(1e-3, 0.9),
)

GOLDEN = {  # SHA-256 of the weights of seed 0
    "d2l": "47b717b11033a11f4d1b3d3604ea6e0dc2ea0efbbf8e7638022fdf0228da0ed0",
    "d2l-bn": "a55a4af1b0ec06cfc5b2b8a6cffe508f4d33fb4a9abde3e49696337cbbfa57be",
    "blog-224": "a8b4d6e4df2cc75d0759a7d1c9cc9b0ed3baf9ccc5f8a0d51fdd77ecac56b76e",
}


def refusal(call, *words):
    """Check that `call` raises WeightsError with one sentence that has the `words`."""
    with pytest.raises(WeightsError) as caught:
        call()
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert ". " not in sentence, "more than one sentence"
    assert sentence.endswith(".")
    assert [word for word in words if word not in sentence] == [], sentence


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights.safetensors"


def noise(spec, seed=0):
    """Random bits for every tensor: negative zeros, infinities and NaNs among them."""
    random = np.random.RandomState(seed)
    return {
        name: random.randint(0, 2**32, shape, np.uint32).view(np.float32)
        for name, shape in shapes(spec).items()
    }


def test_names_and_shapes_of_the_book_s_network():
    found = list(shapes(D2L).items())
    assert len(found) == 116
    assert found[:2] == [("stage1.0.conv.weight", (64, 1, 7, 7)), ("stage1.0.conv.bias", (64,))]
    assert found[-2:] == [("head.weight", (10, 1024)), ("head.bias", (10,))]
    assert dict(found)["stage3.0.branch5x5.1.conv.weight"] == (32, 16, 5, 5)
    assert dict(found)["stage4.4.branch_pool.1.conv.weight"] == (128, 528, 1, 1)
    assert dict(found)["stage5.1.branch3x3.1.conv.bias"] == (384,)


def test_rows_keep_their_index_and_pools_count():
    names = [name for name in shapes(TINY) if name.endswith("conv.weight")]
    assert names == [
        "stage1.0.conv.weight",
        "stage2.1.conv.weight",
        "stage3.0.branch1x1.0.conv.weight",
        "stage3.0.branch3x3.0.conv.weight",
        "stage3.0.branch3x3.1.conv.weight",
        "stage3.0.branch5x5.0.conv.weight",
        "stage3.0.branch5x5.1.conv.weight",
        "stage3.0.branch_pool.1.conv.weight",
        "stage4.0.conv.weight",
    ]
    assert shapes(TINY)["stage1.0.conv.weight"] == (4, 2, 3, 2), "height is before width"


def test_a_norm_has_four_tensors_behind_its_convolution():
    found = shapes(D2L_BN)
    leaves = [name.removeprefix("stage2.1.") for name in found if name.startswith("stage2.1.")]
    norm = ["norm.weight", "norm.bias", "norm.running_mean", "norm.running_var"]
    assert leaves == ["conv.weight", "conv.bias", *norm]
    assert {found[f"stage2.1.{leaf}"] for leaf in norm} == {(192,)}
    assert {n: s for n, s in found.items() if ".norm." not in n} == shapes(D2L)
    running = [name for name in found if is_running(name)]
    assert len(running) == 2 * 57
    assert all(".norm.running_" in name for name in running)


@pytest.mark.parametrize("spec", [*SPECS.values(), TINY], ids=lambda spec: spec.name)
def test_the_shapes_hold_as_many_numbers_as_arithmetic_counts(spec):
    counts = [math.prod(shape) for name, shape in shapes(spec).items() if not is_running(name)]
    assert sum(counts) == totals(layers(spec))[0]


def test_weights_are_drawn_from_xavier_s_uniform_distribution():
    weights = {name: w for name, w in draw(D2L, 0).items() if name.endswith(".weight")}
    assert len(weights) == 58
    whole = []
    for name, array in weights.items():
        out, incoming, area = *array.shape[:2], math.prod(array.shape[2:])
        unit = array / math.sqrt(6 / (incoming * area + out * area))
        assert array.dtype == np.float32
        assert np.abs(unit).max() <= 1 + 1e-7, name
        whole.append(unit.astype(np.float64).ravel())
        spread = 5 / math.sqrt(unit.size)
        assert abs(whole[-1].mean()) < spread * math.sqrt(1 / 3), name
        assert abs((whole[-1] ** 2).mean() - 1 / 3) < spread * math.sqrt(4 / 45), name
    every = np.concatenate(whole)
    assert np.abs(every).max() > 0.999999
    shares = np.histogram(every, 20, (-1, 1))[0] / len(every)
    assert np.abs(shares - 1 / 20).max() < 5e-4
    assert abs((every[1:] * every[:-1]).mean()) < 1e-3, "neighbours hang together"


def test_biases_start_at_zero_and_norms_as_the_identity():
    first = {"conv.bias": 0, "head.bias": 0, "norm.weight": 1, "norm.bias": 0}
    first |= {"norm.running_mean": 0, "norm.running_var": 1}
    seen = set()
    for name, array in draw(D2L_BN, 3).items():
        assert array.dtype == np.float32
        assert array.shape == shapes(D2L_BN)[name]
        if array.ndim == 1:
            kind = ".".join(name.split(".")[-2:])
            seen.add(kind)
            assert set(array.tolist()) == {first[kind]}, name
    assert seen == set(first)


@pytest.mark.parametrize("name", GOLDEN)
def test_seed_0_gives_the_same_bits_everywhere(name):
    assert sha256(draw(SPECS[name], 0)) == GOLDEN[name]


def test_seeds_differ_and_each_repeats():
    drawn = [draw(TINY, seed) for seed in (0, 1, 2**32 - 1, 0)]
    digests = [sha256(weights) for weights in drawn]
    assert len(set(digests)) == 3
    assert digests[0] == digests[3]
    for name in shapes(TINY):
        if name.endswith(("conv.weight", "head.weight")):
            assert (drawn[0][name] != drawn[1][name]).all(), name


def test_the_size_of_the_image_does_not_change_the_weights():
    assert sha256(draw(BLOG_224.at(size=21), 0)) == GOLDEN["blog-224"]


def test_the_digest_does_not_depend_on_order_or_memory():
    weights = noise(TINY)
    digest = sha256(weights)
    assert sha256(dict(reversed(weights.items()))) == digest
    assert sha256({name: np.asfortranarray(a) for name, a in weights.items()}) == digest
    assert sha256({name: a.T.copy().T for name, a in weights.items()}) == digest
    assert sha256({name: np.repeat(a, 2, -1)[..., ::2] for name, a in weights.items()}) == digest
    assert sha256({name: a.astype(">f4") for name, a in weights.items()}) == digest


def test_the_digest_depends_on_every_bit():
    array = np.zeros((3, 2), np.float32)
    found = {sha256({"a": array})}
    for bit in range(array.nbytes * 8):
        other = array.copy()
        other.view(np.uint8).reshape(-1)[bit // 8] ^= 1 << bit % 8
        found.add(sha256({"a": other}))
    assert len(found) == 1 + array.nbytes * 8


def test_the_digest_depends_on_name_dtype_and_shape():
    array = np.zeros(6, np.float32)
    others = [
        {},
        {"a": array},
        {"b": array},
        {"a": array, "b": array},
        {"a": array.reshape(2, 3)},
        {"a": array.reshape(3, 2)},
        {"a": array.reshape(6, 1)},
        {"a": array.astype(np.int32)},
        {"a": array.astype(np.float64)[:3]},
        {"a": array[:5]},
        {"a": array[0].reshape(())},
        {"a": array[:1]},
    ]
    assert len({sha256(weights) for weights in others}) == len(others)
    one, two = np.zeros(1, np.float32), np.ones(1, np.float32)
    assert sha256({"a": one, "b": two}) != sha256({"a": two, "b": one})


def test_the_digest_is_the_sha256_of_what_the_docstring_says():
    weights = {"b": np.array([1, 2], "<f4"), "a": np.zeros((1, 2), np.float32)}
    raw = b'["a", "float32", [1, 2]]' + bytes(8)
    raw += b'["b", "float32", [2]]' + struct.pack("<2f", 1, 2)
    assert sha256(weights) == hashlib.sha256(raw).hexdigest()


LAYOUTS = {
    "C": lambda a: a,
    "Fortran": np.asfortranarray,
    "transposed": lambda a: a.T.copy().T,
    "every second": lambda a: np.repeat(a, 2, -1)[..., ::2],
    "backwards": lambda a: a[::-1].copy()[::-1],
    "big-endian": lambda a: a.astype(">f4"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_saved_is_loaded_bit_for_bit(path, layout):
    weights = noise(TINY)
    save(path, {name: LAYOUTS[layout](array) for name, array in weights.items()}, TINY)
    loaded = load(path, TINY)
    assert sorted(loaded) == sorted(weights)
    for name, array in weights.items():
        assert (loaded[name].dtype, loaded[name].shape) == (np.float32, array.shape)
        assert loaded[name].tobytes() == array.tobytes(), name
    assert sha256(loaded) == sha256(weights)


def test_two_files_of_the_same_weights_are_the_same(tmp_path):
    weights = noise(TINY)
    save(tmp_path / "one", weights, TINY)
    save(tmp_path / "two", dict(reversed(weights.items())), TINY)
    save(tmp_path / "three", {n: np.asfortranarray(a) for n, a in weights.items()}, TINY)
    files = {(tmp_path / name).read_bytes() for name in ("one", "two", "three")}
    assert len(files) == 1
    save(tmp_path / "one", noise(TINY, 1), TINY)
    assert (tmp_path / "one").read_bytes() not in files, "a file is written over"


def test_a_file_names_its_spec(path):
    from safetensors import safe_open

    save(path, noise(TINY), TINY)
    with safe_open(path, "numpy") as file:
        assert json.loads(file.metadata()["googlenet"]) == {
            "spec": "tiny",
            "sha256": sha256(noise(TINY)),
            "eps": TINY.norm.eps,
        }


def test_a_file_with_other_values_than_it_names_is_refused(path):
    save(path, noise(TINY), TINY)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    refusal(lambda: load(path, TINY), str(path), "damaged", "SHA-256")


def test_a_file_of_another_program_is_read(path):
    from safetensors.numpy import save_file

    save_file(noise(TINY), path)
    assert sha256(load(path, TINY)) == sha256(noise(TINY))


def test_check_names_the_first_tensor_that_does_not_fit():
    weights = noise(TINY)
    check(TINY, weights)
    check(TINY, dict(reversed(weights.items())))
    lacking = {n: a for n, a in weights.items() if not n.startswith(("stage4", "stage2.1.conv"))}
    refusal(lambda: check(TINY, lacking), "stage2.1.conv.weight is missing", "tiny")
    refusal(lambda: check(TINY, {}), "stage1.0.conv.weight is missing")
    extra = {"more": weights["head.bias"], **weights, "most": weights["head.bias"]}
    refusal(lambda: check(TINY, extra), "more is not a tensor of tiny")
    wrong = {**weights, "head.weight": weights["head.weight"].T}
    refusal(lambda: check(TINY, wrong), "head.weight has shape (5, 3) where tiny has (3, 5)")
    wrong["stage4.0.norm.bias"] = np.zeros((5, 1), np.float32)
    refusal(lambda: check(TINY, wrong), "stage4.0.norm.bias has shape (5, 1) where", "(5,)")
    refusal(lambda: check(D2L_BN, draw(D2L, 0)), "stage1.0.norm.weight is missing", "d2l-bn")
    refusal(lambda: check(D2L, draw(D2L_BN, 0)), "stage1.0.norm.weight is not a tensor of d2l.")


def test_weights_of_another_network_are_not_saved(path):
    refusal(lambda: save(path, noise(TINY), D2L), "stage1.0.conv.weight", "d2l")
    assert not path.exists()


def test_a_file_that_cannot_be_written_is_refused(tmp_path):
    missing = tmp_path / "missing" / "file"
    refusal(lambda: save(missing, noise(TINY), TINY), str(missing), "cannot be written")
    refusal(lambda: save(tmp_path, noise(TINY), TINY), str(tmp_path), "cannot be written")


def test_a_cut_file_is_refused_wherever_it_was_cut(path):
    save(path, noise(TINY), TINY)
    whole = path.read_bytes()
    for length in (0, 1, 7, 8, 9, *range(10, len(whole), 97), len(whole) - 1):
        path.write_bytes(whole[:length])
        refusal(lambda: load(path, TINY), f"{path} is not a readable safetensors file")
    path.write_bytes(whole)
    load(path, TINY)


def framed(header):
    return struct.pack("<Q", len(header)) + header + bytes(2)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x03\x04 not this kind of file\n" * 9,
        framed(b"{}"),
        framed(b'{"head.bias":{"dtype":"BF16","shape":[1],"data_offsets":[0,2]}}'),
        framed(b'{"head.bias":{"dtype":"F8_E4M3","shape":[2],"data_offsets":[0,2]}}'),
        framed(b'{"head.bias":{"dtype":"a\\nb","shape":[1],"data_offsets":[0,2]}}'),
    ],
    ids=["empty", "zip", "trailing bytes", "bfloat16", "float8", "line break"],
)
def test_a_file_of_something_else_is_refused(path, content):
    path.write_bytes(content)
    refusal(lambda: load(path, TINY), f"{path} is not a readable safetensors file")


def test_a_path_without_a_file_is_refused(tmp_path):
    refusal(lambda: load(tmp_path, TINY), f"{tmp_path} is not a readable")
    missing = tmp_path / "none.safetensors"
    refusal(lambda: load(missing, TINY), f"{missing} is not a readable")


def test_a_file_of_another_network_is_refused(path):
    save(path, noise(TINY), TINY)
    refusal(lambda: load(path, D2L), "stage1.0.conv.weight has shape (4, 2, 3, 2)", "d2l")
    refusal(lambda: load(path, TINY.at(classes=4)), "head.weight has shape (3, 5)", "(4, 5)")
    refusal(lambda: load(path, replace(TINY, norm=None)), "norm", "is not a tensor of tiny")
