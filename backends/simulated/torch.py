"""PyTorch's simulated device: `simulated:0`, a private-use device written in Python.

A tensor on it is a wrapper around a CPU tensor. `dispatch` receives every operation on such a
tensor, enforces CUDA's rules and runs the operation on the CPU. Source: PyTorch's notes on wrapper
subclasses and on the private-use backend (`torch.utils.backend_registration`).
"""

import torch
from torch.utils._pytree import tree_leaves, tree_map

from common.errors import DeviceError

aten = torch.ops.aten
host = torch.device("cpu")

#: operations between devices; all other operations need their tensors on one device
TRANSFERS = (aten.copy_.default, aten._to_copy.default)
#: operations whose result the host waits for
READS = (aten._local_scalar_dense.default, aten.equal.default, aten.nonzero.default)
#: operations of this network that `torch.autocast` runs in lower precision on a GPU
LOWER = ("conv2d", "linear")

registered: list[torch.library.Library] = []  # PyTorch drops a library that is not referenced
count = 0


def start():
    """Register the device and return its name; DeviceError on a machine with a GPU."""
    if not registered:
        if torch.cuda.is_available():
            raise DeviceError(
                "PyTorch has no simulated device on a machine with a GPU: use `--device gpu`, or "
                "hide the GPU with the environment variable CUDA_VISIBLE_DEVICES=-1."
            )
        try:
            from torch.utils.backend_registration import _setup_privateuseone_for_python_backend
        except ImportError as error:
            raise DeviceError(
                f"PyTorch {torch.__version__} is too old for a simulated device: install the "
                "version in constraints/torch.txt."
            ) from error
        _setup_privateuseone_for_python_backend("simulated", Module())
        kernels = torch.library.Library("aten", "IMPL")
        # all functions that make a tensor call one of these two
        kernels.impl("empty.memory_format", factory(aten.empty.memory_format), "PrivateUse1")
        kernels.impl("empty_strided", factory(aten.empty_strided.default), "PrivateUse1")
        for name in LOWER:
            kernels.impl(name, lowered(getattr(torch.nn.functional, name)), "AutocastPrivateUse1")
        kernels.impl("cat", promoted, "AutocastPrivateUse1")
        others = torch.library.Library("_", "IMPL")
        others.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
        registered.extend((kernels, others))
    return "simulated:0"


def copies():
    """How many copies from the device to the host there were."""
    return count


class Module:
    """The functions that PyTorch calls in `torch.simulated`."""

    def is_available(self):
        """The device is always available."""
        return True

    is_initialized = is_available

    def device_count(self):
        """There is one device."""
        return 1

    def current_device(self):
        """The index of the only device."""
        return 0

    def _is_in_bad_fork(self):
        return False

    def manual_seed_all(self, seed):
        """Do nothing: random numbers are drawn on the host."""

    def get_amp_supported_dtype(self):
        """The lower precisions of `torch.autocast`."""
        return [torch.bfloat16]


class Tensor(torch.Tensor):
    """A tensor on the simulated device; `data_on_host` holds its values."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, data_on_host):
        """Wrap the host's tensor."""
        tensor = torch.Tensor._make_wrapper_subclass(
            cls,
            data_on_host.size(),
            strides=data_on_host.stride(),
            storage_offset=data_on_host.storage_offset(),
            dtype=data_on_host.dtype,
            device="simulated:0",
        )
        tensor.data_on_host = data_on_host
        return tensor

    def __repr__(self):
        return f"simulated {self.data_on_host}"

    @classmethod
    def __torch_dispatch__(cls, operation, types, args=(), kwargs=None):
        """Run one operation."""
        return dispatch(operation, args, kwargs or {})


def dispatch(operation, args, kwargs):
    """Run an operation on the host's tensors; its results are on the simulated device.

    RuntimeError, as in CUDA, if an argument is a CPU tensor and not a scalar.
    """
    global count
    moves = operation in TRANSFERS
    for tensor in tree_leaves((args, kwargs)):
        on_cpu = isinstance(tensor, torch.Tensor) and not isinstance(tensor, Tensor)
        if on_cpu and tensor.ndim and not moves:
            raise RuntimeError(
                f"Expected all tensors to be on the same device, but {operation} got simulated:0 "
                f"and a tensor {tuple(tensor.shape)} on {tensor.device}"
            )
    if operation is aten.copy_.default:
        to_host = not isinstance(args[0], Tensor)
    else:
        to_host = torch.device(kwargs.get("device") or "simulated").type == "cpu"
    count += operation in READS or (moves and to_host)

    own = {}  # an in-place operation returns its own argument

    def unwrap(value):
        if isinstance(value, Tensor):
            own[id(value.data_on_host)] = value
            return value.data_on_host
        return host if isinstance(value, torch.device) else value

    def wrap(value):
        if not isinstance(value, torch.Tensor) or to_host:
            return value
        return own[id(value)] if id(value) in own else Tensor(value)

    return tree_map(wrap, operation(*tree_map(unwrap, args), **tree_map(unwrap, kwargs)))


def factory(operation):
    """A kernel that makes a tensor on the simulated device."""

    def kernel(*args, device=None, pin_memory=None, **kwargs):
        return Tensor(operation(*args, device=host, **kwargs))

    return kernel


def without_autocast():
    """A context without autocast, so that a kernel can call the operation itself."""
    key = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)
    return torch._C._ExcludeDispatchKeyGuard(key)


def lowered(operation):
    """The operation under autocast: its float32 tensors become bfloat16."""

    def lower(value):
        single = isinstance(value, torch.Tensor) and value.dtype == torch.float32
        return value.to(torch.get_autocast_dtype("simulated")) if single else value

    def kernel(*args, **kwargs):
        with without_autocast():
            return operation(*map(lower, args), **kwargs)

    return kernel


def promoted(tensors, dim=0):
    """`cat` under autocast: all tensors get the widest dtype."""
    with without_autocast():
        widest = max((tensor.dtype for tensor in tensors), key=lambda dtype: dtype.itemsize)
        return torch.cat([tensor.to(widest) for tensor in tensors], dim)
