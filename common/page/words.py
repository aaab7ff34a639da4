"""The texts of the page: English, Chinese. Code is in backticks; {} takes a number or a name."""

from __future__ import annotations

from common.page.topics import Text

LANGUAGES = ("en", "zh-CN")

WORDS: dict[str, Text] = {
    "title": ("GoogLeNet in four frameworks", "四个框架里的 GoogLeNet"),
    "lead": (
        "One spec, four idiomatic implementations, side by side, with proof that they are the same function.",
        "同一份网络配置（spec），四种地道的实现，逐行对照，并证明它们是同一个函数。",
    ),
    "description": (
        "PyTorch, TensorFlow, MXNet and PaddlePaddle side by side, line by line, with the measured "
        "proof that they compute the same function.",
        "PyTorch、TensorFlow、MXNet 与 PaddlePaddle 逐行对照，并用实测数据证明它们计算的是同一个函数。",
    ),
    "nav_guide": ("Guide", "移植指南"),
    "skip": ("Skip to the code", "跳到代码"),
    "other_language": ("中文", "English"),
    "theme": ("Light or dark", "浅色或深色"),
    "sections": ("Sections", "章节"),
    "nav_picture": ("Why", "为什么"),
    "nav_idioms": ("Idioms", "写法"),
    "nav_network": ("Network", "网络"),
    "nav_proof": ("Proof", "证明"),
    "nav_words": ("Words", "术语"),
    "fact_parameters": ("parameters, the same in all four", "个参数，四个框架一致"),
    "fact_error": ("largest float64 error of a forward pass", "float64 前向最大误差"),
    "fact_bugs": ("injected bugs caught", "个注入的错误被检出"),
    "fact_shapes": ("of these bugs change a shape", "个错误会改变形状"),
    # picture
    "picture_title": ("Same shapes, different function", "形状相同，函数不同"),
    "picture_lead": (
        "The book's TensorFlow code uses `'same'` padding. Every shape is right, but with a stride of 2 the "
        "padding is off centre. The chart compares this bug, injected into each backend, with our code: the "
        "error of every stage against a float64 reference, on the same weights and images.",
        "书中的 TensorFlow 代码用 `'same'` 填充：形状全都正确，但步幅为 2 时填充的位置是偏的。"
        "下图把这个错误注入每个后端，与本项目的实现对比：权重和图像相同，纵轴是各阶段相对 float64 参考实现的误差。",
    ),
    "picture_bug": ("`'same'` padding injected", "注入 `'same'` 填充"),
    "picture_ours": ("ours", "本项目"),
    "picture_tolerance": ("tolerance", "容差"),
    "picture_alt": (
        "Error by stage on a logarithmic scale. With 'same' padding injected, all four frameworks are off "
        "by 5 % to 60 %; ours stay below 1e-13. The table below has the numbers.",
        "各阶段的误差，对数坐标。注入 'same' 填充后，四个框架的误差在 5% 到 60% 之间；"
        "本项目的实现都低于 1e-13。具体数值见下面的表格。",
    ),
    "picture_table": ("The numbers", "具体数值"),
    "error": ("relative error", "相对误差"),
    "bugs_title": ("The bug matrix", "注入错误的检出情况"),
    "bugs_lead": (
        "Mistakes that are easy to make when porting, written the way each framework would have them and "
        "injected one at a time. A cell shows the first check that fails, and its error.",
        "移植时容易犯的错误，按各框架自己的写法实现，每次只注入一个。单元格里是最先未通过的检查及其误差。",
    ),
    "bugs_short": ("{} of {} caught", "共 {1} 个，检出 {0} 个"),
    "bugs_shapes": (
        "Comparing shapes alone would have caught {} of these {}.",
        "只比较形状的话，{1} 个错误里只能发现 {0} 个。",
    ),
    "bug": ("bug", "错误"),
    "what": ("what it is", "说明"),
    "escaped": ("escaped", "未检出"),
    "refused": ("refused", "框架报错"),
    # idioms
    "idioms_title": ("Idioms", "四种写法"),
    "idioms_lead": (
        "The same job in four frameworks. Matching lines stand side by side. Code that differs is "
        "highlighted; a line without a counterpart has a bar on its left. All code is cut from the tested source.",
        "同一件事，四个框架各怎么写。对应的行左右对齐；写法不同的地方有底色，没有对应行的代码左侧有竖线。"
        "所有代码都直接取自经过测试的源文件。",
    ),
    "columns": ("Frameworks shown", "显示的框架"),
    "columns_help": (
        "Press to show or hide, arrow keys to move. The choice is kept in the address.",
        "点击可显示或隐藏，左右方向键调整顺序。选择会保存在网址里。",
    ),
    "earlier": ("Move {} to the left", "把 {} 左移"),
    "later": ("Move {} to the right", "把 {} 右移"),
    "moved": ("{} is column {} of {}", "{} 现在是第 {} 列，共 {} 列"),
    "topics": ("Topics", "主题"),
    "wrap": ("Wrap lines", "自动换行"),
    "open_all": ("Open all", "全部展开"),
    "close_all": ("Close all", "全部收起"),
    "copy": ("Copy", "复制"),
    "copied": ("Copied", "已复制"),
    "copy_label": ("Copy the code of {}", "复制 {} 的代码"),
    "pitfall_without": ("without the fix", "修正前"),
    "pitfall_with": ("with it", "修正后"),
    "pitfalls_of": ("Pitfalls here", "这里的常见陷阱"),
    "pitfalls_rest": ("Other pitfalls", "其他常见陷阱"),
    "pitfalls_rest_lead": (
        "Pitfalls of files, processes and versions.",
        "与文件、进程和版本有关的陷阱。",
    ),
    "mistakes": ("Mistakes that `check` names", "`check` 能指出的错误"),
    "mistakes_lead": (
        "What each looks like in your framework, and what `googlenet check` says.",
        "每种错误在各框架里的样子，以及 `googlenet check` 的说明。",
    ),
    "mistakes_says": ("what check says, and a wrong line", "check 的说明，以及一行错误代码"),
    "pitfalls_lead": (
        "measured error without the fix → with it",
        "实测误差：修正前 → 修正后",
    ),
    # network
    "network_title": ("The network", "网络结构"),
    "network_lead": (
        "Drawn from the spec. Bars show each row's share of the multiply-adds. Hover over a row or focus it "
        "for details; press it to see the code that builds it.",
        "根据网络配置绘制。底部的横条表示该行在乘加运算中的占比。悬停或用键盘选中可查看详情，点击可查看构建它的代码。",
    ),
    "spec": ("Spec", "网络配置"),
    "size": ("Image size", "图像尺寸"),
    "parameters": ("parameters", "参数量"),
    "multiply_adds": ("multiply-adds", "乘加次数"),
    "shape": ("output shape", "输出形状"),
    "share": ("share of multiply-adds", "乘加占比"),
    "details": ("Details", "详情"),
    "details_none": (
        "Nothing chosen yet: hover over a row of the drawing, or press it.",
        "尚未选择：请将鼠标悬停在图中的某一行上，或点击它。",
    ),
    "too_small": (
        "{} cannot take an image of this size; use another.",
        "{} 无法处理这个尺寸的图像，请换一个尺寸。",
    ),
    "bad_size": ("A whole number from 1 to 2048.", "请输入 1 到 2048 的整数。"),
    "network_lines": ("The code that builds each part", "构建各部分的代码"),
    "joined": ("joined", "拼接"),
    # proof
    "proof_title": ("The proof", "等价性证明"),
    "parity_title": ("The parity checks", "等价性检查"),
    "parity_lead": (
        "Every check of every spec: the worst error over its image sizes, beside the tolerance. On the "
        "scale, each dot is a framework and the line is the tolerance.",
        "每份网络配置的每项检查：各图像尺寸下的最大误差，以及容差。刻度上的圆点代表各框架，竖线代表容差。",
    ),
    "parity_short": (
        "every check of every spec, and its worst error",
        "每份网络配置的每项检查，以及最大误差",
    ),
    "curves_short": ("the same recipe in each framework", "同一训练方案，在各框架中"),
    "results_short": ("ours beside published ones", "与已发表的结果对照"),
    "speed_short": ("training, in examples per second", "训练速度，样本/秒"),
    "check": ("check", "检查"),
    "tolerance": ("tolerance", "容差"),
    "scale": ("scale", "刻度"),
    "at_sizes": ("at {} pixels", "{} 像素"),
    "exact": ("exact", "完全一致"),
    "failed": ("failed", "未通过"),
    "versions": ("Measured with {}.", "测量所用版本：{}。"),
    "curves_title": ("Training curves", "训练曲线"),
    "curves_lead": (
        "The same recipe in each framework, curves overlaid. Several curves of one colour are other seeds or "
        "another device. Each framework draws its own dropout masks, so the runs are similar, not identical.",
        "同一训练方案（recipe）在各框架中的曲线叠在一起；同一颜色的多条曲线是不同的随机种子或设备。"
        "Dropout 由各框架自行采样，所以曲线相近但不完全相同。",
    ),
    "curves_alt": (
        "{} over epochs; the table below ends with the same runs.",
        "{}随轮数的变化；下方表格的末尾是同样这些训练。",
    ),
    "loss": ("training loss", "训练损失"),
    "accuracy": ("test accuracy", "测试准确率"),
    "epoch": ("epoch", "轮"),
    "results_title": ("Our results and published results", "本项目的结果与已发表的结果"),
    "results_lead": (
        "Published results come first; their speeds were measured on other machines.",
        "已发表的结果列在前面，它们的速度是在别的机器上测得的。",
    ),
    "recipe": ("recipe", "训练方案"),
    "run": ("run", "来源与环境"),
    "amount": ("images × epochs", "图像数 × 轮数"),
    "final_loss": ("loss", "损失"),
    "train_accuracy": ("train acc", "训练准确率"),
    "test_accuracy": ("test acc", "测试准确率"),
    "speed": ("examples/s", "样本/秒"),
    "speed_title": ("Speed", "速度"),
    "speed_machine": ("Measured on {}.", "测量机器：{}。"),
    # words
    "words_title": ("Words and calls", "术语与 API"),
    "words_lead": (
        "The name of each thing in the paper, in the book and here, and the call for it in each framework.",
        "同一个东西在论文里、书里和这里各叫什么，在各框架里对应哪个 API。",
    ),
    "search": ("Search code, pitfalls, words", "搜索代码、陷阱、术语"),
    "search_found": ("{} found", "找到 {} 处"),
    "search_none": ("Nothing found", "没有找到"),
    "kind_topic": ("Topic", "主题"),
    "kind_pitfall": ("Pitfall", "陷阱"),
    "kind_word": ("Words", "术语"),
    "kind_bug": ("Bug", "错误"),
    "names_title": ("Paper = book = here", "论文 = 书 = 这里"),
    "calls_title": ("Calls", "API 对照"),
    "calls_lead": (
        "The full name that our source uses leads to the framework's own documentation. The file and line lead to our source.",
        "完整名称取自本项目的源码，点击可打开框架自己的文档；文件名与行号链接到本项目的源码。",
    ),
    "call": ("task", "用途"),
    "footer": (
        "Generated by `googlenet page` from the source and the results in the repository. Apache-2.0.",
        "由 `googlenet page` 根据仓库中的源码与结果生成。Apache-2.0 许可。",
    ),
    # what is wrong with a file
    "note_missing": (
        "`{}` is not there, so there is nothing to show here.",
        "缺少 `{}`，这里没有内容可显示。",
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
    "note_command": (" To generate it again: `{}`.", " 重新生成：`{}`。"),
}

CHECKS: dict[str, str] = {
    "parameters": "参数",
    "shapes": "形状",
    "forward": "前向",
    "forward in training": "训练模式前向",
    "loss": "损失",
    "gradients": "梯度",
    "zero gradients": "零梯度",
    "one step": "单步更新",
    "ten steps": "十步更新",
    "running statistics": "移动统计量",
    "device": "设备",
}

BUGS: dict[str, str] = {
    "missing-bias": "转换权重时漏了卷积偏置，全为零",
    "ceil-pool": "池化的输出尺寸向上取整",
    "same-padding": "步幅为 2 时用了 TensorFlow 的 `'same'`",
    "zero-padded-pool": "池化前没有 ReLU，却用 0 填充",
    "missing-relu": "3x3 分支的降维之后漏了 ReLU",
    "swapped-branches": "5x5 分支与池化分支的拼接顺序颠倒",
    "transposed-head": "分类头该转置（transpose），却用了 reshape",
    "flatten-order": "辅助分类器的特征按 (H, W, C) 展平",
    "counted-padding": "带填充的平均池化按 Keras `'same'` 的方式求均值",
    "swapped-forks": "块的各分支按相反顺序拼接",
    "unscaled-residual": "残差相加时没有乘比例系数",
    "local-norm-alpha": "局部响应归一化的 alpha 没有除以窗口大小",
    "norm-eps": "批量归一化的 eps 用了 1e-5，而不是 1e-3",
    "double-softmax": "损失函数要 logits，传入的却是概率",
    "detached-branch": "池化分支没有梯度回传",
    "frozen-head": "分类头的参数没有交给优化器",
    "gradient-twice": "梯度被加了两次，或从未清零",
    "norm-momentum": "把批量归一化的 momentum 当成新值的权重",
    "norm-variance": "移动方差用了无偏估计",
    "batch-not-moved": "批量数据留在了 CPU 上",
    "labels-not-moved": "标签留在了 CPU 上",
    "model-not-moved": "模型留在了 CPU 上",
    "optimizer-before-move": "先创建优化器及其状态，再把模型移到设备上",
    "silent-fallback": "不管选了什么设备，都在 CPU 上运行",
}

#: the pages of the guide to porting that have pitfalls, as mkdocs.yml calls them too
GUIDE: dict[str, str] = {
    "layout": "填充与布局",
    "weights": "其他软件包的权重",
    "local-norm": "局部响应归一化",
    "batch-norm": "批量归一化",
    "loss": "损失函数",
    "optimizer": "优化器",
    "numbers": "数值",
    "initial-values": "初始值",
    "images": "图像",
    "devices": "设备与精度",
    "files": "磁盘上的文件",
    "runtime": "运行时行为",
    "errata": "勘误",
}

#: the pitfalls of docs/porting; one that is not here keeps its English title
PITFALLS: dict[str, str] = {
    "counted-padding": "平均池化是否把填充计入分母",
    "local-norm-alpha": "局部响应归一化的 alpha 是否除以窗口大小",
    "local-norm-float64": "局部响应归一化没有 float64",
    "local-norm-gradient": "局部响应归一化的梯度只有 float32 精度",
    "file-numbers": "Keras 文件里层的编号",
    "shapes-alone": "形状和名称不能确定函数",
    "another-eps": "同一个网络，另一个 eps",
    "same-padding": "步幅大于 1 时，`'same'` 填充不对称",
    "pool-padding": "最大池化用 0 填充",
    "conv-layout": "卷积核：OIHW 还是 HWIO",
    "linear-layout": "全连接层：(out, in) 还是 (in, out)",
    "flatten-order": "展平：通道在前还是在后",
    "pooled-shape": "全局池化后仍保留两个空间轴",
    "norm-defaults": "归一化层的默认值各不相同",
    "norm-momentum": "momentum：新值的权重还是旧值的",
    "norm-variance": "移动方差：除以 n 还是 n - 1",
    "norm-backward": "移动统计量在反向传播时才更新",
    "zero-gradient": "归一化之前的偏置没有梯度",
    "norm-rounding": "训练模式的归一化会放大舍入误差",
    "sync-norm": "跨设备同步的归一化需要 GPU",
    "from-logits": "`from_logits` 有两种含义",
    "loss-per-example": "损失是一个标量，还是每个样本一个",
    "loss-dtype": "不管输入是什么类型，损失都用 float32 计算",
    "label-smoothing": "标签平滑系数被舍入成 float32",
    "loss-cut-off": "损失最大只到 64",
    "momentum-rate": "速度里乘了学习率",
    "adam-eps": "Adam 的 eps：加在偏差修正之前还是之后",
    "weight-decay": "权重衰减不经过梯度",
    "step-divides": "`Trainer.step(n)` 会除以 n",
    "gradients-add": "梯度默认累加",
    "double-reduce": "多设备的梯度被归约两次",
    "rounded-numbers": "超参数以 float32 保存",
    "pool-gradient": "池化的梯度用 float32 做除法",
    "relu-tie": "ReLU 与池化遇到临界值时，梯度由舍入决定",
    "plateau": "在平台期，错误的权重也看不出问题",
    "graph-order": "计算图每次的求和顺序不同",
    "same-seed": "同一个随机种子，四个不同的网络",
    "initial-bias": "偏置的初值是随机的",
    "float64-initialize": "随机数只有 float32",
    "rescaling": "层中的常数被舍入成 float32",
    "resize-corners": "缩放时对齐角点，还是对齐像素中心",
    "one-pixel": "缩放到一个像素时，取的是角上的像素",
    "resize-smaller": "缩小图像时是否平滑",
    "resize-dtype": "不管输入是什么类型，缩放结果都是 float32",
    "uint8-flip": "uint8 图像无法翻转",
    "soft-placement": "设备不存在也照样运行",
    "silent-move": "参数会悄悄移到数据所在的设备",
    "bfloat16-ignored": "混合精度没有生效",
    "amp-init": "`amp.init` 对 NumPy 算子不起作用",
    "scrambled-file": "转置过的数组写入文件后乱序",
    "safetensors-metadata": "权重相同，文件却不同",
    "unsafe-pickle": "读取文件时会执行其中的代码",
    "full-disk": "磁盘写满后曲线不再更新",
    "symbolic-build": "`call` 会运行不止一次",
    "to-static-self": "第一个参数必须叫 `self`",
    "numpy-2": "NumPy 2 下的 `np.array(variable)`",
    "numpy-names": "已被 NumPy 删除的旧名字",
    "swallowed-interrupt": "导入 PyTorch 时按 Ctrl-C 会被忽略",
    "one-process": "在同一进程里用两个框架",
    "published-padding": "书中 TensorFlow 代码的填充不对称",
    "published-shuffle": "书中 TensorFlow 代码打乱的是批次，不是样本",
    "published-initializer": "书中 Paddle 代码没有用上 Xavier 初始化",
    "published-optimizer": "文中说 Adam，代码用的是 SGD",
}

#: the heads of the speed tables by the field of a benchmark's row; another field is its own head
SPEED_HEADS: dict[str, Text] = {
    "backend": ("framework", "框架"),
    "version": ("version", "版本"),
    "loop": ("loop", "训练循环"),
    "precision": ("precision", "数值精度"),
    "device": ("device", "设备"),
    "batch_size": ("batch size", "批量大小"),
    "size": ("image size", "图像尺寸"),
    "median": ("examples/s (median)", "样本/秒（中位数）"),
    "ratio": ("times the published loop", "相对已发表循环的倍数"),
}

#: the parts of a run's name, English and Chinese
RUNS: tuple[tuple[str, str], ...] = (
    ("a blog's", "某博客的"),
    ("**ours**", "**本项目**"),
    (", batch ", "，批量 "),
    (", seed ", "，随机种子 "),
    (" with ", "，网络 "),
    (" then ", " → "),
    (" epochs", " 轮"),
    (" seeds", " 个种子"),
    (" seed", " 个种子"),
    (" at ", "，尺寸 "),
    (", ", "，"),
)


def run_in_chinese(text: str) -> str:
    """The name of a run in Chinese."""
    for english, chinese in RUNS:
        text = text.replace(english, chinese)
    return text
