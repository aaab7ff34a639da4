"""Gluon parameters to canonical weights and back.

Gluon's layouts are the canonical ones, and so are the names that `save_parameters` writes, but for
a norm's scale and shift.
"""

from mxnet import np

from common.weights import check


def read_weights(model):
    """Copies of the weights and running statistics by canonical name."""
    return {name: to_canonical(name, p.data()) for name, p in tensors(model).items()}


def write_weights(model, weights):
    """Copy canonical weights into the model, on whatever device it lies."""
    check(model.spec, weights)
    for name, parameter in tensors(model).items():
        parameter.set_data(np.array(to_native(name, weights[name]), dtype=parameter.dtype))


def save(model, path):
    """Write the weights in Gluon's own format: MXNet's binary one, with a norm's gamma and beta."""
    model.save_parameters(str(path))


def load(model, path):
    """Read the weights that `save` wrote; not for files from elsewhere (`googlenet convert`)."""
    model.load_parameters(str(path), ctx=model.head.weight.list_ctx())


def tensors(model):
    """The native parameters that hold the weights, by canonical name."""
    found = model._collect_params_with_prefix()  # as Gluon's own save_parameters does
    return {name.replace("gamma", "weight").replace("beta", "bias"): found[name] for name in found}


def to_canonical(name, tensor):
    """A native tensor, a weight or its gradient, as a canonical array."""
    return tensor.asnumpy()


def to_native(name, array):
    """A canonical array in the native layout."""
    return array
