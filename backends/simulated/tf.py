"""TensorFlow's simulated device: `cpu:1`, a second logical CPU, as in TensorFlow's own tests.

An operation copies an input from the other device without a warning, even without soft placement.
So the tests read the device of each tensor. Copies to the host are counted in the method behind
`numpy()`, `float()`, `int()` and `bool()`. NumPy's functions read the memory of a CPU tensor
directly and are not counted, so write `x.numpy()`, not `np.asarray(x)`.
"""

import tensorflow as tf
from tensorflow.python.framework.ops import EagerTensor

from common.errors import DeviceError

count = 0


def start():
    """Split the CPU into two logical devices, and return the name of the second."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    if len(tf.config.get_logical_device_configuration(cpu) or ()) != 2:
        try:
            tf.config.set_logical_device_configuration(
                cpu, [tf.config.LogicalDeviceConfiguration()] * 2
            )
        except RuntimeError as error:
            raise DeviceError(
                "TensorFlow is running already: start its simulated device in a fresh process."
            ) from error
        EagerTensor._numpy = counted(EagerTensor._numpy)
    return "cpu:1"


def copies():
    """How many times the host read a tensor of the device."""
    return count


def counted(method):
    """The method, with a count of the calls for tensors on the simulated device."""

    def wrapped(self):
        global count
        # with a GPU, TensorFlow keeps int32 tensors (shapes) in the host's memory
        count += self.device.endswith("CPU:1") and self.dtype != tf.int32
        return method(self)

    return wrapped
