"""The benchmark's probes in Paddle: waiting, peak memory, a matrix product, the profiler."""

import paddle
from paddle.profiler import Profiler, ProfilerTarget
from paddle.profiler.profiler_statistic import StatisticData


def label(device):
    """The name of the GPU."""
    return paddle.device.cuda.get_device_name(device)


def wait(device):
    """Return when the device has done all its work."""
    if device != "cpu":
        paddle.device.synchronize(device)


def peak_memory(device):
    """The peak of the GPU memory in tensors, in bytes; None on a CPU."""
    return None if device == "cpu" else paddle.device.cuda.max_memory_allocated(device)


def product(side, precision, device):
    """A function that multiplies two (side, side) matrices of this precision on the device."""
    paddle.set_device(device)
    a, b = (paddle.rand([side, side]).astype(precision) for _ in range(2))
    return lambda: a @ b


def copy(count, device):
    """A function that copies `count` float32 numbers on the device."""
    paddle.set_device(device)
    a = paddle.rand([count])
    b = paddle.zeros_like(a)
    return lambda: paddle.assign(a, b)


def operators(run, device):
    """Name, calls and seconds of every operator in `run()`; on a GPU those of the kernels."""
    gpu = device != "cpu"
    targets = [ProfilerTarget.CPU, *([ProfilerTarget.GPU] if gpu else [])]
    # without `on_trace_ready` it would write a trace into the working directory
    with Profiler(targets=targets, on_trace_ready=lambda profiler: None) as profiler:
        run()
    result = profiler.profiler_result
    found = StatisticData(result.get_data(), result.get_extra_info()).event_summary
    if gpu:
        return [(row.name, row.call, row.gpu_time / 1e9) for row in found.kernel_items.values()]
    return [(row.name, row.call, row.cpu_time / 1e9) for row in found.items.values()]
