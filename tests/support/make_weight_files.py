"""A file of each native format, of one small layer and its norm, as the frameworks write them.

`python tests/support/make_weight_files.py BACKEND` writes that framework's files again. The unit
tests, which have no framework, read them, damage them and fuzz with them.
"""

import argparse
import os
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parents[1] / "data" / "weight_files"
PROGRAMS = HERE.parent / "paddle_programs"

#: canonical names and values: a convolution (3, 2, 1, 2), a norm and a linear layer (2, 3)
SHAPES = {
    "0.weight": (3, 2, 1, 2),
    "0.bias": (3,),
    "1.weight": (3,),
    "1.bias": (3,),
    "1.running_mean": (3,),
    "1.running_var": (3,),
    "2.weight": (2, 3),
    "2.bias": (2,),
}


def values(dtype=np.float32):
    """Different numbers everywhere, exact even in bfloat16."""
    return {
        name: (np.arange(np.prod(shape)).reshape(shape) + index).astype(dtype)
        for index, (name, shape) in enumerate(SHAPES.items())
    }


def torch():
    """As now, as before 1.6, in bfloat16, and with the channels last."""
    import torch
    from torch import nn

    net = nn.Sequential(nn.Conv2d(2, 3, (1, 2)), nn.BatchNorm2d(3), nn.Linear(3, 2))
    state = {name: torch.from_numpy(array) for name, array in values().items()}
    net.load_state_dict(state, strict=False)  # PyTorch also counts batches
    torch.save(net.state_dict(), HERE / "torch.pt")
    torch.save(net.state_dict(), HERE / "torch-old.pt", _use_new_zipfile_serialization=False)
    torch.save(net.bfloat16().state_dict(), HERE / "torch-bfloat16.pt")
    last = net.double().to(memory_format=torch.channels_last)
    torch.save(last.state_dict(), HERE / "torch-last.pt")
    net = net.float().eval()
    flat = nn.Sequential(net[0], net[1], nn.Flatten(), net[2])
    for folded in (False, True):
        name = "onnx-folded.onnx" if folded else "onnx-torch.onnx"
        mode = torch.onnx.TrainingMode.EVAL if folded else torch.onnx.TrainingMode.PRESERVE
        how = {"dynamo": False, "training": mode, "do_constant_folding": folded}
        torch.onnx.export(flat, (torch.zeros(1, 2, 1, 2),), HERE / name, **how)
    optimizer = {"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.zeros(2)}}}
    checkpoint = {"epoch": 3, "state_dict": net.state_dict(), "optimizer": optimizer}
    checkpoint |= {"arguments": argparse.Namespace(lr=0.1), "folder": Path("runs"), "loss": 0.5}
    torch.save(checkpoint, HERE / "torch-checkpoint.pth.tar")
    torch.save(checkpoint, HERE / "torch-old.ckpt", _use_new_zipfile_serialization=False)


def tf():
    """Keras 3: weights, also in bfloat16, and a trained model, as a whole and its weights."""
    import keras

    def build(dtype):
        layers = keras.layers
        conv = layers.Conv2D(3, (1, 2), dtype=dtype)
        norm = layers.BatchNormalization(epsilon=1e-5, dtype=dtype)
        return keras.Sequential([keras.Input((1, 2, 2)), conv, norm, layers.Dense(2, dtype=dtype)])

    def fill(net):
        found = values()
        conv, norm, dense = net.layers
        conv.set_weights([found["0.weight"].transpose(2, 3, 1, 0), found["0.bias"]])
        norm.set_weights([found[name] for name in found if name.startswith("1")])
        dense.set_weights([found["2.weight"].T, found["2.bias"]])

    net, half = build("float32"), build("bfloat16")
    fill(net)
    fill(half)
    net.save_weights(HERE / "keras.weights.h5")
    half.save_weights(HERE / "keras-bfloat16.weights.h5")
    net.compile("adam", "mse")
    net.fit(np.zeros((2, 1, 2, 2)), np.zeros((2, 1, 1, 2)), verbose=0)
    fill(net)
    net.save_weights(HERE / "keras-trained.weights.h5")
    net.save(HERE / "keras-model.keras")
    net.save(HERE / "keras-model.h5")


def mxnet():
    """Gluon with NumPy's arrays, and MXNet's older arrays in half precision."""
    from backends import mxnet as _  # noqa: F401  # what MXNet needs to be imported

    # isort: split
    import mxnet as mx
    from mxnet.gluon import nn

    net = nn.HybridSequential()
    net.add(nn.Conv2D(3, (1, 2)), nn.BatchNorm(), nn.Dense(2))
    net.initialize()
    net(mx.np.zeros((1, 2, 1, 2)))
    words = {"1.weight": "1.gamma", "1.bias": "1.beta"}
    for name, array in values().items():
        net._collect_params_with_prefix()[words.get(name, name)].set_data(mx.np.array(array))
    net.save_parameters(str(HERE / "mxnet.params"))
    old = {name: mx.nd.array(array, dtype="float16") for name, array in values().items()}
    mx.nd.save(str(HERE / "mxnet-old.params"), old)
    net.hybridize()
    net(mx.np.zeros((1, 2, 1, 2)))
    net.export(str(HERE / "mxnet-export"))
    (HERE / "mxnet-export-symbol.json").unlink()
    with open(HERE / "mxnet-two.params", "wb") as file:  # as MXNet 2 writes them
        np.savez(file, **{words.get(name, name): array for name, array in values().items()})


def paddle():
    """As now, and with the protocol of pickle that Paddle had before 2.1."""
    import paddle
    from paddle import nn

    class Net(nn.Sequential):
        def forward(self, x):
            conv, norm, linear = self
            return linear(norm(conv(x)).flatten(1))

    net = Net(nn.Conv2D(2, 3, (1, 2)), nn.BatchNorm2D(3), nn.Linear(3, 2))
    words = {"1.running_mean": "1._mean", "1.running_var": "1._variance"}
    found = values() | {"2.weight": values()["2.weight"].T.copy()}
    net.set_state_dict({words.get(name, name): array for name, array in found.items()})
    paddle.save(net.state_dict(), str(HERE / "paddle.pdparams"))
    paddle.save(net.state_dict(), str(HERE / "paddle-old.pdparams"), protocol=2)
    net.eval()
    images = [paddle.static.InputSpec([None, 2, 1, 2], "float32")]
    old = os.environ.get("FLAGS_enable_pir_api") == "0"  # noqa: SIM112  # as before Paddle 3
    paddle.jit.save(net, str(PROGRAMS / ("old" if old else "export")), images)
    for path in PROGRAMS.glob("*.info"):
        path.unlink()


if __name__ == "__main__":
    sys.path.insert(0, str(HERE.parents[2]))
    {"torch": torch, "tf": tf, "mxnet": mxnet, "paddle": paddle}[sys.argv[1]]()
