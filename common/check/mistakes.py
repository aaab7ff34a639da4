"""The mistakes that `googlenet check` can name, as data.

A mistake has a name, words in English and Chinese, and the anchor of a section of docs/check.md or
of a page in docs/porting. Names that an injected bug of `common.parity.mutations` has too mean the
same. `edits.py` has the edit of a step for each.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mistake:
    """A kind of mistake; `en` and `zh` have fields that `edits.names` fills in."""

    name: str
    en: str
    zh: str
    anchor: str = ""  #: the name itself, if empty
    page: str = "check"  #: the file in docs/

    @property
    def link(self) -> str:
        """The section of the documentation about it."""
        return f"docs/{self.page}.md#{self.anchor or self.name}"


MISTAKES = {
    each.name: each
    for each in (
        Mistake(
            "same-padding",
            "padded off centre: {theirs}",
            "填充不对称：{theirs}",
            "same-padding",
            "porting/layout",
        ),
        Mistake("padding", "padding {theirs}, not {ours}", "填充为 {theirs}，应为 {ours}"),
        Mistake("padding-mode", "padded with {theirs}, not with 0", "填充值为 {theirs}，应为 0"),
        Mistake("stride", "stride {theirs}, not {ours}", "步幅为 {theirs}，应为 {ours}"),
        Mistake("dilation", "dilation {theirs}, not {ours}", "膨胀率为 {theirs}，应为 {ours}"),
        Mistake(
            "kernel-layout",
            "the kernel's values are arranged in another way: {theirs}",
            "卷积核的排列方式不同：{theirs}",
            "conv-layout",
            "porting/layout",
        ),
        Mistake("missing-bias", "no bias{theirs}", "缺少偏置{theirs}"),
        Mistake("bias-twice", "the bias is added twice", "偏置加了两次"),
        Mistake("extra-bias", "a bias that the reference does not have", "多了参考实现没有的偏置"),
        Mistake(
            "norm-eps",
            "eps {theirs}, not {ours}",
            "eps 为 {theirs}，应为 {ours}",
            "norm-defaults",
            "porting/batch-norm",
        ),
        Mistake(
            "norm-batch-statistics",
            "the norm uses the batch's own statistics in evaluation",
            "批量归一化在评估时使用当前批量的统计量",
        ),
        Mistake("other-norm", "{theirs} instead of batch norm", "{theirs}，应为批量归一化"),
        Mistake("norm-missing", "no batch norm", "缺少批量归一化"),
        Mistake(
            "norm-order",
            "the ReLU is before the batch norm, not after it",
            "ReLU 在批量归一化之前，应在其后",
        ),
        Mistake(
            "norm-axis",
            "the norm is along another axis than the channels",
            "批量归一化所在的轴不是通道轴",
        ),
        Mistake("norm-affine", "the norm has {theirs}", "批量归一化{theirs}"),
        Mistake(
            "norm-eps-outside",
            "eps is added to the standard deviation, not to the variance",
            "eps 加在标准差上，应加在方差上",
            "norm-defaults",
            "porting/batch-norm",
        ),
        Mistake("missing-relu", "no ReLU", "缺少 ReLU"),
        Mistake("activation", "{theirs} instead of ReLU", "激活函数是 {theirs}，应为 ReLU"),
        Mistake("extra-relu", "a ReLU that the reference does not have", "多了一个 ReLU"),
        Mistake(
            "extra-activation",
            "{theirs} that the reference does not have",
            "多了一个激活函数 {theirs}",
        ),
        Mistake(
            "zero-padded-pool",
            "padded with 0, not with minus infinity",
            "用 0 填充，应为负无穷",
            "pool-padding",
            "porting/layout",
        ),
        Mistake("ceil-pool", "the output size is rounded up", "输出尺寸向上取整"),
        Mistake("floor-pool", "the output size is rounded down", "输出尺寸向下取整"),
        Mistake("avg-pool", "average instead of maximum{theirs}", "平均池化，应为最大池化{theirs}"),
        Mistake("max-pool", "maximum instead of average", "最大池化，应为平均池化"),
        Mistake("missing-pool", "no pool", "缺少池化"),
        Mistake(
            "extra-pool",
            "a pool that the reference does not have: {theirs}",
            "多了一个池化：{theirs}",
        ),
        Mistake(
            "pool-window",
            "the pool has {theirs}; the reference has {ours}",
            "池化为 {theirs}；参考实现为 {ours}",
        ),
        Mistake(
            "swapped-branches",
            "joined in the order {theirs}",
            "分支拼接顺序为 {theirs}",
        ),
        Mistake(
            "global-pool",
            "{theirs} instead of the mean of the whole image",
            "{theirs}，应为整幅图像的平均值",
        ),
        Mistake(
            "flatten-order",
            "features flattened as (H, W, C), not (C, H, W)",
            "特征按 (H, W, C) 展平，应为 (C, H, W)",
            "flatten-order",
            "porting/layout",
        ),
        Mistake(
            "missing-global-pool",
            "the image is flattened where the reference takes the mean of each channel",
            "直接展平，缺少全局平均池化",
        ),
        Mistake(
            "softmax-at-end",
            "the network ends in a {theirs}: it returns no logits. Right only for a loss "
            "that takes {what}",
            "网络以 {theirs} 结尾，返回的不是 logits；仅当损失函数接受{what}时正确",
            "from-logits",
            "porting/loss",
        ),
        Mistake("activation-at-end", "{theirs} on the logits", "logits 上有 {theirs}"),
        Mistake("scaled", "the values x become {theirs}", "数值被变换：{theirs}"),
        Mistake(
            "channel-order",
            "the channels are in another order: {theirs}",
            "通道的顺序被改变：{theirs}",
        ),
        Mistake("turned-image", "height and width are exchanged", "高和宽被交换"),
        Mistake(
            "input-scaled",
            "the network changes its input x to {theirs}",
            "网络改变了输入：{theirs}",
        ),
        Mistake(
            "dropout-active",
            "dropout is active in evaluation: {theirs} of the values are 0",
            "评估时 dropout 仍然生效：{theirs} 的值为 0",
        ),
        Mistake(
            "dropout-downscale",
            "dropout multiplies by {theirs} in evaluation, where the reference changes nothing",
            "dropout 在评估时乘以 {theirs}，参考实现不改变数值",
        ),
        Mistake(
            "missing-affine",
            "the input is not scaled and shifted",
            "缺少对输入的缩放和平移",
        ),
        Mistake(
            "counted-padding",
            "the padding {theirs} in the mean",
            "平均池化的填充：{theirs}",
            "counted-padding",
            "porting/layout",
        ),
        Mistake(
            "unscaled-residual",
            "the residual is added {theirs} times, not {ours}",
            "残差乘以 {theirs} 后相加，应乘以 {ours}",
        ),
        Mistake("missing-residual", "the block's input is not added", "没有加上块的输入"),
        Mistake(
            "local-norm-alpha",
            "alpha is not divided by the size of the window",
            "alpha 没有除以窗口大小",
            "local-norm-alpha",
            "porting/local-norm",
        ),
        Mistake("local-norm", "{theirs}, not {ours}", "{theirs}，应为 {ours}"),
        Mistake(
            "local-norm-order",
            "the local norm is {theirs} the pool",
            "局部响应归一化与池化的先后顺序相反",
        ),
        Mistake("missing-local-norm", "no local norm", "缺少局部响应归一化"),
        Mistake(
            "shared-layer",
            "a layer of yours runs here a second time: the reference has two layers",
            "这里再次使用了同一层，参考实现是两个独立的层",
        ),
        Mistake(
            "layer-shape",
            "the weight has shape {theirs}, not {ours}",
            "权重形状为 {theirs}，应为 {ours}",
        ),
        Mistake(
            "other-input",
            "it reads {theirs}, not {ours}",
            "输入来自 {theirs}，应来自 {ours}",
        ),
        Mistake("missing-block", "the block ({ours}) is left out", "缺少 Inception 块（{ours}）"),
        Mistake(
            "extra-block",
            "a block ({theirs}) that the reference does not have",
            "多了一个 Inception 块（{theirs}）",
        ),
        Mistake("exchanged-blocks", "the blocks are exchanged", "Inception 块的顺序被交换"),
        Mistake(
            "extra-layer",
            "a layer that the reference does not have, its weight of shape {theirs}",
            "多了一层，权重形状为 {theirs}",
        ),
        Mistake("missing-layer", "the layer is left out", "缺少一层"),
        Mistake(
            "branch-layers",
            "{theirs} convolutions in the branch, not {ours}",
            "分支中有 {theirs} 个卷积，应为 {ours} 个",
        ),
        Mistake(
            "block-branches", "{theirs} branches, not {ours}", "有 {theirs} 个分支，应为 {ours} 个"
        ),
        Mistake(
            "transposed-head",
            "the weight is reshaped where it should be transposed",
            "权重应转置，却被 reshape",
            "linear-layout",
            "porting/layout",
        ),
        Mistake("other-weights", "{theirs}", "{theirs}"),
        # of a training step
        Mistake("frozen-weights", "{theirs}", "{theirs}"),
        Mistake("not-finite", "{theirs}", "{theirs}"),
        Mistake(
            "double-softmax",
            "the loss takes the softmax of probabilities",
            "损失函数对概率又取了一次 softmax",
            "from-logits",
            "porting/loss",
        ),
        Mistake(
            "from-logits",
            "the loss gets {theirs}, but expects {what}",
            "损失函数得到的是 {theirs}，它需要的是 {what}",
            "from-logits",
            "porting/loss",
        ),
        Mistake(
            "summed-loss",
            "the loss is summed over the {theirs} images, where the reference takes the mean",
            "损失对 {theirs} 幅图像求和，参考实现取平均值",
            "loss-per-example",
            "porting/loss",
        ),
        Mistake(
            "step-divides",
            "the mean loss is divided by the batch size of {theirs} once more",
            "平均损失又除以了一次批量大小 {theirs}",
            "step-divides",
            "porting/optimizer",
        ),
        Mistake(
            "label-smoothing",
            "label smoothing {theirs}, not {ours}",
            "标签平滑为 {theirs}，应为 {ours}",
            "label-smoothing",
            "porting/loss",
        ),
        Mistake(
            "auxiliary-left-out",
            "the loss of the auxiliary heads is left out",
            "损失没有包含辅助分类器",
        ),
        Mistake(
            "auxiliary-share",
            "each auxiliary head counts {theirs}, not {ours}",
            "每个辅助分类器的损失权重为 {theirs}，应为 {ours}",
        ),
        Mistake(
            "detached-branch",
            "it passes no gradient back to its input",
            "它的输入得不到来自它的梯度",
        ),
        Mistake(
            "gradient-twice",
            "the gradients are never cleared: each step uses their sum",
            "梯度从未清零，每一步都用累加的梯度",
            "gradients-add",
            "porting/optimizer",
        ),
        Mistake(
            "learning-rate", "the rate is {theirs}, not {ours}", "学习率为 {theirs}，应为 {ours}"
        ),
        Mistake(
            "rate-in-velocity",
            "the velocity includes the rate: as soon as the rate changes, the step differs",
            "速度里含有学习率，学习率改变后就是另一种更新",
            "momentum-rate",
            "porting/optimizer",
        ),
        Mistake("update-rule", "{theirs}, not {ours}", "更新规则是 {theirs}，应为 {ours}"),
        Mistake(
            "weight-decay",
            "{theirs}; the recipe has {ours}",
            "权重衰减：{theirs}；训练方案是 {ours}",
            "weight-decay",
            "porting/optimizer",
        ),
        Mistake(
            "norm-evaluation-mode",
            "the norms use their running statistics in training{theirs}",
            "批量归一化在训练时使用移动统计量{theirs}",
        ),
        Mistake(
            "norm-not-updated",
            "the running statistics never change",
            "移动统计量从未更新",
        ),
        Mistake(
            "norm-statistics",
            "more than the step's batch moved the running statistics: no momentum gives them",
            "任何动量都得不到这些移动统计量：改变它们的不只是这一步的批量",
        ),
        Mistake(
            "norm-momentum",
            "the running statistics keep {theirs} of their old value, not {ours}{what}",
            "移动统计量保留旧值的 {theirs}，应为 {ours}",
            "norm-momentum",
            "porting/batch-norm",
        ),
        Mistake(
            "norm-variance",
            "the running variance is the unbiased one, divided by n - 1",
            "移动方差是除以 n - 1 的无偏方差",
            "norm-variance",
            "porting/batch-norm",
        ),
    )
}
