"""What a backend is: the functions that everything outside it calls.

Only NumPy arrays travel: images uint8 (N, C, 28, 28), inputs float (N, C, H, W), labels int64 (N,),
weights by canonical name. Losses are means over the batch, in nats. A device is named `cpu` or
`gpu:N` in every backend. What is "native" is the framework's own tensor and is never looked into.
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

    `update` leaves the new weights and running statistics in the model itself.
    """

    def __init__(self, model: Any, recipe: Recipe) -> None: ...

    def tune(self, rate: float, seed: int) -> None:
        """Set the learning rate of the next step, and what its dropout is drawn from."""

    def prepare(self, images: np.ndarray, flips: np.ndarray | None = None) -> Any:
        """Move uint8 images to the device; mirror, scale to 0..1 and resize them there; native.

        `flips`, bool (N,), says which are mirrored, left to right.
        """

    def update(self, inputs: Any, labels: np.ndarray, share: float = 1.0) -> tuple[Any, Any]:
        """One optimizer step on native inputs; the mean loss and the number right, both native.

        The two are scalars on the device, of these examples and of the weights before the step.
        `share` is what these examples are of the whole batch, that of all workers: its mean loss
        is what the step goes down. All workers must take part; the shares sum to 1.
        """

    def step(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        flips: np.ndarray | None = None,
        share: float = 1.0,
    ) -> tuple[Any, Any]:
        """`update(prepare(images, flips), labels, share)`."""

    def evaluate(self, batches: Batches) -> tuple[float, float]:
        """The mean loss, without smoothing, and the accuracy over all batches of this worker.

        All workers must take part: each evaluates with the running statistics of worker 0.
        """

    def predict(self, images: np.ndarray) -> np.ndarray:
        """The probabilities (N, classes) of uint8 images, in evaluation mode."""

    def read_state(self) -> dict[str, Weights]:
        """The optimizer's state by `Recipe.slots` and canonical name; zeros before a step."""

    def write_state(self, state: dict[str, Weights], steps: int) -> None:
        """Take over such a state, as it was after that many steps."""

    def places(self) -> dict[str, set[str]]:
        """The devices that the last tensors really lay on.

        Keys: parameters, gradients, state (of the optimizer), batch and outputs of the last step,
        evaluation (the last batch, its outputs and the sums) once there was one.
        """


class Backend(Protocol):
    """The module that `backends.load` returns."""

    GoogLeNet: type
    Trainer: type[Trainer]
    VERSION: str

    def join(self, device: str) -> tuple[int, int]:
        """Take part as the launcher's environment says: this worker's number, and how many.

        (0, 1) where no launcher started this process. Before anything else that computes.
        WorkersError for a port that is taken; it may wait for ever for a worker that never comes.
        """

    def leave(self) -> None:
        """Take no further part: once all workers are done, and the process is about to end."""

    def total(self, numbers: np.ndarray) -> np.ndarray:
        """The sum of all workers' float64 vectors; each of them must ask, and gets it."""

    def devices(self) -> list[str]:
        """The devices there are: `cpu`, then `gpu:0` and on."""

    def fastest(self, device: str) -> str:
        """What `--precision auto` is there: `bfloat16` where it is faster, else `float32`."""

    def build(self, spec: Spec, dtype: str, device: str) -> Any:
        """The native network on the device; dtype is `float32`, `float64` or `bfloat16`.

        `bfloat16` is the framework's own mixed precision: the weights stay float32.
        DeviceError where the framework has none.
        """

    def out_of_memory(self, error: BaseException) -> bool:
        """Whether the framework says by this exception that the memory is too small."""

    def place(self, model: Any, x: np.ndarray) -> Any:
        """A float array (N, C, H, W) as native input of the model: its dtype, layout and device."""

    def forward(self, model: Any, x: np.ndarray, training: bool) -> Weights:
        """The output of every stage and head, (N, C, H, W) or (N, C), by name.

        `auxiliary.0` and on besides. Of a spec without dropout: what is dropped is random.
        """

    def gradients(self, model: Any, x: np.ndarray, labels: np.ndarray) -> tuple[float, Weights]:
        """The loss in training mode, and its gradient by canonical name.

        Auxiliary heads count with their share, here and in `Trainer.update`.
        """

    def read_weights(self, model: Any) -> Weights:
        """The model's weights and running statistics by canonical name, in the model's dtype."""

    def write_weights(self, model: Any, weights: Weights) -> None:
        """Copy canonical weights into the model; WeightsError if they are another network's."""

    def save(self, model: Any, path: Path) -> None:
        """Write the weights as the framework's users do, in its own format."""

    def load(self, model: Any, path: Path) -> None:
        """Read a file that `save` wrote. What others wrote is read by `common.foreign` alone."""
