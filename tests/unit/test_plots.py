"""Pictures of runs: that they are pictures, and that what they show is what was measured."""

import io
import warnings
from dataclasses import replace

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont
from PIL import Image

from common.training import plots
from common.training.history import Epoch

EPOCH = Epoch(1, 2.0, 0.3, 1.5, 0.4, 8, 1.0, 0.0, "torch", "1", "cpu", {}, (2.5, 2.0, 1.5))


def history(backend, steps=3, epochs=4):
    return [
        replace(
            EPOCH,
            number=number,
            backend=backend,
            loss=2.0 / number,
            test_accuracy=1 - 0.5 / number,
            losses=tuple(2.0 / (number + step / steps) for step in range(steps)),
        )
        for number in range(1, epochs + 1)
    ]


@pytest.fixture
def drawn(monkeypatch):
    """The figure behind the last picture."""
    figures = []
    real = Figure.savefig

    def save(figure, *arguments, **options):
        figures.append(figure)
        return real(figure, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", save)
    return figures


@pytest.fixture
def fonts(monkeypatch):
    """Let only these fonts be looked for."""

    def set_names(*names):
        monkeypatch.setattr(plots, "MORE_FONTS", names)
        plots._fonts.cache_clear()

    yield set_names
    plots._fonts.cache_clear()


def size(png):
    with Image.open(io.BytesIO(png)) as image:
        image.load()
        assert image.format == "PNG"
        assert len(np.unique(np.asarray(image.convert("L")))) > 10, "an empty picture"
        return image.size


@pytest.mark.parametrize("epochs", [1, 4])
def test_a_curve_shows_training_and_test(drawn, epochs):
    size(plots.curve(history("tf", epochs=epochs), "a run"))
    left, right = drawn[0].axes
    assert [line.get_label() for line in left.lines] == ["train", "test"]
    assert left.lines[0].get_ydata().tolist() == [2.0 / n for n in range(1, epochs + 1)]
    assert right.lines[1].get_ydata().tolist() == [1 - 0.5 / n for n in range(1, epochs + 1)]
    assert all(tick == int(tick) for tick in left.get_xticks())


def test_an_overlay_names_every_run_and_shows_curves_that_fall_together(drawn):
    found = {f"run-{name} ({name})": history(name) for name in ("torch", "tf", "mxnet", "paddle")}
    size(plots.overlay(found))
    left, right = drawn[0].axes
    (legend,) = drawn[0].legends
    assert [text.get_text() for text in legend.get_texts()] == list(found)
    for axes in (left, right):
        looks = [(line.get_color(), line.get_marker()) for line in axes.lines]
        assert len(set(looks)) == 4
        for look in ("get_linewidth", "get_markersize"):
            sizes = [getattr(line, look)() for line in axes.lines]
            assert sizes == sorted(sizes, reverse=True)
            assert len(set(sizes)) == 4, "the last one would hide the others"
    every = [loss for epoch in found["run-tf (tf)"] for loss in epoch.losses]
    assert left.lines[1].get_ydata() == pytest.approx(every)
    assert left.lines[1].get_xdata() == pytest.approx(np.arange(1, 13) / 3)
    assert right.lines[2].get_ydata() == pytest.approx([0.5, 0.75, 1 - 0.5 / 3, 0.875])


def test_long_curves_are_averaged_alike_and_to_the_last_step(drawn):
    found = {"long": history("torch", steps=467), "short": history("tf", steps=467, epochs=1)}
    size(plots.overlay(found))
    left, _ = drawn[0].axes
    long, short = (line.get_ydata() for line in left.lines)
    every = np.concatenate([epoch.losses for epoch in found["long"]])
    assert len(long) <= plots.POINTS
    assert "mean of 7 steps" in left.get_ylabel()
    assert long[:3] == pytest.approx([every[at : at + 7].mean() for at in (0, 7, 14)])
    assert long[-1] == pytest.approx(every[len(every) // 7 * 7 :].mean())
    assert short[:60] == pytest.approx(long[:60]), "the same losses look the same"


def test_confusions_have_true_classes_in_rows(drawn):
    size(plots.confusion([[5, 1, 0], [0, 0, 0], [2, 0, 7]], ["a", "$^$", "x" * 40]))
    axes = drawn[0].axes[0]
    texts = {text.get_position(): text.get_text() for text in axes.texts}
    assert (texts[1, 0], texts[0, 1], texts[0, 2], texts[2, 2]) == ("1", "0", "2", "7")
    assert axes.images[0].get_array()[0].tolist() == pytest.approx([5 / 6, 1 / 6, 0])
    assert axes.images[0].get_array()[1].tolist() == [0, 0, 0]
    assert axes.get_xticklabels()[1].get_text() == "$^$"
    assert axes.get_title() == "15 test images, 80.0% correct"
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("true class", "predicted class")


@pytest.mark.parametrize("classes", [2, 26, 100])
def test_any_number_of_classes_has_a_picture(classes):
    width, height = size(plots.confusion(np.eye(classes, dtype=int), ["name"] * classes))
    assert max(width, height) < 2100


def test_many_classes_have_few_names_at_even_distances(drawn):
    classes = [f"name {number}" for number in range(1000)]
    size(plots.confusion(np.eye(1000, dtype=int), classes))
    for axis in (drawn[0].axes[0].xaxis, drawn[0].axes[0].yaxis):
        names = {
            tick.get_text(): at
            for tick, at in zip(axis.get_ticklabels(), axis.get_ticklocs(), strict=True)
        }
        assert len(names) == plots.NAMED, "a name takes about 7 ms"
        assert all(name == f"name {at}" for name, at in names.items())


FORMULAS = ("${MODEL}_$SEED", r"$\frac{$", "_x", r"\$5")


@pytest.mark.parametrize("name", [*FORMULAS, "a\nb\x1b[2J", "\udcff\udcfe", "猫\u202e"])
def test_a_name_is_drawn_as_it_is_and_never_as_a_formula(drawn, name):
    image = np.random.RandomState(0).randint(0, 256, (1, 1, 9, 7)).astype(np.uint8)
    row = {"file": f"folder/{name}.png", "classes": [{"class": name, "probability": 0.75}]}
    with matplotlib.rc_context({"text.usetex": True, "axes.formatter.use_mathtext": True}):
        size(plots.curve(history("tf"), name))
        size(plots.overlay({name: history("tf")}))
        size(plots.confusion([[5, 1], [0, 7]], [name, "b"]))
        size(plots.predictions(image, [row]))
    curve, overlay, confusion, predictions = drawn
    texts = [
        curve.get_suptitle(),
        overlay.legends[0].get_texts()[0].get_text().strip(),
        confusion.axes[0].get_xticklabels()[0].get_text(),
        predictions.axes[0].get_title().removesuffix(".png")[:23],
        predictions.axes[1].texts[0].get_text().removesuffix("  75.0%"),
    ]
    for text in texts:
        assert text.isprintable()
        if name in FORMULAS:
            assert text == name


def test_a_character_without_a_font_is_an_escape_and_makes_no_noise(drawn, fonts, capfd):
    fonts()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        size(plots.confusion([[5, 1], [0, 7]], ["猫", "犬 ok é"]))
    names = [each.get_text() for each in drawn[0].axes[0].get_xticklabels()]
    assert names == [r"\u732b", r"\u72ac ok é"]
    assert capfd.readouterr() == ("", "")


def test_a_font_that_has_the_characters_is_found_and_used(drawn, fonts):
    # a character that our font lacks, and another font that matplotlib brings along has
    ours, other = (plots._known(findfont(name)) for name in (plots.FONT, "STIXGeneral"))
    character = chr(min(each for each in other - ours if chr(each).isprintable()))
    fonts("No Such Font", "STIXGeneral")
    size(plots.confusion([[5, 1], [0, 7]], [character, "b"]))
    label = drawn[0].axes[0].get_xticklabels()[0]
    assert label.get_text() == character
    assert label.get_fontfamily() == [plots.FONT, "STIXGeneral"]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("count", [1, 5, plots.SHOWN + 1])
def test_predictions_stand_under_their_images(drawn, channels, count):
    images = np.random.RandomState(0).randint(0, 256, (count, channels, 9, 7)).astype(np.uint8)
    rows = [
        {
            "file": f"folder/{number}.png",
            "classes": [
                {"class": f"likely {number}", "probability": 0.75},
                {"class": "other", "probability": 0.25},
            ],
        }
        for number in range(count)
    ]
    size(plots.predictions(images, rows))
    shown = min(count, plots.SHOWN)
    pixels = [axes for axes in drawn[0].axes if axes.images]
    bars = [axes for axes in drawn[0].axes if axes.patches]
    assert (len(pixels), len(bars)) == (shown, shown)
    for number, (above, below) in enumerate(zip(pixels, bars, strict=True)):
        assert above.get_title() == f"{number}.png"
        found = np.asarray(above.images[0].get_array())
        assert (found == images[number].transpose(1, 2, 0).squeeze()).all()
        assert below.texts[0].get_text() == f"likely {number}  75.0%"
        assert [bar.get_width() for bar in below.patches] == [0.75, 0.25]
        assert (
            abs(
                above.get_position().x0
                + above.get_position().x1
                - below.get_position().x0
                - below.get_position().x1
            )
            < 0.1
        )
        assert above.get_position().y0 >= below.get_position().y1
    assert (drawn[0].get_suptitle() != "") == (shown < count)
