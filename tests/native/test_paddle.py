"""Paddle's own tools on the classes of the backend, and on what `build` makes of them on a CPU."""

import copy

import numpy as np
import paddle
import pytest
from paddle import nn
from paddle.nn import functional as F
from paddle.static import InputSpec
from small_specs import NARROW

from backends.paddle import (
    GoogLeNet,
    Trainer,
    build,
    load,
    place,
    place_labels,
    read_weights,
    save,
    tensor_devices,
    trace,
)
from backends.paddle.bias import MatmulBiasConv2D, use_matmul_bias
from common.check import check_live
from common.errors import WeightsError
from common.parity.mutations import SMALL_AUX
from common.recipe import Recipe
from common.spec import D2L, SPECS
from common.weights import shapes

#: of each kind: without and with norm, small, the later rows, auxiliary heads with and without
#: bias, average pools
SMALL = {
    "d2l": SPECS["d2l"].at(size=33),
    "d2l-bn": SPECS["d2l-bn"].at(size=33),
    "mini": SPECS["mini"],
    "mini-family": SPECS["mini-family"],
    "d2l-aux": SMALL_AUX.at(size=33),
    "torchvision-aux": SPECS["torchvision-aux"].at(size=64, classes=10),
    "torchvision-imagenet-aux": SPECS["torchvision-imagenet-aux"].at(size=64, classes=10),
    "paddle-vision": SPECS["paddle-vision"].at(size=189, classes=10),
}
#: the class alone, and what `build` makes of it on a CPU: with biases it is another
SAVED = [(name, False) for name in ("d2l", "d2l-bn", "mini", "torchvision-aux", "paddle-vision")]
SAVED += [("mini-family", False)]
SAVED += [(name, True) for name in ("d2l", "mini", "mini-family", "d2l-aux")]
TRACED = [(name, False) for name in ("mini", "torchvision-imagenet-aux", "paddle-vision")]
TRACED += [("mini-family", False), ("mini", True), ("mini-family", True), ("d2l-aux", True)]

# Paddle's own transformation to a graph asks for what it has no use for
pytestmark = pytest.mark.filterwarnings("ignore:Tensor do not have 'place' interface")


@pytest.fixture(autouse=True)
def on_the_cpu():
    """The simulated device would be the current one."""
    paddle.set_device("cpu")


def network(name, built=False, dropout=None):
    """In evaluation mode, with biases; its running statistics have moved."""
    paddle.seed(0)
    spec = SMALL[name].at(dropout=dropout)
    model = build(spec, "float32", "cpu") if built else GoogLeNet(spec)
    with paddle.no_grad():
        for key, parameter in model.named_parameters():
            if key.endswith("bias"):
                parameter.normal_(0.0, 0.1)
        model(batch(name, 2))
    model.eval()
    return model


def batch(name, count):
    images = np.random.RandomState(count).rand(count, *SMALL[name].input)
    return paddle.to_tensor(images, "float32")


def every_head(outputs):
    return outputs if isinstance(outputs, list) else [outputs]


def assert_same(got, want, tolerance=1e-5):
    """Every head's, beside its largest value; the tolerance is float32's."""
    assert len(every_head(got)) == len(every_head(want))
    for one, other in zip(every_head(got), every_head(want), strict=True):
        one, other = np.asarray(one), np.asarray(other)
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance * np.abs(other).max())


def gradients(model, call, x):
    """Of the summed loss of all heads in training mode, by name; and the running statistics."""
    model.train()
    model.clear_gradients()
    labels = paddle.arange(len(x))
    sum(F.cross_entropy(logits, labels) for logits in every_head(call(x))).backward()
    state = model.state_dict()
    return {n: (t if t.stop_gradient else t.grad).numpy().copy() for n, t in state.items()}


def assert_same_gradients(got, want, tolerance=1e-4):
    """Beside the largest of the layer: that of a bias in front of a norm is zero on paper."""
    assert list(got) == list(want)
    for name, array in want.items():
        scale = max(np.abs(array).max(), np.abs(want[name.replace("bias", "weight")]).max())
        assert scale > 0
        np.testing.assert_allclose(got[name], array, rtol=0, atol=tolerance * scale, err_msg=name)


@pytest.mark.parametrize("built", [False, True])
def test_the_network_starts_as_the_spec_says(built):
    """Xavier uniform weights and zero biases; Paddle's own start has a deviation of 0.202."""
    model = build(D2L, "float32", "cpu") if built else GoogLeNet(D2L)
    for name, parameter in model.named_parameters():
        array = parameter.numpy()
        if name.endswith("bias"):
            assert not array.any()
            continue
        bound = np.sqrt(6 / (sum(array.shape[:2]) * np.prod(array.shape[2:])))
        assert 0.9 * bound < np.abs(array).max() <= bound * (1 + 1e-6), name
        assert array.std() == pytest.approx(bound / np.sqrt(3), rel=0.05), name
    assert model.stage1[0].conv.weight.numpy().std() == pytest.approx(0.025, rel=0.05)


#: A process without any code of ours.
LOAD = """
import sys
from pathlib import Path

import numpy as np
import paddle
from paddle.nn import functional as F

paddle.set_device("cpu")  # the tests' simulated device would be the current one
for images in sorted(Path(sys.argv[1]).glob("*.npy")):
    path = str(images)[: -len(".npy")]
    model, x = paddle.jit.load(path), paddle.to_tensor(np.load(images))
    model.eval()
    outputs = model(x)
    outputs = outputs if isinstance(outputs, list) else [outputs]
    np.savez(path + ".npz", *(logits.numpy() for logits in outputs))
    model.train()
    trained = [parameter for parameter in model.parameters() if not parameter.stop_gradient]
    before = [parameter.numpy().copy() for parameter in trained]
    optimizer = paddle.optimizer.SGD(1.0, trained)
    outputs = model(x)
    outputs = outputs if isinstance(outputs, list) else [outputs]
    loss = sum(F.cross_entropy(logits, paddle.arange(len(x))) for logits in outputs)
    loss.backward()
    optimizer.step()
    same = sum((old == new.numpy()).all() for old, new in zip(before, trained))
    print(Path(path).name, len(trained), same, float(loss))
"""


def test_a_saved_network_works_in_a_fresh_process(fresh, tmp_path):
    """`paddle.jit.save`, loaded elsewhere: the same logits at another batch size, and a step.

    A batch norm of a loaded network trains with its running statistics, whosever network it is.
    """
    want = {}
    for name, built in SAVED:
        model, key = network(name, built), f"{name}-{built}"
        spec = InputSpec([None, *SMALL[name].input], "float32")
        paddle.jit.save(model, str(tmp_path / key), input_spec=[spec])
        x = batch(name, 3)
        np.save(tmp_path / f"{key}.npy", x.numpy())
        want[key] = model(x), sum(not p.stop_gradient for p in model.parameters())
    lines = [line.split() for line in fresh(LOAD, tmp_path).splitlines()]
    assert sorted(key for key, *_ in lines) == sorted(want)
    for key, trained, same, loss in lines:
        logits, parameters = want[key]
        with np.load(tmp_path / f"{key}.npz") as file:
            assert_same(list(file.values()), logits)
        assert int(trained) == parameters
        assert np.isfinite(float(loss))
        assert int(same) == 0, key


@pytest.mark.parametrize(("name", "built"), TRACED)
def test_a_static_graph_is_the_same_function(name, built):
    """In evaluation at a second batch size, and in training with its gradients."""
    model = network(name, built, dropout=0.0)
    spec = InputSpec([None, *SMALL[name].input], "float32")
    other = copy.deepcopy(model)
    static = paddle.jit.to_static(other, input_spec=[spec], full_graph=True)
    for count in (2, 3):
        assert_same(static(batch(name, count)), model(batch(name, count)))
    x = batch(name, 4)
    assert_same_gradients(gradients(other, static, x), gradients(model, model, x))


@pytest.mark.parametrize("built", [False, True])
def test_the_default_of_to_static_is_the_same_function(built):
    """Paddle's interpreter of bytecode, which would go on without a graph where it must."""
    model, x = network("d2l-aux", built), batch("d2l-aux", 2)
    assert_same(paddle.jit.to_static(copy.deepcopy(model))(x), model(x))


@pytest.mark.parametrize(("name", "built"), SAVED)
def test_summary_counts_the_parameters(name, built, capsys):
    model, spec = network(name, built), SMALL[name]
    found = paddle.summary(model, (1, *spec.input))
    printed = capsys.readouterr().out
    count = {name: int(np.prod(shape)) for name, shape in shapes(spec).items()}
    assert found["total_params"] == sum(count.values())
    convolutions = sum(name.endswith("conv.weight") for name in count)
    assert printed.count("Conv2D-") == convolutions
    biased = built * sum(name.endswith("conv.bias") for name in count)
    assert printed.count("MatmulBiasConv2D-") == biased


WARNED = """
import warnings
import numpy as np
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    from backends.paddle import Trainer, build, place, place_labels
    from common.recipe import Recipe
    from common.spec import MINI
    net = build(MINI, "float32", "cpu")
    x, labels = np.zeros((2, 1, 33, 33), np.float32), np.zeros(2, np.int64)
    Trainer(net, Recipe(spec="mini")).train_step(place(net, x), place_labels(net, labels))
    warnings.warn("of the user's")
print([str(each.message) for each in seen])
"""


def test_paddle_s_advice_is_left_out_and_no_other_warning(fresh):
    assert fresh(WARNED) == str(["of the user's"]) + "\n"


def test_an_empty_number_of_threads_is_none(fresh, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "")
    code = "from backends.paddle import threads, usable_cores; print(threads() == usable_cores())"
    assert fresh(code) == "True\n"


@pytest.mark.parametrize("name", ["d2l-bn", "paddle-vision"])
def test_a_state_dict_goes_from_the_class_to_a_built_network_and_back(name, tmp_path):
    alone, built, x = network(name), network(name, built=True), batch(name, 2)
    with paddle.no_grad():
        for tensor in alone.state_dict().values():
            tensor.scale_(0.5)
    want = alone(x)
    for source, target in ((alone, built), (built, GoogLeNet(SMALL[name]))):
        paddle.save(source.state_dict(), str(tmp_path / "net.pdparams"))
        missing = target.set_state_dict(paddle.load(str(tmp_path / "net.pdparams")))
        assert missing == ([], [])
        target.eval()
        assert_same(target(x), want)


@pytest.mark.parametrize("built", [False, True])
def test_copies_are_independent(built):
    model, x = network("d2l-aux", built), batch("d2l-aux", 2)
    want = model(x)
    other = copy.deepcopy(model)
    assert_same(other(x), want)
    with paddle.no_grad():
        for parameter in other.parameters():
            parameter.scale_(0.0)
    assert not any(logits.numpy().any() for logits in other(x))
    assert_same(model(x), want)


@pytest.mark.parametrize("name", ["d2l", "mini", "torchvision-aux"])
def test_the_bias_as_a_product_is_the_same_function_of_the_same_parameters(name):
    model, x = network(name, dropout=0.0).to(dtype="float64"), batch(name, 2).astype("float64")
    before, same = model.state_dict(), copy.deepcopy(model)
    use_matmul_bias(model)
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(after[key] is before[key] for key in before)
    kinds = {type(layer) for layer in model.sublayers() if isinstance(layer, nn.Conv2D)}
    assert kinds == {MatmulBiasConv2D if "stage1.0.conv.bias" in before else nn.Conv2D}
    for count in (1, 2):
        got, want = (net(x[:count]) for net in (model, same))
        assert_same(got, want, 1e-12)
    assert_same_gradients(*(gradients(net, net, x) for net in (model, same)), 1e-10)


def test_the_optimizers_state_shows_before_the_first_step():
    """A step moves state that lies elsewhere in silence."""
    for recipe in (Recipe(momentum=0.9), Recipe(optimizer="adam")):
        assert tensor_devices(Trainer(network("mini"), recipe))["state"] == {"cpu"}


@pytest.mark.parametrize(("batch", "parts"), [(33, 1), (64, 2), (31, 1)])
def test_the_parts_of_a_batch_side_by_side_are_the_step(batch, parts, monkeypatch):
    """In float64, in three threads; a batch of fewer than twice 16 images stays whole."""
    recipe = Recipe(accumulate=parts, momentum=0.9, weight_decay=0.01)
    random = np.random.RandomState(0)
    x, labels = random.uniform(0, 1, (batch, *NARROW.input)), random.randint(0, 10, batch)
    weights, copies, found = [], [], []
    for cores in (1, 3):
        monkeypatch.setenv("OMP_NUM_THREADS", str(cores))
        paddle.seed(0)
        trainer = Trainer(build(NARROW, "float64", "cpu"), recipe)
        for step in range(2):
            trainer.set_step(0.1, step)
            pieces = np.array_split(np.arange(batch), parts)
            for number, piece in enumerate(pieces, 1):
                inputs = place(trainer.model, x[piece])
                part = place_labels(trainer.model, labels[piece])
                found.append(trainer.train_step(inputs, part, len(piece) / batch, number == parts))
        weights.append(read_weights(trainer.model))
        copies.append(len(trainer.passes.copies))
    assert copies == [0, min(3, batch // parts // 16) - 1]
    half = len(found) // 2
    for (loss, correct), (loss_of_parts, correct_of_parts) in zip(
        found[:half], found[half:], strict=True
    ):
        assert float(loss_of_parts) == pytest.approx(float(loss), rel=1e-12)
        assert int(correct_of_parts) == int(correct)
    for name, array in weights[0].items():
        np.testing.assert_allclose(weights[1][name], array, rtol=0, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("name", ["d2l-bn", "dropout"])
def test_a_network_with_norm_or_dropout_stays_whole(name, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    spec = SPECS["d2l-bn"] if name == "d2l-bn" else SPECS["d2l"].at(size=33, dropout=0.5)
    assert Trainer(build(spec, "float32", "cpu"), Recipe()).passes.most == 1
    assert Trainer(build(SMALL["d2l"], "float32", "cpu"), Recipe()).passes.most == 4


def test_a_check_sees_a_whole_graph_s_layers_and_leaves_it_compiled():
    net = paddle.jit.to_static(network("mini"), full_graph=True)
    report = check_live(net, spec="mini")
    assert report.same, report.text()
    assert "to_static" in " ".join(report.notes)
    assert paddle.jit.dy2static.program_translator.ProgramTranslator().enable_to_static


@pytest.mark.parametrize("other", ["mini-family", "wider"])
def test_the_weights_of_another_network_are_refused(other, tmp_path):
    """Paddle itself would only warn."""
    spec = SMALL["mini"]
    save(GoogLeNet(spec.at(classes=11) if other == "wider" else SMALL[other]), tmp_path / "it")
    with pytest.raises(WeightsError, match="does not fit the network"):
        load(GoogLeNet(spec), tmp_path / "it")


def test_a_traced_operation_stands_in_the_layer_that_ran_it(tmp_path):
    class Net(nn.Layer):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2D(1, 2, 3)

        def forward(self, x):
            return F.relu(self.conv(x))

    x = np.zeros((1, 1, 8, 8))
    network = trace.Network(Net(), x, str(tmp_path))
    found = {event["op"]: event["path"] for event in network.trace(x)["events"]}
    network.close()
    assert found == {"conv": "conv", "bias": "conv", "act": ""}


def test_a_check_leaves_the_weights_of_a_function(tmp_path):
    weight = paddle.rand([2, 3, 3, 3], "float64")
    drawn = weight.numpy()
    network = trace.Network(
        lambda x: nn.functional.conv2d(x, weight), np.zeros((2, 3, 8, 8)), str(tmp_path)
    )
    network.write({0: np.zeros((2, 3, 3, 3))})
    assert not weight.any()
    network.close()
    np.testing.assert_array_equal(weight.numpy(), drawn)


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_a_check_rounds_no_weights_and_leaves_their_dtypes(dtype, tmp_path):
    """A failed attempt casts to float32; NumPy has no bfloat16; and dtypes may be mixed."""

    class Net(nn.Layer):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2D(3, 2, 3, bias_attr=False).to(dtype=dtype)
            self.norm = nn.BatchNorm2D(2).to(dtype=norm)

        def forward(self, x):
            return self.norm(self.conv(x.transpose((0, 3, 1, 2))))

    for norm in (dtype, "float32"):
        net = Net()
        net.conv.weight.set_value(paddle.rand([2, 3, 3, 3], "float64").astype(dtype))
        drawn = net.conv.weight.astype("float64").numpy()
        with pytest.raises(ValueError, match="number of input's channels"):
            trace.Network(net, np.zeros((2, 1, 8, 8)), str(tmp_path))
        network = trace.Network(net, np.zeros((2, 3, 8, 8)), str(tmp_path))
        assert network.layout == "NHWC"
        np.testing.assert_array_equal(network.read()[0], drawn)
        network.close()
        np.testing.assert_array_equal(net.conv.weight.astype("float64").numpy(), drawn)
        wanted = [dtype, *4 * [norm]]
        assert [f"paddle.{each}" for each in wanted] == [
            str(each.dtype) for each in net.state_dict().values()
        ]
        assert str(net.conv._dtype).endswith(dtype)
        assert net.conv.weight.trainable
