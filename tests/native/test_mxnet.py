"""What a Gluon user expects of a block: `export`, `SymbolBlock`, names, `summary`, `initialize`."""

import json
import os
import re
import subprocess
import sys

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd, gluon

from backends.mxnet import GoogLeNet, read_weights, trace, write_weights
from backends.mxnet.googlenet import Auxiliary, Branches, Conv, Inception, Residual
from common.check import check_live
from common.errors import GoogLeNetError
from common.parity.fixtures import draw_fixture
from common.parity.report import tensor_error
from common.spec import D2L, D2L_BN, MINI, MINI_FAMILY, find
from common.weights import draw, shapes

SPECS = {
    "d2l": D2L.at(size=33),
    "d2l-bn": D2L_BN.at(size=33),
    "mini": MINI,
    "mini-family": MINI_FAMILY,
    "torchvision-aux": find("torchvision-aux").at(size=64, classes=10),
    "torchvision-imagenet-aux": find("torchvision-imagenet-aux").at(size=64, classes=10),
    "paddle-vision": find("paddle-vision").at(size=189, classes=10),
}
AUX = SPECS["torchvision-imagenet-aux"]
MODES = {"eager": {"active": False}, "graph": {}, "static": {"static_alloc": True}}
cross_entropy = gluon.loss.SoftmaxCrossEntropyLoss()

#: A process without any code of ours: the first line is what NumPy 1.26 needs for MXNet.
FRESH = """
import numpy as np; np.bool, np.int = bool, int
import json
import sys

import mxnet as mx
from mxnet import autograd, gluon, npx

npx.set_np()
cross_entropy, found = gluon.loss.SoftmaxCrossEntropyLoss(), {}
for case in sys.argv[1:]:
    net = gluon.SymbolBlock.imports(f"{case}-symbol.json", ["data"], f"{case}-0000.params")
    x = mx.np.array(np.load(f"{case}-images.npy"))
    outputs = net(x)
    outputs = outputs if isinstance(outputs, list) else [outputs]
    np.savez(f"{case}-logits.npz", *(logits.asnumpy() for logits in outputs))
    parameters = net.collect_params()
    before = {name: parameter.data().asnumpy() for name, parameter in parameters.items()}
    trainer = gluon.Trainer(parameters, "sgd", {"learning_rate": 0.1})
    with autograd.record():
        outputs = net(x)
        outputs = outputs if isinstance(outputs, list) else [outputs]
        loss = sum(cross_entropy(logits, mx.np.arange(len(x))).mean() for logits in outputs)
    loss.backward()
    trainer.step(1)
    changed = [name for name in before if (parameters[name].data().asnumpy() != before[name]).any()]
    found[case] = {"loss": float(loss), "names": list(before), "changed": changed}
print(json.dumps(found))
"""


def images(spec, batch=3):
    return mx.np.array(np.random.RandomState(batch).rand(batch, *spec.input), "float32")


def every_head(outputs):
    return outputs if isinstance(outputs, list) else [outputs]


def backward(net, x):
    """The summed loss of all heads; the gradients are left in the parameters."""
    with autograd.record():
        labels = mx.np.arange(len(x))
        loss = sum(cross_entropy(logits, labels).mean() for logits in every_head(net(x)))
    loss.backward()
    return float(loss)


def begun(spec, **names):
    """A network whose weights, biases, norms and running statistics are drawn."""
    net = GoogLeNet(spec, **names)
    net.initialize()
    net(images(spec, batch=1))
    write_weights(net, draw_fixture(spec).weights)
    return net


def close(got, want):
    """Whether two arrays differ by rounding only."""
    return tensor_error(got.asnumpy(), want.asnumpy()) < 1e-4


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Every network's logits, and what a fresh process made of its exported files."""
    folder, logits = tmp_path_factory.mktemp("exported"), {}
    for case, spec in SPECS.items():
        net, x = begun(spec), images(spec, batch=4)
        logits[case] = every_head(net(x))
        net.hybridize()
        net(images(spec, batch=1))
        net.export(str(folder / case))
        np.save(folder / f"{case}-images.npy", x.asnumpy())
    command = [sys.executable, "-c", FRESH, *SPECS]
    fresh = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600)
    assert fresh.returncode == 0, fresh.stderr
    return folder, logits, json.loads(fresh.stdout.splitlines()[-1])


@pytest.mark.parametrize("case", SPECS)
def test_an_exported_network_gives_the_same_logits_in_a_fresh_process(exported, case):
    folder, logits, _ = exported
    with np.load(folder / f"{case}-logits.npz") as file:
        found = [mx.np.array(array) for array in file.values()]
    assert len(found) == 1 + len(SPECS[case].auxiliary)
    for got, want in zip(found, logits[case], strict=True):
        assert got.shape == (4, 10)
        assert close(got, want)


@pytest.mark.parametrize("case", SPECS)
def test_an_exported_network_trains_in_a_fresh_process(exported, case):
    step = exported[2][case]
    assert np.isfinite(step["loss"])
    assert len(step["names"]) == len(shapes(SPECS[case]))
    unchanged = set(step["names"]) - set(step["changed"])
    if SPECS[case].norm:  # which takes the bias of the convolution before it out again
        unchanged = {name for name in unchanged if not name.endswith("conv0_bias")}
    assert not unchanged


@pytest.mark.parametrize("case", ["mini", "mini-family", "torchvision-imagenet-aux"])
def test_a_hybridized_network_computes_the_same(case):
    spec = SPECS[case].at(dropout=0.0)
    net, x, found = begun(spec), images(spec), {}
    for mode, flags in MODES.items():
        net.hybridize(**flags)
        found[mode] = net(x)
        assert isinstance(found[mode], list) == bool(spec.auxiliary)
    for mode, flags in MODES.items():  # after all of them: training moves the running statistics
        net.hybridize(**flags)
        backward(net, x)
        gradients = [p.grad().copy() for n, p in net.collect_params(".*weight").items()]
        found[mode] = [*every_head(found[mode]), *gradients]
    for mode in MODES:
        for got, want in zip(found[mode], found["eager"], strict=True):
            assert np.abs(want.asnumpy()).max() > 0
            assert close(got, want)


def test_every_block_takes_a_prefix_and_shares_parameters():
    blocks = {
        GoogLeNet: (AUX,),
        Conv: (MINI.stage1[0], MINI.norm),
        Inception: (MINI.stage3[0], MINI.norm),
        Branches: (MINI_FAMILY.stage3[0], MINI.norm),
        Residual: (MINI_FAMILY.stage4[0], MINI.norm),
        Auxiliary: (AUX.auxiliary[0], AUX),
    }
    hidden = Auxiliary, (MINI_FAMILY.auxiliary[0], MINI_FAMILY)  # a convolution
    for block, arguments in (*blocks.items(), hidden):
        first = block(*arguments, prefix="first_").collect_params()
        assert first
        assert all(name.startswith("first_") for name in first)
        second = block(*arguments, prefix="second_", params=first).collect_params()
        assert [*map(id, second.values())] == [*map(id, first.values())]


def test_a_parameters_name_says_where_it_is():
    nets = GoogLeNet(D2L, prefix="net_"), GoogLeNet(AUX), GoogLeNet(AUX)
    for net in nets:
        names = {p.name for p in net._collect_params_with_prefix().values()}
        assert len(names) == len(shapes(net.spec))
    name = nets[0]._collect_params_with_prefix()["stage3.1.branch5x5.1.conv.weight"].name
    assert re.fullmatch(r"net_stage3_inception1_branch5x5_conv1_conv0_weight", name)
    assert not set(nets[1].collect_params()) & set(nets[2].collect_params())


def test_attribute_paths_are_the_canonical_names_whatever_the_prefix():
    for spec in (D2L, D2L_BN, MINI_FAMILY, AUX):
        native = GoogLeNet(spec, prefix="net_")._collect_params_with_prefix()
        names = [name.replace("gamma", "weight").replace("beta", "bias") for name in native]
        assert sorted(names) == sorted(shapes(spec))


def test_networks_with_shared_parameters_learn_as_one():
    net, x = begun(MINI), images(MINI)
    other = GoogLeNet(MINI, params=net.collect_params())
    before = net(x).asnumpy()
    np.testing.assert_array_equal(other(x).asnumpy(), before)
    trainer = gluon.Trainer(other.collect_params(), "sgd", {"learning_rate": 0.1})
    backward(other, x)
    trainer.step(1)
    after = net(x).asnumpy()
    assert np.abs(after - before).max() > 0
    np.testing.assert_array_equal(other(x).asnumpy(), after)


@pytest.mark.parametrize("spec", [D2L, AUX], ids=lambda spec: spec.name)
def test_summary_has_every_layer_and_counts_the_parameters(spec, capsys):
    net = GoogLeNet(spec)
    net.initialize()
    net(images(spec, batch=1))
    net.summary(images(spec, batch=1))
    printed = capsys.readouterr().out
    total = sum(int(np.prod(shape)) for shape in shapes(spec).values())
    assert f"Total params: {total}\n" in printed
    weights = [name for name in shapes(spec) if name.endswith("conv.weight")]
    assert len(re.findall(r"\bConv2D-", printed)) == len(weights)
    assert len(re.findall(r"\bInception-", printed)) == 9
    assert len(re.findall(r"\bAuxiliary-", printed)) == len(spec.auxiliary)


@pytest.mark.parametrize("case", ["d2l", "torchvision-imagenet-aux"])
def test_saved_parameters_load_into_a_fresh_network(case, tmp_path):
    net, x = begun(SPECS[case]), images(SPECS[case])
    net.save_parameters(str(tmp_path / "net.params"))
    fresh = GoogLeNet(SPECS[case], prefix="fresh_")
    fresh.load_parameters(str(tmp_path / "net.params"))
    for got, want in zip(every_head(fresh(x)), every_head(net(x)), strict=True):
        np.testing.assert_array_equal(got.asnumpy(), want.asnumpy())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("spec", [D2L, D2L_BN, SPECS["paddle-vision"]], ids=lambda spec: spec.name)
def test_a_plain_initialize_starts_as_the_spec_says(spec, dtype):
    """The range and the spread of every tensor are those of `draw`; the numbers are others."""
    net = GoogLeNet(spec)
    net.cast(dtype)
    net.initialize()
    net(images(spec, batch=1).astype(dtype))
    want = draw(spec, 0)
    for name, got in read_weights(net).items():
        assert got.dtype == dtype
        assert got.shape == want[name].shape
        if got.ndim == 1:
            np.testing.assert_array_equal(got, want[name], name)
            continue
        bound = np.sqrt(6 / (sum(got.shape[:2]) * np.prod(got.shape[2:])))
        assert np.abs(got).max() <= bound * (1 + 1e-6), name
        assert np.abs(got).max() > 0.95 * bound, name
        # the standard deviation of a uniform distribution, and 5 standard errors of it
        assert got.std() == pytest.approx(bound / np.sqrt(3), rel=5 * 0.45 / np.sqrt(got.size))


def test_an_exported_graph_names_an_initializer_of_mxnet(tmp_path):
    net = begun(MINI)
    net.hybridize()
    net(images(MINI))
    net.export(str(tmp_path / "net"))
    attributes = mx.sym.load(str(tmp_path / "net-symbol.json")).attr_dict()
    weights = [name for name in attributes if name.endswith("_weight")]
    assert weights
    for name in weights:
        word, arguments = json.loads(attributes[name]["__init__"])
        assert type(mx.init.create(word, **arguments)) is mx.init.Xavier


@pytest.mark.parametrize("images", [1, 2], ids=["runs", "does not run"])
def test_a_check_leaves_a_block_hybridized_where_it_was(images):
    net = gluon.nn.HybridSequential()
    net.add(gluon.nn.Conv2D(2, 3, in_channels=images), gluon.nn.Activation("relu"))
    net.initialize(ctx=[mx.cpu(1)])
    net.hybridize(static_alloc=True)
    flags = list(net[0]._flags)
    with pytest.raises(GoogLeNetError, match="linear layer" if images == 1 else "channels|shape"):
        check_live(net, spec=MINI)
    assert net._active
    assert net[0]._active
    assert net[0]._flags == flags
    assert net[0].weight.list_ctx() == [mx.cpu(1)]
    assert net[0].weight.dtype == np.float32


@pytest.mark.parametrize("empty", [{}, {"OMP_NUM_THREADS": ""}], ids=["unset", "empty"])
def test_mxnet_computes_on_the_cores_that_it_may_use(empty):
    code = "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])\n"
    code += "from backends.mxnet import threads; print(threads())"
    own = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    command = [sys.executable, "-c", code]
    found = subprocess.run(command, env=own | empty, capture_output=True, text=True, check=True)
    assert found.stdout == "1\n"


def test_the_tracer_s_import_of_mxnet_warns_of_nothing():
    """It runs in the user's Python, where warnings may be errors."""
    code = f"import runpy; runpy.run_path({trace.__file__!r})"
    command = [sys.executable, "-W", "error::DeprecationWarning", "-c", code]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr


def test_a_traced_operation_stands_in_the_layer_that_ran_it(tmp_path):
    class Net(gluon.Block):
        def __init__(self):
            super().__init__()
            self.conv = gluon.nn.Conv2D(2, 3, in_channels=1)

        def forward(self, x):
            return mx.npx.relu(self.conv(x))

    x = np.zeros((1, 1, 8, 8))
    network = trace.Network(Net(), x, str(tmp_path))
    found = {event["op"]: event["path"] for event in network.trace(x)["events"]}
    network.close()
    assert found["conv"].startswith("conv")
    assert found["act"].startswith("net")


@pytest.mark.parametrize("dtype", ["float64", "float16"])
def test_a_check_rounds_no_weights_and_leaves_their_dtypes(dtype, tmp_path):
    """A failed attempt casts to float32; and MXNet keeps a norm's weights in float32."""

    class Net(gluon.Block):
        def __init__(self):
            super().__init__()
            self.conv = gluon.nn.Conv2D(2, 3, in_channels=3, use_bias=False)
            self.norm = gluon.nn.BatchNorm(in_channels=2)

        def forward(self, x):
            return self.norm(self.conv(x.transpose(0, 3, 1, 2)))

    net = Net()
    net.initialize()
    net.cast(dtype)
    drawn = np.random.RandomState(0).rand(2, 3, 3, 3).astype(dtype)
    net.conv.weight.set_data(mx.np.array(drawn, dtype=dtype))
    with pytest.raises(mx.MXNetError, match="Shape inconsistent"):
        trace.Network(net, np.zeros((2, 1, 8, 8)), str(tmp_path))
    network = trace.Network(net, np.zeros((2, 3, 8, 8)), str(tmp_path))
    assert network.layout == "NHWC"
    np.testing.assert_array_equal(network.read()[0], drawn)
    network.close()
    np.testing.assert_array_equal(net.conv.weight.data().asnumpy(), drawn)
    dtypes = [np.dtype(parameter.data().dtype) for parameter in net.collect_params().values()]
    assert dtypes == [dtype, *4 * ["float64" if dtype == "float64" else "float32"]]
