"""The benchmark's probes in PyTorch: waiting, peak memory, a matrix product, the profiler."""

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile


def label(device):
    """The name of the GPU."""
    return torch.cuda.get_device_name(device.replace("gpu", "cuda"))


def wait(device):
    """Return when the device has done all its work."""
    if device != "cpu":
        torch.cuda.synchronize(device.replace("gpu", "cuda"))


def peak_memory(device):
    """The peak of the GPU memory in tensors, in bytes; None on a CPU."""
    if device == "cpu":
        return None
    return torch.cuda.max_memory_allocated(device.replace("gpu", "cuda"))


def product(side, precision, device):
    """A function that multiplies two (side, side) matrices of this precision on the device."""
    a, b = torch.rand(2, side, side, device=device.replace("gpu", "cuda")).to(
        getattr(torch, precision)
    )
    return lambda: a @ b


def copy(count, device):
    """A function that copies `count` float32 numbers on the device."""
    a = torch.rand(count, device=device.replace("gpu", "cuda"))
    b = torch.zeros_like(a)
    return lambda: b.copy_(a)


def operators(run, device):
    """Name, calls and seconds of every operator in `run()`; on a GPU those of the kernels."""
    gpu = device != "cpu"
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if gpu else [])]
    with profile(activities=kinds, acc_events=True) as found:
        run()
    rows = found.key_averages()
    if gpu:
        kernels = [row for row in rows if row.device_type == DeviceType.CUDA]
        return [(row.key, row.count, row.self_device_time_total / 1e6) for row in kernels]
    return [(row.key, row.count, row.self_cpu_time_total / 1e6) for row in rows]
