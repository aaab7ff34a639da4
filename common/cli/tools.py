"""`googlenet doctor`, `bench`, `page`."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import click

from common.cli.app import Numbers, backend_option, device_option, json_option, main, spec_option
from common.errors import BackendError, PageError, SpecError
from common.terminal import progress


@main.command()
@json_option
@click.pass_context
def doctor(ctx: click.Context, as_json: bool) -> None:
    """Show versions, devices and data, and how to get what is missing.

    The exit status is 0 if any framework can train, else 4.
    """
    from common import doctor

    found = doctor.examine()
    click.echo(json.dumps(found, indent=2) if as_json else doctor.render(found))
    ctx.exit(0 if doctor.can_train(found) else BackendError.exit_code)


@main.command()
@backend_option
@spec_option
@click.option(
    "--size", "sizes", type=Numbers(), default="96", show_default=True, help="Height and width."
)
@click.option("--batch-size", "batch_sizes", type=Numbers(), default="128", show_default=True)
@click.option(
    "--threads", type=Numbers(), help="Threads and cores.  [default: the framework's own choice]"
)
@click.option(
    "--precision",
    type=click.Choice(("float32", "bfloat16")),
    help="Precision of (c).  [default: the fastest available]",
)
@click.option(
    "--rounds",
    type=click.IntRange(1),
    default=5,
    show_default=True,
    help="Each loop runs once per round.",
)
@click.option(
    "--steps",
    type=click.IntRange(1),
    help="Steps per run.  [default: 2 seconds of (a), at least 2]",
)
@click.option(
    "--peer",
    is_flag=True,
    help="Time what a user would write today too: torch.compile, Keras's fit, to_static or "
    "hybridize; (a) is the network of torchvision or paddle.vision, where there is one.",
)
@click.option("--profile", is_flag=True, help="Show where the time goes, by operator.")
@click.option(
    "--workers", type=Numbers(), help="Time `train` with each of these numbers of workers instead."
)
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
    """Time a training step of the book's loop and of ours.

    The loops are (a) as published, (b) ours by default, (c) ours at its fastest.
    The loops alternate, each in its own process, on a random batch. (b) and (c) are also timed as
    `train` runs them, on Fashion-MNIST if it is installed, else on the sample. With several sizes,
    batch sizes or threads, each combination is measured.
    """
    from itertools import product

    from common.bench import benchmark, report
    from common.recipe import Recipe

    plans = [
        benchmark.Plan(
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
        if len(plans) > 1 or profile or peer or threads:
            raise SpecError(
                "--workers takes one size and one batch size, without --threads, --profile, --peer."
            )
        with progress(f"starting {backend}"):
            found = benchmark.scale(plans[0], workers)
        click.echo(json.dumps(found, indent=2) if as_json else report.render_scaling(found))
        return
    work = partial(benchmark.profile, steps=steps or 2) if profile else benchmark.bench
    with progress(f"starting {backend}"):
        found = benchmark.joined([work(plan) for plan in plans])
    show = report.render_profile if profile else report.render
    click.echo(json.dumps(found, indent=2) if as_json else show(found))


@main.command()
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="DIR", help="Write the site to this folder."
)
@click.option("--serve", is_flag=True, help="Show it on this machine until Ctrl-C.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8000,
    show_default=True,
    help="0: any free one.",
)
def page(out: Path | None, serve: bool, port: int) -> None:
    """Show the four frameworks side by side in a browser.

    The site works offline: two pages, English and Chinese, the guide, and the listings.
    """
    from common.page import site

    if not (out or serve):
        raise PageError("Nothing to do: give --out DIR, --serve, or both.")
    for path in site.write(out) if out else ():
        click.echo(str(path))
    if serve:
        with site.server(port) as server:
            click.echo(f"http://localhost:{server.server_port}/ until Ctrl-C")
            server.serve_forever()
