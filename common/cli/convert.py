"""`googlenet convert`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from common.cli.app import json_option, main


@main.command()
@click.argument("source", metavar="SRC", type=click.Path(path_type=Path))
@click.argument("destination", metavar="DST", type=click.Path(path_type=Path))
@click.option("--spec", "spec_name", metavar="NAME", help="Instead of the one that fits.")
@click.option("--check", is_flag=True, help="Run both ends on the same images, and compare.")
@json_option
def convert(
    source: Path, destination: Path, spec_name: str | None, check: bool, as_json: bool
) -> None:
    """Turn weights of one framework into another's.

    SRC is a PyTorch .pt, Keras .weights.h5, MXNet .params, Paddle .pdparams or .safetensors file,
    with our names, the book's (d2l), torchvision's or paddle.vision's; its content tells which. DST
    is named with one of these suffixes, or .onnx. What was written is read again and has the same
    bits, or is not kept.
    """
    from dataclasses import asdict

    from common.convert import conversion

    found = conversion.convert(source, destination, spec_name, check)
    click.echo(json.dumps(asdict(found), indent=2) if as_json else conversion.render(found))
