"""The arbiter: NumPy float64, the one implementation that the others are held against."""

from backends.numpy.googlenet import GoogLeNet, cross_entropy
from backends.numpy.train import Trainer, resize

__all__ = ["GoogLeNet", "Trainer", "cross_entropy", "resize"]
