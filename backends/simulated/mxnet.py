"""MXNet's simulated device: `cpu:1`. MXNet accepts any number of CPU contexts.

An operation on arrays of two contexts raises, as with a GPU. Copies to the host are counted in two
methods, which all conversions to NumPy arrays, Python numbers and other contexts use.
"""

from functools import wraps

from backends.mxnet.train import mx  # through our shim, which makes it run with this NumPy

count = 0


def start():
    """Start counting at the first call, and return the context's name."""
    if not hasattr(mx.nd.NDArray.asnumpy, "__wrapped__"):
        mx.nd.NDArray.asnumpy = counted(mx.nd.NDArray.asnumpy)
        mx.np.ndarray.copyto = counted(mx.np.ndarray.copyto)
    return "cpu:1"


def copies():
    """How many times the host read an array of the device."""
    return count


def counted(method):
    """The method, with a count of the calls that copy from the simulated device."""

    @wraps(method)
    def wrapped(self, *target):
        global count
        stays = any(getattr(other, "ctx", other).device_id == 1 for other in target)
        count += self.ctx.device_id == 1 and not stays
        return method(self, *target)

    return wrapped
