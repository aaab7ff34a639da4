"""What the benchmark asks Paddle: to wait, its memory, a matrix product, its profiler."""

import paddle
from paddle.profiler import Profiler, ProfilerTarget
from paddle.profiler.profiler_statistic import StatisticData


def label(device):
    """What the GPU is called."""
    return paddle.device.cuda.get_device_name(device)


def wait(device):
    """Return when all that was asked of the device is done."""
    if device != "cpu":
        paddle.device.synchronize(device)


def peak_memory(device):
    """The most bytes of the GPU that tensors took at a time; None on a CPU."""
    return None if device == "cpu" else paddle.device.cuda.max_memory_allocated(device)


def product(side, precision, device):
    """A function that multiplies two square matrices of that precision on the device."""
    paddle.set_device(device)
    a, b = (paddle.rand([side, side]).astype(precision) for _ in range(2))
    return lambda: a @ b


def operators(run, device):
    """Name, calls and seconds of every operator in `run()`: on the CPU, or of a GPU's kernels."""
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
