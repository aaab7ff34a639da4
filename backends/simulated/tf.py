"""TensorFlow's simulated device: `cpu:1`, a second logical CPU, as TensorFlow's own tests use one.

With soft placement off (see `backends.tf.device`) an operation with an input on the other device
copies it in silence; what was left where is seen by the devices of the tensors. Copies to the host
are counted at the method behind `numpy()`, `float()`, `int()` and `bool()`. NumPy's own functions
read the memory of a tensor on a CPU unseen, so write `x.numpy()`, never `np.asarray(x)`.
"""

import tensorflow as tf
from tensorflow.python.framework.ops import EagerTensor

from common.errors import DeviceError

count = 0


def start():
    """Split the CPU in two; the second one's name."""
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
    """How often a tensor of the device was read on the host."""
    return count


def counted(method):
    """The method, counted where its tensor lies on the simulated device."""

    def wrapped(self):
        global count
        # beside a GPU TensorFlow keeps int32, its shapes, in the host's memory
        count += self.device.endswith("CPU:1") and self.dtype != tf.int32
        return method(self)

    return wrapped
