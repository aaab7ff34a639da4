"""The output of a run: lines of text, or JSON."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from common.errors import printable
from common.training.history import Epoch, speed
from common.training.plan import Plan
from common.training.run import Run

NOTICED = 0.05  #: share of an epoch spent waiting for images that is worth a word


class Lines:
    """Print a run to stdout as plain lines, or as JSON with one object per line."""

    def __init__(self, as_json: bool, silent: bool = False, verbose: bool = False) -> None:
        self.as_json, self.silent, self.verbose = as_json, silent, verbose

    def start(self, plan: Plan, device: str, workers: int) -> None:
        """Print what will be trained."""
        if self.silent:
            return
        recipe, data = plan.recipe, plan.data
        if self.as_json:
            facts = {"backend": plan.backend_name, "device": device, "folder": str(plan.run.folder)}
            click.echo(json.dumps({**facts, "recipe": recipe.as_json(), "data": data.source}))
            return
        done, ended = plan.checkpoint.progress.steps, len(plan.checkpoint.progress.epochs)
        click.echo(
            f"{plan.backend_name} {plan.backend.VERSION} on {device}, {recipe.precision}: recipe "
            f"{recipe.name} with {recipe.spec} at {recipe.size}, {len(data.train_labels)} images "
            f"from {printable(data.source)}, batch {recipe.batch_size}; "
            + (f"{workers} workers; " if workers > 1 else "")
            + (f"after {done} steps, " if done else "")
            + f"in {printable(plan.run.folder)}"
        )
        if ended == recipe.epochs:
            click.echo(
                f"{printable(plan.run.folder)} is complete after {ended} epoch{'s' * (ended > 1)}; "
                f"`--epochs {2 * ended}` would extend it"
            )
        elif plan.extended:
            click.echo(
                f"extended from {plan.extended} to {recipe.epochs} epochs: the learning rate goes "
                f"on as in a run of {recipe.epochs} epochs"
            )

    def epoch(self, epoch: Epoch) -> None:
        """Print the results of an epoch."""
        if self.silent:
            return
        if self.as_json:
            click.echo(json.dumps({k: v for k, v in asdict(epoch).items() if k != "losses"}))
            return
        waiting = epoch.wait / epoch.seconds
        click.echo(
            f"epoch {epoch.number}: loss {epoch.loss:.3f}, train acc {epoch.train_accuracy:.3f}, "
            f"test loss {epoch.test_loss:.3f}, test acc {epoch.test_accuracy:.3f}, "
            f"{epoch.seconds:.1f} s"
            + (f", {waiting:.0%} of it waiting for images" if waiting > NOTICED else "")
        )

    def end(self, epochs: list[Epoch], run: Run) -> None:
        """Print the folder, and the devices if wanted, then the two lines of d2l's `train_ch6`."""
        if self.as_json or self.silent:
            return
        last = epochs[-1]
        if self.verbose:
            places = [f"{what} on {', '.join(on)}" for what, on in last.places.items() if on]
            click.echo(printable("; ".join(places)))
        click.echo(f"kept in {printable(run.folder)}")
        click.echo(
            f"loss {last.loss:.3f}, train acc {last.train_accuracy:.3f}, "
            f"test acc {last.test_accuracy:.3f}"
        )
        click.echo(f"{speed(epochs):.1f} examples/sec on {printable(last.device)}")
