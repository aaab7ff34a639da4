"""GoogLeNet in PaddlePaddle. Import it before Paddle, which would keep to one thread."""

import os
import warnings

from common.processor import usable_cores

chosen = os.environ.get("OMP_NUM_THREADS")  # Paddle's import sets 1 where nothing is set

# Paddle's import advises to install a compiler cache, which nothing here would use ...
warnings.filterwarnings("ignore", message="No ccache found")
# ... and it warns at each step of a batch norm that it does what it is asked to do.
warnings.filterwarnings("ignore", message="When training, we now always track global mean")

from paddle import __version__ as VERSION  # after the filters  # noqa: E402
from paddle.base import core  # noqa: E402

if not chosen:
    os.environ["OMP_NUM_THREADS"] = str(usable_cores())
    core.set_num_threads(usable_cores())

from backends.paddle.device import (  # noqa: E402
    device_name,
    devices,
    fastest_precision,
    out_of_memory,
    place,
    place_labels,
    threads,
)
from backends.paddle.googlenet import GoogLeNet  # noqa: E402
from backends.paddle.parallel import all_reduce_sum, destroy_process_group, init_process_group  # noqa: E402
from backends.paddle.probes import forward, gradients, tensor_devices  # noqa: E402
from backends.paddle.train import Trainer, build  # noqa: E402
from backends.paddle.weights import load, read_weights, save, save_named, write_weights  # noqa: E402
