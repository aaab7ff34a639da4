"""What the page shows of the code: a line a topic, and a line a call. All are found by name.

Every text is a pair, English and Chinese. A trap is the anchor of its section in docs/porting.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Text = tuple[str, str]  #: English, Chinese


@dataclass(frozen=True)
class Topic:
    """A row of the comparison: one job, and where each framework does it.

    `names` are addresses in every backend's `file`, `also` those that one backend has besides, `less`
    those that it does without.
    """

    id: str
    title: Text
    about: Text
    file: str
    names: tuple[str, ...]
    also: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    less: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  #: what one does without
    traps: tuple[str, ...] = ()


TOPICS = (
    Topic(
        "conv",
        ("Convolution block", "卷积块"),
        (
            "Convolution, batch norm if the network has one, ReLU. Who is told the incoming channels, "
            "who pads, and what momentum means in a batch norm.",
            "卷积、批量归一化（若网络带有）、ReLU。看点：谁需要声明输入通道数，谁来填充，"
            "批量归一化的 momentum 指的是哪一个权重。",
        ),
        "googlenet.py",
        ("Conv",),
        also={"torch": ("BatchNorm",)},
        traps=(
            "same-padding",
            "published-padding",
            "norm-defaults",
            "norm-momentum",
            "norm-variance",
            "norm-backward",
            "norm-rounding",
            "zero-gradient",
            "rounded-numbers",
            "sync-norm",
        ),
    ),
    Topic(
        "inception",
        ("Inception block", "Inception 块"),
        (
            "Four branches over the same input, joined along the channels.",
            "四条并行的路径共用一个输入，沿通道维拼接。",
        ),
        "googlenet.py",
        ("Inception",),
        traps=("symbolic-build", "relu-tie"),
    ),
    Topic(
        "stages",
        ("Stages", "各阶段"),
        (
            "Five stages and a head; the shapes behind them are those of 96 pixels.",
            "五个阶段加一个分类头；注释里的形状对应 96 像素的输入。",
        ),
        "googlenet.py",
        ("GoogLeNet",),
        traps=("to-static-self",),
    ),
    Topic(
        "layers",
        ("From a row of the spec to a layer", "从规格的一行到一个层"),
        (
            "One `match` maps a row to the framework's own layer.",
            "一个 `match` 把规格的每一行对应到框架自己的层。",
        ),
        "googlenet.py",
        ("sequential", "layer"),
        also={"tf": ("MaxPool", "AdaptiveAvgPool"), "paddle": ("GlobalAvgPool",)},
        traps=("pool-padding", "pool-gradient", "pooled-shape"),
    ),
    Topic(
        "auxiliary",
        ("Auxiliary heads", "辅助分类器"),
        (
            "Side classifiers on rows of stage 4, in the specs that have them; a way out of the middle.",
            "挂在第 4 阶段某些行上的旁路分类器，仅部分规格带有：如何从网络中途取出输出。",
        ),
        "googlenet.py",
        ("Auxiliary", "tapped"),
    ),
    Topic(
        "head",
        ("Head", "分类头"),
        (
            "Dropout, then one linear layer over the pooled features.",
            "先 Dropout，再对池化后的特征做一次全连接。",
        ),
        "googlenet.py",
        ("GoogLeNet.__init__.dropout", "GoogLeNet.__init__.head", "GoogLeNet.forward"),
        traps=("linear-layout", "flatten-order"),
    ),
    Topic(
        "weights",
        ("Weights in and out", "权重的读写"),
        (
            "To canonical arrays and back: where parameters have their names, and how they lie.",
            "与规范数组互相转换：参数的名字从何而来，数据如何排布。",
        ),
        "weights.py",
        ("read_weights", "write_weights", "tensors", "to_canonical", "to_native"),
        also={"tf": ("variable",), "paddle": ("dtype",)},
        traps=(
            "conv-layout",
            "numpy-2",
            "float64-initialize",
            "initial-bias",
            "same-seed",
            "published-initializer",
        ),
    ),
    Topic(
        "images",
        ("Images in", "图像输入"),
        (
            "uint8 images go to the device once; there they are mirrored, scaled and resized.",
            "uint8 图像只搬到设备一次，翻转、缩放数值、调整尺寸都在设备上完成。",
        ),
        "train.py",
        ("Trainer.prepare",),
        traps=(
            "resize-corners",
            "one-pixel",
            "resize-smaller",
            "resize-dtype",
            "uint8-flip",
            "published-shuffle",
        ),
    ),
    Topic(
        "step",
        ("One training step", "一步训练"),
        (
            "Loss, gradients, one step of the optimizer. Who clears gradients, who divides by the batch.",
            "损失、梯度、优化器走一步。看点：谁负责清零梯度，谁会除以批量大小。",
        ),
        "train.py",
        ("Trainer.update",),
        also={
            "tf": ("Trainer._update", "cross_entropy"),
            "mxnet": ("cross_entropy",),
            "paddle": ("cross_entropy",),
        },
        traps=(
            "from-logits",
            "loss-dtype",
            "loss-per-example",
            "label-smoothing",
            "loss-cut-off",
            "gradients-add",
            "step-divides",
            "graph-order",
            "plateau",
        ),
    ),
    Topic(
        "optimizer",
        ("Optimizer", "优化器"),
        (
            "The textbook's SGD, momentum and Adam: the framework's own where they are these.",
            "教科书里的 SGD、动量与 Adam：框架自带的若与公式一致就直接用，否则写出公式。",
        ),
        "optimizers.py",
        ("make", "set_rate"),
        also={"tf": ("SGD", "Adam"), "mxnet": ("SGD", "Adam")},
        traps=("momentum-rate", "adam-eps", "weight-decay", "published-optimizer"),
    ),
    Topic(
        "evaluation",
        ("Evaluation", "评估"),
        (
            "How to leave training mode, and how metrics stay on the device until they are read.",
            "如何切出训练模式，以及如何让指标留在设备上，直到真正要读取。",
        ),
        "train.py",
        ("Trainer.logits", "Trainer.evaluate", "count_right"),
        also={"tf": ("Trainer._logits",)},
    ),
    Topic(
        "device",
        ("Device", "设备"),
        (
            "What there is, what it is called, and how an array gets there.",
            "有哪些设备，各叫什么名字，数组怎样搬上去。",
        ),
        "train.py",
        ("devices", "native_device", "device_name", "place", "place_labels"),
        less={"paddle": ("native_device",)},
        traps=("silent-move", "soft-placement", "one-process"),
    ),
    Topic(
        "precision",
        ("Mixed precision", "混合精度"),
        (
            "float32 weights, bfloat16 arithmetic: each framework's own way to it.",
            "权重保持 float32，运算用 bfloat16：各框架自带的做法。",
        ),
        "train.py",
        ("build", "autocast"),
        less={"tf": ("autocast",)},
        traps=("bfloat16-ignored", "amp-init"),
    ),
    Topic(
        "workers",
        ("Several workers", "多个工作进程"),
        (
            "Joining as the launcher's environment says; what sums the gradients; whose sum or mean it is.",
            "按启动器给的环境变量加入；由谁汇总梯度；得到的是和还是平均。",
        ),
        "parallel.py",
        ("join", "leave", "total", "engine", "weighted", "settle"),
        also={"torch": ("SyncBatchNorm",), "tf": ("add_up",), "mxnet": ("Store",)},
    ),
    Topic(
        "save",
        ("Save", "保存"),
        (
            "The framework's own file of weights.",
            "框架自己的权重文件格式。",
        ),
        "weights.py",
        ("save",),
        traps=("safetensors-metadata", "scrambled-file", "full-disk"),
    ),
    Topic(
        "load",
        ("Load", "读取"),
        (
            "That file back into a model. A file of somebody else is another matter.",
            "再把它读回模型。别人给的文件则是另一回事。",
        ),
        "weights.py",
        ("load",),
        traps=("unsafe-pickle",),
    ),
)


@dataclass(frozen=True)
class Call:
    """A row of the table of calls: what is done, and the name that each framework has for it.

    A name is looked for in the backend's source, so it is what our code really uses.
    """

    what: Text
    torch: str | None
    tf: str | None
    mxnet: str | None
    paddle: str | None


CALLS = (
    Call(
        ("base of a layer", "层的基类"),
        "nn.Module",
        "layers.Layer",
        "nn.HybridBlock",
        "nn.Layer",
    ),
    Call(
        ("layers in a row", "顺序容器"),
        "nn.Sequential",
        "keras.Sequential",
        "nn.HybridSequential",
        "nn.Sequential",
    ),
    Call(("convolution", "卷积"), "nn.Conv2d", "layers.Conv2D", "nn.Conv2D", "nn.Conv2D"),
    Call(
        ("max pooling", "最大池化"),
        "nn.MaxPool2d",
        "tf.nn.max_pool2d",
        "nn.MaxPool2D",
        "nn.MaxPool2D",
    ),
    Call(
        ("global average pooling", "全局平均池化"),
        "nn.AdaptiveAvgPool2d",
        "layers.GlobalAveragePooling2D",
        "nn.GlobalAvgPool2D",
        "x.mean",
    ),
    Call(
        ("batch norm", "批量归一化"),
        "nn.BatchNorm2d",
        "layers.BatchNormalization",
        "nn.BatchNorm",
        "nn.BatchNorm2D",
    ),
    Call(("ReLU", "ReLU"), "nn.ReLU", "layers.ReLU", "nn.Activation", "nn.ReLU"),
    Call(("linear layer", "全连接层"), "nn.Linear", "layers.Dense", "nn.Dense", "nn.Linear"),
    Call(("dropout", "Dropout"), "nn.Dropout", "layers.Dropout", "nn.Dropout", "nn.Dropout"),
    Call(("padding alone", "单独的填充"), None, "layers.ZeroPadding2D", None, None),
    Call(
        ("join tensors", "拼接张量"),
        "torch.cat",
        "layers.Concatenate",
        "F.np.concatenate",
        "paddle.concat",
    ),
    Call(
        ("cross entropy from logits", "由 logits 求交叉熵"),
        "F.cross_entropy",
        "tf.nn.softmax_cross_entropy_with_logits",
        "gluon.loss.SoftmaxCrossEntropyLoss",
        "paddle.logsumexp",
    ),
    Call(("softmax", "softmax"), "softmax", "tf.nn.softmax", "npx.softmax", "F.softmax"),
    Call(
        ("index of the largest", "最大值的下标"),
        "logits.argmax",
        "tf.argmax",
        "logits.argmax",
        "logits.argmax",
    ),
    Call(
        ("training mode", "训练模式"),
        "model.train",
        None,
        "autograd.train_mode",
        "model.train",
    ),
    Call(
        ("evaluation mode", "评估模式"),
        "model.eval",
        None,
        "autograd.predict_mode",
        "model.eval",
    ),
    Call(
        ("record for gradients", "记录求导"),
        None,
        "tf.GradientTape",
        "autograd.record",
        None,
    ),
    Call(("without gradients", "不求导"), "torch.no_grad", None, None, "paddle.no_grad"),
    Call(
        ("gradients", "求梯度"),
        "loss.backward",
        "tape.gradient",
        "loss.backward",
        "loss.backward",
    ),
    Call(
        ("clear gradients", "清零梯度"),
        "optimizer.zero_grad",
        None,
        None,
        "optimizer.clear_grad",
    ),
    Call(
        ("step of the optimizer", "优化器走一步"),
        "optimizer.step",
        "optimizer.apply",
        "optimizer.step",
        "optimizer.step",
    ),
    Call(
        ("SGD with momentum", "带动量的 SGD"),
        "torch.optim.SGD",
        "keras.optimizers.SGD",
        "mx.optimizer.Optimizer",
        "paddle.optimizer.Momentum",
    ),
    Call(
        ("Adam", "Adam"),
        "torch.optim.Adam",
        "keras.optimizers.Adam",
        "mx.optimizer.Optimizer",
        "paddle.optimizer.Adam",
    ),
    Call(
        ("learning rate of the next step", "下一步的学习率"),
        "optimizer.param_groups",
        "optimizer.learning_rate",
        "optimizer.set_learning_rate",
        "optimizer.set_lr",
    ),
    Call(
        ("random seed", "随机种子"),
        "torch.manual_seed",
        "seed_generator.state.assign",
        "mx.random.seed",
        "paddle.seed",
    ),
    Call(
        ("named parameters", "按名字取参数"),
        "model.state_dict",
        "model.variables",
        "model.collect_params",
        "model.state_dict",
    ),
    Call(
        ("set a parameter", "写入参数"),
        "tensor.copy_",
        "variable.assign",
        "parameter.set_data",
        "tensor.set_value",
    ),
    Call(
        ("array to tensor", "数组转张量"),
        "torch.from_numpy",
        "tf.constant",
        "np.array",
        "paddle.to_tensor",
    ),
    Call(("tensor to array", "张量转数组"), "numpy", "numpy", "asnumpy", "numpy"),
    Call(
        ("where a tensor lies", "张量所在的设备"),
        "tensor.device",
        "tensor.device",
        "tensor.ctx",
        "tensor.place",
    ),
    Call(
        ("choose a device", "选择设备"),
        "torch.device",
        "tf.device",
        "mx.Context",
        "paddle.set_device",
    ),
    Call(
        ("GPUs that are there", "可用的 GPU"),
        "torch.cuda.device_count",
        "tf.config.list_physical_devices",
        "mx.context.num_gpus",
        "paddle.device.cuda.device_count",
    ),
    Call(
        ("resize images", "调整图像尺寸"),
        "F.interpolate",
        "tf.image.resize",
        "mx.nd.contrib.BilinearResize2D",
        "F.interpolate",
    ),
    Call(("mirror images", "翻转图像"), "x.flip", "tf.reverse", "np.flip", "x.flip"),
    Call(("select by a mask", "按掩码选择"), "torch.where", "tf.where", "np.where", "paddle.where"),
    Call(
        ("mixed precision", "混合精度"),
        "torch.autocast",
        "keras.config.set_dtype_policy",
        "amp.convert_symbol",
        "paddle.amp.auto_cast",
    ),
    Call(("compile a graph", "编译成图"), None, "tf.function", "runs.hybridize", None),
    Call(
        ("memory too small", "内存不足"),
        "torch.OutOfMemoryError",
        "tf.errors.ResourceExhaustedError",
        "mx.MXNetError",
        None,
    ),
)

#: why a framework has no name of its own for it
WITHOUT: dict[tuple[str, str], Text] = {
    ("padding alone", ""): ("an argument of the layer", "是层的一个参数"),
    ("training mode", "tf"): ("the argument `training=True`", "参数 `training=True`"),
    ("evaluation mode", "tf"): ("the argument `training=False`", "参数 `training=False`"),
    ("record for gradients", ""): ("always on", "总是开启"),
    ("without gradients", ""): ("outside of a tape or `record`", "在 tape 或 `record` 之外即是"),
    ("clear gradients", ""): ("each backward pass overwrites them", "每次反向传播都会覆盖"),
    ("compile a graph", ""): ("not used here", "这里没有用到"),
    ("memory too small", "paddle"): ("the words of a `RuntimeError`", "`RuntimeError` 里的文字"),
}
