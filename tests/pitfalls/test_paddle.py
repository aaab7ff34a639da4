"""Pitfalls that show in PaddlePaddle."""

from types import SimpleNamespace

import numpy as np
import paddle
import pytest
from paddle import nn
from paddle.nn import functional as F
from safetensors.numpy import load as decode
from safetensors.numpy import save as encode
from small_specs import NARROW  # in tests/support

from backends.mutations import inject
from backends.numpy import cross_entropy, resize
from backends.numpy.googlenet import (
    GoogLeNet,
    avg_pool,
    batch_norm,
    convolution,
    global_avg_pool,
    local_norm,
)
from backends.paddle import googlenet, train
from backends.paddle import weights as native
from common import weights
from common.data.sources import load
from common.errors import DeviceError, WeightsError
from common.parity.fixtures import draw_fixture
from common.parity.report import tensor_error
from common.recipe import Recipe
from common.spec import MINI, AvgPool, Conv, GlobalAvgPool, LocalNorm
from common.training.checkpoint import Checkpoint, Config
from common.training.loop import TrainingLoop

NORM = MINI.norm
X = np.random.RandomState(0).normal(0.5, 1, (4, 3, 3, 3))  # N, C, H, W
CHANNELS = X.shape[1]
IMAGES = load("sample").train_images[:4]


@pytest.fixture(autouse=True)
def on_the_cpu():
    """The simulated device would be the current one."""
    paddle.set_device("cpu")


def tensor(array):
    return paddle.to_tensor(array, place=paddle.CPUPlace())


def reference(eps=NORM.eps, momentum=NORM.momentum):
    """The output of a batch norm that has learned nothing, and its running mean."""
    mean, var = np.zeros(CHANNELS), np.ones(CHANNELS)
    norm = SimpleNamespace(eps=eps, momentum=momentum)  # a spec's would be rounded
    y, _ = batch_norm(X, np.ones(CHANNELS), np.zeros(CHANNELS), mean, var, norm, True)
    return y, mean


def ours():
    """The norm of the backend's Conv after X, and its output."""
    norm = googlenet.Conv(Conv(CHANNELS), CHANNELS, NORM).to("cpu", "float64").norm
    return norm, norm(tensor(X)).numpy()


def test_same_padding(shows):
    """With stride 2 and an even size `'SAME'` pads 2 in front and 3 behind, not 3 and 3."""
    random, row = np.random.RandomState(0), Conv(4, 7, stride=2, padding=3, activation=False)
    x, weight = random.rand(2, CHANNELS, 16, 16), random.normal(0, 1, (4, CHANNELS, 7, 7))
    want, _ = convolution(x, weight, np.zeros(4), row)
    theirs, ours = nn.Conv2D(CHANNELS, 4, 7, 2, padding="SAME"), googlenet.Conv(row, CHANNELS, None)
    errors = []
    for layer, convolve in ((theirs, theirs), (ours, ours.conv)):
        layer.to("cpu", "float64")
        convolve.weight.set_value(weight)
        errors.append(tensor_error(layer(tensor(x)).numpy(), want))
    shows(*errors, least=0.1)


def test_linear_layout(shows):
    """Paddle's linear layer is (in, out): a reshape fits and is wrong."""
    random = np.random.RandomState(0)
    x, weight = random.rand(2, 6), random.rand(4, 6)  # (out, in)
    want, layer, errors = x @ weight.T, nn.Linear(6, 4).to("cpu", "float64"), []
    for given in (weight.reshape(6, 4), native.to_native("head.weight", weight)):
        layer.weight.set_value(np.ascontiguousarray(given))
        errors.append(tensor_error(layer(tensor(x)).numpy(), want))
    shows(*errors, least=0.1)


def test_norm_defaults(shows):
    """Paddle's eps is 1e-5 where the network's is 1e-3."""
    want, _ = reference()
    theirs = nn.BatchNorm2D(CHANNELS).to("cpu", "float64")(tensor(X)).numpy()
    shows(tensor_error(theirs, want), tensor_error(ours()[1], want), least=1e-4)


def test_rounded_numbers(shows):
    """Paddle holds a norm's momentum as float32, so a spec's is rounded for everyone."""
    norm, _ = ours()
    found = norm._mean.numpy()
    unrounded, rounded = (reference(momentum=m)[1] for m in (0.9, NORM.momentum))
    shows(tensor_error(found, unrounded), tensor_error(found, rounded), least=1e-8)


def test_sync_norm(shows):
    """A synchronised batch norm needs a GPU; on one device the ordinary one is the same."""
    theirs = nn.SyncBatchNorm(CHANNELS).to("cpu", "float64")
    with pytest.raises(RuntimeError, match="sync_batch_norm"):
        theirs(tensor(X))
    shows(1, tensor_error(ours()[1], reference()[0]), least=1)


def test_pool_gradient(shows):
    """The gradient of AdaptiveAvgPool2D is divided in float32, even in float64."""
    dy, errors = np.random.RandomState(1).normal(size=X.shape[:2]), []
    want = global_avg_pool(X)[1](dy)
    for pool in (nn.AdaptiveAvgPool2D(1), googlenet.layer(GlobalAvgPool(), CHANNELS, None)):
        x = tensor(X)
        x.stop_gradient = False
        (pool(x).reshape(dy.shape) * tensor(dy)).sum().backward()
        errors.append(tensor_error(x.grad.numpy(), want))
    shows(*errors, least=1e-9)


def test_counted_padding(shows):
    """Paddle's own average pool leaves the padding out unless `exclusive` is False."""
    row = AvgPool(3, 1, 1)
    want, _ = avg_pool(X, row)
    pools = nn.AvgPool2D(3, 1, 1), googlenet.layer(row, CHANNELS, None)
    shows(*(tensor_error(pool(tensor(X)).numpy(), want) for pool in pools), least=0.1)


def test_local_norm_gradient(shows):
    """Paddle's own is made of its average pool, whose gradient is rounded to float32."""
    row, random = LocalNorm(size=3, alpha=1.0, beta=0.75), np.random.RandomState(1)
    images, errors = random.normal(size=(2, 7, 3, 3)), []
    y, backward = local_norm(images, row)
    dy = random.normal(size=y.shape)
    for norm in (nn.LocalResponseNorm(3, 1.0, 0.75, 1.0), googlenet.layer(row, 7, None)):
        x = tensor(images)
        x.stop_gradient = False
        (norm(x) * tensor(dy)).sum().backward()
        errors.append(tensor_error(x.grad.numpy(), backward(dy)))
    shows(*errors, least=1e-9)


def test_label_smoothing(shows):
    """Paddle's own smoothing is rounded to float32, even in float64."""
    random = np.random.RandomState(0)
    logits, labels = random.normal(size=(8, 10)), random.randint(0, 10, 8)
    want, _ = cross_entropy(logits, labels, 0.1)
    x, y = tensor(logits), tensor(labels)
    found = (F.cross_entropy(x, y, label_smoothing=0.1), train.cross_entropy(x, y, 0.1))
    shows(*(abs(float(loss.numpy()) - want) / want for loss in found), least=1e-9)


def test_loss_cut_off(shows):
    """Paddle's own takes no logit for further than 64 below the largest, on the CPU."""
    logits, labels = np.array([[0.0, 200.0, 1.0]]), np.array([0])
    want, _ = cross_entropy(logits, labels)
    found = (
        F.cross_entropy(tensor(logits), tensor(labels)),
        train.cross_entropy(tensor(logits), tensor(labels)),
    )
    shows(*(abs(float(loss.numpy()) - want) / want for loss in found), least=0.5)


def test_gradients_add(backend, built, shows):
    """`backward` adds to what is there: the second of two steps goes on with the first's too."""
    fixture = draw_fixture(NARROW)
    model = built(NARROW, "float64")
    backend.write_weights(model, fixture.weights)
    _, want = GoogLeNet(NARROW, fixture.weights).gradients(fixture.inputs, fixture.labels)
    x, labels = backend.place(model, fixture.inputs), tensor(fixture.labels)
    for _ in range(2):
        F.cross_entropy(model(x), labels).backward()
    theirs = model.head.bias.grad.numpy().copy()
    backend.Trainer(model, Recipe(lr=0.0)).train_step(x, labels)
    fixed = model.head.bias.grad.numpy()
    shows(*(tensor_error(each, want["head.bias"]) for each in (theirs, fixed)), least=0.5)


def test_resize_corners(backend, shows):
    """`align_mode=1` takes pixels for points at their corners."""
    want = resize(IMAGES, 96, 96)
    x = tensor(IMAGES).astype("float32") / 255
    theirs = F.interpolate(x, (96, 96), mode="bilinear", align_mode=1).numpy()
    model = backend.build(NARROW.at(size=96), "float32", "cpu")
    fixed = backend.Trainer(model, Recipe()).prepare(IMAGES).numpy()
    shows(np.abs(theirs - want).max(), np.abs(fixed - want).max(), least=0.1, most=5e-6)


def test_one_pixel(backend, shows):
    """For one pixel `interpolate` takes the corner, not the centre."""
    want, x = resize(IMAGES, 1, 1), tensor(IMAGES).astype("float32") / 255
    theirs = F.interpolate(x, (1, 1), mode="bilinear", align_corners=False, align_mode=0).numpy()
    model = backend.build(NARROW.at(size=1), "float32", "cpu")
    fixed = backend.Trainer(model, Recipe()).prepare(IMAGES).numpy()
    shows(*(np.abs(each - want).max() for each in (theirs, fixed)), least=0.1, most=5e-6)


def test_uint8_flip(backend, shows):
    """Paddle mirrors and selects no uint8: images are converted first."""
    flip_mask = np.array([True, False, True, False])
    x = tensor(IMAGES)
    for refused in (lambda: x.flip(3), lambda: paddle.where(x > 0, x, x)):
        with pytest.raises(RuntimeError, match="is not registered"):
            refused()
    model = backend.build(NARROW.at(size=28), "float32", "cpu")
    fixed = backend.Trainer(model, Recipe()).prepare(IMAGES, flip_mask).numpy()
    want = np.where(flip_mask[:, None, None, None], IMAGES[..., ::-1], IMAGES) / 255
    shows(1, np.abs(fixed - want).max(), least=1, most=5e-6)


def test_bfloat16_ignored(backend, shows):
    """On a CPU `auto_cast` only warns, and goes on in float32."""
    conv, x = nn.Conv2D(1, 2, 3), tensor(np.ones((1, 1, 5, 5), "float32"))
    with (
        pytest.warns(UserWarning, match="amp_guard can only be enabled on"),
        paddle.amp.auto_cast(True, dtype="bfloat16"),
    ):
        went_on = conv(x).dtype == paddle.float32
    with pytest.raises(DeviceError, match="--precision float32"):
        backend.build(NARROW, "bfloat16", "cpu")
    shows(went_on, 0, least=1, most=0)


def test_silent_move(backend, name, simulated_device, shows):
    """A step with its batch elsewhere takes parameters along; the loop tells where things lay.

    The share of the parameters that lie elsewhere after a step, and of those that do so unnoticed.
    """
    layer = nn.Linear(3, 2)
    step = paddle.optimizer.Momentum(0.1, 0.9, layer.parameters())
    batch = paddle.to_tensor(np.ones((1, 3), "float32"), place=simulated_device)
    layer(batch).sum().backward()
    step.step()
    moved = [backend.device_name(p) != "cpu" for p in layer.parameters()]
    recipe = Recipe(spec="mini", size=33, batch_size=8, epochs=1, lr=0.02, momentum=0.9)
    data = load("sample").limit(train=8, test=8)
    with inject(name, "batch-not-moved"):
        first = Checkpoint.first(Config.of(recipe, name, data))
        run = TrainingLoop(backend, name, first, data, simulated_device)
        with pytest.raises(DeviceError, match="batch: on cpu"):
            run()
    shows(np.mean(moved), 0, least=1, most=0)


def test_to_static_self(backend, shows):
    """`to_static` takes the first argument of `forward` for the model only if it is called self."""

    class Named(nn.Layer):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(2, 2)

        def forward(net, x):
            return net.linear(x)

    with pytest.raises(ValueError, match="requires `x` arguments"):
        paddle.jit.to_static(Named())(tensor(np.ones((1, 2), "float32")))
    block = googlenet.Conv(Conv(4, 3), 1, None)
    x = tensor(np.random.RandomState(0).rand(2, 1, 5, 5).astype("float32"))
    want = block(x).numpy()
    shows(1, tensor_error(paddle.jit.to_static(block)(x).numpy(), want), least=1, most=1e-6)


def test_scrambled_file(backend, shows):
    """safetensors writes the bytes as they lie, and a transposed array's lie in another order."""
    model = backend.build(NARROW, "float32", "cpu")
    model.head.weight.set_value(weights.draw(NARROW, 0)["head.weight"].T.copy())
    want = weights.draw(NARROW, 0)["head.weight"]
    found = (model.head.weight.numpy().T, native.to_canonical("head.weight", model.head.weight))
    errors = [tensor_error(decode(encode({"head.weight": a}))["head.weight"], want) for a in found]
    shows(*errors, least=0.5, most=0)


def test_unsafe_pickle(hostile, shows):
    """`paddle.load` runs what a pickle says."""
    path, harmed = hostile
    with pytest.raises(WeightsError, match="not a readable safetensors file"):
        weights.load(path, NARROW)
    after_ours = harmed()
    paddle.load(str(path))
    shows(harmed(), after_ours, least=1, most=0)


def test_published_initializer(backend, shows):
    """The book's loop makes an initializer and gives it nothing to do: how far from Xavier's bound.

    The share of a layer's weights beyond the bound that Xavier's uniform numbers keep to.
    """
    paddle.seed(0)
    layer = nn.Linear(1024, 10)  # as the book's last one
    before = layer.weight.numpy()
    nn.initializer.XavierUniform(layer.weight)  # what its `init_weights` does to each layer
    assert np.array_equal(layer.weight.numpy(), before)
    conv = nn.Conv2D(64, 192, 3)  # as in its second stage
    nn.initializer.XavierUniform(conv.weight)
    bound = np.sqrt(6 / ((64 + 192) * 9))
    ours = weights.draw(NARROW, 0)["stage2.1.conv.weight"]
    ours_bound = np.sqrt(6 / (sum(ours.shape[:2]) * 9))
    shows(
        np.mean(np.abs(conv.weight.numpy()) > bound),
        np.mean(np.abs(ours) > ours_bound),
        least=0.01,
        most=0,
    )
