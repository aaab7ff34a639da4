"""`googlenet train`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from common.cli.app import (
    BACKENDS,
    COUNT,
    SPEC,
    FloatRange,
    Known,
    KnownOption,
    deferred_signals,
    device_option,
    json_option,
    main,
    read_weights,
    recipe_names,
    weights_eps_option,
    weights_key_option,
    weights_option,
)
from common.errors import FieldError, SpecError

LOGGERS = ("tensorboard", "wandb", "mlflow")


@main.command()
@click.option("--backend", type=click.Choice(BACKENDS), help="Not needed with --resume.")
@click.option(
    "--recipe",
    "recipe_name",
    type=Known("NAME", recipe_names),
    metavar="NAME|FILE.toml",
    cls=KnownOption,
    help="A named recipe, or a TOML file with some fields of one.  [default: d2l]",
)
@click.option("--spec", type=SPEC, cls=KnownOption, help="Spec, instead of the recipe's.")
@click.option("--size", type=COUNT, help="Height and width of the input, instead of the recipe's.")
@click.option(
    "--epochs",
    type=COUNT,
    help="Epochs, instead of the recipe's. With --resume they extend a run: the learning rate goes "
    "on as in a run of that many epochs.",
)
@click.option("--batch-size", type=COUNT, help="Images per step, instead of the recipe's.")
@click.option("--lr", type=float, help="Learning rate, instead of the recipe's.")
@click.option(
    "--seed",
    type=click.IntRange(0, 2**32 - 1),
    help="Seed of weights, order and flips. [default: 0]",
)
@click.option(
    "--precision",
    type=click.Choice(("auto", "float32", "bfloat16")),
    help="bfloat16 is mixed precision; auto is the device's fastest.",
)
@click.option("--limit-train", type=int, metavar="N", help="Only the first N training images.")
@click.option("--limit-test", type=int, metavar="N", help="Only the first N test images.")
@click.option(
    "--data",
    metavar="DIR|sample",
    help="A folder of Fashion-MNIST, of a set like it, or of images; or the small sample.",
)
@click.option(
    "--split",
    type=FloatRange(0, 1, min_open=True, max_open=True),
    help="Share of each class for testing, if --data holds class folders that are not divided.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="[default: runs/RECIPE-BACKEND, or RECIPE-SPEC-BACKEND with another spec]",
)
@weights_option
@weights_key_option
@weights_eps_option
@click.option("--resume", type=click.Path(path_type=Path), metavar="RUN", help="Continue a run.")
@click.option(
    "--save-every",
    type=FloatRange(min=0),
    default=300.0,
    show_default=True,
    metavar="SECONDS",
    help="Time between checkpoints within an epoch.",
)
@click.option(
    "--logger",
    "loggers",
    multiple=True,
    type=click.Choice(LOGGERS),
    help="Also log the epochs with this package, if it is installed.",
)
@click.option("--tensorboard", is_flag=True, help="The same as --logger tensorboard.")
@click.option("--dry-run", is_flag=True, help="Print the plan without training.")
@click.option(
    "--workers",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    metavar="N",
    help="Processes on this machine that divide each batch; --batch-size is the total.",
)
@click.option("--verbose", is_flag=True, help="Also say where each tensor was.")
@device_option
@json_option
def train(
    backend: str | None,
    recipe_name: str | None,
    limit_train: int | None,
    limit_test: int | None,
    data: str | None,
    split: float | None,
    out: Path | None,
    weights_file: Path | None,
    key: str | None,
    eps: float | None,
    resume: Path | None,
    save_every: float,
    loggers: tuple[str, ...],
    tensorboard: bool,
    verbose: bool,
    dry_run: bool,
    workers: int,
    device: str,
    as_json: bool,
    **hyper: Any,
) -> None:
    """Train by a recipe and save the run in a folder.

    DIR holds Fashion-MNIST's four files, those of a set like MNIST, Kaggle's CSV files, or images
    as train/CLASS/ and test/CLASS/ (or val/CLASS/). With --split, it holds CLASS/ alone.

    With --weights, start from a file of weights instead of new ones, with their spec. If the data
    have another number of classes, the head is new.

    Started several times by torchrun, TF_CONFIG, paddle.distributed.launch or DMLC_ROLE, each
    process is one worker. --workers starts the workers on this machine.
    """
    from common.data.sources import load as load_data
    from common.distributed import launcher
    from common.distributed.workers import DEBOUNCE, joined, worker
    from common.rendezvous import started
    from common.training.loggers import logging
    from common.training.plan import backend_name, begin, render
    from common.training.plan import resume as resume_run
    from common.training.report import Lines
    from common.training.run import open_run
    from common.training.train import train as train_plan

    if workers > 1 and not dry_run:
        name = backend_name(backend, resume)
        source = open_run(resume)[1].config.data if resume and data is None else data
        if source is None:
            load_data()  # downloads what is missing: the workers may have no network
        if weights_file and not resume:
            read_weights(weights_file, hyper.get("spec"), key, eps)  # says once what it assumes
        with deferred_signals() as stop:
            launcher.start(name, workers, given_arguments("workers"), stop)
        return
    changes = {name: value for name, value in hyper.items() if value is not None}
    with worker():
        if resume:
            limits = {"--limit-train": limit_train, "--limit-test": limit_test}
            given: dict[str, object] = {"--recipe": recipe_name, "--out": out, **limits}
            given |= {"--split": split, "--weights": weights_file, "--key": key, "--eps": eps}
            fixed = [option for option, value in given.items() if value is not None]
            free = ("precision", "epochs")
            fixed += [f"--{name.replace('_', '-')}" for name in changes if name not in free]
            if fixed:
                raise SpecError(
                    f"{fixed[0]} cannot change with --resume: the run has its own. Leave it out, "
                    "or begin a new run without --resume."
                )
            plan = resume_run(
                resume, backend, changes.get("precision"), data, changes.get("epochs")
            )
        else:
            name, limits_given = backend_name(backend, None), (limit_train, limit_test)
            known = None
            if weights_file:
                known = read_weights(weights_file, changes.get("spec"), key, eps)
            elif key is not None or eps is not None:
                raise SpecError("--key and --eps are for --weights: leave them out.")
            recipe = recipe_name or "d2l"
            try:
                plan = begin(name, recipe, changes, data, limits_given, out, known, split)
            except FieldError as error:
                if error.field not in changes:
                    raise
                option = f"--{error.field.replace('_', '-')}"
                raise SpecError(f"{option} is {error.value}: it must be {error.rule}.") from error
            for note in plan.notes:
                click.echo(f"note: {note}", err=True)
        chosen = plan.device(device)
        if warning := plan.warning(chosen):
            click.echo(f"warning: {warning}", err=True)
        plan = plan.decided(chosen)
        if dry_run:
            found = plan.describe(chosen)
            click.echo(json.dumps(found, indent=2) if as_json else render(found))
            return
        debounce = DEBOUNCE if started() else 0.0
        folder = plan.run.folder
        with (
            deferred_signals(debounce) as stop,
            joined(plan.backend, chosen, folder) as (rank, count),
            plan.claimed(rank, count) as plan,
        ):
            lines = Lines(as_json, silent=rank > 0, verbose=verbose)
            wanted = dict.fromkeys((*loggers, *["tensorboard"] * tensorboard))
            with logging(plan, () if rank else tuple(wanted)) as log:
                train_plan(plan, chosen, lines, log, stop, save_every, rank, count)


def given_arguments(exclude: str) -> list[str]:
    """Return the current command's options as given on the command line, except one."""
    ctx, arguments = click.get_current_context(), []
    for option in ctx.command.params:
        name = option.name or ""
        if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE and name != exclude:
            value, flag = ctx.params[name], isinstance(option, click.Option) and option.is_flag
            for each in value if isinstance(value, tuple) else (value,):
                arguments += [option.opts[0], *([] if flag else [str(each)])]
    return arguments
