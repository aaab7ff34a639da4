"""Records what a user's PyTorch network computes: `googlenet check` runs this file by its path.

It imports PyTorch and NumPy only, so it runs in the user's environment, beside any module of the
user's. PyTorch's conventions: a `TorchFunctionMode` sees every call of a function; convolutions are
OIHW, linear layers (out, in); `eval()` switches the mode.
Long because it imports nothing of ours: the file runs alone in the user's environment.
"""

import copy
import inspect
import os
import sys

import numpy as np
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

VERSION = torch.__version__
DTYPES = ("float64", "float32")  # tried in this order
HALF = (torch.float16, torch.bfloat16)

#: the step that a function computes; others keep their own name
KINDS = {
    "conv2d": "conv",
    "linear": "linear",
    "batch_norm": "norm",
    "relu": "act",
    "relu_": "act",
    "max_pool2d": "pool",
    "avg_pool2d": "pool",
    "adaptive_avg_pool2d": "pool",
    "adaptive_max_pool2d": "pool",
    "cat": "concat",
    "concat": "concat",
    "concatenate": "concat",
    "pad": "pad",
    "add": "add",
    "add_": "add",
    "__add__": "add",
    "__radd__": "add",
    "__iadd__": "add",
    "dropout": "dropout",
    "matmul": "matmul",
    "__matmul__": "matmul",
    "mm": "matmul",
    "addmm": "addmm",
    "flatten": "reshape",
    "reshape": "reshape",
    "view": "reshape",
}
#: steps that take a shape from a tensor, and no values
EMPTY = ("new_empty", "new_zeros", "new_full", "new_ones", "empty_like", "zeros_like")
LEAVES = {
    "conv": {1: "weight", 2: "bias"},
    "linear": {1: "weight", 2: "bias"},
    "norm": {1: "running_mean", 2: "running_var", 3: "weight", 4: "bias"},
}


def prepare(folder):
    """Called before the user's file is run."""
    init = nn.Module.__init__

    def noting(self, *args, **kwargs):
        init(self, *args, **kwargs)
        self.__dict__["_made_at"] = user_line(folder)

    nn.Module.__init__ = noting


def recognises(thing):
    """Whether the object is a network of this framework."""
    return isinstance(thing, nn.Module)


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


class Mode(TorchFunctionMode):
    """Sees every function call of a run."""

    def __init__(self, network, x):
        super().__init__()
        self.network, self.made, self.keep = network, {id(x): -1}, [x]
        self.events, self.modules, self.derived = [], [], {}
        self.sources = {}  # id of a tensor made of weights alone: those weights

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if not self.network.module:
            self.cast(args)
        out = func(*args, **(kwargs or {}))
        self.note(getattr(func, "__name__", str(func)), args, kwargs or {}, out)
        return out

    def cast(self, args):
        """Give raw weights the dtype of the run, where a function takes them with data."""
        dtype = getattr(torch, self.network.dtype)
        if any(isinstance(t, torch.Tensor) and id(t) in self.made for t in args):
            for t in args:
                raw = isinstance(t, torch.Tensor) and id(t) not in self.made
                if raw and t.is_floating_point() and t.dtype != dtype and t.is_leaf:
                    self.network.leaf(t, "oi")
                    t.data = t.data.to(dtype)

    def weights(self, tensors):
        """The weights with one number for each channel that these tensors are made of."""
        found = {}
        for tensor in tensors:
            if id(tensor) not in self.made:
                for t in self.sources.get(id(tensor), [tensor]):
                    if t.is_floating_point() and t.numel() == max(t.shape, default=0) > 1:
                        found[id(t)] = t
        return list(found.values())

    def note(self, name, args, kwargs, out):
        """Record the tensors that a call made from the network's input."""
        kind = KINDS.get(name, name)
        given = [*args, *kwargs.values()]
        tensors = [t for a in given for t in (a if isinstance(a, (list, tuple)) else (a,))]
        tensors = [t for t in tensors if isinstance(t, torch.Tensor)]
        data = [self.made[id(t)] for t in tensors if id(t) in self.made]
        outputs = list(out) if isinstance(out, (list, tuple)) else [out]
        outputs = [t for t in outputs if isinstance(t, torch.Tensor) and t.is_floating_point()]
        if name in EMPTY:
            return
        if name == "__setitem__" and data:
            kind, data = self.filled(args[0], data)
            outputs = [args[0]]
        if not data:
            for t in outputs:
                self.sources[id(t)] = self.weights(tensors)
                self.network.single |= bool(self.sources[id(t)]) and t.dtype == torch.float32
                self.keep += [t, *tensors]
            for t in outputs:  # a function of the weights alone, such as `W.T`
                if len(tensors) == 1 and t.ndim == 2 and t.shape == tensors[0].shape[::-1]:
                    self.derived[id(t)] = tensors[0]
                    self.keep.append(t)
            return
        leaves = {}
        for place, leaf in LEAVES.get(kind, {}).items():
            value = args[place] if place < len(args) else kwargs.get(leaf)
            if isinstance(value, torch.Tensor) and id(value) not in self.made:
                leaves[leaf] = self.network.leaf(value, "oi")
        if kind == "matmul" and len(data) == 1 and len(tensors) == 2 and tensors[1].ndim == 2:
            kind, other = "linear", tensors[1]
            source = self.derived.get(id(other))
            leaves["weight"] = self.network.leaf(
                *((other, "io") if source is None else (source, "oi"))
            )
        if kind == "addmm" and len(data) == 1 and len(tensors) == 3 and id(tensors[1]) in self.made:
            kind, source = "linear", self.derived.get(id(tensors[2]))
            weight = (tensors[2], "io") if source is None else (source, "oi")
            leaves["bias"] = self.network.leaf(tensors[0], "oi")
            leaves["weight"] = self.network.leaf(*weight)
        if kind == "add" and len(data) == 1 and len(tensors) == 2:
            other = next((t for t in tensors if id(t) not in self.made), None)
            of = self.weights(tensors)
            if len(of) == 1 and of[0].data_ptr() == other.data_ptr():  # itself, or a view of it
                kind, leaves["bias"] = "bias", self.network.leaf(of[0], "c")
        if not leaves:  # a norm may be written so
            numbers = [self.network.leaf(t, "c") for t in self.weights(tensors)]
            leaves = {str(n): n for n in numbers}
        for t in outputs:
            if t.ndim not in (2, 3, 4, 5):
                continue
            if t.dtype in HALF:
                self.network.reduced = str(t.dtype).removeprefix("torch.")
            module = self.modules[-1] if self.modules else ("", None)
            own = type(module[1]).__module__.startswith("torch.")
            made_at = getattr(module[1], "_made_at", "") if own else ""
            event = {
                "op": kind,
                "name": name,
                "inputs": data,
                "leaves": leaves,
                "path": module[0],
                "layer": type(module[1]).__name__ if own else "",
                "line": made_at or user_line(self.network.folder),
                "out": to_numpy(t),
            }
            self.events.append(event)
            self.network.single |= t.dtype == torch.float32
            self.made[id(t)] = len(self.events) - 1
            self.keep.append(t)

    def filled(self, whole, data):
        """The kind and the inputs of an assignment to a part: of an empty tensor, a concatenation.

        The last of several assignments is the whole of it.
        """
        if id(whole) not in self.made:
            return "concat", data
        last = self.events[self.made[id(whole)]] if self.made[id(whole)] >= 0 else {"name": ""}
        if last["name"] != "__setitem__":
            return "__setitem__", data
        kind, last["op"] = last["op"], "__setitem__"
        return kind, [*last["inputs"], *data[1:]]


def to_numpy(t):
    """A copy of the tensor as float64."""
    return t.detach().cpu().double().numpy().copy()


def canonical(array, layout):
    """A weight with its axes in the order (out, in, height, width)."""
    if layout == "c":
        return array.reshape(-1)
    return array.T.copy() if layout == "io" and array.ndim == 2 else array


class Network:
    """The user's network: an `nn.Module`, its class, a function that makes it, or a function."""

    dtype = "float64"
    single = False  # whether a run computed in float32
    reduced = ""  # the half precision that a part of a run computed in

    def __init__(self, thing, x, folder):
        self.folder, self.notes, self.leaves, self.layout = folder, [], [], "NCHW"
        self.originals = []
        self.net = make(thing)
        self.module = isinstance(self.net, nn.Module)
        if self.module:
            self.net = copy.deepcopy(self.net).cpu().eval()
            if any(
                isinstance(p, nn.parameter.UninitializedParameter) for p in self.net.parameters()
            ):
                with torch.no_grad():
                    self.net(torch.from_numpy(x))  # lazy layers learn their shapes
            for name, module in self.net.named_modules():
                if name and isinstance(module, torch.jit.ScriptModule):
                    self.notes.append(
                        f"{name} is compiled by TorchScript, so its layers cannot be seen. Give "
                        "the module before `torch.jit.script` or `trace`."
                    )
                    break
        scripted = (torch.jit.ScriptModule, torch.jit.ScriptFunction)
        if isinstance(self.net, scripted) or hasattr(self.net, "_orig_mod"):
            if hasattr(self.net, "_orig_mod"):
                self.net = self.net._orig_mod
                self.notes.append("The network is compiled; its eager original is looked at.")
            else:
                self.notes.append(
                    "The network is compiled by TorchScript: only its outputs can be compared. "
                    "Give the module before `torch.jit.script` or `trace` to see its layers."
                )
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
                try:
                    found = self.trace(x)["events"]
                    moved = layout == "NCHW" or any(e["out"].shape == x.shape for e in found)
                    if not moved:  # its convolutions take channels first
                        raise ValueError("the network takes no images with the channels last")
                    if self.single and dtype == "float64":  # it casts by itself
                        self.dtype = "float32"
                        self.trace(x)  # `torch.autocast` acts in float32 only
                    self.dtype = self.reduced or self.dtype
                    return
                except Exception as error:
                    first = first or error
        raise first

    def leaf(self, tensor, layout):
        """The number of a weight; its layout is `oi` (out first), `io` (out last) or `c` (flat)."""
        for number, (other, old) in enumerate(self.leaves):
            view = old == layout == "c" and other.data_ptr() == tensor.data_ptr()
            if other is tensor or (view and other.shape == tensor.shape):
                self.leaves[number] = tensor, layout
                return number
        self.leaves.append((tensor, layout))
        self.originals.append(tensor.data.clone())
        return len(self.leaves) - 1

    def cast(self):
        """Give the weights the dtype of the run."""
        dtype = getattr(torch, self.dtype)
        if self.module:
            self.net.to(dtype)
        for tensor, layout in self.leaves:
            if layout != "c" and tensor.is_floating_point() and tensor.dtype != dtype:
                tensor.data = tensor.data.to(dtype)

    def input(self, x):
        """An array (N, C, H, W) as the network takes it."""
        x = torch.from_numpy(np.ascontiguousarray(x)).to(getattr(torch, self.dtype))
        return x.permute(0, 2, 3, 1).contiguous() if self.layout == "NHWC" else x

    def trace(self, x):
        """Run the network on x (N, C, H, W): every tensor it makes, and what it returns."""
        self.cast()
        x = self.input(x)
        mode, hooks = Mode(self, x), []

        def enter(name):
            return lambda module, args: mode.modules.append((name, module))

        for name, module in self.net.named_modules() if self.module else ():
            if not isinstance(module, torch.jit.ScriptModule):
                hooks.append(module.register_forward_pre_hook(enter(name)))
                hooks.append(module.register_forward_hook(lambda *_: mode.modules.pop() and None))
        try:
            with mode, torch.no_grad():
                out = self.net(x)
        finally:
            for hook in hooks:
                hook.remove()
        outputs = [
            {"name": name, "event": mode.made.get(id(t), None), "out": to_numpy(t)}
            for name, t in flat(out)
        ]
        return {"events": mode.events, "outputs": outputs}

    def parts(self):
        """The network as an nn.Module, whose weights a file can hold."""
        if not self.module:
            raise TypeError("a file of weights needs an nn.Module, not a function")
        return self.net

    def savable(self):
        """True; TypeError unless a file can hold the weights."""
        return self.parts() is not None

    def save(self, path):
        """Write the weights to a file, with the framework's own function."""
        torch.save(self.parts().state_dict(), path)

    def put(self, arrays):
        """Take over arrays by the names in a file."""
        own = self.parts().state_dict()
        names = [name for name, t in own.items() if t.is_floating_point()]  # counters are not
        start = beginning(names, arrays)
        for name in names:
            shapes = tuple(arrays[start + name].shape), tuple(own[name].shape)
            if shapes[0] != shapes[1]:
                raise ValueError(f"{name} is {shapes[0]} in the file, {shapes[1]} in the network")
        found = {name: torch.from_numpy(arrays[start + name]) for name in names}
        self.net.load_state_dict(found, strict=False)

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
        self.user_step(self.input(x), torch.from_numpy(labels), *rate)

    def shapes(self):
        """The canonical shapes of the weights, by number."""
        return [canonical(np.empty(t.shape), layout).shape for t, layout in self.leaves]

    def read(self):
        """The weights by number, in canonical layout."""
        return [canonical(to_numpy(t), layout) for t, layout in self.leaves]

    def write(self, arrays):
        """Copy canonical arrays into the weights, by number."""
        with torch.no_grad():
            for number, array in arrays.items():
                t, layout = self.leaves[number]
                array = array.T if layout == "io" and array.ndim == 2 else array
                t.copy_(torch.from_numpy(np.ascontiguousarray(array)).reshape(t.shape))

    def close(self):
        """Leave the network as it was; a module is a copy, but functions use the user's tensors."""
        for (tensor, _), array in zip(self.leaves, self.originals, strict=False):
            tensor.data = array


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
    if isinstance(out, torch.Tensor):
        return [(name, out)]
    if isinstance(out, np.ndarray):
        return [(name, torch.from_numpy(out))]
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
        if isinstance(value, (torch.Tensor, np.ndarray))
        for each in flat(value, key)
    ]


def make(thing):
    """The network itself: of a class or a function without arguments, what it returns."""
    if isinstance(thing, nn.Module) or not callable(thing):
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
