"""The words of the page: English, Chinese. `code` in backticks; {} takes a number or a name."""

from __future__ import annotations

from common.page.topics import Text

LANGUAGES = ("en", "zh-CN")

WORDS: dict[str, Text] = {
    "title": ("GoogLeNet in four frameworks", "四个框架里的 GoogLeNet"),
    "lead": (
        "One spec, four idiomatic implementations, and the proof that they are the same function: "
        "side by side.",
        "一份规格，四种地道的写法，以及它们是同一个函数的证明。逐行并排，一目了然。",
    ),
    "description": (
        "PyTorch, TensorFlow, MXNet and PaddlePaddle side by side, line by line, with the measured "
        "proof that they compute the same.",
        "PyTorch、TensorFlow、MXNet 与 PaddlePaddle 逐行并排，并附上实测证明：它们算的是同一个函数。",
    ),
    "skip": ("Skip to the code", "跳到代码"),
    "other_language": ("中文", "English"),
    "theme": ("Light or dark", "浅色或深色"),
    "sections": ("Sections", "章节"),
    "nav_picture": ("Why", "缘起"),
    "nav_idioms": ("Idioms", "写法"),
    "nav_network": ("Network", "网络"),
    "nav_proof": ("Proof", "证明"),
    "nav_words": ("Words", "词汇"),
    "fact_parameters": ("parameters, the same in all four", "个参数，四个框架完全一致"),
    "fact_error": ("largest float64 error of a forward pass", "float64 前向计算的最大误差"),
    "fact_bugs": ("planted bugs caught", "个植入的错误被抓住"),
    "fact_shapes": ("of them seen by comparing shapes", "个能靠比较形状发现"),
    # picture
    "picture_title": ("Same shapes, another function", "形状相同，函数不同"),
    "picture_lead": (
        "The book's TensorFlow code pads with `'same'`. Every shape comes out right, and with a stride of "
        "2 the padding is off centre. Here that bug is planted in each backend, beside ours: the error of "
        "every stage against a float64 arbiter, on the same weights and images.",
        "书中的 TensorFlow 代码用 `'same'` 填充：每个形状都对，但步幅为 2 时填充偏离了中心。"
        "下图把这个错误植入每个后端，与我们的实现对照：同样的权重和图像，逐阶段与 float64 裁判比较误差。",
    ),
    "picture_bug": ("`'same'` padding planted", "植入 `'same'` 填充"),
    "picture_ours": ("ours", "我们的实现"),
    "picture_tolerance": ("tolerance", "容差"),
    "picture_alt": (
        "Error by stage on a logarithmic scale. With 'same' padding planted all four frameworks are off "
        "by a tenth or more; ours stay near one part in 10 to the 15. The table below has the numbers.",
        "各阶段误差，对数坐标。植入 'same' 填充后四个框架的误差都在十分之一上下；"
        "我们的实现约为 10 的负 15 次方。下面的表格给出数值。",
    ),
    "picture_table": ("The numbers", "具体数值"),
    "stage": ("stage", "阶段"),
    "error": ("relative error", "相对误差"),
    "bugs_title": ("The bug matrix", "错误矩阵"),
    "bugs_lead": (
        "Mistakes that a port invites, planted one at a time in each framework's own words. A cell is the "
        "first rung of the ladder that fails, and its error.",
        "移植时容易犯的错误，用每个框架自己的写法逐个植入。单元格里是阶梯上第一个不通过的检查，以及它的误差。",
    ),
    "bugs_shapes": (
        "Comparing shapes alone would have caught {} of these {}.",
        "如果只比较形状，{1} 个错误里只能发现 {0} 个。",
    ),
    "bug": ("bug", "错误"),
    "what": ("what it is", "说明"),
    "escaped": ("escaped", "漏网"),
    "refused": ("refused", "框架报错"),
    # idioms
    "idioms_title": ("Idioms", "四种写法"),
    "idioms_lead": (
        "One row a topic, one column a framework. Twin lines stand side by side; what another shown column "
        "says differently is marked, and a line that one of them lacks has a bar. All of it is cut from the "
        "tested source.",
        "每行一个主题，每列一个框架。对应的代码行左右对齐：与其他所示列写法不同之处有标记，"
        "某一列没有的行左侧有竖线。所有代码都直接取自经过测试的源文件。",
    ),
    "columns": ("Frameworks shown", "显示的框架"),
    "columns_help": (
        "Press to show or hide, arrow keys to move. The choice stays in the address.",
        "点按可显示或隐藏，左右方向键调整顺序。选择会保存在网址里。",
    ),
    "earlier": ("Move {} to the left", "把 {} 左移"),
    "later": ("Move {} to the right", "把 {} 右移"),
    "moved": ("{} is column {} of {}", "{} 现在是第 {} 列，共 {} 列"),
    "topics": ("Topics", "主题"),
    "copy": ("Copy", "复制"),
    "copied": ("Copied", "已复制"),
    "copy_label": ("Copy the code of {}", "复制 {} 的代码"),
    "top": ("Link to this topic", "本主题的链接"),
    "trap_without": ("without the fix", "不修正"),
    "trap_with": ("with it", "修正后"),
    "traps_of": ("Traps that live here", "这里的陷阱"),
    "traps_rest": ("Traps elsewhere", "其他地方的陷阱"),
    "trap": ("trap", "陷阱"),
    "traps_lead": (
        "Each number was measured by a test that runs the real framework: how far it is from the arbiter "
        "without our fix and with it. A refusal or harm counts 1.",
        "每个数字都由运行真实框架的测试测得：不加修正与加上修正后，离裁判各有多远。拒绝运行或造成损害记作 1。",
    ),
    # network
    "network_title": ("The network", "网络结构"),
    "network_lead": (
        "Drawn from the spec. Bars show each row's share of the multiply-adds. Hover or move the focus for "
        "details; press for the lines that build it.",
        "由规格直接画出。条形表示该行占乘加运算的比例。悬停或移动焦点看细节，点按看构建它的代码。",
    ),
    "spec": ("Spec", "规格"),
    "size": ("Image size", "图像尺寸"),
    "input": ("input", "输入"),
    "parameters": ("parameters", "参数量"),
    "multiply_adds": ("multiply-adds", "乘加次数"),
    "shape": ("output shape", "输出形状"),
    "share": ("of all", "占全部"),
    "details": ("Details", "细节"),
    "details_none": (
        "Nothing chosen yet: hover over a row of the drawing, or press it.",
        "尚未选择：把指针移到图中的一行上，或点按它。",
    ),
    "too_small": (
        "{} cannot take an image of this size; use another.",
        "{} 接受不了这个尺寸的图像，请换一个。",
    ),
    "bad_size": ("A whole number from 1 to 2048.", "请输入 1 到 2048 的整数。"),
    "network_lines": ("The lines that build each part", "构建各部分的代码"),
    "joined": ("joined", "拼接"),
    # proof
    "proof_title": ("The proof", "证明"),
    "ladder_title": ("The parity ladder", "等价阶梯"),
    "ladder_lead": (
        "Every rung of every spec: the worst error over its image sizes, beside what it may be. On the "
        "scale, a dot is a framework and the line the tolerance.",
        "每个规格、每一级检查：取各图像尺寸中的最大误差，与容差并列。"
        "刻度上的圆点是各框架，竖线是容差。",
    ),
    "rung": ("rung", "检查"),
    "tolerance": ("tolerance", "容差"),
    "scale": ("scale", "刻度"),
    "at_sizes": ("at {} pixels", "{} 像素"),
    "exact": ("exact", "完全一致"),
    "failed": ("failed", "未通过"),
    "versions": ("Measured with {}.", "测量所用版本：{}。"),
    "curves_title": ("Training curves", "训练曲线"),
    "curves_lead": (
        "The same recipe from the same seed, in each framework, laid over each other. Dropout draws in "
        "the framework, so the runs are alike and not equal.",
        "同一配方、同一随机种子，在各框架里训练后叠放在一起。Dropout 由框架自己抽样，所以曲线相近而不相同。",
    ),
    "curves_alt": (
        "{} over epochs; the table below ends with the same runs.",
        "{}随轮数的变化；下方表格末尾是同样这些训练。",
    ),
    "loss": ("training loss", "训练损失"),
    "accuracy": ("test accuracy", "测试精度"),
    "epoch": ("epoch", "轮"),
    "results_title": ("Ours beside the published", "我们的结果与已发表的结果"),
    "results_lead": (
        "Published figures first; their speeds are other machines'.",
        "先列已发表的数字，其速度来自别人的机器。",
    ),
    "recipe": ("recipe", "配方"),
    "run": ("run", "训练"),
    "amount": ("images × epochs", "图像数 × 轮数"),
    "final_loss": ("loss", "损失"),
    "train_accuracy": ("train acc", "训练精度"),
    "test_accuracy": ("test acc", "测试精度"),
    "speed": ("examples/s", "样本/秒"),
    "speed_title": ("Speed", "速度"),
    "speed_machine": ("Measured on {}.", "测量机器：{}。"),
    # words
    "words_title": ("Words and calls", "词汇与调用"),
    "words_lead": (
        "What a thing is called: in the paper, in the book, here; and in each framework.",
        "同一个东西的不同叫法：论文里、书里、这里，以及各个框架里。",
    ),
    "search": ("Search the tables", "搜索表格"),
    "search_found": ("{} rows", "{} 行"),
    "names_title": ("Paper = book = here", "论文 = 书 = 这里"),
    "calls_title": ("Calls", "API 调用"),
    "calls_lead": (
        "A cell is the name that our source really uses, in full, and the line where it does.",
        "单元格里是我们的源码真正用到的全名，以及所在的行。",
    ),
    "call": ("what", "作用"),
    "footer": (
        "Made by `googlenet page` from the source and the results in the repository. Apache-2.0.",
        "由 `googlenet page` 根据仓库中的源码与结果生成。Apache-2.0 许可。",
    ),
    # what is wrong with a file
    "note_missing": (
        "`{}` is not there, so nothing is shown in its place.",
        "缺少 `{}`，所以这里没有内容。",
    ),
    "note_damaged": (
        "`{}` is damaged and is not shown.",
        "`{}` 已损坏，不予显示。",
    ),
    "note_other": (
        "`{}` comes from another version of this project and is not shown.",
        "`{}` 来自本项目的另一个版本，不予显示。",
    ),
    "note_behind": (
        "`{}` comes from an older version and lacks {} of these bugs.",
        "`{}` 来自较旧的版本，缺少其中 {} 个错误的结果。",
    ),
    "note_command": (" To make it anew: `{}`.", " 重新生成：`{}`。"),
}

RUNGS: dict[str, str] = {
    "parameters": "参数",
    "shapes": "形状",
    "forward": "前向",
    "forward in training": "训练模式前向",
    "loss": "损失",
    "gradients": "梯度",
    "zero gradients": "零梯度",
    "one step": "一步",
    "ten steps": "十步",
    "running statistics": "移动统计量",
    "device": "设备",
}

BUGS: dict[str, str] = {
    "missing-bias": "转换权重时把卷积的偏置留成了零",
    "ceil-pool": "池化的输出尺寸向上取整",
    "same-padding": "步幅为 2 处用了 TensorFlow 的 `'same'`",
    "zero-padded-pool": "前面没有 ReLU 的池化用 0 填充",
    "missing-relu": "3x3 路径的降维之后漏了 ReLU",
    "swapped-branches": "5x5 路径与池化路径的拼接顺序颠倒",
    "transposed-head": "分类头该转置时做了变形（reshape）",
    "flatten-order": "辅助分类器的特征按 (H, W, C) 展平",
    "norm-eps": "批量归一化的 eps 用了 1e-5，而不是 1e-3",
    "double-softmax": "损失要的是 logits，却给了概率",
    "detached-branch": "池化路径没有梯度回传",
    "frozen-head": "优化器没有拿到分类头的参数",
    "gradient-twice": "梯度加了两次，或从未清零",
    "norm-momentum": "把批量归一化的 momentum 当成了新值的权重",
    "norm-variance": "移动方差用了无偏估计",
    "batch-not-moved": "批量数据留在了 CPU 上",
    "labels-not-moved": "标签留在了 CPU 上",
    "model-not-moved": "模型留在了 CPU 上",
    "optimizer-before-move": "模型搬到设备之前就创建了优化器及其状态",
    "silent-fallback": "不管选了什么设备，都在 CPU 上运行",
}

#: the traps of docs/porting.md; one that is not here keeps its English title
TRAPS: dict[str, str] = {
    "same-padding": "带步幅的 `'same'` 填充会偏离中心",
    "pool-padding": "最大池化四周的零",
    "conv-layout": "卷积核：OIHW 还是 HWIO",
    "linear-layout": "全连接层：(out, in) 还是 (in, out)",
    "flatten-order": "展平：通道在前还是在后",
    "pooled-shape": "保留两个轴的全局池化",
    "norm-defaults": "默认值各不相同",
    "norm-momentum": "momentum：新值的权重还是旧值的",
    "norm-variance": "移动方差：除以 n 还是 n - 1",
    "norm-backward": "移动统计量在反向传播时才更新",
    "zero-gradient": "归一化之前的偏置没有梯度",
    "norm-rounding": "训练模式的归一化会放大舍入误差",
    "sync-norm": "跨设备的归一化需要 GPU",
    "from-logits": "`from_logits` 有两种含义",
    "loss-per-example": "损失是一个数，还是每个样本一个",
    "loss-dtype": "不管输入什么，损失都用 float32 计算",
    "label-smoothing": "标签平滑被舍入成 float32",
    "loss-cut-off": "到 64 为止的损失",
    "momentum-rate": "学习率放进了速度里",
    "adam-eps": "Adam 的 eps 在修正后的根号内还是外",
    "weight-decay": "权重衰减不经过梯度",
    "step-divides": "`Trainer.step(n)` 会除以 n",
    "gradients-add": "梯度会累加",
    "double-reduce": "多个设备的梯度被加了两次",
    "rounded-numbers": "超参数以 float32 保存",
    "pool-gradient": "梯度用 float32 做除法",
    "relu-tie": "正好取零的 ReLU 会改变梯度",
    "plateau": "在平台期，错误的权重看起来也对",
    "graph-order": "图的求和顺序每次不同",
    "same-seed": "同一个种子，四个不同的网络",
    "initial-bias": "偏置的初值是随机的",
    "float64-initialize": "随机数只有 float32",
    "rescaling": "数值缩放方式不同",
    "resize-corners": "对齐像素的角，还是中心",
    "one-pixel": "只取一个像素时取到了角上",
    "resize-smaller": "缩小图像时是否平滑",
    "resize-dtype": "不管输入什么，缩放结果都是 float32",
    "uint8-flip": "uint8 图像无法翻转",
    "soft-placement": "设备不存在也照样运行",
    "silent-move": "参数悄悄跟着批量数据走",
    "bfloat16-ignored": "不起作用的混合精度",
    "amp-init": "`amp.init` 不认识新的算子",
    "scrambled-file": "转置过的数组写成文件后错乱",
    "safetensors-metadata": "同样的权重，不同的文件",
    "unsafe-pickle": "会执行文件内容的读取",
    "full-disk": "磁盘写满后曲线停住",
    "symbolic-build": "`call` 会运行不止一次",
    "to-static-self": "第一个参数必须叫 self",
    "numpy-2": "NumPy 2 下的 `np.array(tensor)`",
    "numpy-names": "NumPy 的旧名字",
    "swallowed-interrupt": "导入 PyTorch 时的 Ctrl-C",
    "one-process": "同一进程里的两个框架",
    "published-padding": "书中 TensorFlow 代码的填充偏离中心",
    "published-shuffle": "书中 TensorFlow 的数据从不重新组批",
    "published-initializer": "书中 Paddle 代码没有用上 Xavier",
    "published-optimizer": "文中说 Adam，代码调用 SGD",
}

#: what a published or own run is called, in Chinese, part by part
RUNS: tuple[tuple[str, str], ...] = (
    ("a blog's", "某博客的"),
    ("**ours**", "**我们**"),
    (", batch ", "，批量 "),
    (", seed ", "，随机种子 "),
    (" with ", " 用 "),
    (" then ", " 接着 "),
    (" at ", "，尺寸 "),
    (", ", "，"),
)


def run_in_chinese(text: str) -> str:
    """What a run is called, in Chinese."""
    for english, chinese in RUNS:
        text = text.replace(english, chinese)
    return text
