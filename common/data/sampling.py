"""The examples of each step: batches, mirrored images, the shard of each worker."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from common.data.dataset import Int64
from common.errors import GoogLeNetError


def batches(count: int, size: int, seed: int, epoch: int) -> Iterator[Int64]:
    """Yield the indices of one epoch's batches, int64 (size,).

    Each of `count` examples occurs once. The last batch may be smaller. The order depends only on
    `count`, `seed` and `epoch`. It is the same with every version of NumPy, because RandomState is
    frozen. Raises GoogLeNetError at once for a size below 1 or a seed outside of 32 bits.
    """
    if size < 1:
        raise GoogLeNetError(f"--batch-size {size} is not possible: give 1 or more")
    if not 0 <= seed < 2**32:
        raise GoogLeNetError(f"--seed {seed} is not possible: give a number from 0 to {2**32 - 1}")
    order = np.random.RandomState([seed, 1, epoch]).permutation(count).astype(np.int64)
    return (order[at : at + size] for at in range(0, count, size))


def flip_mask(count: int, seed: int, epoch: int) -> npt.NDArray[np.bool_]:
    """Return which of `count` examples are mirrored in an epoch, bool (count,): about half.

    The mask comes from a seeded RandomState, so every framework mirrors the same images.
    """
    return np.random.RandomState([seed, 2, epoch]).randint(0, 2, count).astype(bool)


def shard(indices: np.ndarray, rank: int, workers: int) -> tuple[np.ndarray, float]:
    """Return one worker's indices of a batch, and their fraction of the batch.

    An empty shard gets one example with weight 0, because not every operation of a framework
    accepts an empty batch.
    """
    part = np.array_split(indices, workers)[rank]
    return (part, len(part) / len(indices)) if len(part) else (indices[:1], 0.0)
