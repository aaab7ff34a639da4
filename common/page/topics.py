"""The code that the page shows, by name: topics, parts of the drawing, calls.

Every text is a pair, English and Chinese. A pitfall is named by the anchor of its section in
docs/porting. Long because it is one table: a split would separate topics that a reader compares.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Text = tuple[str, str]  #: English, Chinese


@dataclass(frozen=True)
class Topic:
    """One row of the comparison: one job, and the code that does it in each framework.

    `names` are addresses in `file` of every backend. `also` has further addresses by backend,
    `less` the addresses that a backend lacks.
    """

    id: str
    title: Text
    about: Text
    file: str
    names: tuple[str, ...]
    also: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    less: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    pitfalls: tuple[str, ...] = ()

    def addresses(self, backend: str) -> list[str]:
        """The addresses of the code that the topic shows for a backend."""
        kept = [name for name in self.names if name not in self.less.get(backend, ())]
        return [*kept, *self.also.get(backend, ())]


TOPICS = (
    Topic(
        "conv",
        ("Convolution block", "卷积块"),
        (
            "Convolution, batch norm if the network has one, ReLU. Compare: which framework needs the number "
            "of input channels, where the padding is set, what momentum means in a batch norm.",
            "卷积、批量归一化（如果网络有）、ReLU。对比要点：哪个框架需要指定输入通道数，填充写在哪里，"
            "批量归一化的 momentum 指新值的权重还是旧值的权重。",
        ),
        "googlenet.py",
        ("Conv",),
        pitfalls=(
            "same-padding",
            "published-padding",
            "norm-defaults",
            "norm-momentum",
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
            "四个并行分支共用一个输入，输出沿通道维拼接。",
        ),
        "googlenet.py",
        ("Inception",),
        pitfalls=("symbolic-build", "relu-tie"),
    ),
    Topic(
        "branches",
        ("Branches and residuals", "任意分支与残差连接"),
        (
            "The blocks of the later networks: any number of branches, also inside a branch; and a sum with "
            "the input, scaled.",
            "后续网络的块：任意多个分支，分支里可以再有分支；以及与输入按比例相加。",
        ),
        "googlenet.py",
        ("Branches", "Residual"),
    ),
    Topic(
        "stages",
        ("Stages", "各阶段"),
        (
            "Five stages and a head. The shapes in the comments are for 96-pixel images.",
            "五个阶段加一个分类头。注释里的形状对应 96 像素的输入。",
        ),
        "googlenet.py",
        ("GoogLeNet",),
        pitfalls=("to-static-self",),
    ),
    Topic(
        "layers",
        ("From spec row to layer", "从网络配置的一行到一个层"),
        (
            "One `match` maps a row to the framework's own layer.",
            "用一个 `match` 把网络配置的每一行映射为框架自带的层。",
        ),
        "googlenet.py",
        ("sequential", "layer"),
        pitfalls=("pool-padding", "pooled-shape"),
    ),
    Topic(
        "leaves",
        ("Layers of our own", "自己写的层"),
        (
            "What a framework lacks, or has with another meaning: subclasses of its layers, or new ones "
            "from its own operators.",
            "框架没有的层，或含义不同的层：继承框架自带的层，或用框架自带的算子写成。",
        ),
        "layers.py",
        ("Affine",),
        also={
            "torch": ("BatchNorm",),
            "tf": ("MaxPool", "AvgPool", "AdaptiveAvgPool", "LocalNorm"),
            "mxnet": ("BatchNorm", "AdaptiveAvgPool", "LocalNorm"),
            "paddle": ("AvgPool", "AdaptiveAvgPool", "GlobalAvgPool", "LocalNorm"),
        },
        pitfalls=("norm-variance", "pool-gradient", "rescaling"),
    ),
    Topic(
        "auxiliary",
        ("Auxiliary heads", "辅助分类器"),
        (
            "Extra classifiers on rows of stage 4, in the specs that have them: how to take an output from the "
            "middle of the network.",
            "接在第 4 阶段某些行之后的额外分类器，只有部分网络配置带有。对比要点：怎样从网络中间取出输出。",
        ),
        "googlenet.py",
        ("Auxiliary", "GoogLeNet.run_stage4"),
    ),
    Topic(
        "head",
        ("Head", "分类头"),
        (
            "Dropout, then one linear layer over the pooled features.",
            "先 Dropout，再用一个全连接层处理池化后的特征。",
        ),
        "googlenet.py",
        ("GoogLeNet.__init__.dropout", "GoogLeNet.__init__.head", "GoogLeNet.forward"),
        pitfalls=("linear-layout", "flatten-order"),
    ),
    Topic(
        "weights",
        ("Weights in and out", "权重的导入与导出"),
        (
            "To canonical arrays and back: where parameter names come from, and the layout of each array.",
            "与规范格式的数组互相转换：参数名从哪里来，各数组的维度怎样排列。",
        ),
        "weights.py",
        ("read_weights", "write_weights", "tensors", "to_canonical", "to_native"),
        also={"tf": ("variable",), "paddle": ("dtype",)},
        pitfalls=(
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
            "uint8 images are copied to the device once; there they are mirrored, scaled and resized.",
            "uint8 图像只向设备复制一次，翻转、数值缩放、尺寸调整都在设备上完成。",
        ),
        "train.py",
        ("Trainer.prepare",),
        pitfalls=(
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
        ("One training step", "一个训练步"),
        (
            "Loss, gradients, one step of the optimizer. Compare: which framework needs its gradients "
            "cleared, which one divides by the batch size.",
            "计算损失，求梯度，优化器更新一步。对比要点：哪个框架要手动清零梯度，哪个会除以批量大小。",
        ),
        "train.py",
        ("Trainer.train_step", "objective"),
        also={
            "torch": ("Trainer.forward_backward",),
            "tf": ("Trainer.whole_step", "Trainer.part_step", "cross_entropy"),
            "mxnet": ("cross_entropy",),
            "paddle": ("cross_entropy",),
        },
        pitfalls=(
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
            "Textbook SGD, momentum and Adam: the framework's own optimizer where it follows the formulas, "
            "written out where it does not.",
            "教科书公式的 SGD、动量与 Adam：框架自带的优化器与公式一致就直接用，不一致就按公式写出来。",
        ),
        "optimizers.py",
        ("make", "set_rate", "clip_gradients"),
        also={"tf": ("SGD", "Adam"), "mxnet": ("SGD", "Adam")},
        pitfalls=("momentum-rate", "adam-eps", "weight-decay", "published-optimizer"),
    ),
    Topic(
        "evaluation",
        ("Evaluation", "评估"),
        (
            "How to leave training mode, and how to keep metrics on the device until they are read.",
            "怎样切换到评估模式，怎样让指标一直留在设备上，直到需要读取。",
        ),
        "train.py",
        ("Trainer.logits", "Trainer.evaluate", "count_correct"),
        also={"tf": ("Trainer.eval_logits",)},
    ),
    Topic(
        "device",
        ("Device", "设备"),
        (
            "Which devices there are, what they are called, and how an array gets onto one.",
            "有哪些设备，名字怎么写，数组怎样放到设备上。",
        ),
        "device.py",
        ("devices", "native_device", "device_name", "place", "place_labels"),
        also={"torch": ("to_device",), "tf": ("device_of",)},
        less={"paddle": ("native_device",)},
        pitfalls=("silent-move", "soft-placement", "one-process"),
    ),
    Topic(
        "precision",
        ("Mixed precision", "混合精度"),
        (
            "float32 weights, bfloat16 arithmetic, with each framework's own API.",
            "权重用 float32，运算用 bfloat16，使用各框架自带的接口。",
        ),
        "train.py",
        ("build", "autocast"),
        less={"tf": ("autocast",)},
        pitfalls=("bfloat16-ignored", "amp-init"),
    ),
    Topic(
        "workers",
        ("Several workers", "多个工作进程"),
        (
            "How a worker joins, from the launcher's environment variables; what reduces the gradients; whether "
            "the result is a sum or a mean.",
            "工作进程怎样根据启动器设置的环境变量加入进程组；由谁归约梯度；归约结果是求和还是求平均。",
        ),
        "parallel.py",
        (
            "init_process_group",
            "destroy_process_group",
            "all_reduce_sum",
            "wrap_model",
            "scale_loss",
            "sync_batch_norm_stats",
        ),
        also={"torch": ("SyncBatchNorm",), "tf": ("add_up",), "mxnet": ("Store",)},
    ),
    Topic(
        "save",
        ("Save", "保存"),
        (
            "The framework's own weight file.",
            "保存为框架自己的权重文件。",
        ),
        "weights.py",
        ("save",),
        pitfalls=("safetensors-metadata", "scrambled-file", "full-disk"),
    ),
    Topic(
        "load",
        ("Load", "加载"),
        (
            "Read that file back into a model. For files of other programs, use `googlenet convert`.",
            "把这个文件读回模型。其他程序写的文件请用 `googlenet convert`。",
        ),
        "weights.py",
        ("load",),
        pitfalls=("unsafe-pickle",),
    ),
)

#: the files of a backend that the page searches for a call, in this order
CODE_FILES = (
    *("googlenet.py", "layers.py", "device.py", "train.py", "optimizers.py", "weights.py"),
    "probes.py",
)

#: the parts of the drawing, and the address of the code that builds each, in googlenet.py
PARTS = {
    **{f"stage{number}": f"GoogLeNet.__init__.stage{number}" for number in range(1, 6)},
    "head": "GoogLeNet.__init__.head",
    "Conv": "Conv.__init__.conv",
    "MaxPool": "layer.MaxPool",
    "Inception": "layer.Inception",
    "Branches": "layer.Branches",
    "branches": "Branches.__init__.branches",
    "Residual": "layer.Residual",
    "rows": "Residual.__init__.rows",
    "LocalNorm": "layer.LocalNorm",
    "GlobalAvgPool": "layer.GlobalAvgPool",
    "AvgPool": "layer.AvgPool",
    "AdaptiveAvgPool": "layer.AdaptiveAvgPool",
    "Affine": "layer.Affine",
    "auxiliary": "GoogLeNet.__init__.auxiliary",
    "hidden": "Auxiliary.__init__.hidden",
    **{
        branch: f"Inception.__init__.{branch}"
        for branch in ("branch1x1", "branch3x3", "branch5x5", "branch_pool")
    },
}


@dataclass(frozen=True)
class Call:
    """One row of the table of calls: a task, and each framework's name for it.

    The page looks a name up in the backend's source, so it shows what our code really uses.
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
        ("sequence of layers", "顺序容器"),
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
    Call(("ReLU", "ReLU"), "nn.ReLU", "layers.Activation", "nn.Activation", "nn.ReLU"),
    Call(("linear layer", "全连接层"), "nn.Linear", "layers.Dense", "nn.Dense", "nn.Linear"),
    Call(("dropout", "Dropout"), "nn.Dropout", "layers.Dropout", "nn.Dropout", "nn.Dropout"),
    Call(("padding as a layer", "填充层"), None, "layers.ZeroPadding2D", None, None),
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
        ("index of the maximum", "最大值的下标"),
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
        ("record for gradients", "记录计算以求梯度"),
        None,
        "tf.GradientTape",
        "autograd.record",
        None,
    ),
    Call(("without gradients", "不求梯度"), "torch.no_grad", None, None, "paddle.no_grad"),
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
        ("step of the optimizer", "优化器更新一步"),
        "optimizer.step",
        "optimizer.apply",
        "optimizer.update",
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
        ("device of a tensor", "张量所在的设备"),
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
        ("available GPUs", "可用的 GPU"),
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
        None,
        "amp.convert_symbol",
        "paddle.amp.auto_cast",
    ),
    Call(("compile a graph", "编译成图"), None, "tf.function", "network.hybridize", None),
    Call(
        ("out of memory", "内存不足"),
        "torch.OutOfMemoryError",
        "tf.errors.ResourceExhaustedError",
        "mx.MXNetError",
        None,
    ),
)

#: the reason why a framework has no call for a task; with backend "" for all others
WITHOUT: dict[tuple[str, str], Text] = {
    ("padding as a layer", ""): ("an argument of the layer", "层的一个参数"),
    ("training mode", "tf"): ("the argument `training=True`", "参数 `training=True`"),
    ("evaluation mode", "tf"): ("the argument `training=False`", "参数 `training=False`"),
    ("record for gradients", ""): ("always on", "始终开启"),
    ("without gradients", ""): (
        "outside of a tape or `record`",
        "在 tape 或 `record` 之外就不求梯度",
    ),
    ("clear gradients", ""): ("each backward pass overwrites them", "每次反向传播都会覆盖"),
    ("mixed precision", "tf"): (
        "the argument `dtype`: `mixed_bfloat16`",
        "参数 `dtype`：`mixed_bfloat16`",
    ),
    ("compile a graph", ""): ("not used here", "这里没有用到"),
    ("out of memory", "paddle"): ("the message of a `RuntimeError`", "`RuntimeError` 的错误信息"),
}
