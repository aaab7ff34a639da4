"""`googlenet evaluate`, `predict`, `plot`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from common.cli.app import (
    COUNT,
    checkpoint_option,
    device_option,
    json_option,
    main,
    other_backend_option,
    precision_option,
    read_weights,
    weights_eps_option,
    weights_key_option,
    weights_option,
    weights_spec_option,
)
from common.errors import DataError, RunError, printable

size_option = click.option(
    "--size", type=COUNT, help="Height and width that the weights' images are resized to."
)


@main.command()
@click.argument("run", required=False, type=click.Path(path_type=Path))
@weights_option
@weights_spec_option
@weights_key_option
@weights_eps_option
@size_option
@other_backend_option
@checkpoint_option
@device_option
@precision_option
@click.option("--data", metavar="DIR|sample", help="Other test images, of the same classes.")
@click.option("--out", type=click.Path(path_type=Path), help="[default: RUN/confusion.png]")
@json_option
def evaluate(
    run: Path | None,
    weights_file: Path | None,
    spec_name: str | None,
    key: str | None,
    eps: float | None,
    size: int | None,
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
    With --weights, evaluate a file of weights, in any format that `convert` reads.
    """
    from common import inference
    from common.training import plots

    if weights_file:
        if run:
            raise RunError(f"Give a run or `--weights`, not both: leave out {run}.")
        known = read_weights(no_run(weights_file), spec_name, key, eps)
        images = inference.weights_test_set(known, data, size)
        read = inference.from_weights(known, images.classes, size, backend)
        path, checkpoint, default = weights_file, inference.WEIGHTS, Path("confusion.png")
    else:
        path = a_run(run, spec_name, key, eps, size)
        read = inference.read(path, checkpoint)
        images = inference.test_set(read.config, data)
        default = path / "confusion.png"
    opened = inference.enter(path, checkpoint, read, backend, device, precision)
    found = inference.evaluate(opened, images)
    picture = out or default
    found["picture"] = str(picture)
    click.echo(json.dumps(found, indent=2) if as_json else inference.render(found))
    inference.keep(picture, plots.confusion(found["confusion"], images.classes))
    if not as_json:
        click.echo(f"confusion matrix in {printable(picture)}")


def no_run(path: Path) -> Path:
    """The file of weights; RunError for the folder of a run."""
    if (path / "checkpoints").is_dir():
        raise RunError(f"{path} is the folder of a run: leave out `--weights`.")
    return path


def a_run(run: Path | None, *of_weights: object) -> Path:
    """The run; RunError if there is none, or if an option is given that only weights take."""
    if run is None:
        raise RunError("Name the folder of a run, or give a file of weights with `--weights`.")
    if any(each is not None for each in of_weights):
        raise RunError(
            "`--spec`, `--key`, `--eps` and `--size` are for `--weights`: leave them out."
        )
    return run


@main.command()
@click.argument("run", metavar="RUN", required=False, type=click.Path(path_type=Path))
@click.argument("images", metavar="IMAGE...", nargs=-1, type=click.Path(path_type=Path))
@weights_option
@weights_spec_option
@weights_key_option
@weights_eps_option
@size_option
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
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV: file, rank, class, probability.")
@json_option
def predict(
    run: Path | None,
    images: tuple[Path, ...],
    weights_file: Path | None,
    spec_name: str | None,
    key: str | None,
    eps: float | None,
    size: int | None,
    backend: str | None,
    checkpoint: str,
    device: str,
    precision: str | None,
    top: int,
    invert: bool,
    out: Path,
    as_csv: bool,
    as_json: bool,
) -> None:
    """Classify image files.

    Prints the most probable classes, and draws a picture of them.

    With --weights FILE instead of RUN, use a file of weights, in any format that `convert` reads;
    its classes have numbers. IMAGE is a file, a folder of images, or a pattern such as '*.png'.

    The images are resized to the height and width of the training images, and converted to grey if
    those are grey. Fashion-MNIST shows bright clothes on black. For a photograph on a white
    background use --invert; the authors of the data set did the same.
    """
    from common import inference
    from common.training import plots

    if weights_file:
        images = (run, *images) if run else images
        known = read_weights(no_run(weights_file), spec_name, key, eps)
        read = inference.from_weights(known, None, size, backend)
        path, checkpoint = weights_file, inference.WEIGHTS
    else:
        path = a_run(run, spec_name, key, eps, size)
        read = inference.read(path, checkpoint)
    if not images:
        raise DataError("there is nothing to classify: name image files, or a folder of them")
    files = inference.expand(images)
    pixels = inference.read_images(read.config, files, invert)
    opened = inference.enter(path, checkpoint, read, backend, device, precision)
    rows = inference.predict(opened, pixels, files, top)
    if as_json:
        click.echo(json.dumps({**opened.facts(), "images": rows, "picture": str(out)}, indent=2))
    elif as_csv:
        click.echo(inference.csv_table(rows), nl=False)
    else:
        click.echo("\n".join(map(inference.line, rows)))
    inference.keep(out, plots.predictions(pixels, rows))
    if not as_json and not as_csv:
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
