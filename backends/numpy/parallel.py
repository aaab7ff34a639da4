"""The reference has no workers: it is always the only process."""

import numpy as np


def init_process_group(device: str) -> tuple[int, int]:
    """Rank 0 of 1."""
    return 0, 1


def destroy_process_group() -> None:
    """Nothing to leave."""


def all_reduce_sum(numbers: np.ndarray) -> np.ndarray:
    """The sum over one worker."""
    return numbers
