"""What the mistakes of `googlenet check` look like in each framework: one wrong line a framework.

The order is that of `common.page.results.TITLES`. A mistake of structure looks alike everywhere
and has no line.
"""

from __future__ import annotations

from common.check.mistakes import MISTAKES
from common.page.results import TITLES

Lines = tuple[str, str, str, str]

WRONG: dict[str, Lines] = {
    "same-padding": (
        "F.pad(x, (2, 3, 2, 3))",
        'Conv2D(64, 7, 2, padding="same")',
        "np.pad(x, ((0, 0), (0, 0), (2, 3), (2, 3)))",
        'padding="SAME"',
    ),
    "padding": (
        "Conv2d(16, 32, 5)",
        'Conv2D(32, 5, padding="valid")',
        "Conv2D(32, 5)",
        "Conv2D(16, 32, 5)",
    ),
    "stride": (
        "Conv2d(1, 64, 7, padding=3)",
        "Conv2D(64, 7)",
        "Conv2D(64, 7, padding=3)",
        "Conv2D(1, 64, 7, padding=3)",
    ),
    "missing-bias": (
        "Conv2d(1, 64, 7, bias=False)",
        "Conv2D(64, 7, use_bias=False)",
        "Conv2D(64, 7, use_bias=False)",
        "Conv2D(1, 64, 7, bias_attr=False)",
    ),
    "norm-eps": (
        "BatchNorm2d(64)  # 1e-5",
        "BatchNormalization()  # 1e-3",
        "BatchNorm()  # 1e-5",
        "BatchNorm2D(64)  # 1e-5",
    ),
    "norm-batch-statistics": (
        "BatchNorm2d(64, track_running_stats=False)",
        "norm(x, training=True)",
        "with autograd.train_mode():",
        "BatchNorm2D(64, use_global_stats=False)",
    ),
    "norm-order": (
        "norm(relu(conv(x)))",
        'Conv2D(64, 3, activation="relu"), BatchNormalization()',
        'Conv2D(64, 3, activation="relu"), BatchNorm()',
        "Sequential(conv, ReLU(), norm)",
    ),
    "missing-relu": (
        "x = self.conv(x)",
        "Conv2D(64, 3)",
        "Conv2D(64, 3)",
        "x = self.conv(x)",
    ),
    "activation": (
        "F.leaky_relu(x)",
        'activation="gelu"',
        'activation="softrelu"',
        "F.silu(x)",
    ),
    "zero-padded-pool": (
        "F.max_pool2d(F.pad(x, (1, 1, 1, 1)), 3, 2)",
        "ZeroPadding2D(1), MaxPool2D(3, 2)",
        "np.pad(x, ...), MaxPool2D(3, 2)",
        "F.max_pool2d(F.pad(x, [1, 1, 1, 1]), 3, 2)",
    ),
    "ceil-pool": (
        "MaxPool2d(3, 2, 1, ceil_mode=True)",
        "ZeroPadding2D(((1, 2), (1, 2))), MaxPool2D(3, 2)",
        "MaxPool2D(3, 2, 1, ceil_mode=True)",
        "MaxPool2D(3, 2, 1, ceil_mode=True)",
    ),
    "avg-pool": (
        "AvgPool2d(3, 1, 1)",
        "AveragePooling2D(3, 1)",
        "AvgPool2D(3, 1, 1)",
        "AvgPool2D(3, 1, 1)",
    ),
    "counted-padding": (
        "AvgPool2d(3, 1, 1, count_include_pad=False)",
        'AveragePooling2D(3, 1, padding="same")',
        "AvgPool2D(3, 1, 1, count_include_pad=False)",
        "AvgPool2D(3, 1, 1, exclusive=True)",
    ),
    "swapped-branches": (
        "torch.cat([b1, b5, b3, pool], 1)",
        "Concatenate()([b1, b5, b3, pool])",
        "np.concatenate([b1, b5, b3, pool], 1)",
        "paddle.concat([b1, b5, b3, pool], 1)",
    ),
    "global-pool": (
        "x.amax((2, 3))",
        "GlobalMaxPooling2D()",
        "GlobalMaxPool2D()",
        "AdaptiveMaxPool2D(1)",
    ),
    "missing-global-pool": (
        "Flatten(), Linear(9216, 10)",
        "Flatten(), Dense(10)",
        "Dense(10)  # flattens",
        "Flatten(), Linear(9216, 10)",
    ),
    "flatten-order": (
        "x.permute(0, 2, 3, 1).flatten(1)",
        "Flatten()  # (H, W, C)",
        "x.transpose(0, 2, 3, 1)",
        "x.transpose([0, 2, 3, 1]).flatten(1)",
    ),
    "softmax-at-end": (
        "Softmax(1) as the last layer",
        'Dense(10, activation="softmax")',
        "npx.softmax(x)",
        "F.softmax(x)",
    ),
    "dropout-active": (
        "F.dropout(x)  # training=True",
        "dropout(x, training=True)",
        'npx.dropout(x, mode="always")',
        "F.dropout(x)  # training=True",
    ),
    "dropout-downscale": ("x * (1 - p)", "x * (1 - p)", "x * (1 - p)", 'mode="downscale_in_infer"'),
    "input-scaled": (
        "x = (x - 0.5) / 0.5",
        "Rescaling(1 / 255)",
        "x = x / 255",
        "Normalize(0.5, 0.5)",
    ),
    "unscaled-residual": ("x + y", "Add()([x, y])", "x + y", "x + y"),
    "local-norm-alpha": (
        "alpha times the size",
        "tf.nn.local_response_normalization(x, alpha=1e-4)",
        "alpha times the size",
        "alpha times the size",
    ),
    "frozen-weights": (
        "SGD(net.head.parameters())",
        "layer.trainable = False",
        'grad_req = "null"',
        "stop_gradient = True",
    ),
    "double-softmax": (
        "F.cross_entropy(F.softmax(z, 1), y)",
        "SparseCategoricalCrossentropy(from_logits=True) of probabilities",
        "SoftmaxCrossEntropyLoss()(npx.softmax(z), y)",
        "F.cross_entropy(F.softmax(z), y)",
    ),
    "summed-loss": (
        'cross_entropy(z, y, reduction="sum")',
        'reduction="sum"',
        "trainer.step(1) after loss(z, y)",
        'cross_entropy(z, y, reduction="sum")',
    ),
    "step-divides": (
        "(loss / len(x)).backward()",
        "loss / batch_size",
        "trainer.step(len(x)) after a mean",
        "(loss / len(x)).backward()",
    ),
    "gradient-twice": (
        "no optimizer.zero_grad()",
        "assign_add of gradients",
        'grad_req = "add"',
        "no optimizer.clear_grad()",
    ),
    "rate-in-velocity": (
        "v = 0.9 * v + lr * grad",
        "keras.optimizers.SGD, and a schedule",
        'Trainer(..., "sgd"), and a schedule',
        "v = 0.9 * v + lr * grad",
    ),
    "norm-evaluation-mode": (
        "no net.train()",
        "net(x)  # training=False",
        "record(train_mode=False)",
        "no net.train()",
    ),
    "norm-momentum": (
        "BatchNorm2d(64, momentum=0.9)",
        "BatchNormalization()  # 0.99",
        "BatchNorm(momentum=0.1)",
        "BatchNorm2D(64, momentum=0.1)",
    ),
    "norm-variance": (
        "BatchNorm2d(64)  # always n - 1",
        "tf.math.reduce_variance(x) * n / (n - 1)",
        "BatchNorm()  # on a GPU, by cuDNN",
        "x.var([0, 2, 3])  # unbiased=True",
    ),
}


def lines(name: str) -> dict[str, str]:
    """The wrong line in each framework; empty if the mistake has none."""
    return dict(zip(TITLES, WRONG[name], strict=True)) if name in WRONG else {}


def sentence(name: str, language: int) -> str:
    """What `check` says, with dots for what it fills in; the language is 0 or 1."""
    text = (MISTAKES[name].en, MISTAKES[name].zh)[language]
    return text.format(theirs="…", ours="…", what="")
