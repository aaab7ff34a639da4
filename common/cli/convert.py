"""`googlenet convert`."""

from __future__ import annotations

import json
import os
from pathlib import Path

import click

from common.cli.app import (
    BACKENDS,
    json_option,
    main,
    weights_eps_option,
    weights_key_option,
    weights_spec_option,
)
from common.errors import SpecError, WeightsError
from common.terminal import progress


def as_path(text: str) -> Path:
    """The path; WeightsError if it ends in a slash, as that of a folder does, and there is none."""
    path = Path(text)
    if text.endswith(("/", os.sep)) and not path.is_dir():
        raise WeightsError(f"{text} is no folder: leave out the slash, and name a file.")
    return path


@main.command()
@click.argument("source", metavar="SRC")
@click.argument("destination", metavar="DST")
@weights_spec_option
@click.option("--check", is_flag=True, help="Run both files on the same images and compare.")
@weights_key_option
@weights_eps_option
@click.option(
    "--expect",
    nargs=2,
    type=click.Path(path_type=Path),
    metavar="IMAGES.npy LOGITS.npy",
    help="Inputs of your network and the logits that it gives: the result must give the same.",
)
@click.option(
    "--names",
    type=click.Choice(
        ("ours", "book", "torchvision", "timm", "pretrainedmodels", "paddle-vision", "gluoncv")
    ),
    default="ours",
    show_default=True,
    help="Whose class is to read DST: its names are written.",
)
@click.option(
    "--into",
    metavar="FILE.py:NAME",
    help="Write DST for this network of your own, under its own names.",
)
@click.option(
    "--from",
    "origin",
    metavar="FILE.py:NAME",
    help="Read SRC with this network of your own, which alone knows its names.",
)
@click.option("--backend", type=click.Choice(BACKENDS), help="The framework of that network.")
@click.option("--python", metavar="FILE", help="The Python that has that network's packages.")
@json_option
def convert(
    source: str,
    destination: str,
    spec_name: str | None,
    check: bool,
    key: str | None,
    eps: float | None,
    expect: tuple[Path, Path] | None,
    names: str,
    into: str | None,
    origin: str | None,
    backend: str | None,
    python: str | None,
    as_json: bool,
) -> None:
    """Convert the weights of one framework to another.

    SRC is a file of weights as PyTorch, Keras, MXNet or Paddle write it, a checkpoint with more in
    it, .safetensors, .npz or .onnx, or the folder of a run: its best checkpoint is read. Format and
    network are detected from the content: by the names of known programs, else by the shapes and
    places of the layers. DST ends in .pt, .pth, .weights.h5, .keras, .params, .pdparams,
    .safetensors, .npz or .onnx. The written file is read again; it is kept only if all bits are the
    same. What weights do not tell is printed.

    `--into` and `--from` RUN the code of your network: never use them on code from people that you
    do not trust. The network must be the spec's function, which `googlenet check` proves first.
    """
    from dataclasses import asdict

    from common.convert import conversion, report

    own = None
    if into or origin:
        if into and origin:
            raise SpecError("--into and --from exclude each other: convert in two steps.")
        if not backend:
            raise SpecError("--into and --from need `--backend`, the framework of your network.")
        if into and (names != "ours" or expect or check):
            raise SpecError(
                "--into writes your network's own names and runs it: leave out --names, --expect "
                "and --check."
            )
        own = conversion.OwnNetwork(into or origin or "", backend, bool(into), python)
    elif backend or python:
        raise SpecError("--backend and --python are for --into and --from: leave them out.")
    one, other = map(as_path, (source, destination))
    with progress(f"converting {one.name}"):
        found = conversion.convert(one, other, spec_name, check, key, eps, expect, names, own)
    click.echo(json.dumps(asdict(found), indent=2) if as_json else report.render(found))
