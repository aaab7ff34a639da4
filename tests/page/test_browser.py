"""The page as people use it: mouse, keyboard, phone, print, without JavaScript, checked by axe.

The fixture `visit` opens it. It fails a test if the page reports an error or uses the network.

Long because its helpers serve every way of using the page.
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
from common.page.drawing import DRAWN as SPECS
from common.spec import arithmetic

PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
NAMES = list(FRAMEWORKS)
TOPICS = topics.TOPICS


def columns(page, topic="conv"):
    """The frameworks shown in a topic, row by row."""
    boxes = page.eval_on_selector_all(
        f"#{topic} .column",
        "all => all.filter(e => e.checkVisibility()).map(e => [Math.round("
        "e.getBoundingClientRect().y), e.getBoundingClientRect().x, e.dataset.column])",
    )
    return [name for _, _, name in sorted(boxes)]


def chip(page, name):
    return page.locator(f".chip[data-column={name}]")


def open_all(page):
    page.locator("#open-all").click()


def test_every_topic_has_four_columns_that_are_seen(visit):
    page = visit()
    open_all(page)
    for topic in TOPICS:
        assert columns(page, topic.id) == NAMES
        for name in NAMES:
            code = page.locator(f"#{topic.id} .column[data-column={name}] pre")
            assert code.bounding_box()["height"] > 40
            assert len(code.inner_text().strip().splitlines()) >= 3


# ---- width: nothing of the code is cut off, and every column is as wide as the window allows

LAYOUTS = {390: 1, 1280: 2, 1440: 2, 1920: 4, 3000: 4}
CUT_OFF = """() => [...document.querySelectorAll('.column')].filter(e => e.checkVisibility())
  .flatMap(column => [...column.querySelectorAll('.l')].filter(line => {
    const range = document.createRange();
    range.selectNodeContents(line);
    const box = column.getBoundingClientRect();
    return [...range.getClientRects()].some(r => r.right > box.right || r.left < box.left);
  }).map(line => line.textContent))"""


@pytest.mark.parametrize("name", pages.FILES.values())
@pytest.mark.parametrize("width", LAYOUTS)
def test_no_line_is_cut_off(visit, name, width):
    page = visit(name, viewport={"width": width, "height": 900})
    open_all(page)
    assert page.evaluate(CUT_OFF) == []
    boxes = [page.locator(f"#conv .column[data-column={each}]").bounding_box() for each in NAMES]
    top = min(box["y"] for box in boxes)
    inside = [box for box in boxes if abs(box["y"] - top) < 1 and box["x"] < width - 50]
    assert len(inside) == LAYOUTS[width]
    assert sum(box["width"] for box in inside) > 0.8 * width


def test_without_wrapping_lines_are_whole_and_the_choice_is_kept(visit):
    page = visit()
    assert page.evaluate(CUT_OFF) == []
    page.locator("#wrap").click()
    page.reload()
    assert page.locator("#wrap").get_attribute("aria-pressed") == "false"
    heights = "all => new Set(all.map(e => Math.round(e.getBoundingClientRect().height))).size"
    assert page.eval_on_selector_all("#conv .column[data-column=paddle] .l:not(.gap)", heights) == 1
    assert page.evaluate(CUT_OFF)


def test_the_page_is_short_and_code_is_on_the_first_screen(visit):
    page = visit()
    assert page.evaluate("document.documentElement.scrollHeight") < 12 * 900
    first = page.locator("#conv .l:not(.gap)").first.bounding_box()
    assert first["y"] < 600
    phone = visit(**PHONE)
    assert phone.locator("#conv .l:not(.gap)").nth(5).bounding_box()["y"] < 844


@pytest.mark.parametrize("button", ["#wrap", "#open-all"])
def test_what_is_read_stays_where_it_is_when_the_page_above_changes(visit, button):
    page = visit(hash="#step")
    box = page.locator(button).bounding_box()
    before = page.locator("#step").bounding_box()["y"]
    for _ in range(2):
        page.mouse.click(box["x"] + 9, box["y"] + 9)
        assert abs(page.locator("#step").bounding_box()["y"] - before) < 40


@pytest.mark.parametrize("options", [{}, PHONE], ids=["desktop", "phone"])
def test_nothing_covers_the_hits_of_the_search_or_the_title_of_the_guide(visit, options):
    above = """e => { const box = e.getBoundingClientRect();
        return e.contains(document.elementFromPoint(box.x + 20, box.y + box.height / 2)); }"""
    page = visit(**options)
    page.locator("#search").fill("padding")
    page.locator("#hits a").first.wait_for()
    assert all(page.locator("#hits a").nth(at).evaluate(above) for at in range(12))
    page = visit("guide.html", **options)
    assert page.locator("h1").evaluate(
        "e => e.getBoundingClientRect().y >= document.querySelector('.top')"
        ".getBoundingClientRect().bottom + 10"
    )


def test_topics_open_from_the_address_the_menu_and_their_heading(visit):
    page = visit(hash="#step")
    assert page.locator("#step pre").first.is_visible()
    assert page.locator("#jump").input_value() == "step"
    assert not page.locator("#head pre").first.is_visible()
    page.locator("#jump").select_option("head")
    assert page.locator("#head pre").first.is_visible()
    assert page.url.endswith("#head")
    page.locator("#device summary").click()
    assert page.locator("#device pre").first.is_visible()
    assert page.url.endswith("#device")
    open_all(page)
    assert page.locator("details.topic:not([open])").count() == 0
    assert page.locator("#open-all").inner_text() == "Close all"
    assert page.locator("#open-all[aria-pressed]").count() == 0, "its name says its state"
    open_all(page)
    assert page.locator("details.topic[open]").count() == 0


def test_a_listing_leads_to_its_line_and_a_pitfall_to_its_place_in_the_guide(visit):
    page = visit()
    page.locator("#conv .column[data-column=tf] .path a").first.click()
    page.wait_for_url("**/source/backends-tf-googlenet.py.html#L*")
    line = page.locator(".row:target")
    assert "serialisable" in line.inner_text()
    assert page.evaluate("getComputedStyle(document.querySelector(':target')).backgroundColor") != (
        page.evaluate("getComputedStyle(document.body).backgroundColor")
    )
    page.go_back()
    page.locator("#conv [data-pitfall=same-padding] a").click()
    page.wait_for_url("**/guide-layout.html#same-padding")
    heading = page.locator("p:has(> a#same-padding) + h2")
    assert 0 <= heading.bounding_box()["y"] < 900


def test_matching_lines_are_at_the_same_height(visit):
    page = visit(hash="#inception", viewport={"width": 1920, "height": 1000})
    heights = page.eval_on_selector_all(
        "#inception .l",
        "all => all.filter(e => e.textContent.includes('self.branch5x5 = '))"
        ".map(e => e.getBoundingClientRect().y)",
    )
    assert len(heights) == 4
    assert max(heights) - min(heights) < 1


def test_what_differs_is_marked_among_the_shown_columns_only(visit):
    page = visit()
    marked = """[...document.querySelectorAll('#conv .column[data-column=torch] code span span')]
        .filter(e => getComputedStyle(e).backgroundColor !== 'rgba(0, 0, 0, 0)')
        .map(e => e.textContent.trim())"""
    assert "Module" in page.evaluate(marked)
    for name in NAMES[1:]:
        chip(page, name).click()
    assert page.evaluate(marked) == []


def test_a_line_that_no_shown_column_has_takes_no_room(visit):
    page = visit(hash="#conv?show=mxnet,paddle")
    rows = page.evaluate("""[...document.querySelectorAll('#conv [data-column=mxnet] .l')].map(
        (e, row) => [e, document.querySelectorAll('#conv [data-column=paddle] .l')[row]])
        .filter(pair => pair.every(e => e.classList.contains('gap')))
        .map(pair => pair[0].getBoundingClientRect().height)""")
    assert len(rows) > 5
    assert {*rows} == {0}


def test_the_choice_and_order_of_columns_survive_a_reload(visit):
    page = visit()
    chip(page, "mxnet").click()
    page.locator("#conv .column[data-column=paddle] [data-move='-1']").click()
    assert columns(page) == ["torch", "paddle", "tf"]
    page.locator("#step summary").click()
    assert columns(page, "step") == ["torch", "paddle", "tf"]
    page.reload()
    assert columns(page) == ["torch", "paddle", "tf"]
    assert chip(page, "mxnet").get_attribute("aria-pressed") == "false"
    page.locator("nav a[href='#proof']").click()
    page.reload()
    assert columns(page) == ["torch", "paddle", "tf"]
    assert page.url.endswith("#proof?show=torch,paddle,tf")


def test_the_address_is_read_with_care(visit):
    assert columns(visit(hash="#conv?show=tf,nonsense,torch")) == ["tf", "torch"]
    assert columns(visit(hash="#conv?show=&size=0&spec=nobody")) == NAMES
    for odd in ("#network?spec=constructor", "#conv?show=toString", "#%"):
        page = visit(hash=odd)
        assert page.locator("html").get_attribute("data-ready"), "the script has stopped"
        assert columns(page) == NAMES
        assert page.locator("#spec").input_value() == "d2l"
    page = visit(hash="#network?spec=mini&size=40")
    assert page.locator("#spec").input_value() == "mini"
    assert page.locator("#size").input_value() == "40"


def test_the_last_column_cannot_be_hidden(visit):
    page = visit(hash="#conv?show=tf")
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


def test_unwrapped_code_of_all_columns_scrolls_together(visit):
    page = visit(hash="#step", viewport={"width": 1000, "height": 900})
    page.locator("#wrap").click()
    page.eval_on_selector("#step .column[data-column=tf] pre", "e => { e.scrollLeft = 30 }")
    page.wait_for_function(
        "[...document.querySelectorAll('#step pre')].every(e => e.scrollLeft === 30)"
    )
    page.eval_on_selector("#step .column[data-column=paddle] pre", "e => { e.scrollLeft = 10 }")
    page.wait_for_function(
        "[...document.querySelectorAll('#step pre')].every(e => e.scrollLeft === 10)"
    )


@pytest.mark.parametrize("name", NAMES)
def test_copying_gives_the_code_as_it_stands_in_the_source(visit, name):
    page = visit(permissions=["clipboard-read", "clipboard-write"])
    (topic,) = [each for each in TOPICS if each.id == "conv"]
    made = content.Page("en", ROOT)
    page.evaluate("window.setTimeout = () => 0")  # else the word is gone after 1.5 seconds
    page.locator(f"#conv .column[data-column={name}] .copy").click()
    page.get_by_text("Copied", exact=True).wait_for()
    assert page.locator("#moved").inner_text() == f"{results.TITLES[name]}: Copied"
    copied = page.evaluate("navigator.clipboard.readText()")
    want = [source.cut(made.file(name, topic.file), at) for at in topic.addresses(name)]
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
    button = page.locator("#conv .column[data-column=tf] [data-move='-1']")
    button.focus()
    page.keyboard.press("Enter")
    assert columns(page, "conv") == ["tf", "torch", "mxnet", "paddle"]
    column = "document.activeElement.closest('.column').dataset.column"
    assert page.evaluate(column) == "tf"


def test_unwrapped_code_can_be_scrolled_by_keyboard(visit):
    page = visit(hash="#step", viewport={"width": 1000, "height": 900})
    page.locator("#wrap").click()
    page.locator("#step .column[data-column=torch] pre").focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("document.querySelector('#step pre').scrollLeft > 0")


def test_a_screen_reader_gets_names_states_and_headings(visit):
    page = visit()
    open_all(page)
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
    return page.locator(".topic:has(.columns)").all()


# All rules of axe apply, its best practices too.
@pytest.mark.parametrize(
    ("name", "device", "scheme"),
    [
        ("index.html", "phone", "dark"),
        ("index.zh-CN.html", "desktop", "light"),
    ],
)
def test_axe_finds_nothing(visit, name, device, scheme):
    options = PHONE if device == "phone" else {}
    page = visit(name, color_scheme=scheme, **options)
    for topic in ("step", "other-pitfalls"):
        page.locator(f"#{topic} summary").click()
    page.eval_on_selector_all(".fold", "all => all.forEach(fold => { fold.open = true })")
    page.locator("#parts summary").click()
    page.locator(".drawing:visible .lane .node").first.click()
    check(page)
    page.locator("#size").fill("0")
    chip(page, "mxnet").click()
    page.locator("#search").fill("batch")
    assert page.locator("#hits a").count()
    check(page)


@pytest.mark.parametrize(
    "name", ["guide.html", "guide-layout.html", "source/backends-tf-googlenet.py.html"]
)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_in_the_guide_and_the_listings(visit, name, scheme):
    check(visit(name, color_scheme=scheme))


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
            kinds = ("Conv", "MaxPool", "AvgPool", "Inception", "Branches", "Residual", "Linear")
            if at not in found or layer.kind not in kinds:
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
    assert re.search(r"share of multiply-adds\s+\d+\.\d %", text)
    node.focus()
    page.keyboard.press("Enter")
    lines = page.locator("#details-lines pre").all_inner_texts()
    assert len(lines) == 8
    for line, call in zip(lines, ("Conv2d", "Conv2D", "Conv2D", "Conv2D"), strict=False):
        assert call in line
    assert all("self.branch3x3 = " in line for line in lines[4:])


def test_on_a_phone_the_details_are_in_view_and_cover_no_focused_row(visit):
    page = visit(hash="#network", **PHONE)
    page.locator("[data-spec=d2l] [data-stage=stage1] .node").first.tap()
    details = page.locator("#details").bounding_box()
    assert 0 < details["y"] < details["y"] + details["height"] < 844
    seen = """() => { const row = document.activeElement, box = row.getBoundingClientRect();
        return [row.dataset.at, row.contains(document.elementFromPoint(box.x + 9, box.y + 9))]; }"""
    for _ in range(15):
        page.keyboard.press("Tab")
        at, uncovered = page.evaluate(seen)
        assert at
        assert uncovered, at


@pytest.mark.parametrize("spec", SPECS)
def test_every_part_of_a_drawing_has_its_four_lines(visit, spec):
    page = visit(hash=f"#network?spec={spec}")
    kinds = page.eval_on_selector_all(
        f"[data-spec={spec}] button", "all => [...new Set(all.map(e => e.dataset.kind))]"
    )
    assert kinds
    for kind in kinds:
        page.locator(f"[data-spec={spec}] button[data-kind='{kind}']").first.click()
        lines = page.locator("#details-lines pre").all_inner_texts()
        assert len(lines) in (4, 8), kind
        assert all(line.strip() for line in lines)


# ---- words, light and dark


@pytest.mark.parametrize(
    ("asked", "kind", "text"),
    [
        ("branch3x3", "Words", "#3x3 reduce"),  # a table of words
        ("ADAPTIVEavg pool2d", "PyTorch", "nn.AdaptiveAvgPool2d"),  # code
        ("off centre", "Pitfall", "pads off centre"),
        ("momentum-rate", "Pitfall", "velocity"),  # by the pitfall's name
        ("training step", "Topic", "One training step"),
        ("cross entropy", "Words", "softmax_cross_entropy_with_logits"),
        ("same-padding", "Bug", "'same'"),
    ],
)
def test_search_finds_topics_code_pitfalls_and_words(visit, asked, kind, text):
    page = visit()
    page.locator("#search").fill(asked)
    found = page.locator("#hits a", has=page.locator(".kind", has_text=kind))
    hit = found.filter(has_text=re.compile(re.escape(text), re.I)).first
    assert hit.is_visible()
    hit.click()
    assert not page.locator("#hits").is_visible()
    shown = page.locator(".flash")
    assert shown.is_visible()
    box = shown.bounding_box()
    assert -10 < box["y"] < 900


@pytest.mark.parametrize("leaving", ["Tab", "Shift+Tab"])
def test_the_hits_close_when_the_focus_leaves_the_search(visit, leaving):
    page = visit()
    page.locator("#search").fill("same-padding")
    if leaving == "Tab":
        page.keyboard.press("ArrowUp")  # stays in the field
        for _ in range(page.locator("#hits a").count()):
            page.keyboard.press("Tab")
            assert page.locator("#hits").is_visible()
    page.keyboard.press(leaving)
    assert page.evaluate("document.activeElement.closest('.find')") is None
    assert not page.locator("#hits").is_visible()


def test_search_works_by_keyboard_and_says_when_nothing_is_found(visit):
    page = visit()
    page.locator("#search").fill("zzz")
    assert page.locator("#hits").inner_text() == "Nothing found"
    page.locator("#search").fill("gradient")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowUp")
    assert page.evaluate("document.activeElement.matches('#hits li:first-child a')")
    page.keyboard.press("Enter")
    assert page.locator(".flash").is_visible()
    page.locator("#search").fill("")
    assert not page.locator("#hits").is_visible()
    page.locator("#search").fill("relu")
    page.keyboard.press("Escape")
    assert not page.locator("#hits").is_visible()


@pytest.mark.parametrize("key", ["Escape", "ArrowDown", "ArrowUp"])
def test_search_leaves_the_keys_of_an_input_method_to_it(visit, key):
    page = visit("index.zh-CN.html")
    page.locator("#search").fill("relu")
    composing = "key => ({ key, bubbles: true, cancelable: true, isComposing: true })"
    event = page.evaluate_handle(f"key => new KeyboardEvent('keydown', ({composing})(key))", key)
    assert page.locator("#search").evaluate("(field, event) => field.dispatchEvent(event)", event)
    assert page.locator("#hits").is_visible()
    assert page.evaluate("document.activeElement.id") == "search"


def test_search_finds_chinese_words(visit):
    page = visit("index.zh-CN.html")
    page.locator("#search").fill("陷阱")
    assert page.locator("#hits a").count()
    page.locator("#search").fill("梯度默认累加")
    page.locator("#hits a").first.click()
    assert page.locator("[data-pitfall=gradients-add]").first.is_visible()


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
    assert page.locator(".pitfalls li[data-pitfall]").count() >= 1
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.parametrize(("width", "shown"), [(390, True), (1100, True), (1440, False)])
def test_a_figure_and_a_wrong_line_say_their_framework_where_no_head_does(visit, width, shown):
    page = visit(hash="#mistakes", viewport={"width": width, "height": 900})
    for row in ("[data-mistake=padding]", "#conv [data-pitfall=same-padding]"):
        names = page.locator(f"{row} .name")
        said = [each.strip(": ") for each in names.all_text_contents()]
        assert said == [title for title in results.TITLES.values() if title in said]
        assert len(said) > 1
        wide = [each.bounding_box()["width"] > 30 for each in names.all()]
        assert wide == [shown] * len(said)
        head = page.locator(".pitfalls .heads [data-column=torch]:visible")
        assert bool(head.count()) != shown


def test_on_a_phone_columns_are_swiped_and_all_topics_go_along(visit):
    page = visit(**PHONE)
    box = page.locator("#conv .column[data-column=torch]").bounding_box()
    assert 300 < box["width"] < 390
    page.locator("#step summary").click()
    page.eval_on_selector("#conv .columns", "e => { e.scrollLeft = e.scrollWidth }")
    page.wait_for_function(
        "document.querySelector('#step [data-column=paddle]').getBoundingClientRect().left < 100"
    )


def test_in_print_all_code_is_on_paper(visit):
    page = visit(viewport={"width": 740, "height": 1000})  # as wide as a sheet
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
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
    for topic in TOPICS[1:]:  # the first is open
        page.locator(f"#{topic.id} summary").click()
    for topic in TOPICS:
        for backend in NAMES:
            assert page.locator(f"#{topic.id} .column[data-column={backend}] pre").is_visible()
    for control in (".chooser", "#network-form", "#search-form", "#theme", ".details", ".copy"):
        assert not page.locator(control).first.is_visible()
    assert page.locator(".drawing").count() == page.locator(".drawing:visible").count() > 3
    assert page.locator("#parts summary").is_visible()
