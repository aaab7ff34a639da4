"""`googlenet check`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from common.cli.app import (
    BACKENDS,
    Known,
    KnownOption,
    backend_option,
    json_option,
    main,
    recipe_names,
    weights_eps_option,
    weights_key_option,
)
from common.errors import SpecError


@main.command()
@click.argument("target", metavar="FILE.py:NAME")
@backend_option
@click.option("--spec", "spec_name", metavar="NAME", help="Use this spec, not the closest one.")
@click.option("--size", type=click.IntRange(1), help="Compare at this image size only.")
@click.option(
    "--weights",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Compare the network's own weights with this file's too.",
)
@weights_key_option
@weights_eps_option
@click.option(
    "--step",
    metavar="MAKE_STEP",
    help="Compare a training step too: MAKE_STEP(net) in FILE.py returns step(images, labels).",
)
@click.option(
    "--recipe",
    "recipe_name",
    type=Known("NAME", recipe_names),
    cls=KnownOption,
    help="With --step: compare it with this recipe, a name or a TOML file.",
)
@click.option("--python", metavar="FILE", help="The Python that has the network's packages.")
@click.option("--against", metavar="FILE.py:NAME", help="Compare with this network, not a spec.")
@click.option("--against-backend", type=click.Choice(BACKENDS), help="Its framework.")
@click.option("--against-python", metavar="FILE", help="Its Python.")
@json_option
@click.pass_context
def check(
    ctx: click.Context,
    target: str,
    backend: str,
    spec_name: str | None,
    size: int | None,
    weights: Path | None,
    key: str | None,
    eps: float | None,
    step: str | None,
    recipe_name: str | None,
    python: str | None,
    against: str | None,
    against_backend: str | None,
    against_python: str | None,
    as_json: bool,
) -> None:
    """Hold your own network against the reference, and name its mistakes.

    NAME is a network in FILE.py, its class or a function that makes it; no structure or names are
    asked of it. The command finds the closest spec, writes test weights into a copy of your network
    in its own process, and compares every tensor. It RUNS the code in FILE.py: never use it on
    files from people that you do not trust. Nothing is written.

    The exit status is 0 if the network is the same function, 3 if it differs, 2 if it cannot be
    loaded or run, 4 if its framework is missing.
    """
    from common.check import check_against, check_file
    from common.recipe import recipe_of

    def say(words: str) -> None:
        click.echo(f"... {words}", err=True)

    if bool(against) != bool(against_backend) or (against_python and not against):
        raise SpecError(
            "--against and --against-backend go together, and --against-python needs both."
        )
    if recipe_name and not step:
        raise SpecError("--recipe is for --step: add it, or leave out --recipe.")
    if not weights and (key is not None or eps is not None):
        raise SpecError("--key and --eps are for --weights: add it, or leave them out.")
    if against and against_backend:
        if spec_name or weights or step:
            raise SpecError("--against compares two networks: leave out --spec, --weights, --step.")
        report = check_against(
            target, backend, against, against_backend, size, python, against_python, say
        )
    else:
        recipe = recipe_of(recipe_name) if recipe_name else None
        if recipe and (recipe.clip or recipe.accumulate > 1):
            raise SpecError(
                "--step compares no clipping and no parts of a batch: leave `clip` and "
                "`accumulate` out of the recipe."
            )
        report = check_file(
            target, backend, spec_name, size, python, say, weights, step, recipe, key, eps
        )
    click.echo(json.dumps(report.as_json(), indent=2) if as_json else report.text())
    ctx.exit(report.status)
