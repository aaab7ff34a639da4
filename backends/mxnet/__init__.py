"""GoogLeNet in MXNet Gluon, and what its last release needs to run on today's NumPy.

MXNet 1.9.1 still says `numpy.bool` and `numpy.int`, which NumPy took out in 1.24: the shim puts
these two names back, as the built-in types they stood for, before MXNet is imported (it also reads
them later, when arrays are indexed, so they stay). NumPy 2 took out many more: NumPy 1.26 it is.
"""

import os
import warnings

import numpy as np

from common.errors import BackendError
from common.rendezvous import need_port

if not np.__version__.startswith("1."):
    raise BackendError(
        f"MXNet 1.9.1 cannot run on NumPy {np.__version__}; install what it needs with "
        "`pip install -c constraints/mxnet.txt -e '.[mxnet]'`."
    )
np.bool, np.int = bool, int
if os.environ.get("DMLC_ROLE") == "scheduler":  # which the import makes of this process
    need_port(os.environ["DMLC_PS_ROOT_PORT"], "DMLC_PS_ROOT_PORT")
os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count()))  # MXNet would take half of the cores

with warnings.catch_warnings():  # it asks NumPy for names that are on their way out
    warnings.simplefilter("ignore", DeprecationWarning)
    from mxnet import npx

npx.set_np()  # NumPy semantics: arrays of mxnet.np, zero-dimensional ones included

from backends.mxnet.googlenet import GoogLeNet
from backends.mxnet.parallel import all_reduce_sum, destroy_process_group, init_process_group
from backends.mxnet.train import (
    VERSION,
    Trainer,
    build,
    devices,
    fastest,
    forward,
    gradients,
    out_of_memory,
    place,
)
from backends.mxnet.weights import load, read_weights, save, write_weights

__all__ = [
    "VERSION",
    "GoogLeNet",
    "Trainer",
    "build",
    "devices",
    "fastest",
    "forward",
    "gradients",
    "join",
    "leave",
    "load",
    "out_of_memory",
    "place",
    "read_weights",
    "save",
    "total",
    "write_weights",
]
