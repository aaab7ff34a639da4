"""The command line: what it prints, what it refuses, what it imports, its exit statuses.

No framework is imported: a small fake stands where a backend is needed.

Long because each command has its output and its refusals here.
"""

import json
import os
import re
import signal
import subprocess
import sys
from contextlib import nullcontext
from importlib import metadata
from types import SimpleNamespace

import pytest
from click.shell_completion import ShellComplete

import backends
from backends import simulated
from common.cli import aliases, app
from common.cli.aliases import OLD_OPTIONS
from common.data import sources
from common.distributed import launcher
from common.errors import DeviceError
from common.files import ROOT
from common.parity import suite
from common.parity.mutations import INJECTED_BUGS
from common.parity.report import CHECK_KEY, Check, Report
from common.recipe import RECIPES
from common.spec import D2L_BN, SPECS
from common.training import plan
from common.training import run as training_run
from common.weights import draw, load, sha256

COMMANDS = ("specs", "summary", "weights", "verify", "bugs", "train")
GOLDEN = "47b717b11033a11f4d1b3d3604ea6e0dc2ea0efbbf8e7638022fdf0228da0ed0"
FRAMEWORKS = {"torch", "tensorflow", "keras", "mxnet", "paddle"}


@pytest.fixture
def run(capsys):
    """Run the command line in this process: the exit status, stdout and stderr."""

    def call(*words):
        with pytest.raises(SystemExit) as left:
            app.main([str(word) for word in words], "googlenet")
        return (left.value.code, *capsys.readouterr())

    return call


@pytest.fixture
def refused(run):
    """Check that a command prints one sentence with the `words` and leaves with the status."""

    def call(command, status, *words):
        code, out, err = run(*command)
        assert (code, out) == (status, ""), err
        assert re.fullmatch(r"googlenet: [^\n]+\n", err)
        assert ". " not in err, "more than one sentence"
        assert [word for word in words if word not in err] == [], err

    return call


@pytest.fixture(autouse=True)
def no_frameworks(monkeypatch):
    """Make each framework look as if it were not installed."""
    for package in backends.FRAMEWORKS.values():
        monkeypatch.setitem(sys.modules, package, None)


def increase(model):
    return {name: array + 1 for name, array in model.items()}


@pytest.fixture
def fake(monkeypatch):
    """A backend on a machine without a GPU, in the place of all four."""
    backend = SimpleNamespace(
        VERSION="0.0",
        devices=lambda: ["cpu"],
        build=lambda spec, dtype, device: {},
        write_weights=lambda model, weights: model.update(weights),
        read_weights=increase,
    )
    monkeypatch.setattr(backends, "load", lambda name: backend)
    monkeypatch.setattr(suite, "load", lambda name: backend)
    monkeypatch.setattr(plan, "load", lambda name: backend)
    return backend


def start(*arguments, **options):
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, **options
    )


def imported(*words):
    """Run a command in a fresh process: the packages that it imported, and what it printed."""
    done = start("-X", "importtime", "-m", "common.cli", *map(str, words))
    assert done.returncode == 0, done.stderr
    modules = re.findall(r"^import time: .*\| +(\w\S*)$", done.stderr, re.MULTILINE)
    return {module.split(".")[0] for module in modules}, done.stdout


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_imports_no_framework_and_no_numpy(command):
    packages, printed = imported(*command.split(), "--help")
    assert {"click", "json"} <= packages, "the imports were not seen"
    assert packages & {*FRAMEWORKS, "numpy", "safetensors", "rich", "pooch"} == set()
    assert printed.startswith("Usage: ")
    assert [name for name in COMMANDS if not command and name not in printed] == []


def test_what_needs_no_framework_imports_none(tmp_path):
    for words in (["specs"], ["summary", "--compare"], ["weights", "--out", tmp_path / "file"]):
        packages, _ = imported(*words)
        assert packages & FRAMEWORKS == set(), words
        assert ("numpy" in packages) == (words[0] == "weights")
    modules = "common.parity.suite, common.training.train, common.data.sources, backends"
    check = f"import sys, {modules}; print(*sys.modules)"
    done = start("-c", check)
    assert {name.split(".")[0] for name in done.stdout.split()} & FRAMEWORKS == set(), done.stderr


def test_help_lists_the_exit_statuses(run):
    code, out, err = run("--help")
    assert (code, err) == (0, "")
    statuses = re.findall(r"^ +(\d+) {2,}\S", out, re.MULTILINE)
    assert statuses == ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "130", "143"]


def test_specs_lists_the_specs_with_a_line_each(run):
    code, out, err = run("specs")
    assert (code, err) == (0, "")
    heads, _, *lines = out.splitlines()
    assert heads.split()[0] == "spec"
    assert [line.split()[0] for line in lines] == list(SPECS)
    assert "5,992,090" in lines[1]
    assert lines[1].endswith("batch norm")


def test_recipes_lists_the_recipes_with_a_line_each(run):
    code, out, err = run("recipes")
    assert (code, err) == (0, "")
    lines = out.splitlines()[2:]
    assert [line.split()[0] for line in lines] == list(RECIPES)
    assert "momentum 0.9, weight decay 0.0005" in lines[-1]


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_the_help_of_every_command_is_whole(run, flag, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = run(flag)
    assert code == 0
    listed = dict(re.findall(r"^  (\w+) +(\S.*)$", out.partition("Commands:")[2], re.M))
    assert set(app.main.commands) <= set(listed)
    for name in app.main.commands:
        assert listed[name].endswith("."), "its summary is cut"
        code, text, err = run(name, flag)
        assert code == 0, (name, err)
        assert "Usage: googlenet " + name in text


def test_the_version_is_the_package_s(run):
    assert run("--version") == (0, f"{metadata.version('googlenet-in-four-frameworks')}\n", "")


@pytest.mark.parametrize(
    ("words", "known"),
    [
        ("train --recipe", list(RECIPES)),
        ("train --spec", list(SPECS)),
        ("verify --inject", list(INJECTED_BUGS)),
        ("train --precision", ["auto", "float32", "bfloat16"]),
        ("summary", list(SPECS)),
    ],
)
def test_help_and_completion_know_the_choices(run, words, known):
    command, *option = words.split()
    if option:
        text = re.sub(r"[\s-]+", "", run(command, "--help")[1])  # a line may end after a hyphen
        assert [name for name in known if name.replace("-", "") not in text] == []
    complete = ShellComplete(app.main, {}, "googlenet", "_GOOGLENET_COMPLETE")
    found = [item.value for item in complete.get_completions(words.split(), "")]
    assert found == known
    first = known[-1]
    assert first in [i.value for i in complete.get_completions(words.split(), first[:3])]


def test_summary_sums_up_below_a_depth(run):
    whole = json.loads(run("summary", "d2l", "--json")[1])
    for depth, names in ((1, 7), (2, 1 + 17 + 1)):
        found = json.loads(run("summary", "d2l", "--depth", depth, "--json")[1])
        assert len(found["layers"]) == names
        for count in ("parameters", "multiply_adds"):
            assert sum(layer[count] or 0 for layer in found["layers"]) == whole[count]
    stages = {stage["name"]: stage["shape"] for stage in whole["stages"]}
    found = json.loads(run("summary", "d2l", "--depth", 1, "--json")[1])
    assert {layer["name"]: layer["shape"] for layer in found["layers"][1:]} == stages


def test_summary_prints_the_numbers(run):
    code, out, err = run("summary", "blog-224", "--compare")
    assert (code, err) == (0, "")
    lines = [re.split(r" {2,}", line.strip()) for line in out.splitlines()]
    for wanted in (
        ["stage2.1.conv", "Conv", "(1, 192, 70, 70)", "110,784", "541,900,800"],
        ["stage5.2.flatten", "Flatten", "(1, 1024)"],
        ["head", "Linear", "(1, 10)", "10,250", "10,240"],
        ["stage4", "(1, 832, 6, 6)"],
        ["parameters", "5,467,426"],
        ["multiply-adds", "1,423,985,408"],
        ["smallest input", "21x21"],
        ["input size (MB)", "0.20"],
        ["forward/backward pass size (MB)", "42.89"],
        ["parameters size (MB)", "21.87"],
        ["estimated total size (MB)", "64.96"],
        ["AlexNet", "(1, 1, 224, 224)", "46,764,746", "938,146,176"],
        ["VGG-11", "(1, 1, 224, 224)", "128,806,154", "7,547,232,256"],
        ["NiN", "(1, 1, 224, 224)", "1,992,166", "762,297,352"],
    ):
        assert wanted in lines, wanted


def test_summary_takes_the_book_s_network_and_another_input(run):
    _, out, _ = run("summary")
    assert "5,977,530" in out
    assert "276,066,304" in out
    assert "NiN" not in out
    _, out, _ = run("summary", "d2l", "--size", 224, "--channels", 3, "--classes", 1000)
    assert "1,502,982,144" not in out
    assert f"{5_983_802 + 990 * 1025:,}" in out
    assert "(1, 1000)" in out


KEYS = ["spec", "input", "parameters", "multiply_adds", "smallest_input"]
KEYS += ["memory", "stages", "layers"]


@pytest.mark.parametrize("compare", [[], ["--compare"]])
def test_summary_as_json_has_these_keys(run, compare):
    code, out, err = run("summary", "d2l", "--json", *compare)
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert list(found) == KEYS + ["compare"] * len(compare)
    assert found["spec"] == "d2l"
    assert found["input"] == [1, 1, 96, 96]
    assert (found["parameters"], found["multiply_adds"]) == (5_977_530, 276_066_304)
    assert found["smallest_input"] == 1
    assert set(found["memory"]) == {"input", "forward_backward", "parameters", "total"}
    stages = {f"stage{number}" for number in range(1, 6)} | {"head"}
    assert {stage["name"] for stage in found["stages"]} == stages
    assert found["stages"][2] == {"name": "stage3", "shape": [1, 480, 6, 6]}
    assert all(set(stage) == {"name", "shape"} for stage in found["stages"])
    fields = {"name", "kind", "shape", "parameters", "multiply_adds"}
    assert all(set(layer) == fields for layer in found["layers"])
    assert len(found["layers"]) == 140
    for peer in found.get("compare", []):
        assert set(peer) == {"name", "input", "parameters", "multiply_adds"}
    peers = [peer["name"] for peer in found.get("compare", [])]
    assert peers == ["AlexNet", "VGG-11", "NiN"] * len(compare)


@pytest.mark.parametrize("as_json", [[], ["--json"]])
@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("blog-224 --size 5", "stage1.0: the kernel 7x7 is larger than its padded input 5x5"),
        ("blog-224 --size 20", "stage2.2: the kernel 3x3"),
        ("resnet", "'resnet'; choose one of d2l, d2l-bn, blog-224"),
    ],
)
def test_summary_refuses_what_makes_no_network(refused, words, said, as_json):
    refused(["summary", *words.split(), *as_json], 2, said)


@pytest.mark.parametrize("option", ["--size", "--channels", "--classes", "--depth"])
def test_a_number_that_is_none_is_refused_by_its_option(run, option):
    for value in ("0", "-1", "nan"):
        code, out, err = run("summary", option, value)
        assert (code, out) == (2, "")
        assert err.startswith(f"googlenet: {option}: ")


def test_a_refusal_has_no_traceback_in_a_process_of_its_own():
    done = start("-m", "common.cli", "summary", "blog-224", "--size", "5")
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"googlenet: stage1\.0: [^\n]+\.\n", done.stderr)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("summary --size x", r"--size: 'x' is not .+\. See `googlenet summary --help`\."),
        ("weights --seed -1", r"--seed: -1 is not .+\. See `googlenet weights --help`\."),
        ("bench", r".*'--backend'.* torch, tf, mxnet, paddle\. See `googlenet bench --help`\."),
        ("trian", r".*'trian'.*'train'\? See `googlenet --help`\."),
        ("--no train", r".*'--no'.* See `googlenet --help`\."),
        ("train --split nan", r"--split: nan is not a number\. See `googlenet train --help`\."),
        ("train --save-every nan", r"--save-every: nan is not a number\. See .*\."),
        ("convert a.pt b.pt --eps nan", r"--eps: nan is not a number\. See .*\."),
    ],
)
def test_what_click_refuses_is_one_sentence_with_status_2(run, words, said):
    code, out, err = run(*words.split())
    assert (code, out) == (2, "")
    assert re.fullmatch(f"googlenet: {said}\n", err)


def test_ctrl_c_has_status_130(run, monkeypatch):
    def stop(name):
        raise KeyboardInterrupt

    monkeypatch.setattr("common.spec.find", stop)
    assert run("summary") == (130, "", "googlenet: stopped.\n")


def test_weights_prints_the_digest_and_writes_the_file(run, tmp_path):
    assert run("weights", "--seed", 0) == (0, f"{GOLDEN}\n", "")
    path = tmp_path / "weights.safetensors"
    code, out, err = run("weights", "--spec", "d2l-bn", "--seed", 7, "--out", path)
    assert (code, err) == (0, "")
    assert out.strip() == sha256(load(path, D2L_BN)) == sha256(draw(D2L_BN, 7))


def test_weights_do_not_overwrite_a_file(refused, tmp_path):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"mine")
    refused(["weights", "--out", path], 2, f"{path} is there already")
    assert path.read_bytes() == b"mine"


def test_weights_go_through_the_model_of_a_backend(run, fake, tmp_path):
    path = tmp_path / "weights.safetensors"
    code, out, err = run("weights", "--backend", "mxnet", "--out", path)
    assert (code, err) == (0, "")
    wanted = sha256(increase(draw(SPECS["d2l"], 0)))
    assert out.strip() == wanted == sha256(load(path, SPECS["d2l"]))


def test_weights_that_cannot_be_written_are_refused(refused, tmp_path):
    missing = tmp_path / "missing" / "file"
    refused(["weights", "--out", missing], 2, f"{missing} cannot be written")
    refused(["weights", "--out", tmp_path], 2, f"{tmp_path} cannot be written")
    refused(["weights", "--spec", "resnet"], 2, "'resnet'")


@pytest.mark.parametrize("backend", [*app.BACKENDS, "all"])
def test_verify_refuses_what_makes_no_run(refused, monkeypatch, backend):
    monkeypatch.setattr(suite, "in_child", None)
    verifying = ["verify", "--backend", backend]
    refused([*verifying, "--inject", "nonsense"], 2, "'nonsense'; choose one of missing-bias, ")
    refused([*verifying, "--spec", "nonsense"], 2, "'nonsense'; choose one of d2l, ")
    for option in (["--size", 33], ["--size", 1], ["--spec", "d2l"], ["--spec", "d2l-bn"]):
        refused([*verifying, "--inject", "norm-eps", *option], 2, "--inject brings its own spec")


def test_verify_refuses_an_image_that_is_too_small(refused, fake):
    refused(["verify", "--backend", "tf", "--spec", "blog-224", "--size", 20], 2, "stage2.2: ")


def report(*passed, name="forward"):
    return Report(
        "tf", "0.0", "d2l", 33, "float64", [Check(name, ok, 1.0, 0.5, "") for ok in passed]
    )


@pytest.mark.parametrize(
    ("reports", "status"),
    [
        ([report(True)], 0),
        ([report(True), report(True, True)], 0),
        ([report(True), report(True, False), report(True)], 3),
        ([report(False), report(True)], 3),
    ],
)
def test_verify_exits_with_status_0_only_if_every_check_holds(run, monkeypatch, reports, status):
    monkeypatch.setattr(suite, "verify", lambda *options: iter(reports))
    code, out, err = run("verify", "--backend", "tf")
    assert (code, err) == (status, "")
    assert len(out.splitlines()) == len(reports)
    assert ("FAILED" in out) == (status == 3)
    code, out, err = run("verify", "--backend", "tf", "--json")
    assert (code, err) == (status, "")
    assert json.loads(out) == [one.as_json() for one in reports]


def children(monkeypatch, *codes, stdout=None):
    """Let the children of `verify --backend all` end with these statuses; their arguments."""
    seen, left = [], list(codes)

    def in_child(name, options, **streams):
        seen.append((name, options))
        return subprocess.CompletedProcess([], left.pop(0), stdout)

    monkeypatch.setattr(suite, "in_child", in_child)
    return seen


@pytest.mark.parametrize(
    ("codes", "status"),
    [
        ((0, 0, 0, 0), 0),
        ((0, 3, 0, 0), 3),
        ((0, 3, 0, 4), 3),
        ((6, 3, 4, 1), 3),
        ((0, 4, 0, 0), 4),
        ((0, 0, 0, 1), 1),
        ((0, 0, -11, 0), 1),
        ((-9, -9, -9, -9), 1),
    ],
)
def test_verify_all_exits_with_status_0_only_if_all_four_do(run, monkeypatch, codes, status):
    seen = children(monkeypatch, *codes)
    assert run("verify", "--backend", "all") == (status, "", "")
    assert [name for name, _ in seen] == ["torch", "tf", "mxnet", "paddle"]


def test_verify_all_hands_its_options_on(run, monkeypatch):
    text = json.dumps([report(True).as_json()])
    seen = children(monkeypatch, 0, 0, 0, 0, stdout=text)
    words = "verify --backend all --spec d2l --size 1 --device gpu:1 --json"
    code, out, _ = run(*words.split())
    assert code == 0
    assert json.loads(out) == [report(True).as_json()] * 4
    given = dict(zip(seen[0][1][::2], seen[0][1][1::2], strict=False))
    assert given == {"--spec": "d2l", "--size": "1", "--device": "gpu:1"}
    assert seen[0][1][-1] == "--json"
    seen = children(monkeypatch, 3, 3, 3, 3)
    assert run("verify", "--backend", "all", "--inject", "norm-eps")[0] == 3
    assert seen[3] == ("paddle", ["--inject", "norm-eps", "--device", "auto"])


BESIDE = next(name for name, bug in INJECTED_BUGS.items() if bug.simulated)


@pytest.fixture
def second(monkeypatch):
    """A simulated device for the fake backend; what was done with it, in order."""
    seen = []

    def start(name):
        seen.append(("start", name))
        return "simulated:0"

    def run_checks(backend, name, spec, sizes, dtype, device):
        seen.append(("run", device))
        yield report(False)

    monkeypatch.setattr(simulated, "start", start)
    monkeypatch.setattr(suite, "run_checks", run_checks)
    monkeypatch.setattr(suite, "inject", lambda backend, bug: nullcontext())
    return seen


@pytest.mark.parametrize("device", [[], ["--device", "auto"], ["--device", "cpu"]])
def test_a_bug_that_shows_only_beside_the_cpu_is_injected_on_the_simulated_device(
    run, fake, second, monkeypatch, device
):
    monkeypatch.setattr(suite, "load", lambda name: second.append("load") or fake)
    assert run("verify", "--backend", "tf", "--inject", BESIDE, *device)[0] == 3
    assert second == [("start", "tf"), "load", ("run", "simulated:0")]


def test_it_is_injected_on_a_gpu_that_was_asked_for(run, fake, second, monkeypatch):
    monkeypatch.setattr(fake, "devices", lambda: ["cpu", "gpu:0"])
    assert run("verify", "--backend", "tf", "--inject", BESIDE, "--device", "gpu")[0] == 3
    assert second == [("run", "gpu:0")]


@pytest.mark.parametrize(
    ("device", "found", "outcome"),
    [
        ("auto", ["cpu", "gpu:0"], (3, ("run", "gpu:0"))),
        ("cpu", ["cpu", "gpu:0"], (DeviceError.exit_code, None)),
        ("auto", ["cpu"], (DeviceError.exit_code, None)),
    ],
)
def test_where_a_gpu_leaves_no_room_for_a_simulated_device_it_is_injected_there(
    run, fake, second, monkeypatch, device, found, outcome
):
    def refuse(name):
        raise DeviceError("none beside a GPU.")

    monkeypatch.setattr(simulated, "start", refuse)
    monkeypatch.setattr(fake, "devices", lambda: found)
    code, *_ = run("verify", "--backend", "tf", "--inject", BESIDE, "--device", device)
    assert (code, second[0] if second else None) == outcome


def test_other_bugs_need_no_simulated_device(run, fake, second):
    assert run("verify", "--backend", "tf", "--inject", "norm-eps")[0] == 3
    assert second == [("run", "cpu")]


def test_bugs_exits_with_status_0_only_if_a_right_check_catches_every_bug(run, monkeypatch):
    def inject(name, bug):
        return caught(bug)

    def right(bug):
        return report(True, False, name=bug.caught_by[-1])

    monkeypatch.setattr(suite, "verify_injected", inject)
    monkeypatch.setattr(simulated, "start", lambda name: "simulated:0")
    for odd, status in ((right, 0), (lambda bug: report(True), 3), (lambda bug: report(False), 3)):

        def caught(bug, odd=odd):
            return odd(bug) if bug.name == "double-softmax" else right(bug)

        code, out, err = run("bugs", "--backend", "tf")
        assert (code, err) == (status, "")
        assert [name for name in INJECTED_BUGS if name not in out] == []
        code, out, _ = run("bugs", "--backend", "tf", "--json")
        assert code == status
        assert [row["bug"] for row in json.loads(out)] == list(INJECTED_BUGS)
        for row in json.loads(out):
            bug = INJECTED_BUGS[row["bug"]]
            found = caught(bug).caught()
            assert row == {"bug": bug.name, "what": bug.what, **found}
            assert (CHECK_KEY in row) == (caught(bug).failed is not None)


@pytest.mark.parametrize("name", app.BACKENDS)
@pytest.mark.parametrize(
    "command",
    ["train", "verify", "bugs", "weights", "verify --inject norm-eps", f"verify --inject {BESIDE}"],
)
def test_a_framework_that_is_not_installed_has_status_4(refused, command, name):
    line = f"`pip install -c constraints/{name}.txt -e '.[{name}]'`"
    package = backends.FRAMEWORKS[name]
    refused([*command.split(), "--backend", name], 4, f"{package} is not installed", line)


def test_beside_another_framework_the_pins_are_those_that_suit_all(monkeypatch):
    """PyTorch's own constraints bring a NumPy that ends MXNet."""
    there = {"mxnet": True}
    monkeypatch.setattr(backends.importlib.util, "find_spec", lambda name: there.get(name))
    with pytest.raises(backends.BackendError, match=r"-c constraints/cross.txt -e '\.\[torch\]'"):
        backends.require("torch")
    there.clear()
    with pytest.raises(backends.BackendError, match=r"-c constraints/torch.txt -e '\.\[torch\]'"):
        backends.require("torch")


def test_the_backends_of_the_command_line_are_those_there_are():
    assert tuple(backends.FRAMEWORKS) == app.BACKENDS
    for name in app.BACKENDS:
        assert (ROOT / "backends" / name / "__init__.py").is_file()
    with pytest.raises(
        backends.BackendError, match="'jax'; choose one of torch, tf, mxnet, paddle"
    ):
        backends.load("jax")


@pytest.mark.parametrize(
    "command",
    ["train --data sample", "verify", "verify --inject norm-eps", f"verify --inject {BESIDE}"],
)
def test_a_device_that_is_not_there_has_status_6(refused, fake, monkeypatch, command):
    monkeypatch.setattr(suite, "inject", lambda backend, bug: nullcontext())
    words = [*command.split(), "--backend", "tf", "--device"]
    refused([*words, "gpu"], 6, "--device gpu is not there: found cpu")
    refused([*words, "gpu:1"], 6, "--device gpu:1 is not there: found cpu")
    refused([*words, "cuda"], 6, "'cuda'")


def test_damaged_or_missing_images_have_status_5(refused, fake, tmp_path):
    training = ["train", "--backend", "torch", "--data"]
    refused([*training, tmp_path / "none"], 5, f"{tmp_path / 'none'} is missing")
    sample = ROOT / "common" / "data" / "sample"
    for file in os.listdir(sample):
        (tmp_path / file).write_bytes((sample / file).read_bytes()[:-100])
    refused([*training, tmp_path], 5, str(tmp_path), "is damaged")
    refused([*training, "sample", "--spec", "resnet"], 2, "'resnet'")


@pytest.mark.parametrize("lr", ["-1", "nan", "inf", "1e60"])
def test_a_learning_rate_that_makes_no_sense_has_status_2(refused, fake, lr):
    words = ["train", "--backend", "torch", "--data", "sample", "--epochs", 1, "--lr", lr]
    refused(words, 2, "lr is ")


def test_a_page_without_its_packages_has_status_4(refused, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    monkeypatch.delitem(sys.modules, "common.page.site", raising=False)
    refused(["page", "--out", tmp_path], 4, "'.[page]'")


# Old spellings


@pytest.mark.parametrize(("old", "new"), OLD_OPTIONS.items())
def test_an_option_s_old_spelling_still_works_and_is_not_shown(run, monkeypatch, old, new):
    command = {"--inject": "verify"}[new]
    assert new in run(command, "--help")[1]
    for words in (["--help"], *([name, "--help"] for name in app.main.commands)):
        assert old not in run(*words)[1]
    for words in ([new, "norm-eps"], [old, "norm-eps"], [f"{new}=norm-eps"], [f"{old}=norm-eps"]):
        seen = children(monkeypatch, 3, 3, 3, 3)
        assert run(command, "--backend", "all", *words) == (3, "", "")
        assert seen[0] == ("torch", [new, "norm-eps", "--device", "auto"])
    code, _, err = run(command, "--backend", "all", old, "nonsense")
    assert (code, "'nonsense'" in err) == (2, True)


@pytest.mark.parametrize(("old", "new"), OLD_OPTIONS.items())
def test_a_command_without_the_new_option_has_not_the_old_one_either(run, old, new):
    code, out, err = run("summary", old, "norm-eps")
    assert (code, out) == (2, "")
    assert "No such option" in err
    assert aliases.renamed([old, f"{old}=1", "norm-eps"], ["--size"]) == [
        *(old, f"{old}=1", "norm-eps")
    ]
    words = ["--backend=tf", f"{old}=1", old, old[2:], new]
    assert aliases.renamed(words, [new]) == ["--backend=tf", f"{new}=1", new, old[2:], new]


# Signals


@pytest.fixture
def acted():
    """What the handler of SIGTERM that was there before has heard."""
    heard = []
    before = signal.signal(signal.SIGTERM, lambda signum, frame: heard.append(signum))
    yield heard
    signal.signal(signal.SIGTERM, before)


def test_a_second_signal_acts_as_ever(acted):
    with app.deferred_signals() as stop:
        assert stop() == 0
        signal.raise_signal(signal.SIGTERM)
        assert (stop(), acted) == (signal.SIGTERM, [])
        signal.raise_signal(signal.SIGTERM)
        assert acted == [signal.SIGTERM]


def test_a_launchers_copy_of_a_signal_is_not_a_second_one(acted, monkeypatch):
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now)
    monkeypatch.setattr(app, "time", clock)
    with app.deferred_signals(debounce=5.0) as stop:
        for clock.now in (100.0, 104.9):
            signal.raise_signal(signal.SIGTERM)
            assert (stop(), acted) == (signal.SIGTERM, [])
        clock.now = 105.1
        signal.raise_signal(signal.SIGTERM)
        assert acted == [signal.SIGTERM]


@pytest.mark.parametrize(
    ("given", "kept", "loaded"),
    [
        ([], None, ["load"]),
        (["--data", "fake"], None, []),
        (["--resume", "run"], "fake", []),
        (["--resume", "run"], None, ["load"]),
        (["--resume", "run", "--data", "fake"], None, []),
    ],
)
def test_data_is_downloaded_before_several_workers_start(run, monkeypatch, given, kept, loaded):
    """Unless it is given, or the run was given it: the workers may have no network."""
    seen = []
    begun = SimpleNamespace(config=SimpleNamespace(data=kept))
    monkeypatch.setattr(training_run, "open_run", lambda path: (path, begun))
    monkeypatch.setattr(sources, "load", lambda: seen.append("load"))
    monkeypatch.setattr(launcher, "start", lambda *told: seen.append("start"))
    monkeypatch.setattr(plan, "backend_name", lambda backend, resume: "torch")
    where = given if "--resume" in given else ["--backend", "torch", *given]
    assert run("train", "--workers", 2, *where)[0] == 0
    assert seen == [*loaded, "start"]
