"""Records what a user's MXNet network computes: `googlenet check` runs this file by its path.

It imports MXNet and NumPy only, so it runs in the user's environment, beside any module of the
user's. MXNet's conventions: every operation, of `mx.np`, `mx.npx`, `mx.nd` and Gluon, calls
`_imperative_invoke`; convolutions are OIHW, linear layers (out, in); the mode is autograd's.
Long because it imports nothing of ours: the file runs alone in the user's environment.
"""

import inspect
import os
import sys
import warnings

import numpy as np

vars(np).update(bool=bool, int=int)  # names that NumPy removed and MXNet 1.9.1 uses
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import mxnet as mx
    from mxnet.gluon import Block
    from mxnet.ndarray import register

VERSION = mx.__version__
DTYPES = ("float64", "float32")  # tried in this order

#: the step that an operation computes; others keep their own name
KINDS = {
    "Convolution": "conv",
    "convolution": "conv",
    "FullyConnected": "linear",
    "fully_connected": "linear",
    "BatchNorm": "norm",
    "batch_norm": "norm",
    "Activation": "act",
    "activation": "act",
    "relu": "act",
    "LeakyReLU": "act",
    "leaky_relu": "act",
    "Pooling": "pool",
    "pooling": "pool",
    "Concat": "concat",
    "concat": "concat",
    "concatenate": "concat",
    "_concatenate": "concat",
    "Pad": "pad",
    "pad": "pad",
    "add": "add",
    "_plus": "add",
    "elemwise_add": "add",
    "_add": "add",
    "broadcast_add": "add",
    "broadcast_plus": "add",
    "Dropout": "dropout",
    "dropout": "dropout",
    "Flatten": "reshape",
    "flatten": "reshape",
    "batch_flatten": "reshape",
    "Reshape": "reshape",
    "reshape": "reshape",
    "_np_reshape": "reshape",
    "_npx_reshape": "reshape",
    "squeeze": "reshape",
    "expand_dims": "reshape",
    "transpose": "transpose",
    "_copy": "identity",
    "identity": "identity",
    "Cast": "identity",
    "cast": "identity",
}
LEAVES = {
    "conv": {1: "weight", 2: "bias"},
    "linear": {1: "weight", 2: "bias"},
    "norm": {1: "weight", 2: "bias", 3: "running_mean", 4: "running_var"},
}

creation_lines: dict[int, str] = {}  # id of a block: the line of the user's file that makes it


def prepare(folder):
    """Called before the user's file is run."""
    init = Block.__init__

    def noting(self, *args, **kwargs):
        creation_lines[id(self)] = user_line(folder)
        init(self, *args, **kwargs)

    Block.__init__ = noting


def recognises(thing):
    """Whether the object is a network of this framework."""
    return isinstance(thing, Block)


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
        self.events, self.modules, self.derived = [], [], {}
        self.batch = x.shape[0]
        self.sources = {}  # id of a tensor made of weights alone: those weights

    def __enter__(self):
        self.invoke = register._imperative_invoke

        def seen(handle, ndargs, keys, vals, out, is_np_op, output_is_list):
            made = self.invoke(handle, ndargs, keys, vals, out, is_np_op, output_is_list)
            name = sys._getframe(1).f_code.co_name
            attrs = dict(zip(keys, vals, strict=False))
            self.note(name, list(ndargs), attrs, made)
            return made

        register._imperative_invoke = seen

    def __exit__(self, *error):
        register._imperative_invoke = self.invoke

    def weights(self, tensors):
        """The weights with one number for each channel that these tensors are made of."""
        found = {}
        for tensor in tensors:
            if id(tensor) not in self.made:
                for t in self.sources.get(id(tensor), [tensor]):
                    if t.size == max(t.shape, default=0) > 1:
                        found[id(t)] = t
        return list(found.values())

    def note(self, name, tensors, attrs, out):
        """Record the tensors that an operation made from the network's input."""
        for t in tensors[:1]:
            self.recognise(t)
        data = [self.made[id(t)] for t in tensors if id(t) in self.made]
        outputs = list(out) if isinstance(out, (list, tuple)) else [out]
        kind, leaves = KINDS.get(name, name), {}
        if not data:
            for t in outputs:
                self.sources[id(t)] = self.weights(tensors)
                self.network.single |= bool(self.sources[id(t)]) and t.dtype == np.float32
                self.keep += [t, *tensors]
            for t in outputs:  # a function of the weights alone, such as `W.T`
                if len(tensors) == 1 and kind in ("transpose", "reshape", "identity"):
                    source, turned = self.derived.get(id(tensors[0]), (tensors[0], False))
                    turned ^= kind == "transpose" and t.ndim == 2
                    self.derived[id(t)] = source, turned
                    self.keep += [t, tensors[0]]
            return
        for place, leaf in LEAVES.get(kind, {}).items():
            value = tensors[place] if place < len(tensors) else None
            if value is not None and id(value) not in self.made:
                source, turned = self.derived.get(id(value), (value, False))
                leaves[leaf] = self.network.leaf(source, "io" if turned else "oi")
        if (
            name in ("dot", "_np_dot", "matmul", "_npi_matmul")
            and len(data) == 1 == len(tensors) - 1
        ):
            other = tensors[1]
            if other.ndim == 2 and id(other) not in self.made:
                source, turned = self.derived.get(id(other), (other, False))
                turned ^= str(attrs.get("transpose_b", False)) in ("True", "1")
                kind, leaves["weight"] = (
                    "linear",
                    self.network.leaf(source, "oi" if turned else "io"),
                )
        if kind == "add" and len(data) == 1 and len(tensors) == 2:
            other = next((t for t in tensors if id(t) not in self.made), None)
            small = other is not None and other.size == max(other.shape, default=0) > 1
            if small and (id(other) in self.derived or id(other) not in self.sources):
                source = self.derived.get(id(other), (other,))[0]
                kind, leaves["bias"] = "bias", self.network.leaf(source, "c")
        if not leaves:  # a norm may be written so
            numbers = [self.network.leaf(t, "c") for t in self.weights(tensors)]
            leaves = {str(n): n for n in numbers}
        if kind == "norm":
            outputs = outputs[:1]
            if str(attrs.get("fix_gamma", "True")) in ("True", "1"):
                leaves.pop("weight", None)  # MXNet reads it as 1
            beta = getattr(self.modules[-1], "beta", None) if self.modules else None
            if not getattr(beta, "_differentiable", True):
                leaves.pop("bias", None)  # `center=False`: MXNet adds it, but never trains it
        for t in outputs:
            if t.ndim not in (2, 3, 4, 5):
                continue
            if t.dtype == np.float16:
                self.network.reduced = "float16"
            module = self.modules[-1] if self.modules else None
            own = type(module).__module__.startswith("mxnet.")
            own = own and type(module).__name__ not in ("Sequential", "HybridSequential")
            self.events.append(
                {
                    "op": kind,
                    "name": name,
                    "inputs": data,
                    "leaves": leaves,
                    "path": module.name if module is not None else "",
                    "layer": type(module).__name__ if own else "",
                    "line": (creation_lines.get(id(module), "") if own else "")
                    or user_line(self.network.folder),
                    "out": to_numpy(t),
                }
            )
            self.network.single |= t.dtype == np.float32
            self.made[id(t)] = len(self.events) - 1
            self.keep.append(t)

    def recognise(self, t):
        """Find the event of a tensor that was made unseen, such as a view, by its values."""
        if id(t) in self.made or id(t) in self.derived or t.ndim not in (2, 3, 4):
            return
        if t.shape[0] != self.batch or any(t is other for other, _ in self.network.leaves):
            return
        array = to_numpy(t)
        for index in range(len(self.events) - 1, -1, -1):
            other = self.events[index]["out"]
            if other.size == array.size and np.array_equal(other.ravel(), array.ravel()):
                self.made[id(t)] = index
                self.keep.append(t)
                return


def to_numpy(t):
    """A copy of the tensor as float64."""
    return t.asnumpy().astype(np.float64)


def canonical(array, layout):
    """A weight with its axes in the order (out, in, height, width)."""
    if layout == "c":
        return array.reshape(-1)
    return array.T.copy() if layout == "io" and array.ndim == 2 else array


class Network:
    """The user's network: a Gluon block, its class, a function that makes it, or a function."""

    dtype = "float64"
    single = False  # whether a run computed in float32
    reduced = ""  # the half precision that a part of a run computed in

    def __init__(self, thing, x, folder):
        self.folder, self.notes, self.leaves, self.layout = folder, [], [], "NCHW"
        self.originals, self.numpy, self.kept = [], mx.util.is_np_array(), None
        self.net = make(thing)
        self.module = isinstance(self.net, Block)
        self.before, self.hybrid = [], []
        try:
            if self.module:
                self.initialize()
            self.settle(x)
        except Exception:
            self.close()
            raise

    def initialize(self):
        """Give weights to a block that has none, and let every layer run by itself."""
        parameters = self.net.collect_params()
        self.kept = {str(np.dtype(p.dtype)) for p in parameters.values()}
        if any(p._data is None and not p._deferred_init for p in parameters.values()):
            self.net.initialize()
        for p in parameters.values():
            array = None if p._data is None else p.list_data()[0].asnumpy()
            self.before.append((p, p.dtype, p.list_ctx(), array))
        self.net.apply(self.remember)
        parameters.reset_ctx(mx.cpu())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.net.hybridize(False)  # hybridized layers run unseen
        if isinstance(self.net, mx.gluon.SymbolBlock):
            self.notes.append(
                "The network is an exported graph: only its outputs can be compared. Give the "
                "blocks that it was exported from to see its layers."
            )

    def remember(self, block):
        """Note how a block is hybridized."""
        if isinstance(block, mx.gluon.HybridBlock):
            self.hybrid.append((block, block._active, block._flags))

    def settle(self, x):
        """Find the dtype, the layout and the kind of array that the network runs with."""
        first = None
        for layout in ("NCHW", "NHWC"):
            for array in self.kinds():
                if array == "np":
                    mx.npx.set_np()
                else:
                    mx.npx.reset_np()
                for dtype in DTYPES:
                    self.layout, self.dtype, self.kind = layout, dtype, array
                    self.single, self.reduced = False, ""
                    try:
                        if self.module:
                            if any(p._data is None for p, *_ in self.before):
                                self.net.cast("float32")  # deferred weights get their shapes in it
                                self.net(self.input(x, "float32"))
                            self.net.cast(dtype)
                            self.restore()
                        self.trace(x)
                        if self.single and dtype == "float64":  # it casts by itself
                            self.dtype = "float32"
                            self.trace(x)
                        self.dtype = self.reduced or self.dtype
                        return
                    except Exception as error:
                        first = first or error
        raise first

    def kinds(self):
        """The kinds of array that the network may take: `mx.nd` only, if its layers need it."""
        names, todo = [], [self.net] if self.module else []
        while todo:
            block = todo.pop()
            names.append(getattr(block, "_op_name", ""))
            children = block._children.values()
            todo += [child if isinstance(child, Block) else child() for child in children]
        old = any(name[:1].isupper() for name in names)
        return ("nd",) if old else ("np", "nd")

    def input(self, x, dtype):
        """An array (N, C, H, W) as the network takes it."""
        x = np.ascontiguousarray(x if self.layout == "NCHW" else np.transpose(x, (0, 2, 3, 1)))
        return (mx.np.array if self.kind == "np" else mx.nd.array)(x, dtype=dtype)

    def leaf(self, tensor, layout):
        """The number of a weight; its layout is `oi` (out first), `io` (out last) or `c` (flat)."""
        for number, (other, _) in enumerate(self.leaves):
            if other is tensor:
                return number
        self.leaves.append((tensor, layout))
        self.originals.append(tensor.asnumpy())
        return len(self.leaves) - 1

    def trace(self, x):
        """Run the network on x (N, C, H, W): every tensor it makes, and what it returns."""
        x = self.input(x, self.dtype)
        mode, handles = Mode(self, x), []

        def enter(block, args):
            mode.modules.append(block)

        def leave(block, args, out):
            mode.modules.pop()

        def hook(block):
            handles.append(block.register_forward_pre_hook(enter))
            handles.append(block.register_forward_hook(leave))
            for child in block._children.values():
                hook(child() if not isinstance(child, Block) else child)

        if self.module:
            hook(self.net)
        try:
            with mode:
                out = self.net(x)
        finally:
            for handle in handles:
                handle.detach()
        outputs = [
            {"name": name, "event": mode.made.get(id(t), None), "out": to_numpy(t)}
            for name, t in flat(out)
        ]
        return {"events": mode.events, "outputs": outputs}

    def parts(self):
        """The network as a Gluon block, whose weights a file can hold."""
        if not self.module:
            raise TypeError("a file of weights needs a Gluon block, not a function")
        return self.net

    def savable(self):
        """True; TypeError unless a file can hold the weights."""
        return self.parts() is not None

    def save(self, path):
        """Write the weights to a file, with the framework's own function."""
        self.parts().save_parameters(path)

    def put(self, arrays):
        """Take over arrays by the names in a file."""
        own = self.parts()._collect_params_with_prefix()
        missing = next((name for name in own if name not in arrays), None)
        if missing:
            raise ValueError(f"it has no {missing}")
        for name, parameter in own.items():
            shapes = arrays[name].shape, parameter.shape
            if shapes[0] != shapes[1]:
                raise ValueError(f"{name} is {shapes[0]} in the file, {shapes[1]} in the network")
        for name, parameter in own.items():
            put(parameter.data(), arrays[name])

    def start(self, make_step):
        """Make the user's training step; the answer is whether it takes a rate too."""
        self.user_step = make_step(self.net)
        if not callable(self.user_step):
            raise TypeError(f"the step's function returned {self.user_step!r}, not a step")
        return len(required(self.user_step)) > 2

    def train(self, x, labels, rate):
        """One training step of the user's, on x (N, C, H, W) and labels (N,)."""
        labels = (mx.np.array if self.kind == "np" else mx.nd.array)(labels, dtype="int64")
        self.user_step(self.input(x, self.dtype), labels, *rate)

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
            put(t, array.reshape(t.shape))

    def restore(self):
        """Give a block's weights the values that they had: a cast to float32 rounds."""
        for parameter, _, _, array in self.before:
            if array is not None:
                put(parameter.list_data()[0], array)

    def close(self):
        """Leave the network as it was."""
        for (tensor, _), array in zip(self.leaves, self.originals, strict=False):
            put(tensor, array)
        if self.module and self.kept and len(self.kept) == 1:
            self.net.cast(*self.kept)
        for parameter, dtype, _, _ in self.before:
            parameter.cast(dtype)
        self.restore()
        for parameter, _, places, _ in self.before:
            parameter.reset_ctx(places)
        for block, active, flags in self.hybrid:
            block._active, block._flags = active, flags
        (mx.npx.set_np if self.numpy else mx.npx.reset_np)()


def put(tensor, array):
    """Copy an array into a tensor; `tensor[:] =` fails where oneDNN has its own layout for it."""
    array = np.ascontiguousarray(array).astype(tensor.dtype).reshape(tensor.shape)
    make = mx.np.array if isinstance(tensor, mx.np.ndarray) else mx.nd.array
    make(array, dtype=tensor.dtype).copyto(tensor)


def flat(out, name=""):
    """The tensors that a network returns, by name; from any tuple, dict or object."""
    if isinstance(out, (mx.nd.NDArray, mx.np.ndarray)):
        return [(name, out)]
    if isinstance(out, np.ndarray):
        return [(name, mx.nd.array(out, dtype=out.dtype))]
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
        if isinstance(value, (mx.nd.NDArray, mx.np.ndarray, np.ndarray))
        for each in flat(value, key)
    ]


def make(thing):
    """The network itself: of a class or a function without arguments, what it returns."""
    if isinstance(thing, Block) or not callable(thing):
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
