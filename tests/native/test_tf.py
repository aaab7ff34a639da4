"""What Keras's users do with a network works with ours: save, load, clone, build, fit, export."""

import json
import math
import os
import runpy
import subprocess
import sys
from functools import lru_cache
from unittest.mock import Mock

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_specs import thin  # in tests/support

from backends import tf as backend
from backends.tf import GoogLeNet, device, optimizers, trace
from backends.tf.layers import centred
from backends.tf.weights import tensors
from common.check import check_live
from common.check.process import Process, UserError
from common.errors import BackendError
from common.parity.fixtures import draw_fixture
from common.spec import D2L, MINI, MINI_FAMILY, TORCHVISION_IMAGENET_AUX, arithmetic, find
from common.weights import shapes

SPECS = {
    "d2l": find("d2l").at(size=33),
    "d2l-bn": find("d2l-bn").at(size=33),
    "mini": MINI,
    "mini-family": MINI_FAMILY,
    "torchvision-aux": find("torchvision-aux").at(size=64, classes=10),
    "paddle-vision": find("paddle-vision").at(size=189, classes=10),
}
AUX = thin(TORCHVISION_IMAGENET_AUX).at(size=64)  # has the rows that `mini-family` lacks
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def images(spec, count=4):
    channels, height, width = spec.input
    return np.random.RandomState(0).rand(count, height, width, channels).astype(np.float32)


def shape_of(spec):
    channels, height, width = spec.input
    return None, height, width, channels


def drawn(spec, dtype="float32"):
    """A network whose weights, norms and running statistics are different everywhere."""
    model = backend.build(spec, dtype, "cpu")
    backend.write_weights(model, draw_fixture(spec.at(dropout=0.0)).weights)
    return model


kept = lru_cache(drawn)  #: for tests that leave the network as it is


def outputs(model, x):
    return [each.numpy().astype(np.float64) for each in keras.tree.flatten(model(x))]


def same(found, wanted):
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5 * np.abs(other).max())


#: run in a fresh process: load, compute at another batch size, train one step with Keras's own
CHILD = """
import json, sys
import keras, numpy as np
import backends.tf  # registers the classes

folder, names = sys.argv[1], sys.argv[2:]
for name in names:
    model = keras.models.load_model(f"{folder}/{name}.keras")
    x = np.load(f"{folder}/{name}.npy")
    logits = [each.numpy().tolist() for each in keras.tree.flatten(model(x))]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    count = len(logits)
    several = count > 1
    model.compile(
        keras.optimizers.SGD(1e-4), [loss] * count if several else loss, run_eagerly=True
    )
    weights = [variable for variable in model.trainable_variables if len(variable.shape) > 1]
    before = [variable.numpy() for variable in weights]
    labels = np.arange(len(x)) % 10
    history = model.fit(x, [labels] * count if several else labels, verbose=0)
    changed = [not np.array_equal(a, v.numpy()) for a, v in zip(before, weights)]
    print(json.dumps({
        "name": name, "class": type(model).__name__, "logits": logits,
        "loss": history.history["loss"][0], "changed": changed,
    }))
"""


def test_a_saved_network_is_the_same_in_a_fresh_process_and_trains_there(fresh, tmp_path):
    here = {}
    for name, spec in SPECS.items():
        model, x = drawn(spec), images(spec)
        model.save(tmp_path / f"{name}.keras")
        np.save(tmp_path / f"{name}.npy", x[:3])
        here[name] = outputs(model, x)
    for line in fresh(CHILD, tmp_path, *SPECS).splitlines():
        found = json.loads(line)
        wanted = here.pop(found["name"])
        assert found["class"] == "GoogLeNet"
        same([np.array(each) for each in found["logits"]], [each[:3] for each in wanted])
        assert math.isfinite(found["loss"])
        # no gradient passes a ReLU that is never above 0
        assert np.mean(found["changed"]) > 0.9, found["name"]
    assert not here, "a network did not come back"


def test_keras_runs_on_tensorflow_whatever_the_user_s_own_file_says(fresh, tmp_path, monkeypatch):
    (tmp_path / "keras.json").write_text('{"backend": "jax"}')
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    assert fresh("import backends.tf, keras; print(keras.backend.backend())") == "tensorflow\n"


def test_a_clone_is_the_same_network_with_weights_of_its_own():
    model = kept(AUX)
    clone = keras.models.clone_model(model)
    assert (type(clone), clone.spec, clone.built) == (GoogLeNet, AUX, True)
    assert not np.array_equal(clone.head.kernel.numpy(), model.head.kernel.numpy())
    clone.set_weights(model.get_weights())
    same(outputs(clone, images(AUX)), outputs(model, images(AUX)))


@pytest.mark.parametrize("spec", [AUX, MINI_FAMILY], ids=lambda spec: spec.name)
def test_build_makes_all_parameters_before_any_call(spec):
    model = GoogLeNet(spec)
    assert not model.weights
    model.build(shape_of(spec))
    found = {name: variable.shape for name, variable in tensors(model).items()}
    assert found.keys() == shapes(spec).keys()
    assert len(model.weights) == len(found)
    before = len(model.variables)
    model(images(spec, 1))
    assert len(model.variables) == before


def test_build_needs_no_image_size():
    model = GoogLeNet(AUX)
    model.build((None, None, None, AUX.input[0]))
    model.set_weights(kept(AUX).get_weights())
    same(outputs(model, images(AUX)), outputs(kept(AUX), images(AUX)))


def test_weights_load_into_a_fresh_network(tmp_path):
    model, other = kept(AUX), GoogLeNet(AUX)
    model.save_weights(tmp_path / "it.weights.h5")
    other.build(shape_of(AUX))
    other.load_weights(tmp_path / "it.weights.h5")
    same(outputs(other, images(AUX)), outputs(model, images(AUX)))


def test_the_output_shape_is_known_before_the_network_is_built():
    assert GoogLeNet(MINI).compute_output_shape((None, 33, 33, 1)) == (None, 10)
    heads = [(7, 10)] * (1 + len(AUX.auxiliary))
    assert GoogLeNet(AUX).compute_output_shape((7, 64, 64, 3)) == heads


@pytest.mark.parametrize("size", [33, 64, 65])
@pytest.mark.parametrize("spec", [MINI, MINI_FAMILY, AUX], ids=lambda spec: spec.name)
def test_every_layer_s_output_shape_is_that_of_its_output(spec, size):
    """Also at another size than the network was built for, and where the size is not known."""
    model = kept(spec)
    x = images(spec.at(size=size))
    for stage in (model.stage1, model.stage2, model.stage3, model.stage4, model.stage5):
        for layer in stage.layers:
            y = layer(x)
            assert tuple(layer.compute_output_shape(x.shape)) == tuple(y.shape), layer.name
            batch, *sides, channels = layer.compute_output_shape((None, None, None, x.shape[-1]))
            assert (batch, channels) == (None, y.shape[-1])
            assert not any(sides)
            x = y


def test_the_summary_names_stages_and_shapes():
    model, lines = kept(AUX), []
    model.summary(print_fn=lines.append, line_length=120)
    text = "\n".join(lines)
    for name, shape in arithmetic.stage_shapes(AUX).items():
        if name.startswith("auxiliary"):
            continue
        _, channels, *size = shape
        wanted = ", ".join(map(str, (None, *size, channels)))
        (line,) = [line for line in text.splitlines() if f" {name} (" in line]
        assert f"({wanted})" in line
    model.stage3.summary(print_fn=lines.append, expand_nested=True)
    assert "sequential" not in "\n".join(lines).replace("(Sequential)", "").lower()


def test_a_name_is_the_network_s_and_begins_its_variables_paths(tmp_path):
    model = GoogLeNet(MINI, name="mine")
    model.build(shape_of(MINI))
    assert model.name == "mine"
    assert model.stage1.layers[0].conv.kernel.path == "mine/stage1/0/conv/kernel"
    path = model.stage3.layers[0].branch5x5.layers[1].norm.gamma.path
    assert path == "mine/stage3/0/branch5x5/1/norm/gamma"
    model.save(tmp_path / "it.keras")
    assert keras.models.load_model(tmp_path / "it.keras").name == "mine"


@pytest.mark.parametrize("jit", [False, True])
def test_fit_trains_in_training_mode(jit):
    model = drawn(MINI)
    x, labels = images(MINI, 32), np.arange(32) % 10
    before = {name: variable.numpy() for name, variable in tensors(model).items()}
    model.compile(keras.optimizers.SGD(0.01), LOSS, metrics=["accuracy"], jit_compile=jit)
    losses = model.fit(x, labels, batch_size=16, epochs=3, verbose=0).history["loss"]
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]
    after = {name: variable.numpy() for name, variable in tensors(model).items()}
    unchanged = {name for name in before if np.array_equal(before[name], after[name])}
    # the norm takes such a bias out again; running statistics move only in training mode
    assert all(name.endswith("conv.bias") for name in unchanged)


def test_fit_takes_the_auxiliary_heads_losses():
    model = drawn(AUX)
    x, labels = images(AUX, 8), np.arange(8) % 10
    before = [head.head.kernel.numpy() for head in model.auxiliary]
    losses = {"loss": [LOSS] * 3, "loss_weights": [1.0, 0.3, 0.3]}
    model.compile(keras.optimizers.SGD(0.01), **losses, run_eagerly=True)
    history = model.fit(x, [labels] * 3, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    for old, head in zip(before, model.auxiliary, strict=True):
        assert not np.array_equal(old, head.head.kernel.numpy())


def test_both_modes_give_a_list_where_there_are_auxiliary_heads():
    model = kept(AUX)
    for training in (False, True):
        found = model(images(AUX), training=training)
        assert isinstance(found, list)
        assert [tuple(each.shape) for each in found] == [(4, 10)] * 3


def test_an_exported_network_runs_without_its_class(tmp_path):
    model = kept(AUX)
    wanted = [each[:3] for each in outputs(model, images(AUX))]  # Keras exports what was called
    model.export(tmp_path / "it", verbose=False)
    loaded = tf.saved_model.load(tmp_path / "it")
    same([each.numpy() for each in keras.tree.flatten(loaded.serve(images(AUX)[:3]))], wanted)


def test_the_network_is_a_layer_of_a_functional_model(tmp_path):
    inputs = keras.Input(shape_of(AUX)[1:])
    model = keras.Model(inputs, keras.layers.Softmax()(GoogLeNet(AUX)(inputs)[0]))
    model.save(tmp_path / "it.keras")
    other = keras.models.load_model(tmp_path / "it.keras")
    same(outputs(other, images(AUX)), outputs(model, images(AUX)))


@pytest.mark.parametrize("spec", [AUX, MINI_FAMILY], ids=lambda spec: spec.name)
def test_every_layer_can_be_made_again_from_its_config(spec):
    model, kinds = GoogLeNet(spec), set()
    for layer in model._flatten_layers(include_self=False):
        if isinstance(layer, (keras.Sequential, keras.Model, keras.layers.InputLayer)):
            continue
        config = json.loads(json.dumps(keras.layers.serialize(layer)))
        again = keras.layers.deserialize(config)
        assert keras.layers.serialize(again)["config"] == keras.layers.serialize(layer)["config"]
        kinds.add(type(again).__name__)
    assert kinds >= {"Conv", "Auxiliary", "MaxPool"}
    later = {"Branches", "Residual", "LocalNorm", "AvgPool"}
    assert kinds >= (later if spec == MINI_FAMILY else {"Inception", "AdaptiveAvgPool", "Affine"})


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_a_saved_network_keeps_its_precision(tmp_path, dtype):
    """In the process's default policy a float64 input would be rounded to float32."""
    model, x = drawn(AUX, dtype), images(AUX).astype(np.float64) / 3
    model.save(tmp_path / "it.keras")
    other = keras.models.load_model(tmp_path / "it.keras")
    policies = {
        layer.dtype_policy.name
        for layer in other._flatten_layers()
        if not isinstance(layer, (keras.Sequential, keras.Model, keras.layers.InputLayer))
    }
    assert policies == {"mixed_bfloat16" if dtype == "bfloat16" else dtype}
    assert {variable.dtype for variable in other.weights} == {model.variable_dtype}
    for one, another in zip(outputs(model, x), outputs(other, x), strict=True):
        np.testing.assert_array_equal(one, another)


OPTIMIZERS = [
    optimizers.SGD(0.001, 0.9, nesterov=True, l2=1e-4),
    optimizers.Adam(0.001, 0.8, 0.99, 1e-7, l2=1e-4),
]


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda each: each.name)
def test_our_optimizers_are_saved_with_the_network(tmp_path, optimizer):
    model, labels = drawn(MINI), np.arange(4)
    model.compile(optimizer, LOSS, run_eagerly=True)
    model.fit(images(MINI), labels, verbose=0)
    model.save(tmp_path / "it.keras")
    other = keras.models.load_model(tmp_path / "it.keras")
    assert type(other.optimizer) is type(optimizer)
    assert other.optimizer.get_config() == optimizer.get_config()
    assert other.optimizer.l2 == 1e-4
    assert any(np.any(variable.numpy()) for variable in optimizer.variables[2:])
    for one, another in zip(optimizer.variables, other.optimizer.variables, strict=True):
        np.testing.assert_array_equal(one.numpy(), another.numpy())


def test_a_network_made_alone_starts_as_the_book_does():
    """Xavier uniform weights and zero biases."""
    model = GoogLeNet(D2L)
    model.build((None, 96, 96, 1))
    assert model.stage1.layers[0].conv.kernel.numpy().std() == pytest.approx(0.025, rel=0.1)
    model = GoogLeNet(AUX)
    model.build(shape_of(AUX))
    for name, variable in tensors(model).items():
        value = variable.numpy()
        if value.ndim > 1:
            *window, incoming, out = value.shape
            bound = math.sqrt(6 / ((incoming + out) * math.prod(window)))
            assert 0.8 * bound < np.abs(value).max() <= bound, name
        else:
            ones = name.endswith(("norm.weight", "running_var"))
            assert (value == ones).all(), name


def test_same_is_used_where_it_gives_the_same_padding():
    """Elsewhere it would be off centre, and zeros in front would be slower here."""
    assert all(centred(*each) for each in [(3, 1, 1), (1, 1, 0), ((1, 7), (1, 1), (0, 3))])
    assert not any(centred(*each) for each in [(3, 2, 1), (3, (1, 2), 1), (3, 1, 0), (2, 1, 1)])


def test_a_gpu_s_memory_grows_and_its_age_chooses_the_precision(monkeypatch):
    """No GPU is needed: TensorFlow is made to list two, and the module runs anew."""
    ages, grown = {"old": (7, 5), "new": (8, 0)}, []
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [*ages])
    own = tf.config.experimental
    monkeypatch.setattr(own, "get_device_details", lambda gpu: {"compute_capability": ages[gpu]})
    monkeypatch.setattr(own, "set_memory_growth", lambda *given: grown.append(given))
    found = runpy.run_path(device.__file__)
    assert grown == [("old", True), ("new", True)]
    for error in (RuntimeError("after being initialized"), ValueError("virtual devices")):
        refuse = Mock(side_effect=error)  # of a user's program that has begun already
        monkeypatch.setattr(own, "set_memory_growth", refuse)
        runpy.run_path(device.__file__)
        assert refuse.call_count == 2
    assert found["devices"]() == ["cpu", "gpu:0", "gpu:1"]
    chosen = [found["fastest_precision"](f"gpu:{index}") for index in (0, 1)]
    assert chosen == ["float32", "bfloat16"]
    monkeypatch.setattr(own, "get_device_details", lambda gpu: {})
    assert found["fastest_precision"]("gpu:1") == "float32"


def test_keras_on_another_framework_is_refused():
    command, own = [sys.executable, "-c", "import backends.tf"], {**os.environ}
    own["KERAS_BACKEND"] = "torch"
    found = subprocess.run(command, env=own, capture_output=True, text=True, check=False)
    assert "BackendError: Keras would run on torch: set KERAS_BACKEND to" in found.stderr


def test_a_check_of_keras_on_another_framework_is_refused(tmp_path, monkeypatch):
    (tmp_path / "net.py").write_text("net = None\n")
    monkeypatch.setenv("KERAS_BACKEND", "numpy")
    with pytest.raises(BackendError, match="Keras runs on numpy: set KERAS_BACKEND to tensorflow"):
        Process(f"{tmp_path / 'net.py'}:net", "tf")
    monkeypatch.setattr(keras.config, "backend", lambda: "jax")  # of a live network
    with pytest.raises(ImportError, match="Keras runs on jax: set KERAS_BACKEND to tensorflow"):
        runpy.run_path(trace.__file__)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_check_says_that_a_network_computes_in_half_precision(dtype):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(f"mixed_{dtype}")
    try:
        net = keras.Sequential([keras.layers.Conv2D(2, 3), keras.layers.Flatten()])
        with pytest.raises(UserError, match=rf" {dtype}, .* `keras.*policy\('float32'\)`"):
            check_live(net, spec="mini")
    finally:
        keras.config.set_dtype_policy(before)
