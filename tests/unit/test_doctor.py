"""`googlenet doctor`: what it finds, what it makes of what is missing, and its exit status."""

import json
import subprocess
import sys
import types
from importlib import metadata
from pathlib import Path

import pytest

from backends import FRAMEWORKS
from common import doctor, processor
from common.cli import app
from common.files import ROOT

FINE = {"version": "1.0", "devices": ["cpu", "gpu:0"]}


@pytest.fixture
def run(capsys, monkeypatch):
    """Run the command with frameworks made up; the exit status and what was printed."""

    def call(frameworks, *words):
        monkeypatch.setattr(doctor, "framework", frameworks.__getitem__)
        with pytest.raises(SystemExit) as left:
            app.main(["doctor", *words], "googlenet")
        return left.value.code, capsys.readouterr().out

    return call


def framework_as(monkeypatch, tmp_path, source):
    """Ask for a backend whose framework is this code, in a process of its own."""
    (tmp_path / "mxnet.py").write_text(source)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(doctor, "ASK", "import mxnet\n" + doctor.ASK)
    return doctor.framework("mxnet")


def test_the_backends_are_those_there_are(monkeypatch):
    monkeypatch.setattr(doctor, "framework", lambda name: {"asked": name})
    assert doctor.examine()["frameworks"] == {name: {"asked": name} for name in FRAMEWORKS}


def test_one_framework_that_works_is_enough(run):
    bad = {"trouble": "tensorflow is not installed; install it with `pip ...`."}
    status, printed = run({"torch": bad, "tf": bad, "mxnet": bad, "paddle": FINE})
    assert status == 0
    assert "1.0 on cpu, gpu:0" in printed
    assert printed.count(bad["trouble"]) == 3
    status, printed = run(dict.fromkeys(FRAMEWORKS, bad), "--json")
    assert status == 4
    assert json.loads(printed)["frameworks"]["tf"] == bad
    assert printed == json.dumps(json.loads(printed), indent=2) + "\n"


def leaves(found):
    """Every value in a report as text; how many files a folder has is said in words."""
    if not isinstance(found, (dict, list)):
        return [str(found)]
    parts = found if isinstance(found, list) else [found[name] for name in found if name != "files"]
    return [leaf for part in parts for leaf in leaves(part)]


def test_every_line_is_one_line_and_nothing_is_left_out(run, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    status, printed = run(dict.fromkeys(FRAMEWORKS, FINE), "--json")
    found = json.loads(printed)
    assert status == 0
    assert set(found) == {"python", "system", "processor", "packages", "data", "frameworks"}
    text = doctor.render(found).splitlines()
    heads = [line.split("  ")[0] for line in text]
    assert {"Python", "processor", "instructions", "cores", *FRAMEWORKS} <= set(heads)
    assert len(heads) == len(set(heads))
    assert [leaf for leaf in leaves(found) if leaf not in "\n".join(text)] == []
    assert "OMP_NUM_THREADS  3" in text
    assert found["packages"]["numpy"] == {"version": metadata.version("numpy")}
    assert sys.executable in found["python"]


def test_a_package_that_is_missing_has_the_line_that_installs_it(monkeypatch):
    def version(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", version)
    assert "`pip install -e '.'`" in doctor.package("rich", "")["trouble"]
    assert "`pip install -e '.[tensorboard]'`" in doctor.package("x", "tensorboard")["trouble"]


def test_a_framework_that_is_not_installed_has_the_line_that_installs_it(monkeypatch):
    hide = "import sys; sys.modules |= dict.fromkeys(('torch', 'tensorflow', 'mxnet', 'paddle'))\n"
    monkeypatch.setattr(doctor, "ASK", hide + doctor.ASK)
    trouble = doctor.framework("mxnet")["trouble"]
    assert "`pip install -c constraints/mxnet.txt -e '.[mxnet]'`" in trouble


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("raise RuntimeError('built for\\nanother NumPy')", "another NumPy"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV"),
        ("import os; os._exit(7)", "exit status 7"),
        ("import sys; sys.exit('no licence')", "no licence"),
    ],
)
def test_a_framework_that_crashes_is_one_line(monkeypatch, tmp_path, source, said):
    trouble = framework_as(monkeypatch, tmp_path, source)["trouble"]
    assert said in trouble
    assert "\n" not in trouble


def test_a_framework_that_hangs_is_left(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "TIMEOUT", 2.0)
    assert "2 s" in framework_as(monkeypatch, tmp_path, "import time; time.sleep(600)")["trouble"]


def test_a_framework_may_talk_while_it_is_imported(monkeypatch, tmp_path):
    fake = (
        "import sys, types; print('{hello'); b = types.ModuleType('backends.mxnet')\n"
        "b.VERSION, b.devices = '9', lambda: print('{') or ['cpu']\n"
        "sys.modules['backends.mxnet'] = b; __spec__.loader = None\n"
    )
    assert framework_as(monkeypatch, tmp_path, fake) == {"version": "9", "devices": ["cpu"]}


CPUINFO = """processor\t: 0
model name\t: A Chip
flags\t\t: fpu avx avx2 avx512f amx_bf16 fma

processor\t: 1
model name\t: A Chip
flags\t\t: fpu avx avx2 avx512f amx_bf16 fma
"""


def test_instruction_sets(monkeypatch):
    monkeypatch.setattr(Path, "read_text", lambda path: CPUINFO)
    found = processor.processor()
    assert found["name"] == "A Chip"
    assert found["instructions"] == ["AVX", "AVX2", "FMA", "AVX-512", "AMX bf16"]


def test_instruction_sets_without_linux(monkeypatch):
    real = set(processor.processor()["instructions"])

    def missing(path):
        raise FileNotFoundError(path)

    monkeypatch.setattr(Path, "read_text", missing)
    found = set(processor.processor()["instructions"])
    assert found
    assert found <= real


def test_data_that_is_there_and_data_that_is_not(monkeypatch, tmp_path):
    from common.data import sources

    monkeypatch.setattr(sources, "DEBIAN_FOLDER", tmp_path / "debian")
    monkeypatch.setenv("GOOGLENET_CACHE", str(tmp_path / "cache"))
    found = doctor.data()
    assert found["sample"]["files"] == 4
    assert (found["cache"], found["Debian"]["files"]) == (
        {"folder": str(tmp_path / "cache"), "files": 0},
        0,
    )
    assert "apt-get install dataset-fashion-mnist" in found["trouble"]
    (tmp_path / "debian").mkdir()
    for name in sources.FULL:
        (tmp_path / "debian" / f"{name}.gz").touch()
    assert doctor.data()["Debian"]["files"] == 4
    assert "trouble" not in doctor.data()


def test_the_module_needs_no_package_that_may_be_missing():
    check = "import sys, common.doctor; print({'numpy', 'click', 'pooch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr


def test_broken_packages_do_not_stop_it(monkeypatch):
    broken = types.ModuleType("common.data.sources")
    monkeypatch.setitem(sys.modules, "common.data.sources", broken)
    assert "cannot be looked for" in doctor.data()["trouble"]
