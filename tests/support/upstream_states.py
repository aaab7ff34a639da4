"""Other packages' networks with drawn weights and their logits, as data for every backend.

`python tests/support/upstream_states.py CASE...` builds the package's own network (the package must
be installed), gives it the state drawn here and writes its logits to tests/data/upstream/CASE.json.
Ten classes: the numbers are as good, and the file is small. Where norms have an eps of 0.001, they
get it as float32 holds it, as every backend has it: Paddle cannot hold 0.001 itself, which moves
the logits by 5e-10.
"""

import importlib
import importlib.metadata
import importlib.util
import json
import re
import sys
import tempfile
import types
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np

from common.formats.identify import identify
from common.formats.readers.base import File

FOLDER = Path(__file__).parents[1] / "data" / "upstream"
CLASSES = 10


@dataclass(frozen=True)
class Original:
    """A network of a package: its constructor and options, the image size, and what it is here.

    `whole`: every backend computes its logits. Otherwise another case has the same function and
    the same weights, and the reference alone computes them.
    """

    package: str
    network: str
    spec: str
    size: int
    options: dict = field(default_factory=dict)
    whole: bool = True

    @property
    def form(self):
        """The format of the package's files."""
        return FORMS[self.package]

    @property
    def asked(self):
        """The `--spec` that a conversion needs; the input transform is no weight."""
        return self.spec if "imagenet" in self.spec else None


FORMS = {
    **dict.fromkeys(("torchvision", "timm", "pretrainedmodels"), "torch"),
    **dict.fromkeys(("gluon", "gluoncv"), "mxnet"),
    **{"paddle": "paddle", "keras": "tf", "keras-h5": "tf"},
}

ORIGINALS = {
    "torchvision": Original("torchvision", "googlenet", "torchvision", 224, {"aux_logits": False}),
    "torchvision-imagenet-aux": Original(
        "torchvision",
        "googlenet",
        "torchvision-imagenet-aux",
        97,  # where pools round up and windows are uneven
        {"aux_logits": True, "transform_input": True},
    ),
    "paddle-vision": Original("paddle", "googlenet", "paddle-vision", 191),
    "inception-v3-aux": Original(
        "torchvision", "inception_v3", "inception-v3-aux", 299, {"aux_logits": True}
    ),
    "inception-v3-timm": Original("timm", "inception_v3", "inception-v3", 107, whole=False),
    "inception-v3-gluon": Original("gluon", "inception_v3", "inception-v3", 299, whole=False),
    "inception-v3-paddle": Original("paddle", "inception_v3", "inception-v3-paddle", 107),
    "inception-v3-keras": Original("keras", "InceptionV3", "inception-v3-keras", 107),
    "inception-v3-keras-h5": Original(
        "keras-h5", "InceptionV3", "inception-v3-keras", 107, whole=False
    ),
    "googlenet-gluoncv": Original("gluoncv", "googlenet", "torchvision", 224, whole=False),
    "bn-inception": Original("pretrainedmodels", "bninception", "bn-inception", 224),
    "inception-v4": Original("timm", "inception_v4", "inception-v4", 107),
    "inception-resnet-v2": Original("timm", "inception_resnet_v2", "inception-resnet-v2", 107),
}


@lru_cache
def read(case):
    """What was written for a case: versions, the shapes of the package's state, its logits."""
    return json.loads((FOLDER / f"{case}.json").read_text())


def state_of(case):
    """The drawn state of a case, by the names in the package's file."""
    return draw_state(read(case)["tensors"], FORMS[ORIGINALS[case].package])


@lru_cache
def identified(case):
    """What our converter makes of the drawn state of a case: its spec, naming and weights."""
    original = ORIGINALS[case]
    return identify(File(original.form, state_of(case), "float64"), original.asked, case)


VARIANCE = re.compile(r"running_var|_variance|moving_variance(:0)?|vars/2")
NORM_WEIGHT = re.compile(r"weight|gamma")


def draw_state(tensors, form):
    """A state with those names and shapes: He-normal weights, no number that is 0 or 1.

    Running statistics are far from those of a fresh network. float64 arrays of float32 values. A
    tensor with several names is drawn for the first, and GluonCV's copy of its output is one.
    """
    random = np.random.RandomState(7)
    state = {}
    for name, shape in tensors.items():
        *_, leaf = re.split(r"\.|/(?!2)", name)
        if name.startswith("head.2."):
            continue
        if len(shape) > 1:
            incoming = np.prod(shape[1:])
            if form == "tf" or (form == "paddle" and len(shape) == 2):
                incoming = np.prod(shape[:-1])
            array = random.standard_normal(shape) * np.sqrt(2 / incoming)
        elif VARIANCE.fullmatch(leaf) or NORM_WEIGHT.fullmatch(leaf):
            array = random.uniform(0.5, 1.5, shape)
        else:
            array = random.uniform(-0.3, 0.3, shape)
        state[name] = array.astype(np.float32).astype(np.float64)
    return state | {
        name: state[name.replace("head.2", "output")] for name in tensors.keys() - state
    }


def draw_images(size):
    """Two images (2, 3, size, size) of values in -2 to 2, as normalized ones have; float64."""
    return np.random.RandomState(8).uniform(-2, 2, (2, 3, size, size))


def make(case):
    """Run the package's network: what `read` returns."""
    original = ORIGINALS[case]
    builders = {
        "keras-h5": keras,
        "gluon": gluon,
        "gluoncv": gluon,
        "paddle": paddle,
        "keras": keras,
    }
    version, tensors, heads = builders.get(original.package, torch_package)(original)
    answers = {
        mode: {name: np.asarray(logits).tolist() for name, logits in found.items()}
        for mode, found in heads.items()
    }
    return {
        "package": original.package,
        "version": version.partition("+")[0],
        "size": original.size,
        "tensors": {name: list(shape) for name, shape in tensors.items()},
        **answers,
    }


def torch_package(original):
    """The version of a PyTorch package, the shapes of its state, its logits by mode and head.

    torchvision's compiled operators are not used, and need not fit the PyTorch that is installed.
    """
    import torch

    stub = "torchvision._meta_registrations"  # fails where the operators cannot be loaded
    sys.modules.setdefault(stub, types.ModuleType(stub))
    package = importlib.import_module(original.package)
    if original.package == "torchvision":
        make = getattr(importlib.import_module("torchvision.models"), original.network)
        options = {"weights": None, "init_weights": False, "num_classes": CLASSES}
    elif original.package == "timm":
        make, options = package.create_model, {"num_classes": CLASSES}
        options |= {"model_name": original.network, "pretrained": False}
    else:
        make = getattr(package, original.network)
        options = {"num_classes": 1000, "pretrained": None}
    net = make(**options, **original.options)
    if original.package == "pretrainedmodels":  # its constructor takes no other number
        net.last_linear = torch.nn.Linear(net.last_linear.in_features, CLASSES)
    net = net.double()
    tensors = {n: t.shape for n, t in net.state_dict().items() if t.ndim}
    state = {n: torch.from_numpy(a) for n, a in draw_state(tensors, "torch").items()}
    net.load_state_dict(state, strict=False)  # but for the counts of batches
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eps = float(np.float32(module.eps))
    heads, x = {}, torch.from_numpy(draw_images(original.size))
    with torch.no_grad():
        heads["evaluation"] = {"head": net.eval()(x).numpy()}
        net.train()
        for module in net.modules():
            if isinstance(module, torch.nn.Dropout):
                module.eval()
        outputs = net(x)
    outputs = [outputs] if isinstance(outputs, torch.Tensor) else list(outputs)
    if original.network == "googlenet" and len(outputs) > 1:
        outputs = [outputs[0], *outputs[:0:-1]]  # its second head comes first
    names = ("head", *(f"auxiliary.{index}" for index in range(len(outputs) - 1)))
    heads["training"] = {n: o.numpy() for n, o in zip(names, outputs, strict=True)}
    return package.__version__, tensors, heads


def paddle(original):
    """The version of Paddle, the shapes of its network's state, its logits by mode and head.

    Its dropout makes the features smaller in evaluation, and drops some in training. It is in
    evaluation in both modes: the mean of what training gives.
    """
    import paddle

    paddle.set_device("cpu")
    network = getattr(paddle.vision.models, original.network)
    net = network(num_classes=CLASSES, **original.options)
    net.to(dtype="float64")
    tensors = {n: t.shape for n, t in net.state_dict().items()}
    state = draw_state(tensors, "paddle")
    net.set_state_dict({n: paddle.to_tensor(a) for n, a in state.items()})
    x = paddle.to_tensor(draw_images(original.size))
    heads, names = {}, ("head", "auxiliary.0", "auxiliary.1")
    for mode in ("evaluation", "training"):
        for layer in net.sublayers(include_self=True):
            layer.training = mode == "training" and not isinstance(layer, paddle.nn.Dropout)
        with paddle.no_grad():
            outputs = net(x)
        outputs = outputs if isinstance(outputs, (list, tuple)) else [outputs]
        heads[mode] = {n: o.numpy() for n, o in zip(names, outputs, strict=False)}
    return paddle.__version__, tensors, heads


def gluon(original):
    """The version of MXNet or GluonCV, the shapes of its network's parameters, its logits.

    GluonCV does not import beside today's packages; the file of its network needs only MXNet.
    """
    importlib.import_module("backends.mxnet")  # what MXNet needs for today's NumPy
    import mxnet as mx

    if original.package == "gluoncv":
        root = Path(importlib.util.find_spec("gluoncv").origin).parent
        spec = importlib.util.spec_from_file_location("theirs", root / "model_zoo/googlenet.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        version = importlib.metadata.version("gluoncv")
    else:
        from mxnet.gluon.model_zoo import vision as module

        version = mx.__version__
    mx.npx.reset_np()  # the zoo's blocks are of before MXNet's NumPy arrays
    try:
        net = getattr(module, original.network)(classes=CLASSES, **original.options)
        net.cast("float64")
        net.initialize(mx.init.Zero())

        def settle(block):
            if isinstance(block, mx.gluon.nn.BatchNorm):
                block._kwargs["eps"] = float(np.float32(block._kwargs["eps"]))
            if isinstance(block, mx.gluon.nn.Dropout):
                block._rate = 0

        net.apply(settle)
        x = mx.nd.array(draw_images(original.size), dtype="float64")
        net(x)
        parameters = net._collect_params_with_prefix()
        tensors = {name: parameter.shape for name, parameter in parameters.items()}
        for name, array in draw_state(tensors, "mxnet").items():
            parameters[name].set_data(mx.nd.array(array, dtype="float64"))
        heads = {"evaluation": {"head": net(x).asnumpy()}}
        with mx.autograd.train_mode():
            heads["training"] = {"head": net(x).asnumpy()}
    finally:
        mx.npx.set_np()
    return version, tensors, heads


def keras(original):
    """The version of Keras, the names and shapes in the file of its network, its logits.

    The state is written into a file that Keras made, and Keras reads it from there: names in a file
    are not those of the layers. `keras-h5` is the second model of this process, in the older
    format by layer names.
    """
    import h5py
    import keras

    keras.backend.set_floatx("float64")
    legacy = original.package == "keras-h5"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ("it.h5" if legacy else "it.weights.h5")
        for _ in range(1 + legacy):
            net = getattr(keras.applications, original.network)(
                weights=None,
                classes=CLASSES,
                classifier_activation=None,
                input_shape=(original.size, original.size, 3),
            )
        for layer in net.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.epsilon = float(np.float32(layer.epsilon))
        if legacy:
            from keras.src.legacy.saving import legacy_h5_format

            with h5py.File(path, "w") as file:
                legacy_h5_format.save_weights_to_hdf5_group(file, net)
        else:
            net.save_weights(path)
        found = []
        with h5py.File(path, "r+") as file:
            file.visititems(
                lambda name, item: found.append(name) if isinstance(item, h5py.Dataset) else None
            )
            tensors = {name: file[name].shape for name in found}
            for name, array in draw_state(tensors, "tf").items():
                file[name][...] = array
        net.load_weights(path)
    x = draw_images(original.size).transpose(0, 2, 3, 1)
    heads = {"evaluation": {"head": net(x, training=False).numpy()}}
    heads["training"] = {"head": net(x, training=True).numpy()}
    return keras.__version__, tensors, heads


def main() -> None:
    """Write the files of the cases that the command line names."""
    FOLDER.mkdir(exist_ok=True)
    for case in sys.argv[1:]:
        (FOLDER / f"{case}.json").write_text(json.dumps(make(case)) + "\n")


if __name__ == "__main__":
    main()
