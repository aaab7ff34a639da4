"""The page as people use it: mouse, keyboard, phone, print, without JavaScript, checked by axe.

The fixture `visit` opens it. It fails a test if the page reports an error or uses the network.
"""

import json
import re
from itertools import pairwise

import pytest
from axe_playwright_python.sync_playwright import Axe

from backends import FRAMEWORKS
from common.files import ROOT
from common.page import content, results, source, topics
from common.page import site as pages
from common.spec import SPECS, arithmetic

PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
NAMES = list(FRAMEWORKS)
TOPICS = topics.TOPICS


def columns(page, topic="inception"):
    """The frameworks shown in a topic, from left to right."""
    boxes = page.eval_on_selector_all(
        f"#{topic} .column",
        "all => all.filter(e => e.checkVisibility())"
        ".map(e => [e.getBoundingClientRect().x, e.dataset.column])",
    )
    return [name for _, name in sorted(boxes)]


def chip(page, name):
    return page.locator(f".chip[data-column={name}]")


@pytest.mark.parametrize("topic", [topic.id for topic in TOPICS])
def test_every_topic_has_four_columns_that_are_seen(visit, topic):
    page = visit(hash=f"#{topic}")
    assert columns(page, topic) == NAMES
    for name in NAMES:
        code = page.locator(f"#{topic} [data-column={name}] pre")
        assert code.bounding_box()["height"] > 40
        assert len(code.inner_text().strip().splitlines()) >= 3


def test_matching_lines_are_at_the_same_height(visit):
    page = visit()
    heights = page.eval_on_selector_all(
        "#inception .l",
        "all => all.filter(e => e.textContent.includes('self.branch5x5 = '))"
        ".map(e => e.getBoundingClientRect().y)",
    )
    assert len(heights) == 4
    assert max(heights) - min(heights) < 1


def test_what_differs_is_marked_among_the_shown_columns_only(visit):
    page = visit()
    marked = """[...document.querySelectorAll('#inception [data-column=torch] code span span')]
        .filter(e => getComputedStyle(e).backgroundColor !== 'rgba(0, 0, 0, 0)')
        .map(e => e.textContent.trim())"""
    assert "Module" in page.evaluate(marked)
    for name in NAMES[1:]:
        chip(page, name).click()
    assert page.evaluate(marked) == []


def test_a_line_that_no_shown_column_has_takes_no_room(visit):
    page = visit(hash="#conv?show=mxnet,paddle")
    assert page.locator("#conv [data-column=mxnet] .gap:visible").count() < 10
    assert page.locator("#conv [data-column=mxnet] .gap").count() > 10


def test_the_choice_and_order_of_columns_survive_a_reload(visit):
    page = visit()
    chip(page, "mxnet").click()
    page.locator("#inception [data-column=paddle] [data-move='-1']").click()
    assert columns(page) == ["torch", "paddle", "tf"]
    assert columns(page, "step") == ["torch", "paddle", "tf"]
    page.reload()
    assert columns(page) == ["torch", "paddle", "tf"]
    assert chip(page, "mxnet").get_attribute("aria-pressed") == "false"
    page.locator("nav a[href='#proof']").click()
    page.reload()
    assert columns(page) == ["torch", "paddle", "tf"]
    assert page.url.endswith("#proof?show=torch,paddle,tf")


def test_the_address_is_read_with_care(visit):
    assert columns(visit(hash="#inception?show=tf,nonsense,torch")) == ["tf", "torch"]
    assert columns(visit(hash="#inception?show=&size=0&spec=nobody")) == NAMES
    page = visit(hash="#network?spec=mini&size=40")
    assert page.locator("#spec").input_value() == "mini"
    assert page.locator("#size").input_value() == "40"


def test_the_last_column_cannot_be_hidden(visit):
    page = visit(hash="#inception?show=tf")
    assert chip(page, "tf").is_disabled()
    assert columns(page) == ["tf"]


def test_a_changed_address_is_followed(visit):
    page = visit()
    page.evaluate("location.hash = '#step?show=paddle'")
    page.wait_for_function("document.body.dataset.show === 'paddle'")
    assert columns(page, "step") == ["paddle"]
    assert page.locator("#step").bounding_box()["y"] < 300


def test_the_choice_goes_along_to_the_other_language(visit):
    page = visit(hash="#step?show=tf,torch")
    page.locator("#language").click()
    page.wait_for_url("**/index.zh-CN.html#step?show=tf,torch")
    assert page.locator("html").get_attribute("lang") == "zh-CN"
    assert columns(page, "step") == ["tf", "torch"]


def test_the_code_of_all_columns_scrolls_together(visit):
    page = visit(hash="#step")
    page.eval_on_selector("#step [data-column=tf] pre", "e => { e.scrollLeft = 60 }")
    page.wait_for_function(
        "[...document.querySelectorAll('#step pre')].every(e => e.scrollLeft === 60)"
    )
    page.eval_on_selector("#step [data-column=paddle] pre", "e => { e.scrollLeft = 10 }")
    page.wait_for_function(
        "[...document.querySelectorAll('#step pre')].every(e => e.scrollLeft === 10)"
    )


@pytest.mark.parametrize("name", NAMES)
def test_copying_gives_the_code_as_it_stands_in_the_source(visit, name):
    page = visit(permissions=["clipboard-read", "clipboard-write"])
    (topic,) = [each for each in TOPICS if each.id == "conv"]
    made = content.Page("en", ROOT)
    page.locator(f"#conv [data-column={name}] .copy").click()
    page.wait_for_function("document.querySelector('#conv .copy').closest('body')")
    page.get_by_text("Copied", exact=True).wait_for()
    copied = page.evaluate("navigator.clipboard.readText()")
    want = [source.cut(made.file(name, topic.file), at) for at in made.addresses(topic, name)]
    assert copied.rstrip("\n") == "\n\n".join("\n".join(lines) for lines in want)


# ---- keyboard and screen readers


def test_everything_is_reached_and_worked_by_keyboard(visit):
    page = visit()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    page.wait_for_function("location.hash === '#idioms'")
    reached = []
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate("e => e.dataset.column || e.className || e.tagName", _focused(page))
        )
        if reached[-1] == "torch":
            break
    assert reached[-1] == "torch", reached
    outline = page.evaluate("e => getComputedStyle(e).outlineStyle", _focused(page))
    assert outline == "solid"
    page.keyboard.press("ArrowRight")
    assert columns(page) == ["tf", "torch", "mxnet", "paddle"]
    assert page.evaluate("document.activeElement.dataset.column") == "torch"
    assert page.locator("#moved").inner_text() == "PyTorch is column 2 of 4"
    page.keyboard.press("Space")
    assert columns(page) == ["tf", "mxnet", "paddle"]
    page.keyboard.press("Space")
    assert columns(page) == ["tf", "mxnet", "paddle", "torch"]


def _focused(page):
    return page.evaluate_handle("document.activeElement")


def test_moving_a_column_keeps_the_focus_on_its_buttons(visit):
    page = visit()
    button = page.locator("#conv [data-column=tf] [data-move='-1']")
    button.focus()
    page.keyboard.press("Enter")
    assert columns(page, "conv") == ["tf", "torch", "mxnet", "paddle"]
    column = "document.activeElement.closest('.column').dataset.column"
    assert page.evaluate(column) == "tf"


def test_code_can_be_scrolled_by_keyboard(visit):
    page = visit()
    page.locator("#step [data-column=torch] pre").focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("document.querySelector('#step pre').scrollLeft > 0")


def test_a_screen_reader_gets_names_states_and_headings(visit):
    page = visit()
    for topic in TOPICS:
        heading = page.locator(f"#{topic.id}").get_by_role("heading", level=3)
        assert heading.inner_text() == topic.title[0].replace("`", "")
    for title in results.TITLES.values():
        assert page.get_by_role("button", name=title, exact=True, pressed=True).count() == 1
        assert page.get_by_role("region", name=f"{title}: Inception block").count() == 1
        name = f"Move {title} to the left"
        assert page.get_by_role("button", name=name).count() == len(topics_shown(page))
    levels = page.eval_on_selector_all(
        "h1, h2, h3, h4",
        "all => all.filter(e => e.checkVisibility()).map(e => Number(e.tagName[1]))",
    )
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


def topics_shown(page):
    return page.locator(".topic").all()


# All rules of axe apply, its best practices too.
@pytest.mark.parametrize(
    ("name", "device", "scheme"),
    [
        ("index.html", "desktop", "light"),
        ("index.html", "phone", "dark"),
        ("index.zh-CN.html", "desktop", "dark"),
        ("index.zh-CN.html", "phone", "light"),
    ],
)
def test_axe_finds_nothing(visit, name, device, scheme):
    options = PHONE if device == "phone" else {}
    page = visit(name, color_scheme=scheme, **options)
    page.locator("#parts summary").click()
    page.locator(".drawing:visible .lane .node").first.click()
    check(page)
    page.locator("#search").fill("batch")
    page.locator("#size").fill("0")
    chip(page, "mxnet").click()
    check(page)


def check(page):
    found = Axe().run(page).response["violations"]
    short = [(each["id"], [node["html"][:200] for node in each["nodes"][:3]]) for each in found]
    assert not found, json.dumps(short, indent=1)


# ---- the network


@pytest.mark.parametrize("spec", SPECS)
def test_the_drawing_computes_what_arithmetic_does(visit, spec):
    page = visit(hash=f"#network?spec={spec}")
    least = arithmetic.smallest_input(SPECS[spec])
    for size in sorted({least, 97, 224, SPECS[spec].input[1], 321}):
        if size < least:
            continue
        page.locator("#size").fill(str(size))
        found = page.evaluate("() => Object.fromEntries(costs)")
        try:
            table = arithmetic.layers(SPECS[spec].at(size=size))
        except arithmetic.SpecError:
            assert page.locator("#size-error").inner_text()
            continue
        parameters, adds = arithmetic.totals(table)
        shown = page.locator(".drawing:visible [data-total]").all_inner_texts()
        assert shown == [f"{parameters:,}", f"{adds:,}"]
        for layer in table:
            at = re.sub(r"\.conv$", "", layer.name) if layer.name not in found else layer.name
            if at not in found or layer.kind not in ("Conv", "MaxPool", "Inception", "Linear"):
                continue
            assert found[at]["shape"] == list(layer.shape[1:]), (size, at)
            if layer.kind in ("Conv", "Linear"):
                assert found[at]["adds"] == layer.multiply_adds, (size, at)
        stages = {at: list(shape[1:]) for at, shape in shapes(SPECS[spec], size).items()}
        assert {at: found[at]["shape"] for at in stages} == stages


def shapes(spec, size):
    return arithmetic.stage_shapes(spec.at(size=size))


def test_the_drawing_has_every_row_of_the_spec(visit):
    page = visit()
    at = page.eval_on_selector_all("[data-spec=d2l] .node", "all => all.map(e => e.dataset.at)")
    named = {layer.name for layer in arithmetic.layers(SPECS["d2l"])}
    convolutions = {name.removesuffix(".conv") for name in named if name.endswith(".conv")}
    assert convolutions <= set(at)
    assert len(set(at)) == len(at) == 57 + 9 + 13 + 1 + 1  # conv, Inception, pools, mean, head


def test_a_size_that_the_network_cannot_take_is_reported(visit):
    page = visit(hash="#network?spec=blog-224")
    page.locator("#size").fill("12")
    assert "cannot take" in page.locator("#size-error").inner_text()
    for wrong in ("", "0", "99999"):
        page.locator("#size").fill(wrong)
        assert "whole number" in page.locator("#size-error").inner_text()
    page.locator("#size").fill("224")
    assert page.locator("#size-error").inner_text() == ""


def test_hovering_shows_details_and_pressing_the_four_lines(visit):
    page = visit(hash="#network")
    node = page.locator("[data-spec=d2l] [data-at='stage3.0.branch3x3.1']")
    node.hover()
    text = page.locator("#details").inner_text()
    assert "stage3.0.branch3x3.1" in text
    assert "(N, 128, 12, 12)" in text
    assert "110,720" in text  # 128 x (96 x 3 x 3 + 1)
    node.focus()
    page.keyboard.press("Enter")
    lines = page.locator("#details-lines pre").all_inner_texts()
    assert len(lines) == 8
    for line, call in zip(lines, ("Conv2d", "Conv2D", "Conv2D", "Conv2D"), strict=False):
        assert call in line
    assert all("self.branch3x3 = " in line for line in lines[4:])


@pytest.mark.parametrize("spec", SPECS)
def test_every_part_of_a_drawing_has_its_four_lines(visit, spec):
    page = visit(hash=f"#network?spec={spec}")
    kinds = page.eval_on_selector_all(
        f"[data-spec={spec}] button", "all => [...new Set(all.map(e => e.dataset.kind))]"
    )
    for kind in kinds:
        page.locator(f"[data-spec={spec}] button[data-kind='{kind}']").first.click()
        lines = page.locator("#details-lines pre").all_inner_texts()
        assert len(lines) in (4, 8), kind
        assert all(line.strip() for line in lines)


# ---- words, light and dark


def test_search_leaves_the_rows_that_hold_every_word(visit):
    page = visit(hash="#words")
    page.locator("#search").fill("batch NORM")
    rows = page.locator(".searched tbody tr:visible").all_inner_texts()
    assert rows
    assert all("batch" in row.lower() and "norm" in row.lower() for row in rows)
    assert page.locator("#found").inner_text() == f"{len(rows)} rows"
    page.locator("#search").fill("branch3x3")
    assert "#3x3 reduce" in page.locator(".searched tbody tr:visible").inner_text()
    page.locator("#search").press("Enter")
    page.locator("#search").fill("")
    assert page.locator(".searched tbody tr:visible").count() > 30


def test_light_and_dark(visit):
    background = "getComputedStyle(document.body).backgroundColor"
    light, dark = visit(color_scheme="light"), visit(color_scheme="dark")
    colours = light.evaluate(background), dark.evaluate(background)
    assert colours[0] != colours[1]
    light.locator("#theme").click()
    assert light.evaluate(background) == colours[1]
    light.reload()
    assert light.evaluate(background) == colours[1]


# ---- phone, print, no JavaScript


@pytest.mark.parametrize("name", pages.FILES.values())
@pytest.mark.parametrize("width", [320, 390, 768, 1024, 1440, 2200])
def test_no_width_makes_the_page_scroll_sideways(visit, name, width):
    page = visit(name, viewport={"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_pitfalls_do_not_make_a_phone_scroll_sideways(visit, measured, tmp_path):
    out = tmp_path / "out"
    pages.write(out, measured.root)
    page = visit(folder=out, viewport={"width": 390, "height": 800})
    assert page.locator(".pitfalls li").count() >= 4
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_on_a_phone_columns_are_swiped_and_all_topics_go_along(visit):
    page = visit(**PHONE)
    box = page.locator("#conv [data-column=torch]").bounding_box()
    assert 300 < box["width"] < 390
    page.eval_on_selector("#conv .columns", "e => { e.scrollLeft = e.scrollWidth }")
    page.wait_for_function(
        "document.querySelector('#step [data-column=paddle]').getBoundingClientRect().left < 100"
    )


def test_in_print_all_code_is_on_paper(visit):
    page = visit(viewport={"width": 740, "height": 1000})  # as wide as a sheet
    page.emulate_media(media="print")
    assert not page.locator(".chooser").is_visible()
    assert not page.locator("#theme").is_visible()
    assert columns(page)
    wide = "all => all.filter(e => e.scrollWidth > e.clientWidth + 1).length"
    assert page.eval_on_selector_all(".column pre", wide) == 0
    assert len(page.pdf()) > 50_000


@pytest.mark.parametrize("name", pages.FILES.values())
def test_without_javascript_everything_can_be_read(visit, name):
    page = visit(name, java_script_enabled=False)
    for topic in TOPICS:
        for backend in NAMES:
            assert page.locator(f"#{topic.id} [data-column={backend}] pre").is_visible()
    for control in (".chooser", "#network-form", "#search-form", "#theme", ".details", ".copy"):
        assert not page.locator(control).first.is_visible()
    assert page.locator(".drawing").count() == page.locator(".drawing:visible").count() > 3
    assert page.locator("#parts summary").is_visible()
