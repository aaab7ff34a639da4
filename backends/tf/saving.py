"""What lets Keras build and save a layer that is made from parts of a spec.

Keras's conventions: a saved class is registered under a name; `get_config` gives the constructor's
arguments as plain data, and `from_config` takes them back.
"""

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import layers

from common.spec.serialize import from_config, row_from_config, row_to_config, to_config

Shape = tuple[int | None, ...]  # None: known only when the layer is called
serialisable = keras.saving.register_keras_serializable("googlenet")


def shape_after(stack: Sequence[layers.Layer], shape: Shape) -> Shape:
    """The shape that leaves several layers, one after the other."""
    for each in stack:
        shape = each.compute_output_shape(shape)
    return shape


class FromSpec:
    """For a layer that is made from parts of a spec: its config holds them as plain data.

    `self.parts` are the constructor's arguments by name, of `row`, `norm` and `spec`.
    """

    parts: dict[str, Any]

    def get_config(self) -> dict[str, Any]:
        """The layer's arguments as plain data."""
        write: dict[str, Callable[[Any], Any]] = {
            "row": row_to_config,
            "norm": row_to_config,
            "spec": to_config,
        }
        parts = {name: write[name](part) for name, part in self.parts.items()}
        return super().get_config() | parts  # type: ignore[misc]  # the layer's own

    @classmethod
    def from_config(cls, config: dict[str, Any], *arguments: Any) -> Any:
        """The layer of such data; SpecError where it describes no layer."""
        read = {"row": row_from_config, "norm": row_from_config, "spec": from_config}
        parts = {name: read[name](config[name]) for name in read.keys() & config.keys()}
        return super().from_config(config | parts, *arguments)  # type: ignore[misc]
