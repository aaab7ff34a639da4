"""Every link that `googlenet check` prints leads to a section, and every section to a mistake."""

import io
import math
import re
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from click.testing import CliRunner

from common.check import server
from common.check.api import open_with
from common.check.mistakes import MISTAKES
from common.check.process import Process, UserError
from common.check.report import Difference, Finding, Report
from common.check.steps import error
from common.cli import main
from common.spec import MINI
from common.weights import draw

ROOT = Path(__file__).parents[2]


def anchors(page):
    return set(re.findall(r'<a id="([^"]+)"></a>', (ROOT / page).read_text()))


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=list(MISTAKES))
def test_the_link_of_a_mistake_leads_to_a_section(mistake):
    path, _, anchor = mistake.link.partition("#")
    assert anchor in anchors(path)


@pytest.mark.parametrize("ending", [".md", ".zh.md"])
def test_the_page_links_to_every_section_elsewhere(ending):
    text = (ROOT / f"docs/check{ending}").read_text()
    for each in MISTAKES.values():
        assert each.page == "check" or f"({each.page}{ending}#{each.anchor})" in text, each.name


def test_no_section_is_about_a_mistake_that_does_not_exist():
    assert anchors("docs/check.md") <= {
        mistake.link.partition("#")[2] for mistake in MISTAKES.values()
    }


def test_the_chinese_page_has_every_mistake_of_the_english_one():
    assert anchors("docs/check.zh.md") == anchors("docs/check.md")


def test_the_guide_begins_with_the_check():
    text = (ROOT / "docs" / "porting" / "index.md").read_text()
    assert re.search(r"^## (.*)$", text, re.MULTILINE)[1] == "Is my port right?"


def test_a_report_of_every_mistake_prints_its_words_and_links():
    words = {"ours": 1, "theirs": 2, "what": 3}
    every = [Finding(name, words, ["stage1.0"], "net.py:3") for name in MISTAKES]
    report = Report(
        spec="d2l",
        sizes=[96],
        dtype="float64",
        structure=[],
        findings=every,
        unexplained=[],
        residual=1e-15,
        plain=0.3,
        notes=[],
        chosen=True,
    )
    text = report.text()
    for mistake in MISTAKES.values():
        assert mistake.link in text
        assert f"{mistake.name}: " in text
    assert report.status == 3
    assert report.as_json()["findings"][0]["link"].startswith("docs/")
    assert "Proof" in text


@pytest.mark.parametrize("plain", [None, math.inf, math.nan])
def test_a_network_is_not_the_same_if_nothing_was_compared(plain):
    report = Report("mini", [33], "float64", [], [], [], None, plain, [], True)
    assert (report.same, report.outcome, report.status) == (False, "unexplained", 3)
    assert "THE SAME" not in report.text()


def test_a_tensor_with_a_nan_differs_from_every_other():
    nan = np.array([[1.0, math.nan]])
    assert error(nan, nan) == error(nan, nan + 1) == error(np.ones((1, 2)), nan) == math.inf


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["net.py", "--backend", "torch"], "names no network"),
        (["absent.py:net", "--backend", "torch"], "There is no file absent.py"),
        ([f"{ROOT}/README.md:net", "--backend", "torch"], "README.md is not a Python file"),
        (["absent.py:net", "--backend", "torch", "--spec", "d3l"], "There is no spec named 'd3l'"),
        (["a.py:net", "--backend", "torch", "--key", "ema"], "--key and --eps are for --weights"),
        (["a.py:net", "--backend", "torch", "--against-python", "python"], "needs both"),
        ([f"{__file__}:net", "--backend", "torch", "--python", "none"], "another Python with `--p"),
    ],
)
def test_bad_input_is_reported_in_one_sentence(arguments, words):
    found = CliRunner().invoke(main, ["check", *arguments])
    assert found.exit_code == 2
    assert words in found.output
    assert found.output.count("\n") == 1


def test_a_key_and_an_eps_choose_what_a_network_is_compared_with(tmp_path):
    """A run's folder holds the weights; the missing file of the network is named last."""
    best = tmp_path / "run" / "checkpoints" / "best.safetensors"
    best.parent.mkdir(parents=True)
    two = {f"{key}.{n}": a for key in ("a", "b") for n, a in draw(MINI, ord(key)).items()}
    best.write_bytes(safetensors.numpy.save(two))
    words = ["absent.py:net", "--backend", "torch", "--weights", str(tmp_path / "run")]
    for more, said in (
        ([], "choose one with `--key "),
        (["--key", "b"], "There is no file absent.py"),
        (["--key", "b", "--spec", "mini", "--eps", "1e-5"], "There is no file absent.py"),
        (["--key", "b", "--spec", "d2l", "--eps", "1e-5"], "--eps is for networks with batch norm"),
    ):
        assert said in CliRunner().invoke(main, ["check", *words, *more]).output


def test_what_is_no_network_is_said_without_colours():
    process = Process.__new__(Process)
    process.file, process.name, process.backend = "net.py", "net", "tf"
    for thing, words in (
        ({}, "net.py:net is an object of dict, which may hold weights, and no network: name"),
        (None, "net.py:net is None, and no network"),
        (type("Symbol", (), {"__call__": print})(), "net.py:net is an object of Symbol, and no"),
    ):
        with pytest.raises(server.NoNetworkError) as raised:
            server.require_network(thing)
        error = {"stage": "run", **server.failure(raised.value, "/folder")}
        assert words in str(process.failed(error))
    coloured = {"stage": "run", "type": "E", "message": "\x1b[1mNo axis\x1b[0m", "where": ""}
    assert str(process.failed(coloured)) == "net.py cannot be run: net.py raises E: No axis"


def test_a_message_keeps_its_texts_and_its_arrays():
    stream, array = io.BytesIO(), np.arange(3.0)
    message = {"message": "array: shapes differ", "other": ["array:0", {"x": array}]}
    server.send(stream, message)
    stream.seek(0)
    found = server.receive(stream)
    np.testing.assert_array_equal(found["other"][1].pop("x"), array)
    assert found == {"message": "array: shapes differ", "other": ["array:0", {}]}


def test_a_difference_that_does_not_reach_the_outputs_is_said_to():
    finding = Finding("scaled", {"theirs": "x times 2"}, ["head"], "")
    report = Report("mini", [33], "float64", [], [finding], [], 1e-15, 2e-10, [], True)
    assert "does not reach the outputs" in report.text()
    assert "the values x become x times 2" in report.text()
    report.plain = 2e-8
    assert "Without, it differs from them by 2e-08." in report.text()


def test_a_tensor_of_another_network_is_not_said_to_be_at_the_users_line():
    open_ = Difference("b.py:3", "a.py:7", None, None, 33)
    report = Report("mini", [33], "float64", [], [], [open_], None, None, [], True)
    report.reference = "the other network"
    assert "is the other network's b.py:3, yours at a.py:7 (33x33):" in report.text()


@pytest.mark.parametrize("failing", ["{} channel(s)", "KeyError"])
def test_a_network_that_does_not_run_gives_its_error_for_grey_and_for_colour(failing):
    """The real one of a network of colour images comes second."""

    def start(x):
        raise UserError(f"net.py raises {failing.format(x.shape[1])}.")

    with pytest.raises(UserError) as raised:
        open_with(start, None, None)
    tried = " Images of 96x96, 224x224, 33x33, 299x299 were tried."
    said = "net.py raises KeyError."
    if failing != "KeyError":
        said = (
            "The network runs on no images: with 1 channel(s), net.py raises 1 channel(s); "
            "with 3 channel(s), net.py raises 3 channel(s)."
        )
    assert str(raised.value) == said + tried


@pytest.mark.parametrize("size", [None, 33])
def test_a_keras_network_that_says_its_size_is_opened_with_it(size):
    def start(x):
        if x.shape[1:] != (3, 65, 65):
            raise UserError("expected shape=(None, 65, 65, 3), found shape=(2, 96, 96).")

    if size is None:
        assert open_with(start, None, size) == (3, 65)
        return
    with pytest.raises(UserError, match="expected shape"):
        open_with(start, None, size)


@pytest.mark.parametrize("field", ["clip = 0.5", "accumulate = 2"])
def test_a_step_is_not_compared_with_what_it_cannot_show(tmp_path, field):
    (tmp_path / "mine.toml").write_text(field)
    words = ["--backend", "torch", "--step", "make_step", "--recipe", str(tmp_path / "mine.toml")]
    found = CliRunner().invoke(main, ["check", "net.py:net", *words])
    assert found.exit_code == 2
    assert "leave `clip` and `accumulate` out of the recipe" in found.output


def test_a_missing_framework_has_status_4(tmp_path):
    """The unit tests' environment has none of the frameworks."""
    (tmp_path / "net.py").write_text("net = None\n")
    found = CliRunner().invoke(main, ["check", f"{tmp_path / 'net.py'}:net", "--backend", "mxnet"])
    assert found.exit_code == 4
    assert "mxnet cannot be imported" in found.output
    assert "install it there, or name another Python with `--python`" in found.output
