"""GoogLeNet in MXNet Gluon, and what its last release needs to run on today's NumPy.

MXNet 1.9.1 uses `numpy.bool` and `numpy.int`, which NumPy removed in 1.24. They are put back, as
the built-in types that they were, before MXNet is imported; MXNet also reads them later, when
arrays are indexed. NumPy 2 removed many more names, so MXNet needs NumPy 1.
"""

import os
import warnings

import numpy as np

from common.errors import BackendError
from common.files import install_command
from common.processor import usable_cores
from common.rendezvous import need_port

if not np.__version__.startswith("1."):
    raise BackendError(
        f"MXNet 1.9.1 cannot run on NumPy {np.__version__}; install what it needs with "
        f"`{install_command('mxnet', 'mxnet')}`."
    )
vars(np).update(bool=bool, int=int)
if not os.environ.get("OMP_NUM_THREADS"):  # MXNet would take half of the cores
    os.environ["OMP_NUM_THREADS"] = str(usable_cores())
if os.environ.get("DMLC_ROLE") == "scheduler":  # the import turns this process into one
    need_port(os.environ["DMLC_PS_ROOT_PORT"], "DMLC_PS_ROOT_PORT")

with warnings.catch_warnings():  # it uses NumPy names that are deprecated
    warnings.simplefilter("ignore", DeprecationWarning)
    from mxnet import __version__ as VERSION
    from mxnet import npx

npx.set_np()  # NumPy semantics: arrays of mxnet.np, zero-dimensional ones included

from backends.mxnet.device import (
    device_name,
    devices,
    fastest_precision,
    out_of_memory,
    place,
    place_labels,
    threads,
)
from backends.mxnet.googlenet import GoogLeNet
from backends.mxnet.parallel import all_reduce_sum, destroy_process_group, init_process_group
from backends.mxnet.probes import forward, gradients, tensor_devices
from backends.mxnet.train import Trainer, build
from backends.mxnet.weights import load, read_weights, save, save_named, write_weights
