"""A data set: images and labels for training and test."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from common.data.image_decoder import UInt8
from common.data.image_files import Files
from common.errors import DataError

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)  # `==` of arrays gives an array, so data sets are not comparable
class Dataset:
    """Images, uint8 (N, C, H, W) from 0 to 255, and labels, int64 (N,) from 0.

    Images of a folder are decoded when they are indexed by a slice or an array. Fashion-MNIST's
    images are (N, 1, 28, 28).
    """

    train_images: UInt8 | Files
    train_labels: Int64
    test_images: UInt8 | Files
    test_labels: Int64
    classes: tuple[str, ...]
    source: str
    """The source of the data, for messages: a folder, or 'sample'."""

    def limit(self, train: int | None = None, test: int | None = None) -> Dataset:
        """Return the first `train` and `test` examples; None keeps all.

        Raises DataError for a number below 1 or above the number of examples.
        """
        for option, wanted, labels in (
            ("--limit-train", train, self.train_labels),
            ("--limit-test", test, self.test_labels),
        ):
            if wanted is not None and not 1 <= wanted <= len(labels):
                raise DataError(
                    f"{option} {wanted} is not possible: there are {len(labels)} such images"
                    f" in {self.source}; give a number from 1 to {len(labels)}"
                )
        return replace(
            self,
            train_images=_first(self.train_images, train),
            train_labels=self.train_labels[:train],
            test_images=_first(self.test_images, test),
            test_labels=self.test_labels[:test],
        )


def _first(images: UInt8 | Files, count: int | None) -> UInt8 | Files:
    return images.first(count) if isinstance(images, Files) else images[:count]
