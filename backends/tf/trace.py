"""Records what a user's TensorFlow network computes: `googlenet check` runs this file by its path.

It imports TensorFlow and NumPy only, so it runs in the user's environment, beside any module of the
user's. TensorFlow's conventions: an op callback sees every operation that runs eagerly; images are
NHWC, convolutions HWIO, linear layers (in, out); `training=False` sets the mode.
Long because it imports nothing of ours: the file runs alone in the user's environment.
"""

import copy
import inspect
import os
import sys

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
if "keras" in sys.modules:
    FRAMEWORK = sys.modules["keras"].config.backend()
else:
    FRAMEWORK = os.environ.setdefault("KERAS_BACKEND", "tensorflow")
if FRAMEWORK != "tensorflow":
    raise ImportError(f"Keras runs on {FRAMEWORK}: set KERAS_BACKEND to tensorflow")
import keras
import tensorflow as tf
from tensorflow.python import pywrap_tfe
from tensorflow.python.framework import op_callbacks

VERSION = tf.__version__

#: the step that an operation computes; others keep their own name
KINDS = {
    "Conv2D": "conv",
    "MatMul": "linear",
    "FusedBatchNormV3": "norm",
    "Relu": "act",
    "MaxPool": "pool",
    "MaxPoolV2": "pool",
    "AvgPool": "pool",
    "ConcatV2": "concat",
    "Pad": "pad",
    "PadV2": "pad",
    "AddV2": "add",
    "Add": "add",
    "AddN": "add",
    "BiasAdd": "add",
    "Reshape": "reshape",
    "Squeeze": "reshape",
    "ExpandDims": "reshape",
    "Identity": "identity",
    "Cast": "identity",
    "Transpose": "transpose",
}
LEAVES = {
    "conv": {1: "weight"},
    "linear": {1: "weight"},
    "norm": {1: "weight", 2: "bias", 3: "running_mean", 4: "running_var"},
}
DTYPES = ("float64", "float32")  # tried in this order
HALF = (tf.float16, tf.bfloat16)
LAYOUTS = {"conv": "hwio", "linear": "io", "norm": "oi"}
NORM = {
    "weight": "gamma",
    "bias": "beta",
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
}

creation_lines: dict[int, str] = {}  # id of a layer: the line of the user's file that makes it


def prepare(folder):
    """Called before the user's file is run."""
    tf.config.set_visible_devices([], "GPU")
    keras.config.set_floatx(DTYPES[0])
    init = keras.layers.Layer.__init__

    def noting(self, *args, **kwargs):
        creation_lines[id(self)] = user_line(folder)
        init(self, *args, **kwargs)

    keras.layers.Layer.__init__ = noting


def recognises(thing):
    """Whether the object is a network of this framework."""
    return isinstance(thing, (keras.layers.Layer, tf.Module))


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
        self.events, self.modules, self.leaf_of, self.silent = [], [], {}, 0
        self.sources = {}  # id of a tensor made of variables alone: their resources

    def __enter__(self):
        call, normalise = keras.layers.Layer.__call__, tf.nn.batch_normalization
        self.before = call, normalise, tf.config.functions_run_eagerly()
        self.execute = execute = pywrap_tfe.TFE_Py_FastPathExecute

        def reading(context, name, given_name, *args, **kwargs):
            """Run an operation; it would read variables unseen."""
            args = [a.value() if isinstance(a, tf.Variable) else a for a in args]
            return execute(context, name, given_name, *args, **kwargs)

        def seen(layer, *args, **kwargs):
            return self.layer(layer, call, args, kwargs)

        def seen_norm(x, mean, variance, offset, scale, variance_epsilon, name=None):
            leaves = {
                "running_mean": mean,
                "running_var": variance,
                "bias": offset,
                "weight": scale,
            }
            given = (x, mean, variance, offset, scale, variance_epsilon, name)
            return self.norm(lambda: normalise(*given), x, leaves)

        keras.layers.Layer.__call__, tf.nn.batch_normalization = seen, seen_norm
        pywrap_tfe.TFE_Py_FastPathExecute = reading
        tf.config.run_functions_eagerly(True)  # what `tf.function` compiled is seen too
        op_callbacks.add_op_callback(self.note)

    def __exit__(self, *error):
        op_callbacks.remove_op_callback(self.note)
        pywrap_tfe.TFE_Py_FastPathExecute = self.execute
        keras.layers.Layer.__call__, tf.nn.batch_normalization, eagerly = self.before
        tf.config.run_functions_eagerly(eagerly)

    def layer(self, layer, call, args, kwargs):
        """Run a Keras layer; a batch norm is one step, others are seen in their operations."""
        self.modules.append(layer)
        try:
            if type(layer).__name__ != "BatchNormalization" or not args:
                return call(layer, *args, **kwargs)
            found = {leaf: getattr(layer, name, None) for leaf, name in NORM.items()}
            return self.norm(lambda: call(layer, *args, **kwargs), args[0], found)
        finally:
            self.modules.pop()

    def norm(self, run, x, leaves):
        """Run a batch norm as one step."""
        self.silent += 1
        try:
            out = run()
        finally:
            self.silent -= 1
        leaves = {leaf: self.handle(value) for leaf, value in leaves.items() if value is not None}
        numbers = {
            leaf: self.network.leaf(value, "oi")
            for leaf, value in leaves.items()
            if value is not None
        }
        if id(x) in self.made and not self.silent:
            self.add("norm", "batch_normalization", [self.made[id(x)]], numbers, out)
        return out

    def handle(self, variable):
        """The resource of a variable of Keras or TensorFlow, or of a tensor read from one."""
        variable = getattr(variable, "value", variable)
        if callable(variable):
            variable = variable.__self__
        if id(variable) in self.leaf_of:
            return self.leaf_of[id(variable)][0]
        return getattr(variable, "handle", None)

    def note(self, op_type, inputs, attrs, outputs, op_name=None, graph=None):
        """Record the tensors that an operation made from the network's input."""
        if graph is not None:
            return
        name = op_type.decode() if isinstance(op_type, bytes) else op_type
        self.keep += [*inputs, *outputs]
        if name == "ReadVariableOp":
            self.leaf_of[id(outputs[0])] = inputs[0], ""
            small = outputs[0].shape.num_elements() == max(outputs[0].shape, default=0) > 1
            self.sources[id(outputs[0])] = [inputs[0]] if small else []
            return
        sources = {id(each): each for t in inputs for each in self.sources.get(id(t), ())}
        data = [self.made[id(t)] for t in inputs if id(t) in self.made]
        attrs = dict(zip(attrs[::2], attrs[1::2], strict=False)) if attrs else {}
        if not data:
            self.sources |= {id(t): list(sources.values()) for t in outputs}
            leaf = self.leaf_of.get(id(inputs[0])) if inputs else None
            moved = ("Reshape", "Squeeze", "ExpandDims", "Identity", "Cast", "Transpose")
            if leaf and name in moved:
                turned = name == "Transpose" and outputs[0].shape.rank == 2
                self.leaf_of[id(outputs[0])] = leaf[0], "turned" if turned else leaf[1]
            return
        kind, numbers = KINDS.get(name, name), {}
        if attrs.get("data_format") == b"NCHW":
            self.network.first = True
        for place, leaf in LEAVES.get(kind, {}).items():
            found = self.leaf_of.get(id(inputs[place])) if place < len(inputs) else None
            if found:
                layout = LAYOUTS[kind]
                if kind == "linear" and bool(attrs.get("transpose_b")) != (found[1] == "turned"):
                    layout = "oi"
                numbers[leaf] = self.network.leaf(found[0], layout)
        if kind == "add" and len(data) == 1 and len(inputs) == 2:
            found = next((self.leaf_of[id(t)] for t in inputs if id(t) in self.leaf_of), None)
            if found:
                kind, numbers["bias"] = "bias", self.network.leaf(found[0], "c")
        if not numbers:  # a norm may be written so
            found = [self.network.leaf(each, "c") for each in sources.values()]
            numbers = {str(n): n for n in found}
        if kind == "linear" and not numbers:
            kind = name
        for t in outputs:
            dtype = getattr(t, "dtype", None)
            if dtype in HALF:
                self.network.reduced = dtype.name
            if dtype in (tf.float32, tf.float64) and t.shape.rank in (2, 3, 4, 5):
                if self.silent:
                    self.made[id(t)] = data[0]
                else:
                    self.add(kind, name, data, numbers, t)

    def add(self, kind, name, data, leaves, out):
        """Record a tensor."""
        module = self.modules[-1] if self.modules else None
        own = type(module).__module__.startswith("keras.")
        container = isinstance(module, (keras.Model, keras.Sequential))
        made_at = creation_lines.get(id(module), "") if own and not container else ""
        self.events.append(
            {
                "op": kind,
                "name": name,
                "inputs": data,
                "leaves": leaves,
                "path": ".".join(m.name for m in self.modules[-3:]),
                "layer": type(module).__name__ if own and not container else "",
                "line": made_at or user_line(self.network.folder),
                "out": self.network.to_numpy(out),
            }
        )
        self.made[id(out)] = len(self.events) - 1
        self.keep.append(out)


class Network:
    """The user's network: a Keras model, its class, a function that makes it, or a function."""

    dtype = "float64"
    reduced = ""  # the half precision that a part of a run computed in

    def __init__(self, thing, x, folder):
        self.folder, self.notes, self.leaves, self.layout = folder, [], [], "NHWC"
        self.first, self.originals = False, []
        self.settle(thing, x)

    def settle(self, thing, x):
        """Find the layout of the input that the network runs with, and its dtype."""
        first = None
        for layout in ("NHWC", "NCHW"):
            for dtype in DTYPES:
                self.layout, self.dtype, self.reduced = layout, dtype, ""
                self.net = make(fresh(thing))
                try:
                    out = self.call(self.input(x))
                    kinds = {t.dtype for _, t in flat(out)}
                    self.dtype = "float64" if kinds == {tf.float64} else "float32"
                    self.trace(x)
                    self.dtype = self.reduced or self.dtype
                    return
                except Exception as error:
                    first = first or error
        raise first

    def input(self, x):
        """An array (N, C, H, W) as the network takes it."""
        x = np.ascontiguousarray(x if self.layout == "NCHW" else np.transpose(x, (0, 2, 3, 1)))
        return tf.constant(x, self.dtype)

    def call(self, x):
        """Run the network in evaluation mode."""
        if isinstance(self.net, keras.layers.Layer):
            return self.net(x, training=False)
        return self.net(x, **({"training": False} if "training" in arguments(self.net) else {}))

    def leaf(self, handle, layout):
        """The number of a weight, by its variable's resource; `layout` is the order of its axes."""
        for number, (other, _) in enumerate(self.leaves):
            if other is handle:
                return number
        self.leaves.append((handle, layout))
        self.originals.append(self.array(len(self.leaves) - 1)[0])
        return len(self.leaves) - 1

    def trace(self, x):
        """Run the network on x (N, C, H, W): every tensor it makes, and what it returns."""
        x = self.input(x)
        mode = Mode(self, x)
        with mode:
            out = self.call(x)
        outputs = [
            {"name": name, "event": mode.made.get(id(t), None), "out": self.to_numpy(t)}
            for name, t in flat(out)
        ]
        return {"events": mode.events, "outputs": outputs}

    def to_numpy(self, t):
        """A copy of the tensor as float64, images as (N, C, H, W)."""
        array = t.numpy().astype(np.float64)
        return np.ascontiguousarray(array if array.ndim != 4 or self.first else to_nchw(array))

    def array(self, number):
        """A weight as it is, and the order of its axes."""
        handle, layout = self.leaves[number]
        for kind in (tf.float64, tf.float32):
            try:
                return tf.raw_ops.ReadVariableOp(resource=handle, dtype=kind).numpy(), layout
            except Exception:
                continue
        raise TypeError("a weight is neither float32 nor float64")

    def parts(self):
        """The network as a Keras model, whose weights a file can hold."""
        if not isinstance(self.net, keras.Model):
            raise TypeError("a file of weights needs a Keras model, not a function")
        return self.net

    def savable(self):
        """True; TypeError unless a file can hold the weights."""
        return self.parts() is not None

    def save(self, path):
        """Write the weights to a file, with the framework's own function."""
        net = self.parts()
        net.save(path) if path.endswith(".keras") else net.save_weights(path)

    def put(self, path):
        """Read a file that Keras wrote: its names are not those of the variables."""
        self.parts().load_weights(path)

    def start(self, make_step):
        """Make the user's training step; the answer is whether it takes a rate too."""
        self.user_step = make_step(self.net)
        if not callable(self.user_step):
            raise TypeError(f"the step's function returned {self.user_step!r}, not a step")
        return len(required(self.user_step)) > 2

    def train(self, x, labels, rate):
        """One training step of the user's, on x (N, C, H, W) and labels (N,)."""
        self.user_step(self.input(x), tf.constant(labels), *rate)

    def shapes(self):
        """The canonical shapes of the weights, by number."""
        return [array.shape for array in self.read()]

    def read(self):
        """The weights by number, in canonical layout."""
        return [
            np.ascontiguousarray(to_canonical(*self.array(n)).astype(np.float64))
            for n in range(len(self.leaves))
        ]

    def write(self, arrays):
        """Copy canonical arrays into the weights, by number."""
        for number, array in arrays.items():
            old, layout = self.array(number)
            array = array.reshape(to_canonical(old, layout).shape)
            new = to_native(array, layout).astype(old.dtype).reshape(old.shape)
            tf.raw_ops.AssignVariableOp(resource=self.leaves[number][0], value=tf.constant(new))

    def close(self):
        """Leave the network as it was."""
        for (handle, _), array in zip(self.leaves, self.originals, strict=False):
            tf.raw_ops.AssignVariableOp(resource=handle, value=tf.constant(array))


def to_nchw(array):
    """(N, H, W, C) to (N, C, H, W)."""
    return array.transpose(0, 3, 1, 2)


def to_canonical(array, layout):
    """A weight with its axes in the order (out, in, height, width)."""
    if layout == "c":  # a number for each channel
        return array.reshape(-1)
    if layout == "hwio" and array.ndim == 4:
        return array.transpose(3, 2, 0, 1)
    return array.T if layout == "io" and array.ndim == 2 else array


def to_native(array, layout):
    """The inverse of `to_canonical`."""
    if layout == "hwio" and array.ndim == 4:
        return array.transpose(2, 3, 1, 0)
    return array.T if layout == "io" and array.ndim == 2 else array


def flat(out, name=""):
    """The tensors that a network returns, by name; from any tuple, dict or object."""
    if isinstance(out, tf.Tensor):
        return [(name, out)]
    if isinstance(out, np.ndarray):
        return [(name, tf.constant(out))]
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
        if isinstance(value, (tf.Tensor, np.ndarray))
        for each in flat(value, key)
    ]


def fresh(thing):
    """A copy of a layer without weights: a failed run would leave some of wrong shapes."""
    if isinstance(thing, keras.layers.Layer) and not thing.built:
        try:
            made = copy.deepcopy(thing)
            for old, new in zip(thing._flatten_layers(), made._flatten_layers(), strict=False):
                creation_lines[id(new)] = creation_lines.get(id(old), "")
            return made
        except Exception:
            return thing
    return thing


def make(thing):
    """The network itself: of a class or a function without arguments, what it returns."""
    if recognises(thing) or not callable(thing) or hasattr(thing, "get_concrete_function"):
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


def arguments(thing):
    """The parameters of a call, by name."""
    try:
        return dict(inspect.signature(thing).parameters)
    except (TypeError, ValueError):
        return {}


def required(thing):
    """The names of the arguments that a call must give."""
    return [
        name
        for name, p in arguments(thing).items()
        if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
