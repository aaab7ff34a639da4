"""The command line: `googlenet specs | summary | weights | verify | bugs | train | ...`.

Nothing heavy is imported until a command needs it, and no framework but the one that is named.
"""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from backends import FRAMEWORKS
from common.errors import BackendError, GoogLeNetError, PageError, ParityError, SpecError

BACKENDS = tuple(FRAMEWORKS)

STATUS = """\b
Exit status:
  0    done, and everything that was checked holds
  1    a fault of this program
  2    bad input: an option, a spec, a file of weights
  3    a parity failure: a backend computes another function
  4    a framework that is not installed
  5    images that are missing or damaged
  6    a device that is not there, or cannot do what was asked
  7    a run that is damaged, or cannot be written
  8    a loss that is no longer a finite number
  9    a batch that does not fit in the memory
  10   workers that cannot go on together: one died or never joined, or a port is taken
  130  stopped by Ctrl-C; a run in training is saved first
  143  stopped by SIGTERM; a run in training is saved first
"""


class Commands(click.Group):
    """Turns every refusal into one sentence and its exit status."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        interrupts.clear()
        before = {each: signal.signal(each, interrupt) for each in (signal.SIGINT, signal.SIGTERM)}
        try:
            return super().invoke(ctx)
        except (Interrupt, KeyboardInterrupt, Exception) as error:
            if interrupts or isinstance(error, KeyboardInterrupt):
                click.echo("googlenet: stopped.", err=True)
                ctx.exit(128 + (interrupts or [signal.SIGINT])[0])
            if not isinstance(error, GoogLeNetError):
                raise
            click.echo(f"googlenet: {error}", err=True)
            ctx.exit(error.exit_code)
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)


class Interrupt(BaseException):
    """A signal came. After a KeyboardInterrupt inside C code Python itself would die of SIGINT."""


interrupts: list[int] = []  # the signals: a framework's import may swallow the exception


def interrupt(signum: int, frame: Any) -> None:
    """Stop by SIGINT or SIGTERM."""
    interrupts.append(signum)
    raise Interrupt


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

    from common import convert as conversion

    found = conversion.convert(source, destination, spec_name, check)
    click.echo(json.dumps(asdict(found), indent=2) if as_json else conversion.render(found))


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
            child = ladder.in_child(name, [*options, "--json"], stdout=subprocess.PIPE)
            reports += json.loads(child.stdout or "[]")
        else:
            child = ladder.in_child(name, options)
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

    ladder.second_device(backend)  # before the framework is used
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


@contextmanager
def heard_signals(deaf: float = 0.0) -> Iterator[Callable[[], int]]:
    """Note SIGINT and SIGTERM instead of dying of them; a second one acts as ever.

    Unless it comes within `deaf` seconds: a launcher passes on what its workers have got already.
    Gives the function that says which came, 0 for none.
    """
    if interrupts:
        raise Interrupt
    came: list[tuple[int, float]] = []  # the first signal and when; no other is kept
    before: dict[int, Any] = {}

    def note(signum: int, frame: Any) -> None:
        now = time.monotonic()
        if not came:
            came.append((signum, now))
        elif now - came[0][1] >= deaf:
            restore()
            signal.raise_signal(signum)

    def restore() -> None:
        for signum, handler in before.items():
            signal.signal(signum, handler)

    for signum in (signal.SIGINT, signal.SIGTERM):
        before[signum] = signal.signal(signum, note)
    try:
        yield lambda: came[0][0] if came else 0
    finally:
        restore()


@main.command()
@click.option("--backend", type=click.Choice(BACKENDS), help="Not needed with --resume.")
@click.option("--recipe", "recipe_name", metavar="NAME", help="A named recipe.  [default: d2l]")
@click.option("--spec", metavar="NAME", help="Instead of the recipe's.")
@click.option("--size", type=int, help="Height and width of the input, instead of the recipe's.")
@click.option("--epochs", type=int, help="Instead of the recipe's.")
@click.option("--batch-size", type=int, help="Images a step, instead of the recipe's.")
@click.option("--lr", type=float, help="Learning rate, instead of the recipe's.")
@click.option("--seed", type=int, help="Of weights, order and flips.  [default: 0]")
@click.option("--precision", help="auto, float32, or bfloat16 for mixed precision.")
@click.option("--limit-train", type=int, metavar="N", help="Only the first N training images.")
@click.option("--limit-test", type=int, metavar="N", help="Only the first N test images.")
@click.option(
    "--data",
    metavar="DIR|sample",
    help="Fashion-MNIST's folder, the small sample, or a folder of train/CLASS/ and test/CLASS/.",
)
@click.option("--out", type=click.Path(path_type=Path), help="[default: runs/RECIPE-BACKEND]")
@click.option("--resume", type=click.Path(path_type=Path), metavar="RUN", help="Go on with a run.")
@click.option(
    "--save-every",
    type=click.FloatRange(min=0),
    default=300.0,
    show_default=True,
    metavar="SECONDS",
    help="Between checkpoints inside an epoch.",
)
@click.option("--tensorboard", is_flag=True, help="Also write TensorBoard events.")
@click.option("--dry-run", is_flag=True, help="Print what would be trained, and train nothing.")
@click.option(
    "--workers",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    metavar="N",
    help="Processes on this machine that divide every batch; --batch-size is that of them all.",
)
@device_option
@json_option
def train(
    backend: str | None,
    recipe_name: str | None,
    limit_train: int | None,
    limit_test: int | None,
    data: str | None,
    out: Path | None,
    resume: Path | None,
    save_every: float,
    tensorboard: bool,
    dry_run: bool,
    workers: int,
    device: str,
    as_json: bool,
    **hyper: Any,
) -> None:
    """Train by a recipe, and keep what was learned in a folder.

    Started several times by torchrun, TF_CONFIG, paddle.distributed.launch or DMLC_ROLE it is one
    worker of several; --workers starts them on this machine.
    """
    from common import launch, training
    from common.workers import DEAF, joined, started, worker

    if workers > 1 and not dry_run:
        name = training.backend_name(backend, resume)
        with heard_signals() as stop:
            launch.start(name, workers, words_given("workers"), stop)
        return
    changes = {name: value for name, value in hyper.items() if value is not None}
    with worker():
        if resume:
            limits = {"--limit-train": limit_train, "--limit-test": limit_test}
            given = {"--recipe": recipe_name, "--out": out, **limits}
            fixed = [option for option, value in given.items() if value is not None]
            fixed += [f"--{name.replace('_', '-')}" for name in changes if name != "precision"]
            if fixed:
                raise SpecError(f"{fixed[0]} cannot change with --resume: the run has its own.")
            plan = training.resume(resume, backend, changes.get("precision"), data)
        else:
            name, limits_given = training.backend_name(backend, None), (limit_train, limit_test)
            plan = training.begin(name, recipe_name or "d2l", changes, data, limits_given, out)
        chosen = plan.device(device)
        plan = plan.decided(chosen)
        if dry_run:
            found = plan.describe(chosen)
            click.echo(json.dumps(found, indent=2) if as_json else training.render(found))
            return
        deaf = DEAF if started() else 0.0
        with heard_signals(deaf) as stop, joined(plan, chosen) as (rank, count):
            show = training.Lines(as_json, silent=rank > 0)
            with training.events(plan, tensorboard and rank == 0) as write:
                plan.train(chosen, show, write, stop, save_every, rank, count)


def words_given(but: str) -> list[str]:
    """The options of the command under way as they were given, without one of them."""
    ctx, words = click.get_current_context(), []
    for option in ctx.command.params:
        name = option.name or ""
        if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE and name != but:
            flag = isinstance(option, click.Option) and option.is_flag
            words += [option.opts[0], *([] if flag else [str(ctx.params[name])])]
    return words


checkpoint_option = click.option(
    "--checkpoint", type=click.Choice(("best", "last")), default="best", show_default=True
)
other_backend_option = click.option(
    "--backend", type=click.Choice(BACKENDS), help="Instead of the run's own."
)
precision_option = click.option(
    "--precision", type=click.Choice(("float32", "bfloat16")), help="Instead of the run's own."
)


@main.command()
@click.argument("run", type=click.Path(path_type=Path))
@other_backend_option
@checkpoint_option
@device_option
@precision_option
@click.option("--data", metavar="DIR|sample", help="Other test images, of the same classes.")
@click.option("--out", type=click.Path(path_type=Path), help="[default: RUN/confusion.png]")
@json_option
def evaluate(
    run: Path,
    backend: str | None,
    checkpoint: str,
    device: str,
    precision: str | None,
    data: str | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Test a run: loss, accuracy, each class's accuracy, and a picture of the confusions."""
    from common import inference, pictures

    found_run, read = inference.read(run, checkpoint)
    images = inference.test_set(read.config, data)
    opened = inference.enter(found_run, checkpoint, read, backend, device, precision)
    found = inference.evaluate(opened, images)
    picture = out or run / "confusion.png"
    inference.keep(picture, pictures.confusion(found["confusion"], images.classes))
    found["picture"] = str(picture)
    click.echo(json.dumps(found, indent=2) if as_json else inference.render(found))
    if not as_json:
        click.echo(f"confusions in {picture}")


@main.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument(
    "images", metavar="IMAGE...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@other_backend_option
@checkpoint_option
@device_option
@precision_option
@click.option(
    "--top", type=click.IntRange(min=1), default=3, show_default=True, help="Classes to name."
)
@click.option("--invert", is_flag=True, help="Negate the images first: see above.")
@click.option(
    "--out", type=click.Path(path_type=Path), default="predictions.png", show_default=True
)
@json_option
def predict(
    run: Path,
    images: tuple[Path, ...],
    backend: str | None,
    checkpoint: str,
    device: str,
    precision: str | None,
    top: int,
    invert: bool,
    out: Path,
    as_json: bool,
) -> None:
    """Name what image files show, with probabilities, in words and in a picture.

    The images are resized to the height and width of those that the run was trained on, and made
    grey if those were. Fashion-MNIST shows bright clothes on black: for a photograph on a white
    ground, use --invert, as the makers of the data set did.
    """
    from common import inference, pictures

    found_run, read = inference.read(run, checkpoint)
    pixels = inference.read_images(read.config, images, invert)
    opened = inference.enter(found_run, checkpoint, read, backend, device, precision)
    rows = inference.predict(opened, pixels, images, top)
    inference.keep(out, pictures.predictions(pixels, rows))
    if as_json:
        click.echo(json.dumps({**opened.facts(), "images": rows, "picture": str(out)}, indent=2))
        return
    for row in rows:
        click.echo(inference.line(row))
    click.echo(f"a picture of them in {out}")


@main.command()
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), default="curves.png", show_default=True)
def plot(runs: tuple[Path, ...], out: Path) -> None:
    """Lay the curves of runs over each other. RUN is a run's folder, or a history.jsonl."""
    from common import inference, pictures

    inference.keep(out, pictures.overlay(inference.histories(runs)))
    click.echo(f"the curves of {len(runs)} runs in {out}" if len(runs) > 1 else f"in {out}")


@main.command()
@json_option
@click.pass_context
def doctor(ctx: click.Context, as_json: bool) -> None:
    """Show versions, devices, processor, threads and data, and how to install what is missing.

    Exit status 0 if any framework can train, else 4.
    """
    from common import doctor as surgery

    found = surgery.look()
    click.echo(json.dumps(found, indent=2) if as_json else surgery.render(found))
    ctx.exit(0 if surgery.can_train(found) else BackendError.exit_code)


class Numbers(click.ParamType):
    """One or more whole numbers, with commas between them."""

    name = "N[,N...]"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[int, ...]:
        """The numbers."""
        try:
            return tuple(int(word) for word in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is no list of whole numbers.", param, ctx)


@main.command()
@backend_option
@spec_option
@click.option(
    "--size", "sizes", type=Numbers(), default="96", show_default=True, help="Height and width."
)
@click.option("--batch-size", "batch_sizes", type=Numbers(), default="128", show_default=True)
@click.option("--threads", type=Numbers(), help="And cores.  [default: the framework's own choice]")
@click.option(
    "--precision",
    type=click.Choice(("float32", "bfloat16")),
    help="Of (c).  [default: the fastest of those that there are]",
)
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True, help="Turns.")
@click.option(
    "--steps", type=click.IntRange(1), help="In a turn.  [default: 2 seconds of (a), at least 2]"
)
@click.option("--peer", is_flag=True, help="(a) with torchvision's or paddle.vision's own network.")
@click.option("--profile", is_flag=True, help="Show where the time goes, by operator.")
@click.option("--workers", type=Numbers(), help="Time `train` with so many workers each instead.")
@device_option
@json_option
def bench(
    backend: str,
    spec_name: str,
    sizes: tuple[int, ...],
    batch_sizes: tuple[int, ...],
    threads: tuple[int, ...] | None,
    precision: str | None,
    rounds: int,
    steps: int | None,
    peer: bool,
    profile: bool,
    workers: tuple[int, ...] | None,
    device: str,
    as_json: bool,
) -> None:
    """Time a training step: (a) as published, (b) ours by default, (c) ours at its fastest.

    The loops take turns, a process for each, on a drawn batch; (b) and (c) also as `train` runs,
    on Fashion-MNIST if it is there, else on the sample. With several sizes, batch sizes or threads,
    each combination is measured.
    """
    from itertools import product

    from common import bench as timing
    from common.recipe import Recipe

    plans = [
        timing.Plan(
            backend,
            Recipe(spec=spec_name, size=size, batch_size=batch_size),
            device,
            precision,
            count,
            rounds,
            steps,
            peer,
        ).checked()
        for size, batch_size, count in product(sizes, batch_sizes, threads or (None,))
    ]
    if workers:
        if len(plans) > 1 or profile or peer or threads or min(workers) < 1:
            raise SpecError("--workers takes numbers from 1, and one size and batch size alone.")
        found = timing.scale(plans[0], workers)
        click.echo(json.dumps(found, indent=2) if as_json else timing.render_scaling(found))
        return
    work = partial(timing.profile, steps=steps or 2) if profile else timing.bench
    found = timing.joined([work(plan) for plan in plans])
    show = timing.render_profile if profile else timing.render
    click.echo(json.dumps(found, indent=2) if as_json else show(found))


@main.command()
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="Write the site there.")
@click.option("--serve", is_flag=True, help="Show it on this machine until Ctrl-C.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8000,
    show_default=True,
    help="0: any free one.",
)
def page(out: Path | None, serve: bool, port: int) -> None:
    """Show the four frameworks side by side: a site of two files that needs no network."""
    from common.page import build as site

    if not (out or serve):
        raise PageError("Nothing to do: give --out DIR, --serve, or both.")
    for path in site.write(out) if out else ():
        click.echo(str(path))
    if serve:
        with site.server(port) as server:
            click.echo(f"http://localhost:{server.server_port}/ until Ctrl-C")
            server.serve_forever()


if __name__ == "__main__":
    main()
