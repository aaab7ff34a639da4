"""The command line: `googlenet specs | summary | weights | verify | bugs | train`.

Nothing heavy is imported until a command needs it, and no framework but the one that is named.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import click

from common.errors import GoogLeNetError, ParityError, SpecError

BACKENDS = ("torch", "tf", "mxnet", "paddle")

STATUS = """\b
Exit status:
  0    done, and everything that was checked holds
  1    a fault of this program
  2    bad input: an option, a spec, a file of weights
  3    a parity failure: a backend computes another function
  4    a framework that is not installed
  5    images that are missing or damaged
  6    a device that is not there
  130  stopped by Ctrl-C
"""


class Commands(click.Group):
    """Turns every refusal into one sentence and its exit status."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except GoogLeNetError as error:
            click.echo(f"googlenet: {error}", err=True)
            ctx.exit(error.exit_code)
        except KeyboardInterrupt:
            click.echo("googlenet: stopped.", err=True)
            ctx.exit(130)


@click.group(cls=Commands, epilog=STATUS, context_settings={"max_content_width": 100})
def main() -> None:
    """GoogLeNet in four frameworks: one spec, one arbiter, the same function everywhere."""


spec_option = click.option("--spec", "spec_name", default="d2l", show_default=True, metavar="NAME")
backend_option = click.option("--backend", required=True, type=click.Choice(BACKENDS))
device_option = click.option(
    "--device", default="auto", show_default=True, help="auto, cpu, gpu or gpu:N."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")


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
@click.option("--compare", is_flag=True, help="Put AlexNet, VGG-11 and NiN beside it.")
@json_option
def summary(
    spec_name: str,
    size: int | None,
    channels: int | None,
    classes: int | None,
    compare: bool,
    as_json: bool,
) -> None:
    """Print a spec's layers, shapes, parameters, multiply-adds and memory, by arithmetic alone."""
    from common import summary as texts
    from common.spec import find

    spec = find(spec_name).at(size, channels, classes)
    found = texts.describe(spec, compare)
    click.echo(json.dumps(found, indent=2) if as_json else texts.render(found))


@main.command()
@spec_option
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True)
@click.option("--backend", type=click.Choice(BACKENDS), help="Send them through its native model.")
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


@main.command()
@click.option("--backend", required=True, type=click.Choice([*BACKENDS, "all"]))
@click.option("--spec", "spec_name", metavar="NAME", help="Only this spec.")
@click.option("--size", type=int, help="Only this image size.")
@click.option("--plant", "bug_name", metavar="BUG", help="Plant a bug and see it caught.")
@device_option
@json_option
@click.pass_context
def verify(
    ctx: click.Context,
    backend: str,
    spec_name: str | None,
    size: int | None,
    bug_name: str | None,
    device: str,
    as_json: bool,
) -> None:
    """Hold a backend against the NumPy arbiter: activations, loss, gradients, steps, statistics.

    Exit status 0 only if every rung holds, so with --plant it is 3 when the bug is caught.
    """
    from common import plants
    from common import verify as ladder
    from common.spec import find

    if spec_name:
        find(spec_name)
    bug = plants.find(bug_name) if bug_name else None
    if bug and (spec_name or size is not None):
        raise SpecError("--plant brings its own spec and size; leave out --spec and --size.")
    if backend == "all":
        given = {"--spec": spec_name, "--size": size, "--plant": bug_name, "--device": device}
        options = [
            str(word) for option in given.items() if option[1] is not None for word in option
        ]
        ctx.exit(verify_all(options, as_json))
    reports = []
    for report in (
        [ladder.verify_planted(backend, bug, device)]
        if bug
        else ladder.verify(backend, spec_name, size, device)
    ):
        reports.append(report)
        if not as_json:
            click.echo(ladder.sentence(report))
    if as_json:
        click.echo(json.dumps([report.as_json() for report in reports], indent=2))
    ctx.exit(ParityError.exit_code if any(report.failed for report in reports) else 0)


def verify_all(options: list[str], as_json: bool) -> int:
    """Verify the four, each in a process of its own; the most telling exit status of theirs."""
    from common import verify as ladder

    reports, statuses = [], set()
    for name in BACKENDS:
        if as_json:
            child = ladder.in_child(name, [*options, "--json"], {}, stdout=subprocess.PIPE)
            reports += json.loads(child.stdout or "[]")
        else:
            child = ladder.in_child(name, options, {})
        statuses.add(child.returncode if child.returncode >= 0 else 1)  # below 0: a signal
    if as_json:
        click.echo(json.dumps(reports, indent=2))
    return ParityError.exit_code if ParityError.exit_code in statuses else max(statuses)


@main.command()
@backend_option
@json_option
@click.pass_context
def bugs(ctx: click.Context, backend: str, as_json: bool) -> None:
    """Plant every known bug in a backend, one by one, and show the rung that catches it.

    Exit status 0 only if all are caught by a rung that should catch them.
    """
    from tabulate import tabulate

    from common import verify as ladder
    from common.plants import BUGS

    rows, escaped = [], False
    for bug in BUGS.values():
        report = ladder.verify_planted(backend, bug)
        last = report.as_json()["rungs"][-1]
        caught = {"rung": last["name"], "error": last["error"], "where": last["where"]}
        escaped |= report.failed is None or last["name"] not in bug.rungs
        rows.append({"bug": bug.name, "what": bug.what, **(caught if report.failed else {})})
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    else:
        click.echo(tabulate(rows, headers="keys", floatfmt=".1e"))
    ctx.exit(ParityError.exit_code if escaped else 0)


@main.command()
@backend_option
@spec_option
@click.option("--epochs", type=click.IntRange(1), help="Epochs.  [default: 10, the book's]")
@click.option("--batch-size", type=click.IntRange(1), help="Images a step.  [default: 128]")
@click.option("--lr", type=float, help="Learning rate.  [default: 0.1]")
@click.option("--limit-train", type=int, metavar="N", help="Only the first N training images.")
@click.option("--limit-test", type=int, metavar="N", help="Only the first N test images.")
@click.option(
    "--seed", type=click.IntRange(0, 2**32 - 1), help="Of weights and order.  [default: 0]"
)
@click.option("--data", metavar="DIR|sample", help="Where Fashion-MNIST lies, or the small sample.")
@device_option
def train(
    backend: str,
    spec_name: str,
    limit_train: int | None,
    limit_test: int | None,
    data: str | None,
    device: str,
    **hyper: Any,
) -> None:
    """Train on Fashion-MNIST with the book's recipe and print the book's two lines."""
    from dataclasses import replace

    from backends import load
    from common.data import load as load_data
    from common.device import choose
    from common.fit import Epoch, fit
    from common.recipe import D2L
    from common.spec import find

    spec = find(spec_name)
    recipe = replace(D2L, **{name: value for name, value in hyper.items() if value is not None})
    native = load(backend)
    chosen = choose(device, native.devices())
    images = load_data(data).limit(limit_train, limit_test)
    click.echo(
        f"{backend} {native.VERSION} on {chosen}: {spec.name}, {len(images.train_labels)} images "
        f"from {images.source}, batch {recipe.batch_size}, learning rate {recipe.lr:.3g}"
    )

    def show(epoch: Epoch) -> None:
        click.echo(
            f"epoch {epoch.number}: loss {epoch.loss:.3f}, train acc {epoch.train_accuracy:.3f}, "
            f"test loss {epoch.test_loss:.3f}, test acc {epoch.test_accuracy:.3f}, "
            f"{epoch.seconds:.1f} s"
        )

    run = fit(native, spec, recipe, images, chosen, show)
    last = run.epochs[-1]
    click.echo(
        f"loss {last.loss:.3f}, train acc {last.train_accuracy:.3f}, "
        f"test acc {last.test_accuracy:.3f}"
    )
    click.echo(f"{run.examples_per_second:.1f} examples/sec on {run.device}")


if __name__ == "__main__":
    main()
