"""The address of a call in its framework's own documentation.

The source names a call as it is imported (`torch.nn.Conv2d`), or through a variable
(`logits.argmax`). `MEANS` gives the documented name of the second kind. The frameworks' tests look
up every documented name in the framework itself.
"""

from __future__ import annotations

#: by backend, what the page shows and the name under which the framework documents it
MEANS: dict[str, dict[str, str]] = {
    "torch": {
        "softmax": "torch.Tensor.softmax",
        "logits.argmax": "torch.Tensor.argmax",
        "model.train": "torch.nn.Module.train",
        "model.eval": "torch.nn.Module.eval",
        "model.state_dict": "torch.nn.Module.state_dict",
        "loss.backward": "torch.Tensor.backward",
        "optimizer.zero_grad": "torch.optim.Optimizer.zero_grad",
        "optimizer.step": "torch.optim.Optimizer.step",
        "optimizer.param_groups": "torch.optim.Optimizer",
        "tensor.copy_": "torch.Tensor.copy_",
        "numpy": "torch.Tensor.numpy",
        "tensor.device": "torch.Tensor.device",
        "x.flip": "torch.Tensor.flip",
    },
    "tf": {
        "tape.gradient": "tensorflow.GradientTape.gradient",
        "optimizer.apply": "keras.optimizers.Optimizer.apply",
        "optimizer.learning_rate": "keras.optimizers.Optimizer.learning_rate",
        "seed_generator.state.assign": "keras.random.SeedGenerator",
        "model.variables": "keras.Model.variables",
        "variable.assign": "tensorflow.Variable.assign",
        "numpy": "tensorflow.Tensor",
        "tensor.device": "tensorflow.Tensor",
    },
    "mxnet": {
        "F.np.concatenate": "mxnet.np.concatenate",
        "logits.argmax": "mxnet.np.ndarray.argmax",
        "loss.backward": "mxnet.np.ndarray.backward",
        "optimizer.update": "mxnet.gluon.Trainer.update",
        "optimizer.set_learning_rate": "mxnet.gluon.Trainer.set_learning_rate",
        "model.collect_params": "mxnet.gluon.Block.collect_params",
        "parameter.set_data": "mxnet.gluon.Parameter.set_data",
        "asnumpy": "mxnet.np.ndarray.asnumpy",
        "tensor.ctx": "mxnet.np.ndarray.ctx",
        "network.hybridize": "mxnet.gluon.HybridBlock.hybridize",
        "mxnet.gluon.nn.HybridBlock": "mxnet.gluon.HybridBlock",
    },
    "paddle": {
        "x.mean": "paddle.Tensor.mean",
        "logits.argmax": "paddle.Tensor.argmax",
        "model.train": "paddle.nn.Layer.train",
        "model.eval": "paddle.nn.Layer.eval",
        "model.state_dict": "paddle.nn.Layer.state_dict",
        "loss.backward": "paddle.Tensor.backward",
        "optimizer.clear_grad": "paddle.optimizer.Optimizer.clear_grad",
        "optimizer.step": "paddle.optimizer.Optimizer.step",
        "optimizer.set_lr": "paddle.optimizer.Optimizer.set_lr",
        "tensor.set_value": "paddle.Tensor.set_value",
        "numpy": "paddle.Tensor.numpy",
        "tensor.place": "paddle.Tensor.place",
        "x.flip": "paddle.Tensor.flip",
    },
}

#: classes whose members stand on the page of the class
CLASSES = (
    *("torch.nn.Module", "tensorflow.GradientTape", "tensorflow.Variable"),
    *("tensorflow.Tensor", "keras.Model", "keras.optimizers.Optimizer", "mxnet.np.ndarray"),
    *("paddle.Tensor", "paddle.nn.Layer", "paddle.optimizer.Optimizer"),
)

TORCH = "https://docs.pytorch.org/docs/stable/"
TORCH_PAGES = {
    "torch.device": "tensor_attributes.html#torch.device",
    "torch.Tensor.device": "generated/torch.Tensor.device.html",
    "torch.autocast": "amp.html#torch.autocast",
    "torch.OutOfMemoryError": "cuda.html",
}
MXNET = "https://mxnet.apache.org/versions/1.9.1/api/python/docs/api/"
MXNET_PAGES = {
    "mxnet.gluon.HybridBlock": "gluon/hybrid_block.html",
    "mxnet.gluon.Block": "gluon/block.html",
    "mxnet.gluon.nn": "gluon/nn/index.html",
    "mxnet.gluon.loss": "gluon/loss/index.html",
    "mxnet.gluon.Trainer": "gluon/trainer.html",
    "mxnet.gluon.Parameter": "gluon/parameter.html",
    "mxnet.autograd": "autograd/index.html",
    "mxnet.optimizer": "optimizer/index.html",
    "mxnet.random": "mxnet/random/index.html",
    "mxnet.context": "mxnet/context/index.html",
    "mxnet.Context": "mxnet/context/index.html",
    "mxnet.nd.contrib": "legacy/ndarray/contrib/index.html",
    "mxnet.contrib.amp": "contrib/amp/index.html",
    "mxnet.np.ndarray": "np/arrays.ndarray.html",
    "mxnet": "index.html",
}


def documented(backend: str, shown: str) -> str:
    """The name under which the framework documents what the page shows."""
    return MEANS[backend].get(shown, shown)


def address(backend: str, shown: str, language: str = "en") -> str:
    """The address of a call's documentation; Paddle's is in the page's language."""
    name = documented(backend, shown)
    owner = next((each for each in CLASSES if name.startswith(f"{each}.")), name)
    if backend == "torch":
        page = TORCH_PAGES.get(name) or f"generated/{owner}.html#{name}"
        return TORCH + page
    if backend == "tf":
        path = owner.replace("tensorflow", "tf").replace("keras.", "tf.keras.").replace(".", "/")
        member = "" if owner == name else "#" + name.removeprefix(f"{owner}.")
        return f"https://www.tensorflow.org/api_docs/python/{path}{member}"
    if backend == "mxnet":
        for begin, page in MXNET_PAGES.items():
            if f"{name}.".startswith(f"{begin}.") and (begin != "mxnet" or name.count(".") == 1):
                return f"{MXNET}{page}#{name}"
        module = name.split(".")[1]
        return f"{MXNET}{module}/generated/{name}.html"
    end = {"zh-CN": ("zh", "cn")}.get(language, ("en", "en"))
    path = owner.replace(".", "/")
    member = "" if owner == name else "#" + name.removeprefix(f"{owner}.").replace("_", "-")
    return f"https://www.paddlepaddle.org.cn/documentation/docs/{end[0]}/api/{path}_{end[1]}.html{member}"
