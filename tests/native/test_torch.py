"""PyTorch's own tools on the classes of the backend: pickle, TorchScript, fx, export, compile."""

import copy
import warnings
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from backends.torch import (
    GoogLeNet,
    device,
    load,
    optimizers,
    parallel,
    save,
    streams,
    trace,
    write_weights,
)
from backends.torch.fused import FusedInception, fuse_1x1
from backends.torch.graph import Graph
from backends.torch.layers import BatchNorm
from backends.torch.streams import ParallelBranches, ParallelInception, parallel_branches
from backends.torch.train import Trainer
from common.check import check_live
from common.check.process import UserError
from common.parity.fixtures import draw_fixture
from common.recipe import Recipe
from common.spec import D2L, SPECS, Conv

#: of each kind: without and with norm, small, the later rows, auxiliary heads, no ReLU behind some
#: convolutions
SMALL = {
    "d2l": SPECS["d2l"].at(size=33),
    "d2l-bn": SPECS["d2l-bn"].at(size=33),
    "mini": SPECS["mini"],
    "mini-family": SPECS["mini-family"],
    "torchvision-aux": SPECS["torchvision-aux"].at(size=96, classes=10),
    "paddle-vision": SPECS["paddle-vision"].at(size=189, classes=10),
}


def network(name, seed=0):
    """In evaluation mode; weights, biases, norms and running statistics are drawn."""
    model = GoogLeNet(SMALL[name]).eval()
    write_weights(model, draw_fixture(SMALL[name], seed).weights)
    return model


def batch(name, count):
    return torch.rand(count, *SMALL[name].input, generator=torch.Generator().manual_seed(count))


def every_head(outputs):
    return outputs if isinstance(outputs, list) else [outputs]


def assert_same(got, want):
    """Every head's, beside its largest value; the tolerance is float32's."""
    assert len(every_head(got)) == len(every_head(want))
    for one, other in zip(every_head(got), every_head(want), strict=True):
        largest = other.abs().max().item()
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5 * largest)


def test_the_class_alone_starts_as_the_spec_says():
    """Xavier uniform weights and zero biases; PyTorch's own start has a deviation of 0.081."""
    model = GoogLeNet(D2L)
    weight = model.stage1[0].conv.weight
    bound = np.sqrt(6 / ((1 + 64) * 49))
    assert 0.9 * bound < weight.abs().max() <= bound
    assert weight.std().item() == pytest.approx(bound / np.sqrt(3), rel=0.05)
    assert not any(p.any() for name, p in model.named_parameters() if name.endswith("bias"))


LOAD = """
import sys
import numpy as np, torch
from pathlib import Path
import backends.torch  # for the classes alone

folder = Path(sys.argv[1])
for path in sorted(folder.glob("*.pt")):
    torch.set_grad_enabled(True)
    model = torch.load(path, weights_only=False).eval()
    x = torch.from_numpy(np.load(path.with_suffix(".npy")))
    outputs = model(x)
    outputs = outputs if isinstance(outputs, list) else [outputs]
    torch.save([each.detach() for each in outputs], path.with_suffix(".logits"))
    optimizer = torch.optim.SGD(model.train().parameters(), 0.1)
    before = model.head.weight.detach().clone()
    outputs = model(x)
    outputs = outputs if isinstance(outputs, list) else [outputs]
    labels = torch.arange(len(x)) % outputs[0].shape[1]
    loss = sum(torch.nn.functional.cross_entropy(each, labels) for each in outputs)
    loss.backward()
    optimizer.step()
    assert torch.isfinite(loss)
    assert not torch.equal(before, model.head.weight)
print("done")
"""


def test_a_pickled_model_works_in_a_fresh_process(fresh, tmp_path):
    """`torch.save(model)`, loaded elsewhere: the same logits at another batch size, and a step."""
    want = {}
    for name in SMALL:
        model, x = network(name), batch(name, 3)
        with torch.no_grad():
            model(batch(name, 2))
            want[name] = model(x)
        torch.save(model, tmp_path / f"{name}.pt")
        np.save(tmp_path / f"{name}.npy", x.numpy())
    assert fresh(LOAD, tmp_path) == "done\n"
    for name, logits in want.items():
        assert_same(torch.load(tmp_path / f"{name}.logits"), every_head(logits))


@pytest.mark.parametrize("name", SMALL)
def test_torchscript_is_the_same_function(name):
    model, x = network(name), batch(name, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # TorchScript itself is deprecated
        scripted = torch.jit.script(model)
    assert_same(scripted(x), model(x))
    if SMALL[name].norm and not SMALL[name].dropout:
        other = copy.deepcopy(model).train()
        scripted.train()
        assert_same(scripted(x), other(x))
        key = "stage1.0.norm.running_var"
        torch.testing.assert_close(scripted.state_dict()[key], other.state_dict()[key])


@pytest.mark.parametrize("name", SMALL)
def test_fx_traces_it(name):
    model, x = network(name), batch(name, 2)
    traced = torch.fx.symbolic_trace(model)
    assert_same(traced(x), model(x))
    assert "stage4" in traced.code


@pytest.mark.parametrize("name", SMALL)
def test_export_leaves_the_batch_size_free(name):
    model = network(name)
    free = {"x": {0: torch.export.Dim("batch", min=2)}}
    program = torch.export.export(model, (batch(name, 2),), dynamic_shapes=free)
    x = batch(name, 5)
    assert_same(program.module()(x), model(x))


def test_compile_takes_the_whole_graph():
    model, x = network("mini"), batch("mini", 2)
    assert_same(torch.compile(model, fullgraph=True, backend="aot_eager")(x), model(x))


def test_copies_are_independent():
    model = network("torchvision-aux")
    before = model.head.bias.detach().clone()
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.head.bias += 1
    assert torch.equal(model.head.bias, before)
    assert torch.equal(other.head.bias, before + 1)


@pytest.mark.parametrize("name", ["d2l", "mini-family"])
def test_blocks_with_parallel_branches_are_the_same_network(name):
    """Off a GPU the branches run one after the other; tests/conformance/test_device.py has one."""
    model, x = network(name), batch(name, 2)
    want, state, own = model(x), list(model.state_dict()), list(model.modules())
    with parallel_branches(model):
        assert parallel_blocks(model)
        assert_same(model(x), want)
        assert list(model.state_dict()) == state
    assert all(one is other for one, other in zip(own, model.modules(), strict=True))


def parallel_blocks(model):
    return [m for m in model.modules() if isinstance(m, (ParallelInception, ParallelBranches))]


def test_in_a_capture_each_branch_runs_in_a_stream_of_its_own(monkeypatch):
    """No GPU is needed: the streams only note what is asked of them, and in which order."""

    class Stream:
        def __init__(self, name):
            self.name, self.device = name, "cuda:1"

        def wait_stream(self, other):
            asked.append(f"{self.name} waits for {other.name}")

    @contextmanager
    def run_in(side):
        asked.append(f"in {side.name}")
        yield

    def tensor(name):
        used = lambda by: asked.append(f"{by.name} uses {name}")  # noqa: E731
        return SimpleNamespace(is_cuda=True, record_stream=used)

    asked, one, two = [], tensor("one"), tensor("two")
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: Stream("main"))
    monkeypatch.setattr(torch.cuda, "stream", run_in)
    monkeypatch.setattr(streams, "stream", lambda device, index: Stream(f"{device}, {index}"))
    branches = [lambda x: asked.append("first") or one, lambda x: asked.append("second") or two]
    assert streams.side_by_side(branches, tensor("x")) == [one, two]
    sides = ["cuda:1, 0", "cuda:1, 1"]
    for side, runs, output in zip(sides, ("first", "second"), ("one", "two"), strict=True):
        begun = asked.index(f"{side} waits for main")
        assert asked[begun + 1 : begun + 3] == [f"in {side}", runs]
        assert asked.index(f"main waits for {side}") > asked.index("second")
        assert {f"{side} uses x", f"main uses {output}"} <= {*asked}


@pytest.mark.parametrize("name", ["d2l", "paddle-vision"])
def test_fused_blocks_are_the_same_function_and_script_too(name):
    model, x = network(name), batch(name, 2)
    want = model(x)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    fuse_1x1(model)
    assert isinstance(model.stage3[0], FusedInception)
    assert_same(model(x), want)
    assert list(model.state_dict()) == list(state)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        assert_same(torch.jit.script(model)(x), want)
    assert_same(torch.fx.symbolic_trace(model)(x), want)


OTHER_BRANCHES = {
    "a bias fewer": {"branch3x3": (Conv(8, bias=False), Conv(8, 3, padding=1))},
    "3x3 first": {"branch5x5": (Conv(8, 3, padding=1), Conv(8, 3, padding=1))},
    "a convolution more": {"branch1x1": (Conv(8), Conv(8))},
}


@pytest.mark.parametrize("branches", OTHER_BRANCHES.values(), ids=OTHER_BRANCHES)
def test_a_block_with_other_branches_is_not_fused(branches):
    spec = replace(SPECS["mini"], norm=None)
    first, *more = spec.stage3
    model = GoogLeNet(replace(spec, stage3=(replace(first, **branches), *more)))
    x = torch.rand(2, *spec.input)
    want = model.eval()(x)
    fuse_1x1(model)
    assert not isinstance(model.stage3[0], FusedInception)
    assert isinstance(model.stage4[0], FusedInception)
    assert_same(model(x), want)


class Replayed:
    """A CUDA graph without a GPU: to replay it is to compute into the tensors of its capture."""

    def replay(self):
        """Another pass."""
        one = self.of
        found = [parameter.grad for parameter in one.parameters]
        one.replace_gradients([None] * len(found))
        outputs = one.passes(one.inputs, one.labels, one.weight)
        fresh = [parameter.grad for parameter in one.parameters]
        one.replace_gradients(found)
        for kept, now in zip((*one.gradients, *one.outputs), (*fresh, *outputs), strict=True):
            kept.copy_(now)


@pytest.fixture
def graph(monkeypatch):
    """Makes captured passes of a network."""

    def captured(model, passes, inputs, *rest):
        def parallel_passes(*batch):
            assert parallel_blocks(model)
            return passes(*batch)

        made = Graph(model, parallel_passes, inputs, *rest)
        made.graph.of, made.passes, made.weight = made, passes, rest[-1]
        assert not parallel_blocks(model)
        assert asked == [inputs.device]
        asked.clear()
        return made

    asked = []  # the GPUs of the streams
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Replayed)
    monkeypatch.setattr(torch.cuda, "Stream", asked.append)
    monkeypatch.setattr(torch.cuda, "graph", lambda graph, stream: nullcontext())
    return captured


@pytest.mark.parametrize("captured_at", [0, 1, 2])
def test_gradients_of_captured_parts_add_up(graph, captured_at):
    """Each replay writes the same tensors: also the second, and the first after eager passes."""
    model = GoogLeNet(SMALL["d2l"])
    trainer = Trainer(model, Recipe())
    x, labels = batch("d2l", 6), torch.arange(6)
    parts = [(x[at : at + 2], labels[at : at + 2], 1 / 3) for at in (0, 2, 4)]
    for part in parts:
        trainer.forward_backward(*part)
    wanted = [parameter.grad for parameter in model.parameters()]
    for _ in range(2):  # the second step finds the graph's own gradients of the first
        model.zero_grad()
        for part in parts[:captured_at]:
            trainer.forward_backward(*part)
        replay = graph(model, trainer.forward_backward, *parts[captured_at])
        for images, numbers, _ in parts[captured_at:]:
            replay(images, numbers)
        for parameter, want in zip(model.parameters(), wanted, strict=True):
            assert torch.allclose(parameter.grad, want, rtol=1e-4, atol=1e-6)


def test_the_weights_of_a_gpu_are_read_without_one(tmp_path, monkeypatch):
    """No GPU is needed: the file is made to say where its tensors lay."""
    model = network("mini")
    with monkeypatch.context() as patch:
        patch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
        save(model, tmp_path / "it.pt")
    other = network("mini", seed=1)
    load(other, tmp_path / "it.pt")
    for name, tensor in other.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name


def test_each_gpu_s_own_age_chooses_the_precision(monkeypatch):
    ages = {torch.device("cuda:0"): (7, 5), torch.device("cuda:1"): (8, 0)}
    monkeypatch.setattr(torch.cuda, "get_device_capability", ages.get)
    chosen = [device.fastest_precision(f"gpu:{index}") for index in (0, 1)]
    assert chosen == ["float32", "bfloat16"]


def test_the_workers_warning_of_strides_is_left_out(monkeypatch):
    """It comes at the first step of every worker, and asks for nothing that would help."""
    monkeypatch.setattr(parallel.dist, "is_initialized", lambda: True)
    monkeypatch.setattr(parallel, "DistributedDataParallel", lambda model: model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parallel.wrap_model(network("mini"))
        warnings.warn("Grad strides do not match bucket view strides.", stacklevel=1)


def test_workers_on_gpus_keep_the_biased_variance_in_float64(monkeypatch):
    """No GPU is needed: the layer that asks for one is replaced."""

    def forward(self, x):
        own = self.running_mean, self.running_var, self.weight, self.bias
        return torch.nn.functional.batch_norm(x, *own, True, self.momentum, self.eps)

    monkeypatch.setattr(torch.nn.SyncBatchNorm, "forward", forward)
    monkeypatch.setattr(parallel.dist, "all_reduce", lambda tensor: None)
    norm = BatchNorm(2).double()
    same = parallel.SyncBatchNorm.of(copy.deepcopy(norm))
    x = torch.rand(3, 2, 1, 1, dtype=torch.float64)
    torch.testing.assert_close(same(x), norm(x), rtol=1e-14, atol=0)
    torch.testing.assert_close(same.running_var, norm.running_var, rtol=1e-14, atol=0)


def test_an_optimizers_state_is_0_before_the_first_step_whatever_the_weights():
    model, recipe = network("mini"), Recipe(momentum=0.9)
    with torch.no_grad():
        model.head.bias.fill_(torch.nan)
    state = optimizers.read_state(optimizers.make(model, recipe), model, recipe)
    assert not any(array.any() for array in state["velocity"].values())


def test_a_traced_operation_stands_in_the_layer_that_ran_it(tmp_path):
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(1, 2, 3)

        def forward(self, x):
            return torch.relu(self.conv(x))

    x = np.zeros((1, 1, 8, 8))
    network = trace.Network(Net(), x, str(tmp_path))
    found = {event["op"]: event["path"] for event in network.trace(x)["events"]}
    network.close()
    assert found == {"conv": "conv", "act": ""}


def test_a_check_says_that_a_network_computes_in_half_precision():
    class Half(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = network("mini")

        def forward(self, x):
            with torch.autocast("cpu", torch.bfloat16):
                return self.net(x).float()

    with pytest.raises(UserError, match=r"computes in bfloat16, .* without autocast"):
        check_live(Half(), spec="mini")


def test_a_check_that_cannot_run_leaves_the_weights_of_a_function(tmp_path):
    weight = torch.rand(2, 3, 3, 3, dtype=torch.float64)
    drawn = weight.clone()

    def net(x):
        torch.nn.functional.conv2d(x, weight)
        raise KeyError("p4_3")

    with pytest.raises(KeyError, match="p4_3"):
        trace.Network(net, np.zeros((2, 3, 8, 8)), str(tmp_path))
    assert torch.equal(weight, drawn)


def test_a_check_leaves_a_lazy_network_as_it_is(tmp_path):
    net = torch.nn.Sequential(torch.nn.LazyConv2d(2, 3), torch.nn.ReLU())
    network = trace.Network(net, np.zeros((2, 3, 8, 8), np.float32), str(tmp_path))
    assert network.shapes() == [(2, 3, 3, 3), (2,)]
    network.close()
    assert isinstance(net[0].weight, torch.nn.parameter.UninitializedParameter)
    assert net.training
