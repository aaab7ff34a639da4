"""README and guide are what docs/generate.py makes of them; their commands and links hold."""

import importlib.util
import json
import re
import shlex
from pathlib import Path

import click
import pytest

from backends import FRAMEWORKS
from common.cli.app import main
from common.page import words
from common.page.guide import DOCUMENTS as SITE
from common.page.guide import ENDINGS, guide_titles
from common.page.guide import GUIDE as PAGES
from common.parity.mutations import INJECTED_BUGS
from common.parity.report import CHECK_KEY, CHECKS_KEY
from common.parity.suite import DEFAULTS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
GUIDE = {page: (ROOT / "docs" / "porting" / f"{page}.md").read_text() for page in PAGES}

DOCUMENTS = sorted(
    str(path.relative_to(ROOT))
    for folder in (ROOT, ROOT / "docs", ROOT / "docs" / "porting", ROOT / "benchmarks")
    for path in folder.glob("*.md")
)

#: the columns of the guide's table of words, and what stands where a language has none
TABS = ("torch", "tf", "mxnet", "paddle")
UNSAID = ("nothing to clear", "not here", "outside of a tape", "outside of `record`")


def results(kind, backend):
    """What a command printed for a backend."""
    return json.loads((ROOT / "docs" / "results" / f"{kind}-{backend}.json").read_text())


@pytest.fixture(scope="module")
def generator():
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_generated_parts_are_up_to_date(generator):
    found = list(generator.pages())
    assert len(found) == 2 * (len(generator.PAGES) + len(PAGES))
    for path, text in found:
        assert path.read_text() == text, "run python docs/generate.py"


def test_the_tables_of_the_benchmarks_are_those_of_their_results(generator):
    text = (ROOT / "benchmarks" / "README.md").read_text()
    assert generator.benchmarks(text) == text, "run python docs/generate.py"


@pytest.fixture
def rows(generator, monkeypatch, tmp_path):
    """Write rows of a benchmark that differ from the real ones in what is given."""
    (real,) = [row for row in results("bench", "torch")["rows"] if row["role"] == "a"]
    folder = tmp_path / "docs" / "results"
    folder.mkdir(parents=True)
    monkeypatch.setattr(generator, "ROOT", tmp_path)

    def write(kind, backend, *changes, machine="two cores"):
        same = {**real, "backend": backend, "threads": None, "batch_size": 128}
        found = [{**same, **each} for each in changes]
        content = json.dumps({"machine": machine, "data": "sample", "rows": found})
        (folder / f"{kind}-{backend}.json").write_text(content)

    return write


def test_a_sweep_is_a_table_of_the_books_loop_and_the_fastest_of_ours(generator, rows):
    small, large = {"size": 33, "batch_size": 4}, {"size": 96, "batch_size": 4}
    rows(
        "size",
        "torch",
        {**large, "role": "a", "median": 10.0, "ratio": 1.0},
        {**large, "role": "bc", "median": 20.0, "ratio": 2.1},
        {**small, "role": "a", "median": 100.0, "ratio": 1.0},
        {**small, "role": "b", "median": 101.0, "ratio": 1.01},
        {**small, "role": "c", "median": 150.0, "ratio": 1.5},
        {**small, "role": "", "median": 149.0, "ratio": 1.4},
    )
    rows("size", "tf", {**small, "role": "a", "median": 7.0}, {**small, "role": "bc", "ratio": 9.0})
    said, _, *table = generator.table_of_sweep("size").splitlines()
    assert said == "two cores; batch 4:"
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    assert cells[0] == ["image size", "PyTorch", "TensorFlow"]
    assert cells[2][:2] == ["33", "100.0 to 150.0, 1.5x"]
    assert cells[2][2].endswith(", 9.0x")
    assert cells[3] == ["96", "10.0 to 20.0, 2.1x", ""]


def test_results_of_other_machines_are_tables_of_their_own(generator, rows):
    rows("bench", "torch", {"role": "a", "share": 0.25, "peak": 8.0, "size": 77})
    rows("bench", "paddle", {"role": "a", "size": 55}, machine="a GPU")
    text = generator.table_of_speeds()
    assert text.index("a GPU; batch 128 at 55") < text.index("two cores; batch 128 at 77")
    assert "25.0% of 8 GFLOP/s" in text
    assert "roofline" not in text, "the results are from before it was measured"


def test_a_result_with_the_roofline_stands_beside_one_without(generator, rows):
    rows("bench", "torch", {"role": "a", "peak": 8.0, "bandwidth": 23.0, "roofline": 0.36})
    rows("bench", "paddle", {"role": "a", "share": 0.25, "peak": 5.0})
    *_, heads, _, paddle, torch = generator.table_of_speeds().splitlines()
    assert heads.index("of the roofline") < heads.index("of peak")
    assert "36.0% of 8 GFLOP/s, 23 GB/s" in torch
    assert "25.0% of 5 GFLOP/s" in paddle
    assert "25.0%" not in torch


def test_what_is_not_measured_yet_says_so_and_what_cannot_be_read_is_refused(generator, rows):
    text = (ROOT / "benchmarks" / "README.md").read_text()
    rows("bench", "torch", {"role": "a"})
    assert generator.benchmarks(text).count("Not measured yet.") == len(generator.SWEEPS) + 4
    (generator.ROOT / "docs" / "results" / "size-torch.json").write_text("{")
    with pytest.raises(generator.results.Unusable, match=r"size-torch\.json is damaged"):
        generator.benchmarks(text)


def test_an_escaped_bug_and_a_column_of_no_seeds_have_their_cells(generator, monkeypatch, tmp_path):
    folder = tmp_path / "docs" / "results"
    folder.mkdir(parents=True)
    monkeypatch.setattr(generator, "ROOT", tmp_path)
    tied, free = {"largest": 1.0, "length": 0.5}, {"largest": 1e-9, "length": 1e-9}
    for backend, seeds in zip(FRAMEWORKS, ([tied], [free], [tied, free], [free]), strict=True):
        (folder / f"ordinary-{backend}.json").write_text(json.dumps({"rows": seeds}))
        bugs = [
            {"bug": name, CHECK_KEY: "shapes", "error": None, "where": ""} for name in INJECTED_BUGS
        ]
        del bugs[0][CHECK_KEY]
        (folder / f"bugs-{backend}.json").write_text(json.dumps(bugs))
    table = [line.split("|")[2:-1] for line in generator.ordinary(0).splitlines()[2:5]]
    assert [[cell.strip() for cell in line] for line in table] == [
        ["1 / 1", "1e+00", "5e-01", "-"],
        ["0 / 1", "-", "-", "1e-09"],
        ["1 / 2", "1e+00", "5e-01", "1e-09"],
    ]
    assert generator.bug_matrix(0).count("escaped") == len(FRAMEWORKS)
    assert f"caught {len(bugs) - 1} of these {len(bugs)}" in generator.shapes_alone(0)


def test_every_page_of_the_guide_is_generated_and_in_both_sites():
    folder = [str(path.relative_to(ROOT)) for path in (ROOT / "docs" / "porting").iterdir()]
    both = [f"docs/porting/{page}{ending}" for page in PAGES for ending in ENDINGS.values()]
    assert sorted(folder) == sorted(both)
    assert {"docs/check.md", "docs/check.zh.md", *folder} == set(SITE)
    navigation = (ROOT / "mkdocs.yml").read_text().partition("\nnav:")[2]
    assert tuple(re.findall(r"\bporting/([\w-]+)\.md$", navigation, re.M)) == PAGES


@pytest.mark.parametrize("backend", FRAMEWORKS)
def test_the_results_hold_every_bug_and_each_was_caught_by_a_check_that_should(backend):
    rows = results("bugs", backend)
    assert [row["bug"] for row in rows] == list(INJECTED_BUGS)
    assert all(row[CHECK_KEY] in INJECTED_BUGS[row["bug"]].caught_by for row in rows)


@pytest.mark.parametrize("backend", FRAMEWORKS)
def test_every_check_of_the_results_holds(backend):
    reports = results("verify", backend)
    covered = {(spec, size) for spec, sizes in DEFAULTS.items() for size in sizes}
    assert len(covered) == 14  # as docs/proof.md says
    assert {(report["spec"], report["size"]) for report in reports} == covered
    assert len(reports) == 2 * len(covered)
    assert all(check["passed"] for report in reports for check in report[CHECKS_KEY])


def test_the_results_are_plain_json():
    def refuse(constant):
        raise ValueError(constant)

    paths = list((ROOT / "docs" / "results").glob("*.json"))
    assert len(paths) >= 5 * len(FRAMEWORKS)  # bench, bugs, same-padding, pitfalls, verify
    for path in paths:
        json.loads(path.read_text(), parse_constant=refuse)


def test_ci_runs_the_command_that_the_readme_gives():
    (command,) = re.findall(r"^python -m pip install -c constraints/tox.txt .*$", README, re.M)
    assert command in (ROOT / ".ci" / "run").read_text()


def test_every_command_of_the_readme_is_one():
    text = "\n".join((ROOT / page).read_text() for page in DOCUMENTS)
    lines = re.findall(r"^(?:python .* && )?googlenet (.*)$", text, re.M)
    assert len(lines) > 40
    group = click.Context(main, **main.context_settings)
    for line in lines:
        command, *words = shlex.split(line, comments=True)
        main.commands[command].make_context(command, words, group)  # an error for what is none


def test_every_link_of_the_guides_leads_somewhere():
    assert {"README.md", "README.zh-CN.md", "docs/porting/index.md"} < set(DOCUMENTS)
    for document in DOCUMENTS:
        page = ROOT / document
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text()):
            made = document.startswith("docs/index") and target.startswith("page/")  # by the site
            if not target.startswith("http") and not made:
                assert (page.parent / target).exists(), target


@pytest.mark.parametrize("backend", FRAMEWORKS)
def test_every_pitfall_was_measured_and_has_its_section_in_the_guide(generator, backend):
    found = results("pitfalls", backend)
    assert found["backend"] == backend
    assert found["version"] == results("verify", backend)[0]["version"]
    assert set(found["traps"]) == set(generator.pitfalls(backend))
    for pitfall, figures in found["traps"].items():
        assert figures["with"] < figures["without"]
        page, title = guide_titles(ROOT)[pitfall]
        section = GUIDE[page].partition(f'<a id="{pitfall}"></a>\n\n## {title}\n')[2]
        assert f"<!-- begin figures {pitfall} -->" in section.partition("\n## ")[0]


def test_the_guide_shows_no_figure_that_was_not_measured():
    measured = {pitfall for b in FRAMEWORKS for pitfall in results("pitfalls", b)["traps"]}
    shown = [
        pitfall
        for text in GUIDE.values()
        for pitfall in re.findall(r"<!-- begin figures ([\w-]+) -->\n\|", text)
    ]
    assert sorted(shown) == sorted(measured)


def test_every_pitfall_has_one_anchor_and_its_heading_and_is_in_the_table():
    anchors = [a for text in GUIDE.values() for a in re.findall(r'<a id="([\w-]+)"></a>', text)]
    assert anchors == [*guide_titles(ROOT)]
    assert len(set(anchors)) == len(anchors) > 60
    for index in (GUIDE["index"], (ROOT / "docs" / "porting" / "index.zh.md").read_text()):
        table = index.partition("<!-- begin pitfall_table -->")[2]
        assert re.findall(r"\.md#([\w-]+)\)", table) == anchors


def test_the_chinese_names_of_the_guide_s_pages_are_those_of_the_site():
    menu = (ROOT / "mkdocs.yml").read_text()
    for page, title in words.GUIDE.items():
        english = GUIDE[page].partition("\n")[0].removeprefix("# ")
        assert f"            {english}: {title}\n" in menu


BLOCKS = r"(?ms)^```.*?^```"  #: of code


def sections(text):
    """The anchor and the title of each section: the anchor that it sets, or GitHub's."""
    found = re.findall(r'(?:<a id="([\w-]+)"></a>\n\n)?^## (.+)$', text, re.M)
    return [
        (anchor or re.sub(r"[^\w -]", "", t.lower()).replace(" ", "-"), t) for anchor, t in found
    ]


def kept(generator, text):
    """What a translation keeps: links, code, figures and tables, in any order of the words."""
    text = generator.FIGURES.sub(r"\1\3", text).replace(".zh.md", ".md")
    prose = " ".join(re.sub(BLOCKS, "", text.partition("\n")[2]).split())
    return {
        "links": sorted(re.findall(r"\]\(([^)]+)\)", text)),
        "code": sorted(set(re.findall(r"`[^`]+`", prose))),
        "blocks": [re.sub(r" *# .*", "", block) for block in re.findall(BLOCKS, text)],
        "marks": re.findall(r"<!-- .* -->", text),
        "tables": [row.count(" |") for row in re.findall(r"^\|.*$", text, re.M)],
    }


@pytest.mark.parametrize("page", PAGES)
def test_a_chinese_page_of_the_guide_has_what_the_english_one_has(generator, page):
    chinese = (ROOT / "docs" / "porting" / f"{page}.zh.md").read_text()
    found = sections(chinese)
    assert [anchor for anchor, _ in found] == [anchor for anchor, _ in sections(GUIDE[page])]
    named = [(anchor, title) for anchor, title in found if anchor in words.PITFALLS]
    assert named == [(anchor, words.PITFALLS[anchor]) for anchor, _ in named]
    head = f"[English]({page}.md)\n"
    assert head in chinese
    chinese = re.sub(r"^## .*$", "", chinese.replace(head, ""), flags=re.M)
    english = re.sub(r"^## .*$", "", GUIDE[page], flags=re.M)
    assert kept(generator, chinese) == kept(generator, english)


def anchors_of(path):
    """The anchors of a document: those that it sets, and those that GitHub makes of headings."""
    text = path.read_text()
    made = [re.sub(r"[^\w -]", "", title.lower()) for title in re.findall(r"^#+ (.*)$", text, re.M)]
    return {*re.findall(r'<a id="([\w-]+)"></a>', text), *(each.replace(" ", "-") for each in made)}


def test_every_anchor_of_a_link_between_the_documents_is_there():
    count = 0
    for document in DOCUMENTS:
        page = ROOT / document
        links = re.findall(r"\]\(((?:[^)#\s:]+\.md)?)#([^)\s]+)\)", page.read_text())
        for target, anchor in links:
            leads = page.parent / target if target else page
            assert anchor in anchors_of(leads), (document, target, anchor)
        count += len(links)
    assert count > 100


def test_chinese_documents_link_to_chinese_ones():
    chinese = [document for document in DOCUMENTS if ".zh" in document]
    assert len(chinese) > 20
    for document in chinese:
        page = ROOT / document
        text = re.sub(r"^\[English\]\(.*", "", page.read_text(), flags=re.M)
        for target in re.findall(r"\]\(([^)#\s]+\.md)", text):
            leads = page.parent / target
            assert target.endswith(".zh.md") or not leads.with_suffix(".zh.md").exists(), target


@pytest.mark.parametrize(
    "name", ["durability", "family", "files", "parallel", "proof", "recipes", "training"]
)
def test_a_chinese_document_has_what_the_english_one_has(generator, name):
    english = (ROOT / "docs" / f"{name}.md").read_text()
    chinese = (ROOT / "docs" / f"{name}.zh.md").read_text().replace(f"[English]({name}.md)\n", "")
    found, wanted = ([anchor for anchor, _ in sections(text)] for text in (chinese, english))
    assert found == wanted
    assert kept(generator, chinese) == kept(generator, english)
    figures = r"\d[\d,.]*(?:e-?\d+)?(?<![.,])"
    found, wanted = (set(re.findall(figures, text)) for text in (chinese, english))
    assert wanted <= found  # a month is a figure in Chinese only


def test_every_link_to_source_names_the_line_that_it_quotes(generator):
    """And is one that the generator keeps: none without the name of what it points into."""
    text = "\n".join(GUIDE.values())
    quoted = re.findall(r"\[`([^`]+)`\]\(\.\./\.\./([\w/]+\.py)#L(\d+)", text)
    assert len(quoted) > 200
    for code, path, number in quoted:
        first, *more = (ROOT / path).read_text().splitlines()[int(number) - 1 :]
        assert code.count("(") == code.count(")"), code
        found, code = "".join("".join([first, *more[:5]]).split()), "".join(code.split())
        assert 0 <= found.find(code) < len("".join(first.split())), (path, code)
    by_hand = generator.FIGURES.sub("", text)
    assert len(re.findall(r"#L\d+", by_hand)) == len(generator.LINK.findall(by_hand))


def test_every_word_is_linked_in_each_of_the_four_languages():
    rows = [row for row in GUIDE["words"].splitlines() if row.startswith("| ")][2:]
    assert len(rows) > 30
    for row in rows:
        for backend, cell in zip(TABS, row.split(" | ")[1:], strict=True):
            assert f"](../../backends/{backend}/" in cell or cell.rstrip(" |") in UNSAID, row


def test_a_dead_link_is_mended_or_refused(generator):
    link = '[`nn.ReLU()`](../../backends/torch/googlenet.py#L1 "Conv.__init__")'
    number = generator.line("backends/torch/googlenet.py", "Conv.__init__", "nn.ReLU()")
    assert number > 1
    assert f"#L{number} " in generator.guide(link)
    for old, new in (("nn.ReLU()", "nn.GELU()"), ("Conv.__init__", "Conv.gone")):
        with pytest.raises(LookupError, match=r"docs/porting: there is no"):
            generator.guide(link.replace(old, new))
