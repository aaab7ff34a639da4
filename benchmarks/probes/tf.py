"""The benchmark's probes in TensorFlow: waiting, peak memory, a matrix product, the profiler."""

import re
import tempfile
from collections import defaultdict
from pathlib import Path

import tensorflow as tf
from tensorflow.tsl.profiler.protobuf.xplane_pb2 import XSpace


def label(device):
    """The name of the GPU."""
    gpu = tf.config.list_physical_devices("GPU")[int(device.partition(":")[2])]
    return tf.config.experimental.get_device_details(gpu)["device_name"]


def wait(device):
    """Return when the device has done all its work."""
    tf.test.experimental.sync_devices()


def peak_memory(device):
    """The peak of the GPU memory in tensors, in bytes; None on a CPU."""
    if device == "cpu":
        return None
    return tf.config.experimental.get_memory_info(device.upper())["peak"]


def product(side, precision, device):
    """A function that multiplies two (side, side) matrices of this precision on the device."""
    with tf.device(f"/{device.upper()}"):
        a, b = (tf.cast(tf.random.uniform((side, side)), precision) for _ in range(2))

    def multiply():
        with tf.device(f"/{device.upper()}"):
            return tf.linalg.matmul(a, b)

    return multiply


def copy(count, device):
    """A function that copies `count` float32 numbers on the device."""
    with tf.device(f"/{device.upper()}"):
        a = tf.random.uniform((count,))

    def copied():
        with tf.device(f"/{device.upper()}"):
            return tf.raw_ops.DeepCopy(x=a)  # `tf.identity` copies nothing

    return copied


def operators(run, device):
    """Name, calls and seconds of every operator in `run()`; on a GPU those of the kernels."""
    gpu = device != "cpu"
    with tempfile.TemporaryDirectory() as folder:
        with tf.profiler.experimental.Profile(folder):
            run()
        (path,) = Path(folder).rglob("*.xplane.pb")
        space = XSpace.FromString(path.read_bytes())
    calls, seconds = defaultdict(int), defaultdict(float)
    for plane in space.planes:
        if not plane.name.startswith("/device:GPU:" if gpu else "/host:CPU"):
            continue
        for line in plane.lines:
            if gpu and not line.name.startswith("Stream"):
                continue
            for event in line.events:
                name = plane.event_metadata[event.metadata_id].name
                operator = None if gpu else re.fullmatch(r"[^ :]+:(_?[A-Z]\w+)", name)
                if gpu or operator:  # other events of the host are TensorFlow's own bookkeeping
                    key = name if gpu else operator[1]
                    calls[key] += 1
                    seconds[key] += event.duration_ps / 1e12
    return [(name, calls[name], seconds[name]) for name in calls]
