"""Records what a user's Paddle network computes: `googlenet check` runs this file by its path.

It imports Paddle and NumPy only, so it runs in the user's environment, beside any module of the
user's. Paddle's conventions: its functions call `paddle._C_ops`, operators such as `+` are methods
of `Tensor`; convolutions are OIHW, linear layers (in, out); `eval()` switches the mode.
Long because it imports nothing of ours: the file runs alone in the user's environment.
"""

import inspect
import os
import sys

import numpy as np
import paddle
from paddle import _C_ops, nn
from paddle.jit.dy2static.program_translator import ProgramTranslator, StaticFunction

VERSION = paddle.__version__
DTYPES = ("float64", "float32")  # tried in this order

#: the step that an operation computes; others keep their own name
KINDS = {
    "conv2d": "conv",
    "linear": "linear",
    "matmul": "linear",
    "__matmul__": "linear",
    "batch_norm": "norm",
    "batch_norm_": "norm",
    "relu": "act",
    "relu_": "act",
    "pool2d": "pool",
    "max_pool2d_with_index": "pool",
    "concat": "concat",
    "pad": "pad",
    "pad3d": "pad",
    "add": "add",
    "add_": "add",
    "__add__": "add",
    "__radd__": "add",
    "dropout": "dropout",
    "flatten": "reshape",
    "flatten_": "reshape",
    "reshape": "reshape",
    "reshape_": "reshape",
    "squeeze": "reshape",
    "unsqueeze": "reshape",
    "transpose": "transpose",
    "assign": "identity",
    "cast": "identity",
}
LEAVES = {
    "conv": {1: "weight"},
    "linear": {1: "weight", 2: "bias"},
    "norm": {1: "running_mean", 2: "running_var", 3: "weight", 4: "bias"},
}
OPERATORS = [
    f"__{side}{name}__"
    for name in ("add", "sub", "mul", "truediv", "matmul", "pow")
    for side in ("", "r")
]

creation_lines: dict[int, str] = {}  # id of a layer: the line of the user's file that makes it


def prepare(folder):
    """Called before the user's file is run."""
    paddle.set_device("cpu")
    init = nn.Layer.__init__

    def noting(self, *args, **kwargs):
        creation_lines[id(self)] = user_line(folder)
        init(self, *args, **kwargs)

    nn.Layer.__init__ = noting


def recognises(thing):
    """Whether the object is a network of this framework."""
    return isinstance(thing, nn.Layer)


def user_line(folder):
    """The innermost line of the user's own files that is running, as `file.py:17`, or ''."""
    frame = sys._getframe(1)
    while frame:
        name = frame.f_code.co_filename
        inside = name.startswith(folder + os.sep) and "site-packages" not in name
        if inside and name != __file__:
            return f"{os.path.relpath(name, folder)}:{frame.f_lineno}"
        frame = frame.f_back
    return ""


class Mode:
    """Sees every operation of a run."""

    def __init__(self, network, x):
        self.network, self.made, self.keep = network, {id(x): -1}, [x]
        self.events, self.modules, self.derived, self.inside = [], [], {}, 0
        self.batch = x.shape[0]
        self.sources = {}  # id of a tensor made of weights alone: those weights

    def __enter__(self):
        self.saved = []
        for owner, names in ((_C_ops, dir(_C_ops)), (paddle.Tensor, OPERATORS)):
            for name in names:
                function = getattr(owner, name, None)
                hidden = owner is _C_ops and (name.startswith("_") or "grad" in name)
                if callable(function) and not hidden:
                    self.saved.append((owner, name, function))
                    setattr(owner, name, self.wrapped(name, function))

    def __exit__(self, *error):
        for owner, name, function in self.saved:
            setattr(owner, name, function)

    def wrapped(self, name, function):
        """The function, recorded; what it calls itself is not."""

        def operation(*args, **kwargs):
            self.inside += 1
            try:
                out = function(*args, **kwargs)
            finally:
                self.inside -= 1
            if not self.inside:
                self.note(name, args, kwargs, out)
            return out

        return operation

    def weights(self, tensors):
        """The weights with one number for each channel that these tensors are made of."""
        found = {}
        for tensor in tensors:
            if id(tensor) not in self.made:
                for t in self.sources.get(id(tensor), [tensor]):
                    if t.is_floating_point() and t.size == max(t.shape, default=0) > 1:
                        found[id(t)] = t
        return list(found.values())

    def note(self, name, args, kwargs, out):
        """Record the tensors that an operation made from the network's input."""
        given = [*args, *kwargs.values()]
        tensors = [t for a in given for t in (a if isinstance(a, (list, tuple)) else (a,))]
        tensors = [t for t in tensors if isinstance(t, paddle.Tensor)]
        first = args[0] if args and isinstance(args[0], (list, tuple)) else args[:1]
        for t in first:
            self.recognise(t)
        data = [self.made[id(t)] for t in tensors if id(t) in self.made]
        outputs = list(out) if isinstance(out, (list, tuple)) else [out]
        outputs = [t for t in outputs if isinstance(t, paddle.Tensor) and t.is_floating_point()]
        kind, leaves = KINDS.get(name, name), {}
        if not data:
            for t in outputs:
                self.sources[id(t)] = self.weights(tensors)
                self.network.single |= bool(self.sources[id(t)]) and t.dtype == paddle.float32
                self.keep += [t, *tensors]
            for t in outputs:  # a function of the weights alone, such as a bias that is reshaped
                if len(tensors) == 1 and kind in ("reshape", "transpose", "identity"):
                    source, turned = self.derived.get(id(tensors[0]), (tensors[0], False))
                    turned ^= kind == "transpose" and t.ndim == 2
                    self.derived[id(t)] = source, turned
                    self.keep += [t, tensors[0]]
            return
        for place, leaf in LEAVES.get(kind, {}).items():
            value = args[place] if place < len(args) else None
            if isinstance(value, paddle.Tensor) and id(value) not in self.made:
                source, turned = self.derived.get(id(value), (value, False))
                turned ^= name == "matmul" and len(args) > 3 and bool(args[3])
                layout = "io" if kind == "linear" and not turned else "oi"
                leaves[leaf] = self.network.leaf(source, layout)
        if kind == "add" and len(data) == 1 and len(tensors) == 2:
            other = next((t for t in tensors if id(t) not in self.made), None)
            small = other is not None and other.size == max(other.shape, default=0) > 1
            if small and (id(other) in self.derived or id(other) not in self.sources):
                source = self.derived.get(id(other), (other,))[0]
                kind, leaves["bias"] = "bias", self.network.leaf(source, "c")
        if kind == "linear" and not leaves:
            kind = name
        if not leaves:  # a norm may be written so
            numbers = [self.network.leaf(t, "c") for t in self.weights(tensors)]
            leaves = {str(n): n for n in numbers}
        if kind == "norm":
            outputs = outputs[:1]
        if kind == "conv" and "NHWC" in [a for a in given if isinstance(a, str)]:
            self.network.last = True
        for t in outputs:
            if t.ndim not in (2, 3, 4, 5):
                continue
            if t.dtype in (paddle.float16, paddle.bfloat16):
                self.network.reduced = str(t.dtype).removeprefix("paddle.")
            path, module = self.modules[-1] if self.modules else ("", None)
            own = type(module).__module__.startswith("paddle.")
            container = type(module).__name__ in ("Sequential", "LayerList")
            own = own and not container
            self.events.append(
                {
                    "op": kind,
                    "name": name,
                    "inputs": data,
                    "leaves": leaves,
                    "path": path,
                    "layer": type(module).__name__ if own else "",
                    "line": (creation_lines.get(id(module), "") if own else "")
                    or user_line(self.network.folder),
                    "out": self.network.seen(t),
                }
            )
            self.network.single |= t.dtype == paddle.float32
            self.made[id(t)] = len(self.events) - 1
            self.keep.append(t)

    def recognise(self, t):
        """Find the event of a tensor that a method in C++ made, such as a view, by its values."""
        known = not isinstance(t, paddle.Tensor) or id(t) in self.made or id(t) in self.derived
        if (
            known
            or t.ndim not in (2, 3, 4)
            or t.shape[0] != self.batch
            or not t.is_floating_point()
        ):
            return
        if t.persistable or not self.events:
            return
        array = self.network.seen(t)
        for index in range(len(self.events) - 1, -1, -1):
            if np.array_equal(self.events[index]["out"], array):
                self.made[id(t)] = index
                self.keep.append(t)
                return


def to_numpy(t):
    """A copy of the tensor as float64."""
    return t.detach().numpy().astype(np.float64).copy()


def canonical(array, layout):
    """A weight with its axes in the order (out, in, height, width)."""
    if layout == "c":
        return array.reshape(-1)
    return array.T.copy() if layout == "io" and array.ndim == 2 else array


class Network:
    """The user's network: an `nn.Layer`, its class, a function that makes it, or a function."""

    dtype = "float64"
    single = False  # whether a run computed in float32
    reduced = ""  # the half precision that a part of a run computed in
    last = False  # whether its convolutions take NHWC

    def __init__(self, thing, x, folder):
        self.folder, self.notes, self.leaves, self.layout = folder, [], [], "NCHW"
        self.originals, self.default = [], paddle.get_default_dtype()
        self.static = ProgramTranslator().enable_to_static
        self.device = paddle.get_device()
        paddle.set_device("cpu")
        self.net = make(thing)
        self.module = isinstance(self.net, nn.Layer)
        if self.module:
            layers = self.net.sublayers(include_self=True)
            self.modes = [(layer, layer.training, layer._dtype) for layer in layers]
            weights = *self.net.parameters(), *self.net.buffers()
            self.originals = [(t, t.detach().clone()) for t in weights]
            self.kept = {p.dtype for p in self.net.parameters()}
            self.net.eval()
            if isinstance(self.net.forward, StaticFunction):
                self.notes.append(
                    "The network is compiled by `to_static`: its layers are looked at eagerly."
                )
                paddle.jit.enable_to_static(False)
        try:
            self.settle(x)
        except Exception:
            self.close()
            raise

    def settle(self, x):
        """Find the dtype and the layout of the input that the network runs with."""
        first = None
        for layout in ("NCHW", "NHWC"):
            for dtype in DTYPES:
                self.layout, self.dtype = layout, dtype
                self.single, self.reduced = False, ""
                self.restore()
                try:
                    self.trace(x)
                    if self.single and dtype == "float64":  # it casts by itself
                        self.dtype = "float32"
                        self.trace(x)
                    self.dtype = self.reduced or self.dtype
                    return
                except Exception as error:
                    first = first or error
        raise first

    def leaf(self, tensor, layout):
        """The number of a weight; its layout is `oi` (out first), `io` (out last) or `c` (flat)."""
        for number, (other, _) in enumerate(self.leaves):
            if other is tensor:
                return number
        self.leaves.append((tensor, layout))
        if all(other is not tensor for other, _ in self.originals):  # no weight of a layer
            self.originals.append((tensor, tensor.detach().clone()))
        return len(self.leaves) - 1

    def cast(self):
        """Give the weights the dtype of the run."""
        paddle.set_default_dtype(self.dtype)
        if self.module:
            self.net.to(device="cpu", dtype=self.dtype)

    def input(self, x):
        """An array (N, C, H, W) as the network takes it."""
        x = np.ascontiguousarray(x if self.layout == "NCHW" else np.transpose(x, (0, 2, 3, 1)))
        return paddle.to_tensor(x.astype(self.dtype))

    def seen(self, t):
        """A tensor of a run as float64, images as (N, C, H, W)."""
        array = to_numpy(t)
        last = self.last and array.ndim == 4
        return np.ascontiguousarray(array.transpose(0, 3, 1, 2)) if last else array

    def trace(self, x):
        """Run the network on x (N, C, H, W): every tensor it makes, and what it returns."""
        self.cast()
        x = self.input(x)
        mode, hooks = Mode(self, x), []

        def enter(name):
            return lambda layer, args: mode.modules.append((name, layer))

        def leave(layer, args, out):
            mode.modules.pop()

        for name, layer in self.net.named_sublayers(include_self=True) if self.module else ():
            hooks.append(layer.register_forward_pre_hook(enter(name)))
            hooks.append(layer.register_forward_post_hook(leave))
        try:
            with mode, paddle.no_grad():
                out = self.net(x)
        finally:
            for hook in hooks:
                hook.remove()
        outputs = [
            {"name": name, "event": mode.made.get(id(t), None), "out": self.seen(t)}
            for name, t in flat(out)
        ]
        return {"events": mode.events, "outputs": outputs}

    def parts(self):
        """The network as an nn.Layer, whose weights a file can hold."""
        if not self.module:
            raise TypeError("a file of weights needs an nn.Layer, not a function")
        return self.net

    def savable(self):
        """True; TypeError unless a file can hold the weights."""
        return self.parts() is not None

    def save(self, path):
        """Write the weights to a file, with the framework's own function."""
        paddle.save(self.parts().state_dict(), path)

    def put(self, arrays):
        """Take over arrays by the names in a file."""
        own = self.parts().state_dict()
        names = list(own)
        start = beginning(names, arrays)
        for name in names:
            shapes = tuple(arrays[start + name].shape), tuple(own[name].shape)
            if shapes[0] != shapes[1]:
                raise ValueError(f"{name} is {shapes[0]} in the file, {shapes[1]} in the network")
        self.net.set_state_dict({name: arrays[start + name] for name in own})

    def start(self, make_step):
        """Make the user's training step; the answer is whether it takes a rate too."""
        if self.module:
            self.net.train()
        self.user_step = make_step(self.net)
        if not callable(self.user_step):
            raise TypeError(f"the step's function returned {self.user_step!r}, not a step")
        return len(required(self.user_step)) > 2

    def train(self, x, labels, rate):
        """One training step of the user's, on x (N, C, H, W) and labels (N,)."""
        self.user_step(self.input(x), paddle.to_tensor(labels), *rate)

    def shapes(self):
        """The canonical shapes of the weights, by number."""
        return [canonical(np.empty(t.shape), layout).shape for t, layout in self.leaves]

    def read(self):
        """The weights by number, in canonical layout."""
        return [canonical(to_numpy(t), layout) for t, layout in self.leaves]

    def write(self, arrays):
        """Copy canonical arrays into the weights, by number."""
        for number, array in arrays.items():
            t, layout = self.leaves[number]
            array = array.T if layout == "io" and array.ndim == 2 else array
            dtype = str(t.dtype).rpartition(".")[2]
            t.set_value(np.ascontiguousarray(array).astype(dtype).reshape(t.shape))

    def restore(self):
        """Give the weights the values that they had: a cast to float32 rounds."""
        for tensor, value in self.originals:
            copy = value.clone()  # in Paddle 3.0 `tensor.data = copy` would take its gradient
            tensor.get_tensor()._share_data_with(copy.get_tensor())

    def close(self):
        """Leave the network as it was."""
        paddle.set_default_dtype(self.default)
        paddle.set_device(self.device)
        paddle.jit.enable_to_static(self.static)
        if self.module:
            self.net.to(device=self.device)
            if len(self.kept) == 1:
                self.net.to(dtype=str(*self.kept).rpartition(".")[2])
            for layer, training, dtype in self.modes:
                layer.training, layer._dtype = training, dtype
        self.restore()


def beginning(names, arrays):
    """How the names in a checkpoint begin: with the keys of the dicts around the weights."""
    starts = [each.removesuffix(names[0]) for each in arrays if each.endswith(names[0])]
    starts = [start for start in starts if start[-1:] in ("", ".")]
    found = [start for start in starts if all(start + name in arrays for name in names)]
    if len(found) > 1:
        keys = ", ".join(start.rstrip(".") for start in found)
        raise ValueError(f"it has several dicts of weights, {keys}: choose one with `--key`")
    if not found:
        missing = next((name for name in names if name not in arrays), names[0])
        raise ValueError(f"it has no {missing}")
    return found[0]


def flat(out, name=""):
    """The tensors that a network returns, by name; from any tuple, dict or object."""
    if isinstance(out, paddle.Tensor):
        return [(name, out)]
    if isinstance(out, np.ndarray):
        return [(name, paddle.to_tensor(out))]
    if isinstance(out, dict):
        return [each for key, value in out.items() for each in flat(value, str(key))]
    if isinstance(out, (list, tuple)):
        names = getattr(out, "_fields", range(len(out)))
        return [
            each for key, value in zip(names, out, strict=False) for each in flat(value, str(key))
        ]
    return [
        each
        for key, value in getattr(out, "__dict__", {}).items()
        if isinstance(value, (paddle.Tensor, np.ndarray))
        for each in flat(value, key)
    ]


def make(thing):
    """The network itself: of a class or a function without arguments, what it returns."""
    if isinstance(thing, nn.Layer) or not callable(thing):
        return thing
    needed = required(thing)
    if inspect.isclass(thing) or not needed:
        if needed:
            raise TypeError(
                f"{thing.__name__} needs the arguments {', '.join(needed)}: give an instance, or a "
                f"function without arguments that makes one"
            )
        return make(thing())
    return thing


def required(thing):
    """The names of the arguments that a call must give."""
    try:
        found = inspect.signature(thing).parameters.values()
    except (TypeError, ValueError):
        return []
    return [
        p.name
        for p in found
        if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
