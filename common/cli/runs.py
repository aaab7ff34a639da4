"""`googlenet evaluate`, `predict`, `plot`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from common.cli.app import (
    checkpoint_option,
    device_option,
    json_option,
    main,
    other_backend_option,
    precision_option,
)
from common.errors import printable


@main.command()
@click.argument("run", type=click.Path(path_type=Path))
@other_backend_option
@checkpoint_option
@device_option
@precision_option
@click.option("--data", metavar="DIR|sample", help="Other test images, of the same classes.")
@click.option("--out", type=click.Path(path_type=Path), help="[default: RUN/confusion.png]")
@json_option
def evaluate(
    run: Path,
    backend: str | None,
    checkpoint: str,
    device: str,
    precision: str | None,
    data: str | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Evaluate a run on its test images.

    Prints loss, accuracy and the accuracy of each class, and draws the confusion matrix.
    """
    from common import inference
    from common.training import plots

    found_run, read = inference.read(run, checkpoint)
    images = inference.test_set(read.config, data)
    opened = inference.enter(found_run, checkpoint, read, backend, device, precision)
    found = inference.evaluate(opened, images)
    picture = out or run / "confusion.png"
    inference.keep(picture, plots.confusion(found["confusion"], images.classes))
    found["picture"] = str(picture)
    click.echo(json.dumps(found, indent=2) if as_json else inference.render(found))
    if not as_json:
        click.echo(f"confusion matrix in {printable(picture)}")


@main.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument(
    "images", metavar="IMAGE...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@other_backend_option
@checkpoint_option
@device_option
@precision_option
@click.option(
    "--top", type=click.IntRange(min=1), default=3, show_default=True, help="Classes to name."
)
@click.option("--invert", is_flag=True, help="Negate the images first; see above.")
@click.option(
    "--out", type=click.Path(path_type=Path), default="predictions.png", show_default=True
)
@json_option
def predict(
    run: Path,
    images: tuple[Path, ...],
    backend: str | None,
    checkpoint: str,
    device: str,
    precision: str | None,
    top: int,
    invert: bool,
    out: Path,
    as_json: bool,
) -> None:
    """Classify image files.

    Prints the most probable classes, and draws a picture of them.
    The images are resized to the height and width of the training images, and converted to grey if
    those are grey. Fashion-MNIST shows bright clothes on black. For a photograph on a white
    background use --invert; the authors of the data set did the same.
    """
    from common import inference
    from common.training import plots

    found_run, read = inference.read(run, checkpoint)
    pixels = inference.read_images(read.config, images, invert)
    opened = inference.enter(found_run, checkpoint, read, backend, device, precision)
    rows = inference.predict(opened, pixels, images, top)
    inference.keep(out, plots.predictions(pixels, rows))
    if as_json:
        click.echo(json.dumps({**opened.facts(), "images": rows, "picture": str(out)}, indent=2))
        return
    for row in rows:
        click.echo(inference.line(row))
    click.echo(f"a picture of them in {printable(out)}")


@main.command()
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), default="curves.png", show_default=True)
def plot(runs: tuple[Path, ...], out: Path) -> None:
    """Plot the curves of several runs in one picture.

    RUN is a run's folder or a history.jsonl.
    """
    from common import inference
    from common.training import plots

    inference.keep(out, plots.overlay(inference.histories(runs)))
    place = f"in {printable(out)}"
    click.echo(f"the curves of {len(runs)} runs {place}" if len(runs) > 1 else place)
