"""`googlenet specs`, `summary`, `weights`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from common.cli.app import BACKENDS, json_option, main, spec_option


@main.command()
def specs() -> None:
    """List the named specs."""
    from common.spec import SPECS

    for name in SPECS:
        click.echo(name)


@main.command()
@click.argument("spec_name", metavar="[SPEC]", default="d2l")
@click.option("--size", type=int, help="Height and width of the input instead of the spec's.")
@click.option("--channels", type=int, help="Channels of the input instead of the spec's.")
@click.option("--classes", type=int, help="Classes instead of the spec's.")
@click.option("--compare", is_flag=True, help="Compare with AlexNet, VGG-11 and NiN.")
@json_option
def summary(
    spec_name: str,
    size: int | None,
    channels: int | None,
    classes: int | None,
    compare: bool,
    as_json: bool,
) -> None:
    """Print a spec's layers, shapes, parameters, multiply-adds and memory, without a framework."""
    from common.spec import find, summary

    spec = find(spec_name).at(size, channels, classes)
    found = summary.describe(spec, compare)
    click.echo(json.dumps(found, indent=2) if as_json else summary.render(found))


@main.command()
@spec_option
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True)
@click.option(
    "--backend", type=click.Choice(BACKENDS), help="Write them to its model and read them back."
)
@click.option("--out", type=click.Path(path_type=Path), help="Also write a safetensors file.")
def weights(spec_name: str, seed: int, backend: str | None, out: Path | None) -> None:
    """Draw the initial weights and print the SHA-256 of all tensors."""
    from common.spec import find
    from common.weights import draw, save, sha256

    spec = find(spec_name)
    drawn = draw(spec, seed)
    if backend:
        from backends import load

        native = load(backend)
        model = native.build(spec, "float32", "cpu")
        native.write_weights(model, drawn)
        drawn = native.read_weights(model)
    if out:
        save(out, drawn, spec)
    click.echo(sha256(drawn))
