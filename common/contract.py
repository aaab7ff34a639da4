"""What a backend is: the functions that everything outside it calls.

Only NumPy arrays travel: images uint8 (N, C, H, W), inputs float (N, C, H, W), labels int64 (N,),
weights by canonical name. Losses are means over the batch, in nats. A device is named `cpu` or
`gpu:N` in every backend. What is "native" is the framework's own tensor; nothing outside looks
into it.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from common.recipe import Recipe
from common.spec import Spec
from common.weights import Weights

Batches = Iterable[tuple[np.ndarray, np.ndarray]]  #: uint8 images and int64 labels


class Trainer(Protocol):
    """One training run's optimizer over a model, on the device that the model was built on.

    `train_step` leaves the new weights and running statistics in the model itself.
    """

    def __init__(self, model: Any, recipe: Recipe) -> None: ...

    def set_step(self, rate: float, seed: int) -> None:
        """Set the learning rate of the next step, and the seed of its dropout."""

    def prepare(self, images: np.ndarray, flip_mask: np.ndarray | None = None) -> Any:
        """Move uint8 images to the device; mirror, scale to 0..1 and resize them there; native.

        `flip_mask`, bool (N,), says which are mirrored, left to right.
        """

    def train_step(
        self, inputs: Any, labels: Any, weight: float = 1.0, last: bool = True
    ) -> tuple[Any, Any]:
        """One optimizer step on native inputs and labels; the mean loss and the number correct.

        Both are native scalars on the device, of these examples and of the weights before the step.
        `weight` is the share of these examples in the whole batch, that of all workers: the step
        descends the whole batch's mean loss. All workers must take part; the weights sum to 1.
        These examples may be one part of several: unless it is the `last`, no weight changes, and
        the gradients wait for those of the next part.
        """

    def evaluate(self, batches: Batches) -> tuple[Any, Any, int]:
        """The summed loss without smoothing, the number correct, both native; how many examples.

        Of this worker's batches. All workers must take part: each evaluates with the running
        statistics of worker 0.
        """

    def predict(self, images: np.ndarray) -> np.ndarray:
        """The probabilities (N, classes) of uint8 images, in evaluation mode."""

    def read_state(self) -> dict[str, Weights]:
        """The optimizer's state by `Recipe.slots` and canonical name; zeros before a step."""

    def write_state(self, state: dict[str, Weights], steps: int) -> None:
        """Take over such a state, as it was after that many steps."""


class Backend(Protocol):
    """The module that `backends.load` returns."""

    GoogLeNet: type
    Trainer: type[Trainer]
    VERSION: str

    # ---- devices

    def devices(self) -> list[str]:
        """The devices there are: `cpu`, then `gpu:0` and on."""

    def device_name(self, tensor: Any) -> str:
        """The name of the device that a native tensor lies on."""

    def fastest_precision(self, device: str) -> str:
        """What `--precision auto` stands for: `bfloat16` where it is faster, else `float32`."""

    def threads(self) -> int:
        """How many threads compute one operation on the CPU.

        Another number of threads sums in another order, and so rounds differently.
        """

    def out_of_memory(self, error: BaseException) -> bool:
        """Whether the framework says by this exception that the memory is too small."""

    def place(self, model: Any, x: np.ndarray) -> Any:
        """A float array (N, C, H, W) as native input of the model: its dtype, layout and device."""

    def place_labels(self, model: Any, labels: np.ndarray) -> Any:
        """Labels int64 (N,) as a native tensor on the model's device."""

    # ---- the network

    def build(self, spec: Spec, dtype: str, device: str) -> Any:
        """The native network on the device; dtype is `float32`, `float64` or `bfloat16`.

        `bfloat16` is the framework's own mixed precision: the weights stay float32.
        DeviceError where the framework has none.
        """

    def read_weights(self, model: Any) -> Weights:
        """The model's weights and running statistics by canonical name, in the model's dtype."""

    def write_weights(self, model: Any, weights: Weights) -> None:
        """Copy canonical weights into the model; WeightsError if they are another network's."""

    def save(self, model: Any, path: Path) -> None:
        """Write the weights as the framework's users do, in its own format."""

    def save_named(self, arrays: Weights, path: Path) -> None:
        """Write native arrays under the names of another program's class, in the same format."""

    def load(self, model: Any, path: Path) -> None:
        """Read a file that `save` wrote; others' files are read by `common.formats` alone."""

    # ---- what tests and the parity checks ask

    def forward(self, model: Any, x: np.ndarray, training: bool) -> Weights:
        """The output of every stage and head, (N, C, H, W) or (N, C), by name.

        Those of auxiliary heads are `auxiliary.0` and on. For specs without dropout only: what is
        dropped is random.
        """

    def gradients(self, model: Any, x: np.ndarray, labels: np.ndarray) -> tuple[float, Weights]:
        """The loss in training mode, and its gradient by canonical name.

        Auxiliary heads count with their share, here and in `Trainer.train_step`.
        """

    def tensor_devices(self, trainer: Any) -> dict[str, set[str]]:
        """The devices that the trainer's tensors really lie on.

        Keys: `parameters`; `gradients`, of the last step; `state`, of the optimizer.
        """

    # ---- several workers

    def init_process_group(self, device: str) -> tuple[int, int]:
        """Join the other workers as the launcher's environment says: this one's rank, their count.

        (0, 1) where no launcher started this process. Before anything else that computes.
        WorkersError for a port that is taken, DeviceError if the framework would take several GPUs;
        it may wait for ever for a worker that never comes.
        """

    def destroy_process_group(self) -> None:
        """Leave the other workers: once all are done, and the process is about to end."""

    def all_reduce_sum(self, numbers: np.ndarray) -> np.ndarray:
        """The sum of all workers' float64 vectors; each of them must ask, and gets it."""
