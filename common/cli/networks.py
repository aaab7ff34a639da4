"""`googlenet specs`, `summary`, `weights`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from common.cli.app import BACKENDS, COUNT, SPEC, json_option, main, spec_option


@main.command()
def specs() -> None:
    """List the networks that --spec names."""
    from common.spec import SPECS
    from common.spec.arithmetic import layers, totals
    from common.terminal import table

    rows = []
    for name, spec in SPECS.items():
        parameters, multiply_adds = totals(layers(spec))
        shape = " x ".join(map(str, spec.input))
        extras = ["batch norm"] * bool(spec.norm)
        count = len(spec.auxiliary)
        extras += [f"{count} auxiliary head{'s' * (count > 1)}"] * bool(count)
        counts = f"{parameters:,}", f"{multiply_adds:,}"
        rows.append((name, shape, spec.head.width, *counts, ", ".join(extras)))
    heads = ("spec", "input", "classes", "parameters", "multiply-adds", "with")
    click.echo(table(rows, heads))


@main.command()
def recipes() -> None:
    """List the training recipes that --recipe names."""
    from common.recipe import RECIPES
    from common.terminal import table

    rows = []
    for name, recipe in RECIPES.items():
        found = recipe.as_json()
        extras = [f"{recipe.schedule} rate"] * (recipe.schedule != "constant")
        fields = ("momentum", "weight_decay", "label_smoothing", "dropout")
        extras += [f"{field.replace('_', ' ')} {found[field]}" for field in fields if found[field]]
        extras += ["mirrored images"] * recipe.flip
        given = (recipe.spec, recipe.size, recipe.batch_size, recipe.epochs)
        rows.append((name, *given, recipe.optimizer, found["lr"], ", ".join(extras)))
    heads = ("recipe", "spec", "size", "batch", "epochs", "optimizer", "rate", "with")
    click.echo(table(rows, heads))


@main.command()
@click.argument("spec_name", metavar="[SPEC]", default="d2l", type=SPEC)
@click.option("--size", type=COUNT, help="Height and width of the input instead of the spec's.")
@click.option("--channels", type=COUNT, help="Channels of the input instead of the spec's.")
@click.option("--classes", type=COUNT, help="Classes instead of the spec's.")
@click.option(
    "--depth", type=COUNT, help="Sum up the layers below this depth: 1 is stages, 2 is rows."
)
@click.option("--compare", is_flag=True, help="Compare with AlexNet, VGG-11 and NiN.")
@json_option
def summary(
    spec_name: str,
    size: int | None,
    channels: int | None,
    classes: int | None,
    depth: int | None,
    compare: bool,
    as_json: bool,
) -> None:
    """Print a network's layers, shapes, parameters and memory.

    No framework is used. The multiply-adds are those of a forward pass with one image.
    """
    from common.spec import find, summary

    spec = find(spec_name).at(size, channels, classes)
    found = summary.describe(spec, compare, depth)
    click.echo(json.dumps(found, indent=2) if as_json else summary.render(found))


@main.command()
@spec_option
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True)
@click.option(
    "--backend", type=click.Choice(BACKENDS), help="Write them to its model and read them back."
)
@click.option("--out", type=click.Path(path_type=Path), help="Also write a safetensors file.")
def weights(spec_name: str, seed: int, backend: str | None, out: Path | None) -> None:
    """Draw the initial weights and print their SHA-256."""
    from common.errors import WeightsError
    from common.spec import find
    from common.weights import draw, save, sha256

    spec = find(spec_name)
    if out and out.is_file():
        raise WeightsError(f"{out} is there already: remove it, or choose another name with --out.")
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
