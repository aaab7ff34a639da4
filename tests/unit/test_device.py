"""Which device is used for what was asked, where there are these and those."""

import importlib
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

import backends
from common import device
from common.device import choose, has_bfloat16
from common.errors import DeviceError

CPU = ["cpu"]
TWO = ["cpu", "gpu:0", "gpu:1"]


@pytest.mark.parametrize(
    ("requested", "found", "chosen"),
    [
        ("auto", CPU, "cpu"),
        ("auto", TWO, "gpu:0"),
        ("auto", ["cpu", "gpu:1"], "gpu:1"),
        ("cpu", CPU, "cpu"),
        ("cpu", TWO, "cpu"),
        ("gpu", TWO, "gpu:0"),
        ("gpu:0", TWO, "gpu:0"),
        ("gpu:1", TWO, "gpu:1"),
        ("gpu:10", [*TWO, "gpu:10"], "gpu:10"),
    ],
)
def test_what_is_asked_for_is_what_is_used(requested, found, chosen):
    assert choose(requested, found) == chosen


@pytest.mark.parametrize(
    ("requested", "found"),
    [
        ("gpu", CPU),
        ("gpu:0", CPU),
        ("gpu:1", ["cpu", "gpu:0"]),
        ("gpu", ["cpu", "gpu:1"]),
        ("gpu:2", TWO),
        ("gpu:10", TWO),
        ("gpu:01", TWO),
        ("cpu", ["gpu:0"]),
    ],
)
def test_a_device_that_is_not_there_is_refused_and_nothing_falls_back(requested, found):
    with pytest.raises(DeviceError) as caught:
        choose(requested, found)
    sentence = str(caught.value)
    assert sentence.startswith(f"--device {requested} is not there: found {', '.join(found)}; ")
    assert sentence.endswith(".")
    assert "\n" not in sentence


@pytest.mark.parametrize("found", [CPU, TWO])
@pytest.mark.parametrize(
    "requested",
    [
        *("cuda", "cuda:0", "GPU", "Auto", "mps", "cpu:0", "auto:0", "cpu|gpu"),
        *("gpu:", "gpu:x", "gpu:-1", "gpu:0:1", "gpu0", "gpu:1.0"),
        *("", " ", "cpu ", " gpu", "gpu: 0", "gpu\n", "gpu:0\n"),
    ],
)
def test_what_names_no_device_is_refused_with_the_words_there_are(requested, found):
    with pytest.raises(DeviceError) as caught:
        choose(requested, found)
    assert repr(requested) in str(caught.value)
    assert "gpu:N" in str(caught.value)


def test_the_exit_status_of_a_missing_device():
    assert DeviceError.exit_code == 6


@pytest.mark.parametrize(
    ("instructions", "has"),
    [
        ([], False),
        (["AVX2", "AVX-512", "AVX-512 VNNI", "AMX int8"], False),
        (["AVX-512", "AVX-512 bf16"], True),
        (["AMX bf16", "AMX int8"], True),
        (["NEON", "ARM bf16"], True),
    ],
)
def test_bfloat16_is_an_instruction_or_it_is_slow(monkeypatch, instructions, has):
    monkeypatch.setattr(device, "processor", lambda: {"instructions": instructions})
    assert has_bfloat16() is has


@pytest.mark.parametrize(("before", "after"), [(None, "0"), ("1", "1")])
def test_float32_is_float32_on_a_gpu_unless_the_user_says_otherwise(monkeypatch, before, after):
    monkeypatch.setattr(backends, "load_module", lambda name, path: name)
    monkeypatch.setattr(backends, "keep_memory", lambda: None)
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", before or "")
    if before is None:
        monkeypatch.delenv("NVIDIA_TF32_OVERRIDE")
    assert backends.load("torch") == "torch"
    assert os.environ["NVIDIA_TF32_OVERRIDE"] == after


FAULTS = """
import resource, sys
import numpy as np
import backends
backends.load_module = lambda name, path: name
if sys.argv[1] == "kept":
    backends.load("torch")
faults = []
for _ in range(4):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [np.ones(2**22) for _ in range(8)]  # 32 MB each
    del blocks
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(min(faults[1:]))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone has mallopt")
def test_memory_that_a_step_frees_is_there_for_the_next_one():
    def faults(how):
        root = Path(backends.__file__).parent.parent
        words = [sys.executable, "-c", FAULTS, how]
        return int(subprocess.run(words, cwd=root, check=True, capture_output=True).stdout)

    assert faults("kept") < faults("given back") / 10


def test_the_reference_s_own_lack_of_memory_is_one_and_no_other_error():
    reference = importlib.import_module("backends.numpy")
    assert reference.out_of_memory(MemoryError("40 GB"))
    assert not reference.out_of_memory(ValueError("40 GB"))
