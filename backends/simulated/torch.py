"""PyTorch's simulated device: `simulated:0`, the private-use device, written in Python.

A tensor on it is a wrapper around a CPU tensor. Every operation on one comes through `dispatch`,
which holds it to CUDA's rules and then really runs it. Source: PyTorch's notes on wrapper
subclasses and on the private-use backend (`torch.utils.backend_registration`).
"""

import torch
from torch.utils._pytree import tree_leaves, tree_map

from common.errors import DeviceError

aten = torch.ops.aten
host = torch.device("cpu")

#: operations between devices; all others want their tensors on one
TRANSFERS = (aten.copy_.default, aten._to_copy.default)
#: operations whose result the host must wait for
READS = (aten._local_scalar_dense.default, aten.equal.default, aten.nonzero.default)
#: what `torch.autocast` runs in the lower precision on a GPU, as far as this network needs it
LOWER = ("conv2d", "linear")

registered = []  # libraries last as long as they are held
count = 0


def start():
    """Register the device; its name. DeviceError beside a GPU: a process has one accelerator."""
    if not registered:
        if torch.cuda.is_available():
            raise DeviceError(
                "PyTorch takes no simulated device beside a GPU: use it with `--device gpu`, or "
                "hide it with the environment's CUDA_VISIBLE_DEVICES=-1."
            )
        try:
            from torch.utils.backend_registration import _setup_privateuseone_for_python_backend
        except ImportError as error:
            raise DeviceError(
                f"PyTorch {torch.__version__} is too old for a simulated device: install what "
                "constraints/torch.txt names."
            ) from error
        _setup_privateuseone_for_python_backend("simulated", Module())
        kernels = torch.library.Library("aten", "IMPL")
        # all other ways to make a tensor end in these two
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
    """How often something was copied from the device to the host."""
    return count


class Module:
    """What PyTorch asks of `torch.simulated`."""

    def is_available(self):
        """It is there."""
        return True

    is_initialized = is_available

    def device_count(self):
        """There is one."""
        return 1

    def current_device(self):
        """It is the first."""
        return 0

    def _is_in_bad_fork(self):
        return False

    def manual_seed_all(self, seed):
        """Random numbers are drawn on the host."""

    def get_amp_supported_dtype(self):
        """What `torch.autocast` may lower to."""
        return [torch.bfloat16]


class Tensor(torch.Tensor):
    """A tensor on the simulated device; `data_on_host` holds its values."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, data_on_host):
        """A view of the host's tensor."""
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

    RuntimeError, as CUDA's, for a CPU tensor among its arguments that is no scalar.
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

    own = {}  # what an operation in place returns is the tensor that it was given

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
    """The kernel that makes a tensor on the simulated device."""

    def kernel(*args, device=None, pin_memory=None, **kwargs):
        return Tensor(operation(*args, device=host, **kwargs))

    return kernel


def without_autocast():
    """A context in which an operation is not caught by autocast again."""
    key = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)
    return torch._C._ExcludeDispatchKeyGuard(key)


def lowered(operation):
    """The operation under autocast: its float32 tensors as bfloat16."""

    def lower(value):
        single = isinstance(value, torch.Tensor) and value.dtype == torch.float32
        return value.to(torch.get_autocast_dtype("simulated")) if single else value

    def kernel(*args, **kwargs):
        with without_autocast():
            return operation(*map(lower, args), **kwargs)

    return kernel


def promoted(tensors, dim=0):
    """`cat` under autocast: in the widest dtype of its tensors."""
    with without_autocast():
        widest = max((tensor.dtype for tensor in tensors), key=lambda dtype: dtype.itemsize)
        return torch.cat([tensor.to(widest) for tensor in tensors], dim)
