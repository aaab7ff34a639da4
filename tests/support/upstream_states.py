"""Other packages' GoogLeNets with drawn weights and what they answer, as data for every backend.

`python tests/support/upstream_states.py SPEC...` builds the package's own network (torchvision or
Paddle must be installed), gives it the state drawn here and writes its logits to
tests/data/upstream/SPEC.json. Ten classes: the numbers are as good, and the file is small.
"""

import json
import sys
import types
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parents[1] / "data" / "upstream"
CLASSES = 10

#: by spec: the package, its constructor's options, image size
ORIGINALS = {
    "torchvision": ("torchvision", {"aux_logits": False}, 224),
    "torchvision-imagenet-aux": (
        "torchvision",
        {"aux_logits": True, "transform_input": True},
        97,  # where pools round up and windows are uneven
    ),
    "paddle-vision": ("paddle", {}, 191),
}


def read(spec):
    """What was written for a spec: versions, the shapes of the package's state, its logits."""
    return json.loads((FOLDER / f"{spec}.json").read_text())


def draw_state(tensors, linear_in_first):
    """A state with those names and shapes: He-normal weights, no number that is 0 or 1.

    Running statistics are far from those of a fresh network. float64 arrays of float32 values.
    """
    random = np.random.RandomState(7)
    state = {}
    for name, shape in tensors.items():
        if len(shape) > 1:
            incoming = shape[0] if len(shape) == 2 and linear_in_first else np.prod(shape[1:])
            array = random.standard_normal(shape) * np.sqrt(2 / incoming)
        elif name.endswith(("running_var", "bn.weight")):
            array = random.uniform(0.5, 1.5, shape)
        else:
            array = random.uniform(-0.3, 0.3, shape)
        state[name] = array.astype(np.float32).astype(np.float64)
    return state


def draw_images(size):
    """Two images (2, 3, size, size) of values in -2 to 2, as normalized ones have; float64."""
    return np.random.RandomState(8).uniform(-2, 2, (2, 3, size, size))


def make(spec):
    """Run the package's network: what `read` returns."""
    package, options, size = ORIGINALS[spec]
    tensors, heads = {"torchvision": torchvision, "paddle": paddle}[package](options, size)
    answers = {
        mode: {name: logits.tolist() for name, logits in found.items()}
        for mode, found in heads.items()
    }
    package = sys.modules[package]
    return {
        "package": package.__name__,
        "version": package.__version__.partition("+")[0],
        "size": size,
        "tensors": {name: list(shape) for name, shape in tensors.items()},
        **answers,
    }


def torchvision(options, size):
    """The shapes of torchvision's state, and its logits by mode and canonical head.

    Its compiled operators are not used, and need not fit the PyTorch that is installed. Its norms
    are given eps as float32 holds it, as every backend has it: 0.001 itself, which MXNet and Paddle
    cannot hold, moves the logits by 5e-10.
    """
    import torch

    stub = "torchvision._meta_registrations"  # fails where the operators cannot be loaded
    sys.modules.setdefault(stub, types.ModuleType(stub))
    from torchvision.models import googlenet

    net = googlenet(weights=None, init_weights=False, num_classes=CLASSES, **options).double()
    tensors = {n: t.shape for n, t in net.state_dict().items() if t.ndim}
    state = {n: torch.from_numpy(a) for n, a in draw_state(tensors, False).items()}
    net.load_state_dict(state, strict=False)  # but for the counts of batches
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eps = float(np.float32(module.eps))
    heads, x = {}, torch.from_numpy(draw_images(size))
    with torch.no_grad():
        heads["evaluation"] = {"head": net.eval()(x).numpy()}
        net.train()
        for module in net.modules():
            if isinstance(module, torch.nn.Dropout):
                module.eval()
        outputs = net(x)
    if options["aux_logits"]:
        found = (outputs.logits, outputs.aux_logits1, outputs.aux_logits2)
        names = ("head", "auxiliary.0", "auxiliary.1")
        heads["training"] = {n: o.numpy() for n, o in zip(names, found, strict=True)}
    else:
        heads["training"] = {"head": outputs.numpy()}
    return tensors, heads


def paddle(options, size):
    """The shapes of the state of Paddle's network, and its logits by mode and canonical head.

    It has no norm: its training mode differs by what is dropped at random, and by nothing else.
    """
    import paddle

    paddle.set_device("cpu")
    net = paddle.vision.models.googlenet(num_classes=CLASSES, **options)
    net.to(dtype="float64")
    tensors = {n: t.shape for n, t in net.state_dict().items()}
    state = draw_state(tensors, True)
    net.set_state_dict({n: paddle.to_tensor(a) for n, a in state.items()})
    x = paddle.to_tensor(draw_images(size))
    net.eval()
    with paddle.no_grad():
        outputs = net(x)
    names = ("head", "auxiliary.0", "auxiliary.1")
    return tensors, {"evaluation": {n: o.numpy() for n, o in zip(names, outputs, strict=True)}}


def main() -> None:
    """Write the files of the specs that the command line names."""
    FOLDER.mkdir(exist_ok=True)
    for spec in sys.argv[1:]:
        (FOLDER / f"{spec}.json").write_text(json.dumps(make(spec)) + "\n")


if __name__ == "__main__":
    main()
