"""Pitfalls that show in MXNet Gluon."""

from types import SimpleNamespace

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd, gluon
from mxnet.gluon import nn
from small_specs import NARROW  # in tests/support

from backends.mxnet import googlenet, optimizers, train
from backends.numpy import GoogLeNet, Trainer, cross_entropy, resize
from backends.numpy.googlenet import batch_norm, local_norm
from common.data.sources import load
from common.device import has_avx512
from common.parity.fixtures import draw_fixture
from common.parity.report import tensor_error
from common.recipe import Recipe
from common.spec import MINI, Conv, GlobalAvgPool, LocalNorm

NORM = MINI.norm
RANDOM = np.random.RandomState(0)
X = RANDOM.normal(0.5, 1, (4, 3, 5, 5))  # N, C, H, W
CHANNELS = X.shape[1]
GRADIENTS = [RANDOM.normal(0, 1, (2, 3)) for _ in range(4)]
RATES = (0.1, 0.01, 0.1, 0.05)
IMAGES = load("sample").train_images[:4]


def array(values):
    return mx.np.array(values, dtype="float64")


def reference(eps=NORM.eps, momentum=NORM.momentum):
    """The output of a batch norm that has learned nothing, and its running mean."""
    mean, var = np.zeros(CHANNELS), np.ones(CHANNELS)
    norm = SimpleNamespace(eps=eps, momentum=momentum)  # a spec's would be rounded
    y, _ = batch_norm(X, np.ones(CHANNELS), np.zeros(CHANNELS), mean, var, norm, True)
    return y, mean


def normed(norm):
    """The output of a norm after X in training, and its running mean."""
    norm.cast("float64")
    norm.initialize(mx.init.Zero())
    norm.gamma.set_data(mx.np.ones(CHANNELS, "float64"))
    with autograd.record():
        y = norm(array(X))
    y.backward()
    return y.asnumpy(), norm.running_mean.data().asnumpy()


def ours():
    """The norm of the backend's Conv."""
    norm = googlenet.Conv(Conv(CHANNELS), NORM).norm
    norm.gamma.shape = norm.beta.shape = (CHANNELS,)
    norm.running_mean.shape = norm.running_var.shape = (CHANNELS,)
    return norm


def fixture_and_model(backend, built, spec):
    fixture = draw_fixture(spec)
    model = built(spec, "float64")
    backend.write_weights(model, fixture.weights)
    return fixture, model


def test_norm_defaults(shows):
    """MXNet's eps is 1e-5 where the network's is 1e-3."""
    want, _ = reference()
    found = (nn.BatchNorm(in_channels=CHANNELS), ours())
    shows(*(tensor_error(normed(each)[0], want) for each in found), least=1e-4)


def test_norm_backward(backend, built, shows):
    """A batch norm moves its running statistics in the backward pass, never in a forward one."""
    fixture, model = fixture_and_model(backend, built, MINI)
    reference, name = GoogLeNet(MINI, fixture.weights), "stage1.0.norm.running_mean"
    reference.forward(fixture.inputs.astype(float), training=True)
    backend.forward(model, fixture.inputs, training=True)
    without = tensor_error(backend.read_weights(model)[name], reference.weights[name])
    backend.gradients(model, fixture.inputs, fixture.labels)
    fixed = tensor_error(backend.read_weights(model)[name], reference.weights[name])
    shows(without, fixed, least=0.01)


def stepped(optimizer, gradients=GRADIENTS):
    """A weight that was 1 everywhere, after steps with a learning rate that changes."""
    update, weight = mx.optimizer.get_updater(optimizer), mx.nd.ones((2, 3), dtype="float64")
    for gradient, rate in zip(gradients, RATES, strict=True):
        optimizer.set_learning_rate(rate)
        update(0, mx.nd.array(gradient, dtype="float64"), weight)
    return weight.asnumpy()


def test_momentum_rate(shows, textbook):
    """MXNet keeps the learning rate inside the velocity, where an old rate lives on."""
    recipe = Recipe(momentum=0.9)
    want = textbook(recipe, np.ones((2, 3)), GRADIENTS, RATES)
    found = (mx.optimizer.SGD(momentum=recipe.momentum), optimizers.SGD(recipe))
    shows(*(tensor_error(stepped(each), want) for each in found), least=0.01)


def test_adam_eps(shows, textbook):
    """MXNet adds Adam's eps inside the corrected root: seen where gradients are small."""
    recipe, small = Recipe(optimizer="adam"), [1e-6 * gradient for gradient in GRADIENTS]
    want = textbook(recipe, np.ones((2, 3)), small, RATES)
    theirs = mx.optimizer.Adam(beta1=recipe.beta1, beta2=recipe.beta2, epsilon=recipe.eps)
    found = (theirs, optimizers.Adam(recipe))
    shows(*(tensor_error(stepped(each, small), want) for each in found), least=0.01)


def test_rounded_numbers(shows):
    """MXNet holds a norm's momentum as float32, so a spec's is rounded for everyone."""
    _, found = normed(ours())
    unrounded, rounded = (reference(momentum=m)[1] for m in (0.9, NORM.momentum))
    shows(tensor_error(found, unrounded), tensor_error(found, rounded), least=1e-8)


def test_step_divides(backend, built, shows):
    """`Trainer.step(n)` divides by n what is the gradient of a mean already."""
    fixture, model = fixture_and_model(backend, built, NARROW)
    before, x = fixture.weights["head.weight"], backend.place(model, fixture.inputs)
    reference = GoogLeNet(NARROW, fixture.weights)
    Trainer(reference, Recipe()).train_step(fixture.inputs.astype(float), fixture.labels)
    labels, found = backend.place_labels(model, fixture.labels), []
    trainer = gluon.Trainer(model.collect_params(), "sgd", {"learning_rate": Recipe().lr})
    with autograd.record():
        loss = train.cross_entropy(model(x), labels).mean()
    loss.backward()
    trainer.step(len(labels))
    found.append(backend.read_weights(model)["head.weight"] - before)
    backend.write_weights(model, fixture.weights)
    backend.Trainer(model, Recipe()).train_step(x, labels)
    found.append(backend.read_weights(model)["head.weight"] - before)
    want = reference.weights["head.weight"] - before
    # Gluon holds the learning rate as float32, as the recipe does
    shows(*(tensor_error(each, want) for each in found), least=0.4)


LOGITS, LABELS = RANDOM.normal(0, 2, (8, 10)), RANDOM.randint(0, 10, 8)


def test_from_logits(shows):
    """Gluon's `from_logits=True` says that a log-softmax was taken already; False means logits."""
    want, _ = cross_entropy(LOGITS, LABELS)
    losses = (gluon.loss.SoftmaxCrossEntropyLoss(from_logits=True), train.cross_entropy)
    found = [float(each(array(LOGITS), mx.np.array(LABELS)).mean()) for each in losses]
    shows(*(abs(loss - want) / want for loss in found), least=0.1)


def test_loss_per_example(backend, built, shows):
    """Gluon's loss is one for each example, and `backward` goes from their sum."""
    fixture, model = fixture_and_model(backend, built, NARROW)
    _, want = GoogLeNet(NARROW, fixture.weights).gradients(fixture.inputs, fixture.labels)
    x, labels = backend.place(model, fixture.inputs), backend.place_labels(model, fixture.labels)
    with autograd.record():
        loss = train.cross_entropies(model(x), labels)
    loss.backward()
    theirs = model.head.bias.grad().asnumpy()
    _, fixed = backend.gradients(model, fixture.inputs, fixture.labels)
    found = (theirs, fixed["head.bias"])
    shows(*(tensor_error(each, want["head.bias"]) for each in found), least=0.5)


def test_float64_initialize(backend, built, shows):
    """Gluon draws random numbers in float32 only: ours are drawn so, and cast."""
    net = nn.Conv2D(4, 3)
    net.cast("float64")
    net.initialize(mx.init.Xavier())
    with pytest.raises(mx.MXNetError, match="_npi_uniform"):
        net(array(X))
    fixture, model = fixture_and_model(backend, built, NARROW)
    want = GoogLeNet(NARROW, fixture.weights).forward(fixture.inputs.astype(float))["head"]
    got = backend.forward(model, fixture.inputs, training=False)["head"]
    shows(1, tensor_error(got, want), least=1)


def prepared(backend, size):
    model = backend.build(NARROW.at(size=size), "float32", "cpu")
    return backend.Trainer(model, Recipe()).prepare(IMAGES).asnumpy()


def test_resize_corners(backend, shows):
    """By default `BilinearResize2D` aligns the corners."""
    want, x = resize(IMAGES, 96, 96), mx.nd.array(IMAGES / 255)
    theirs = mx.nd.contrib.BilinearResize2D(x, height=96, width=96).asnumpy()
    fixed = prepared(backend, 96)
    shows(*(np.abs(each - want).max() for each in (theirs, fixed)), least=0.1, most=5e-6)


def test_one_pixel(backend, shows):
    """For one pixel `BilinearResize2D` takes the corner, not the centre."""
    want, x = resize(IMAGES, 1, 1), mx.nd.array(IMAGES / 255)
    theirs = mx.nd.contrib.BilinearResize2D(x, height=1, width=1, align_corners=False).asnumpy()
    fixed = prepared(backend, 1)
    shows(*(np.abs(each - want).max() for each in (theirs, fixed)), least=0.1, most=5e-6)


def test_local_norm_float64(shows):
    """MXNet's own local norm refuses float64."""
    row = LocalNorm(size=3, alpha=1.0, beta=0.75)
    with pytest.raises(mx.MXNetError):
        mx.nd.LRN(array(X).as_nd_ndarray(), nsize=3, alpha=1.0, beta=0.75, knorm=1.0).asnumpy()
    ours = googlenet.layer(row, None)(array(X)).asnumpy()
    shows(1, tensor_error(ours, local_norm(X, row)[0]), least=1)


def test_pooled_shape(shows):
    """Gluon's global pool keeps two axes of length 1, which `Dense` hides: how many are left."""
    theirs, fixed = nn.GlobalAvgPool2D(), googlenet.layer(GlobalAvgPool(), None)
    shows(*(each(array(X)).ndim - 2 for each in (theirs, fixed)), least=2, most=0)


AMP = """
import sys
import numpy as np
from backends import load
from common.spec import MINI

backend = load("mxnet")
from mxnet.contrib import amp
from backends.mxnet import train

x = np.random.RandomState(0).rand(2, *MINI.input)
if sys.argv[1] == "theirs":
    model = backend.build(MINI, "float32", "cpu")
    want = model(backend.place(model, x)).asnumpy()
    amp.init("bfloat16")
    got = model(backend.place(model, x)).asnumpy()
else:
    model = backend.build(MINI, "bfloat16", "cpu")
    weights = backend.read_weights(model)
    model.initialize(force_reinit=True)
    want = model(backend.place(model, x)).asnumpy()
    got = train.autocast(model)(backend.place(model, x)).asnumpy()
print("float32" if np.array_equal(got, want) else "bfloat16")
"""


@pytest.mark.skipif(not has_avx512(), reason="MXNet's bfloat16 needs AVX-512")
def test_amp_init(python, shows):
    """`amp.init` passes over NumPy operations: the network goes on in float32."""
    theirs, fixed = python(AMP, "theirs"), python(AMP, "ours")
    assert theirs.returncode == fixed.returncode == 0, theirs.stderr + fixed.stderr
    found = [each.stdout.split()[-1] == "float32" for each in (theirs, fixed)]
    shows(*found, least=1, most=0)


def test_numpy_names(python, shows):
    """MXNet 1.9.1 asks NumPy for names that were taken out in 1.24."""
    theirs, fixed = python("import mxnet"), python("import backends.mxnet")
    assert "has no attribute" in theirs.stderr, theirs.stderr
    shows(theirs.returncode != 0, fixed.returncode != 0, least=1, most=0)
