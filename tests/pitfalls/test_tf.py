"""Pitfalls that show in TensorFlow and Keras. Long because each pitfall is a test of its own."""

import inspect
from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from safetensors.numpy import load as decode
from safetensors.numpy import save as encode
from small_specs import NARROW, RECIPE  # in tests/support
from steps import step

from backends.mutations import inject
from backends.numpy import GoogLeNet, cross_entropy, resize
from backends.numpy.googlenet import avg_pool, batch_norm, convolution, local_norm, max_pool
from backends.tf import device, googlenet, optimizers, train
from backends.tf import weights as native
from common import weights
from common.data.sampling import batches
from common.data.sources import load
from common.formats.identify import identify
from common.formats.sandbox import read_file
from common.parity.fixtures import draw_fixture
from common.parity.mutations import SMALL
from common.parity.report import tensor_error
from common.recipe import Recipe
from common.spec import MINI, Auxiliary, AvgPool, Conv, Linear, LocalNorm, MaxPool

NORM = MINI.norm
RANDOM = np.random.RandomState(0)
X = RANDOM.normal(0.5, 1, (4, 3, 16, 16))  # N, C, H, W
CHANNELS = X.shape[1]
GRADIENTS = [RANDOM.normal(0, 1, (2, 3)) for _ in range(4)]
RATES = (0.1, 0.01, 0.1, 0.05)


@pytest.fixture(autouse=True)
def float64():
    """Layers are made in float64, unless a test says otherwise."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_dtype_policy(before)


def nhwc(x):
    return tf.constant(np.moveaxis(x, 1, -1))


def nchw(x):
    return np.moveaxis(x.numpy(), -1, 1)


def same_padding_errors(x):
    """Of Keras's `'same'`, and of the backend's Conv, for the first row of the network."""
    row = Conv(4, 7, stride=2, padding=3, activation=False)
    weight, bias = RANDOM.normal(0, 1, (4, CHANNELS, 7, 7)), RANDOM.normal(0, 1, 4)
    want, _ = convolution(x, weight, bias, row)
    theirs, ours = layers.Conv2D(4, 7, 2, padding="same"), googlenet.Conv(row, None)
    for layer, call in ((theirs, theirs), (ours.conv, ours)):
        call(nhwc(x))  # makes its variables
        layer.set_weights([native.to_native("", weight), bias])
    return [tensor_error(nchw(call(nhwc(x))), want) for call in (theirs, ours)]


def test_same_padding(shows):
    """With stride 2 and an even size `'same'` pads 2 in front and 3 behind, not 3 and 3."""
    odd, _ = same_padding_errors(X[..., 1:, 1:])
    assert odd < 1e-12, "on odd sizes it is the same function"
    shows(*same_padding_errors(X), least=0.1)


def test_pool_padding(shows):
    """Where values may be negative, zeros around them win a max pool."""
    row, x = MaxPool(3, stride=2, padding=1), X - 3
    want, _ = max_pool(x, row)
    padded = tf.pad(nhwc(x), [[0, 0], [1, 1], [1, 1], [0, 0]])
    theirs = layers.MaxPooling2D(3, 2)(padded)
    ours = googlenet.MaxPool(3, stride=2, padding=1, ceil=False)(nhwc(x))
    shows(*(tensor_error(nchw(each), want) for each in (theirs, ours)), least=0.1)


def test_counted_padding(shows):
    """`'same'` leaves the padding out of a mean; the other frameworks' v3 counts it."""
    row = AvgPool(3, 1, 1)
    want, _ = avg_pool(X, row)
    theirs, ours = layers.AveragePooling2D(3, 1, "same"), googlenet.layer(row, None)
    shows(*(tensor_error(nchw(pool(nhwc(X))), want) for pool in (theirs, ours)), least=0.1)


def test_local_norm_alpha(shows):
    """TensorFlow's own does not divide alpha by the size, and takes no float64."""
    row = LocalNorm(size=3, alpha=1.0, beta=0.75)
    want, _ = local_norm(X, row)
    with pytest.raises((TypeError, tf.errors.InvalidArgumentError)):
        tf.nn.local_response_normalization(nhwc(X), 1)
    single = tf.cast(nhwc(X), tf.float32)
    theirs = tf.nn.local_response_normalization(single, 1, bias=1.0, alpha=1.0, beta=0.75)
    ours = googlenet.layer(row, None)(nhwc(X))
    shows(*(tensor_error(nchw(y), want) for y in (theirs, ours)), least=0.1)


def test_file_numbers(shows, tmp_path):
    """The number of a layer in a `.weights.h5` is not that of its name: the share that differs."""
    path = tmp_path / "it.weights.h5"
    net = keras.applications.InceptionV3(weights=None, input_shape=(75, 75, 3), classes=10)
    net.save_weights(path)
    file = read_file(path)
    named = {layer.name: layer for layer in net.layers if isinstance(layer, layers.Conv2D)}
    kernels = [named[name].kernel.numpy() for name in sorted(named, key=number)]
    stored = [file.arrays[f"layers/conv2d{f'_{i}' if i else ''}/vars/0"] for i in range(94)]
    found = identify(file, None, "it").weights
    ours = [native.to_native(name, found[name]) for name in found if name.endswith("conv.weight")]
    assert len(kernels) == len(ours) == 94
    shares = [
        np.mean(
            [not np.array_equal(one, kernel) for one, kernel in zip(each, kernels, strict=True)]
        )
        for each in (stored, ours)
    ]
    shows(*shares, least=0.5, most=0)


def number(name):
    """The number that Keras gave a layer in this process."""
    return int(f"{name}_0".split("_")[1])


def test_conv_layout(shows):
    """Keras's kernels are HWIO: a reshape fits and is wrong."""
    row = Conv(4, 3)
    weight, layer, errors = RANDOM.normal(0, 1, (4, CHANNELS, 3, 3)), layers.Conv2D(4, 3), []
    want, _ = convolution(X, weight, np.zeros(4), row)
    layer(nhwc(X))
    for given in (weight.reshape(3, 3, CHANNELS, 4), native.to_native("conv.weight", weight)):
        layer.set_weights([given, np.zeros(4)])
        errors.append(tensor_error(nchw(layer(nhwc(X))), want))
    shows(*errors, least=0.1)


def test_linear_layout(shows):
    """Keras's linear layer is (in, out): a reshape fits and is wrong."""
    x, weight = RANDOM.rand(2, 6), RANDOM.rand(4, 6)  # (out, in)
    want, layer, errors = x @ weight.T, layers.Dense(4), []
    layer(x)
    for given in (weight.reshape(6, 4), native.to_native("head.weight", weight)):
        layer.set_weights([given, np.zeros(4)])
        errors.append(tensor_error(layer(x).numpy(), want))
    shows(*errors, least=0.1)


def test_flatten_order(shows):
    """Flattening NHWC puts the channels last: a linear layer's weights meet other features."""
    x, hidden, head = X[..., :2, :2], RANDOM.normal(0, 1, (5, 12)), RANDOM.normal(0, 1, (10, 5))
    want = x.reshape(len(x), -1) @ hidden.T
    theirs = tf.matmul(layers.Flatten()(nhwc(x)), hidden.T)
    same = Conv(CHANNELS, activation=False)  # with a weight of ones and zeros
    row = Auxiliary(0, AvgPool(1, 1), same, features=12, hidden=Linear(5))
    ours = googlenet.Auxiliary(row, NARROW)
    ours(nhwc(x))
    ours.conv.conv.set_weights([np.eye(CHANNELS)[None, None], np.zeros(CHANNELS)])
    ours.hidden.set_weights([hidden.T, np.zeros(5)])
    ours.head.set_weights([head.T, np.zeros(10)])
    errors = tensor_error(theirs.numpy(), want), tensor_error(ours(nhwc(x)).numpy(), want @ head.T)
    shows(*errors, least=0.1)


def test_rescaling(shows):
    """Keras's `Rescaling` rounds its numbers to float32, in a float64 network too."""
    scale, shift = (0.458, 0.448, 0.45), (-0.03, -0.088, -0.188)
    want = X * np.reshape(scale, (3, 1, 1)) + np.reshape(shift, (3, 1, 1))
    found = (layers.Rescaling(scale, shift), googlenet.Affine(scale, shift))
    shows(*(tensor_error(nchw(layer(nhwc(X))), want) for layer in found), least=1e-9)


def test_norm_defaults(shows):
    """Keras's momentum is 0.99 where the network's is 0.9."""
    mean, var = np.zeros(CHANNELS), np.ones(CHANNELS)
    batch_norm(X, np.ones(CHANNELS), np.zeros(CHANNELS), mean, var, NORM, True)
    theirs, ours = layers.BatchNormalization(), googlenet.Conv(Conv(CHANNELS), NORM).norm
    for norm in (theirs, ours):
        norm(nhwc(X), training=True)
    found = [norm.moving_mean.numpy() for norm in (theirs, ours)]
    shows(*(tensor_error(each, mean) for each in found), least=0.5)


def sgd(recipe):
    """The backend's optimizer of a recipe."""
    return optimizers.SGD(recipe.lr, recipe.momentum, recipe.nesterov, l2=recipe.weight_decay)


def stepped(optimizer, gradients=GRADIENTS, rates=RATES):
    """A weight that was 1 everywhere, after steps with a learning rate that changes."""
    weight = keras.Variable(np.ones((2, 3)), dtype="float64")
    optimizer.build([weight])
    for gradient, rate in zip(gradients, rates, strict=True):
        optimizers.set_rate(optimizer, rate)
        optimizer.apply([tf.constant(gradient)])
    return weight.numpy()


ROUNDED = [Recipe(lr=rate).lr for rate in RATES]


def test_momentum_rate(shows, textbook):
    """Keras keeps the learning rate inside the velocity, where an old rate lives on."""
    recipe = Recipe(momentum=0.9)
    want = textbook(recipe, np.ones((2, 3)), GRADIENTS, ROUNDED)
    found = (keras.optimizers.SGD(0.1, recipe.momentum), sgd(recipe))
    shows(*(tensor_error(stepped(each), want) for each in found), least=0.01)


def test_adam_eps(shows, textbook):
    """Keras adds Adam's eps inside the corrected root: seen where gradients are small."""
    recipe, small = Recipe(optimizer="adam"), [1e-6 * gradient for gradient in GRADIENTS]
    want = textbook(recipe, np.ones((2, 3)), small, ROUNDED)
    betas = (recipe.beta1, recipe.beta2, recipe.eps)
    found = (keras.optimizers.Adam(0.1, *betas), optimizers.Adam(recipe.lr, *betas))
    shows(*(tensor_error(stepped(each, small), want) for each in found), least=0.01)


def test_weight_decay(shows, textbook):
    """Keras's weight decay shrinks the weight beside the step, not through its gradient."""
    recipe = Recipe(momentum=0.9, weight_decay=0.1)
    want = textbook(recipe, np.ones((2, 3)), GRADIENTS, ROUNDED)
    decay = {"weight_decay": recipe.weight_decay}
    # the learning rate constant and inside or outside the velocity, it would be the same
    found = (keras.optimizers.SGD(0.1, recipe.momentum, **decay), sgd(recipe))
    shows(*(tensor_error(stepped(each), want) for each in found), least=0.01)


def test_rounded_numbers(shows, textbook):
    """Keras holds the learning rate as float32, so a recipe's is rounded for everyone."""
    recipe, zero = Recipe(), np.ones((2, 3))
    found = zero - stepped(sgd(recipe), GRADIENTS[:1], [0.1])
    wants = [zero - textbook(recipe, zero, GRADIENTS[:1], [rate]) for rate in (0.1, recipe.lr)]
    shows(*(tensor_error(found, want) for want in wants), least=1e-9)


LOGITS, LABELS = RANDOM.normal(0, 2, (8, 10)), RANDOM.randint(0, 10, 8)


def test_from_logits(shows):
    """Keras's losses take probabilities, unless the option says `from_logits=True`."""
    want, _ = cross_entropy(LOGITS, LABELS)
    theirs = keras.losses.SparseCategoricalCrossentropy(dtype="float64")(LABELS, LOGITS)
    ours = train.cross_entropy(tf.constant(LOGITS), LABELS)
    shows(*(abs(float(loss) - want) / want for loss in (theirs, ours)), least=0.1)


def test_loss_dtype(shows):
    """Keras's losses compute in float32, whatever they get."""
    want, _ = cross_entropy(LOGITS, LABELS, 0.1)
    loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1)
    theirs = loss(np.eye(10)[LABELS], LOGITS)
    ours = train.cross_entropy(tf.constant(LOGITS), LABELS, 0.1)
    shows(*(abs(float(loss) - want) / want for loss in (theirs, ours)), least=1e-9)


def test_resize_dtype(backend, built, shows):
    """`tf.image.resize` gives float32, whatever it gets: a float64 check goes in behind it."""
    images = load("sample").train_images[:4]
    want = resize(images, 33, 33)
    theirs = tf.image.resize(nhwc(images / 255), (33, 33), "bilinear")
    ours = backend.place(built(NARROW, "float64"), want)
    shows(*(np.abs(nchw(each) - want).max() for each in (theirs, ours)), least=1e-9, most=0)


def trained(backend):
    """The weights of a network of two blocks after three steps, in a graph traced anew."""
    spec = replace(NARROW, stage5=NARROW.stage5[1:])
    fixture = draw_fixture(spec)
    model = backend.build(spec, "float32", "cpu")
    backend.write_weights(model, fixture.weights)
    trainer = backend.Trainer(model, RECIPE)
    for _ in range(3):
        step(backend, trainer, fixture.inputs, fixture.labels)
    return backend.read_weights(model)


def test_graph_order(backend, shows, monkeypatch):
    """A pass over the graph sums in an order that depends on names, and Keras numbers its names."""

    def unnamed(table, norm, name, **own):
        return keras.Sequential([googlenet.layer(row, norm, **own) for row in table])

    monkeypatch.setattr(googlenet, "sequential", unnamed)  # ours have names of their own
    before, errors = tf.config.optimizer.get_experimental_options(), []  # as the backend has them
    for options in (
        before,
        {"arithmetic_optimization": True},
    ):
        keras.utils.clear_session(free_memory=False)  # the names of layers count from 0 again
        tf.config.optimizer.set_experimental_options(options)
        try:
            one, other = trained(backend), trained(backend)
        finally:
            tf.config.optimizer.set_experimental_options(before)
        errors.append(max(tensor_error(one[name], other[name]) for name in one))
    fixed, without = errors
    shows(without, fixed, least=1e-10, most=0)


def test_numpy_2(shows):
    """NumPy 2 gives `__array__` the argument `copy`, which a variable's lacks: read `.numpy()`."""
    weight = keras.Variable(np.ones((2, 3)))
    lacks = "copy" not in inspect.signature(type(weight).__array__).parameters
    if not np.__version__.startswith("1."):
        with pytest.warns(DeprecationWarning, match="__array__"):
            np.array(weight)
    array = native.to_canonical("head.weight", weight.value)  # a warning would be an error here
    shows(lacks, array.shape != (3, 2), least=1, most=0)


def test_symbolic_build(shows, monkeypatch):
    """Keras runs `call` to find out what `build` and `compute_output_shape` do not say.

    Calls beyond the one, a layer.
    """
    calls, call, extra = [], googlenet.Conv.call, []

    def counted(self, x):
        calls.append(self)
        return call(self, x)

    monkeypatch.setattr(googlenet.Conv, "call", counted)
    for classes in ((googlenet.Conv, googlenet.Inception), ()):
        with monkeypatch.context() as patch:
            for each in classes:
                patch.setattr(each, "build", layers.Layer.build)
                patch.setattr(each, "compute_output_shape", layers.Layer.compute_output_shape)
            calls.clear()
            googlenet.GoogLeNet(NARROW)(nhwc(np.zeros((1, *NARROW.input))))
        extra.append(len(calls) / len(set(map(id, calls))) - 1)
    shows(*extra, least=1, most=0)


def test_scrambled_file(backend, shows):
    """safetensors writes the bytes as they lie, and a transposed array's lie in another order."""
    model, given = backend.build(NARROW, "float32", "cpu"), weights.draw(NARROW, 0)
    backend.write_weights(model, given)
    name = "stage2.1.conv.weight"
    kernel = native.tensors(model)[name].value
    found = (kernel.numpy().transpose(3, 2, 0, 1), native.to_canonical(name, kernel))
    errors = [tensor_error(decode(encode({name: each}))[name], given[name]) for each in found]
    shows(*errors, least=0.5, most=0)


def test_soft_placement(shows):
    """By default an operation runs on another device when the one asked for is not there."""
    before, went_on = tf.config.get_soft_device_placement(), []
    for soft in (before, True):  # as the backend has it; as it comes
        tf.config.set_soft_device_placement(soft)
        try:
            with device.native_device("gpu:99"):
                went_on.append(device.device_name(tf.ones(2)) == "cpu")
        except (tf.errors.InvalidArgumentError, RuntimeError):
            went_on.append(False)
        finally:
            tf.config.set_soft_device_placement(before)
    fixed, without = went_on
    shows(without, fixed, least=1, most=0)


def test_published_padding(backend, name, shows):
    """The book's TensorFlow code pads `'same'`: at 96 pixels its logits are another function's."""
    spec = SMALL.at(size=96)  # one block a stage
    fixture = draw_fixture(spec)
    want = GoogLeNet(spec, fixture.weights).forward(fixture.inputs.astype(float))["head"]
    errors = []
    with inject(name, "same-padding"):
        models = [backend.build(spec, "float64", "cpu")]
    models.append(backend.build(spec, "float64", "cpu"))
    for model in models:
        backend.write_weights(model, fixture.weights)
        errors.append(tensor_error(backend.forward(model, fixture.inputs, False)["head"], want))
    shows(*errors, least=0.01)


def test_published_shuffle(shows):
    """The book's TensorFlow code batches before it shuffles: the same images meet in every epoch.

    The share of an epoch's batches that hold just the images of a batch of the epoch before.
    """
    examples = tf.data.Dataset.from_tensor_slices(np.arange(100))
    theirs = examples.batch(10).shuffle(100, seed=0)

    def kept(epochs):
        one, other = ({frozenset(batch.tolist()) for batch in epoch} for epoch in epochs)
        return len(one & other) / len(one)

    book = [list(theirs.as_numpy_iterator()) for _ in range(2)]
    assert [b.tolist() for b in book[0]] != [b.tolist() for b in book[1]], "it does shuffle"
    shows(kept(book), kept([batches(100, 10, 0, epoch) for epoch in range(2)]), least=1, most=0)


def test_double_reduce(simulated_device, shows):
    """Keras's optimizers add up all replicas' gradients: whoever does it first doubles them."""
    recipe, rate = Recipe(), Recipe().lr
    strategy, moved = tf.distribute.MirroredStrategy(["cpu:0", simulated_device]), []
    for twice in (True, False):
        with strategy.scope():
            weight = keras.Variable(np.zeros(3), dtype="float64")
            optimizer = sgd(recipe)
            optimizer.build([weight])

        def replica(twice=twice, weight=weight, optimizer=optimizer):
            context = tf.distribute.get_replica_context()
            gradient = tf.ones(3, tf.float64) * tf.cast(
                1 + context.replica_id_in_sync_group, "double"
            )
            if twice:
                gradient = context.all_reduce("sum", gradient)
            optimizer.apply_gradients([(gradient, weight)])

        strategy.run(tf.function(replica))
        moved.append(weight.numpy())
    want = np.full(3, -rate * (1 + 2))
    shows(*(tensor_error(each, want) for each in moved), least=0.5)
