"""Several workers in Paddle: each its part of a batch, one sum of the gradients.

Paddle's conventions: `paddle.distributed.launch` tells each process PADDLE_TRAINER_ID and all
addresses; a DataParallel around the model averages the gradients while `backward` makes them.
"""

import os
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import paddle
from paddle import Tensor, nn
from paddle import distributed as dist

from backends.paddle.googlenet import GoogLeNet
from backends.paddle.weights import tensors
from common.rendezvous import meet, need_port
from common.weights import is_running


def init_process_group(device: str) -> tuple[int, int]:
    """Join the other workers as the environment says: this worker's rank, and their count.

    WorkersError if the port is taken; it waits for ever for a worker that never comes.
    """
    count = int(os.environ.get("PADDLE_TRAINERS_NUM", 1))
    if count == 1:
        return 0, 1
    if device == "cpu":
        os.environ.setdefault("PADDLE_DISTRI_BACKEND", "gloo")
    paddle.set_device(device)
    rank = int(os.environ["PADDLE_TRAINER_ID"])
    if rank == 0 and "PADDLE_MASTER" in os.environ:
        need_port(os.environ["PADDLE_MASTER"].rpartition(":")[2], "PADDLE_MASTER")
    addresses = os.environ["PADDLE_TRAINER_ENDPOINTS"].split(",")
    meet(addresses, rank, "PADDLE_TRAINER_ENDPOINTS")  # Paddle waits with Python's lock held
    dist.init_parallel_env()
    return rank, count


def destroy_process_group() -> None:
    """Leave the other workers."""
    if dist.is_initialized():
        dist.destroy_process_group()


def all_reduce_sum(numbers: np.ndarray) -> np.ndarray:
    """The sum of all workers' vectors, float64."""
    if not dist.is_initialized():
        return numbers
    tensor = paddle.to_tensor(np.asarray(numbers, np.float64))
    dist.all_reduce(tensor)
    return tensor.numpy()


def wrap_model(model: GoogLeNet) -> nn.Layer:
    """What runs the model so that `backward` leaves the mean of all workers' gradients."""
    if not dist.is_initialized():
        return model
    if model.head.weight.place.is_gpu_place():  # Paddle has no other
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    return paddle.DataParallel(model)


def sync_gradients(network: nn.Layer, last: bool) -> AbstractContextManager[None]:
    """Inside it, `backward` sums over the workers only with the last part of a batch."""
    alone = not isinstance(network, paddle.DataParallel)
    return nullcontext() if alone or last else network.no_sync()


def scale_loss(loss: Tensor, weight: float) -> Tensor:
    """The loss to go backward from: the mean of all workers' is that of the whole batch."""
    return loss * (weight * dist.get_world_size() if dist.is_initialized() else weight)


def sync_batch_norm_stats(model: GoogLeNet) -> None:
    """Give all workers the running statistics of worker 0; each has measured its own."""
    if dist.is_initialized():
        for name, tensor in tensors(model).items():
            if is_running(name):  # parameters that are not trained: Paddle's `buffers` has none
                dist.broadcast(tensor, 0)
