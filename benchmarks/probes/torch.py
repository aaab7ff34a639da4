"""What the benchmark asks PyTorch: to wait, its memory, a matrix product, its profiler."""

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile


def label(device):
    """What the GPU is called."""
    return torch.cuda.get_device_name(device.replace("gpu", "cuda"))


def wait(device):
    """Return when all that was asked of the device is done."""
    if device != "cpu":
        torch.cuda.synchronize(device.replace("gpu", "cuda"))


def peak_memory(device):
    """The most bytes of the GPU that tensors took at a time; None on a CPU."""
    if device == "cpu":
        return None
    return torch.cuda.max_memory_allocated(device.replace("gpu", "cuda"))


def product(side, precision, device):
    """A function that multiplies two square matrices of that precision on the device."""
    a, b = torch.rand(2, side, side, device=device.replace("gpu", "cuda")).to(
        getattr(torch, precision)
    )
    return lambda: a @ b


def operators(run, device):
    """Name, calls and seconds of every operator in `run()`: on the CPU, or of a GPU's kernels."""
    gpu = device != "cpu"
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if gpu else [])]
    with profile(activities=kinds, acc_events=True) as found:
        run()
    rows = found.key_averages()
    if gpu:
        kernels = [row for row in rows if row.device_type == DeviceType.CUDA]
        return [(row.key, row.count, row.self_device_time_total / 1e6) for row in kernels]
    return [(row.key, row.count, row.self_cpu_time_total / 1e6) for row in rows]
