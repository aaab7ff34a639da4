"""`googlenet convert`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from common.cli.app import SPEC, KnownOption, json_option, main
from common.terminal import progress


@main.command()
@click.argument("source", metavar="SRC", type=click.Path(path_type=Path))
@click.argument("destination", metavar="DST", type=click.Path(path_type=Path))
@click.option(
    "--spec",
    "spec_name",
    type=SPEC,
    cls=KnownOption,
    help="Use this spec instead of the detected one.",
)
@click.option("--check", is_flag=True, help="Run both files on the same images and compare.")
@click.option("--key", help="Which of several dicts in SRC, such as state_dict or ema.")
@click.option(
    "--eps",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="eps of the batch norms that SRC was trained with, if it is not the spec's.",
)
@click.option(
    "--expect",
    nargs=2,
    type=click.Path(path_type=Path),
    metavar="IMAGES.npy LOGITS.npy",
    help="Inputs of your network and the logits that it gives: the result must give the same.",
)
@json_option
def convert(
    source: Path,
    destination: Path,
    spec_name: str | None,
    check: bool,
    key: str | None,
    eps: float | None,
    expect: tuple[Path, Path] | None,
    as_json: bool,
) -> None:
    """Convert the weights of one framework to another.

    SRC is a PyTorch .pt, Keras .weights.h5, MXNet .params, Paddle .pdparams or .safetensors file.
    Its names may be ours, the book's (d2l), torchvision's or paddle.vision's. Format and names are
    detected from the content. DST has one of these suffixes, or .onnx. The written file is read
    again; it is kept only if all bits are the same.
    """
    from dataclasses import asdict

    from common.convert import conversion

    with progress(f"converting {source.name}"):
        found = conversion.convert(source, destination, spec_name, check, key, eps, expect)
    click.echo(json.dumps(asdict(found), indent=2) if as_json else conversion.render(found))
