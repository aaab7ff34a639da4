"""`googlenet verify`, `bugs`."""

from __future__ import annotations

import json
import subprocess

import click

from common.cli.app import BACKENDS, backend_option, device_option, json_option, main
from common.errors import ParityError, SpecError


@main.command()
@click.option("--backend", required=True, type=click.Choice([*BACKENDS, "all"]))
@click.option("--spec", "spec_name", metavar="NAME", help="Only this spec.")
@click.option("--size", type=int, help="Only this image size.")
@click.option("--inject", "bug_name", metavar="BUG", help="Inject a bug; a check must catch it.")
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
    """Compare a backend with the NumPy reference: activations, loss, gradients, steps, statistics.

    The exit status is 0 only if every check passes. With --inject it is 3 if the bug is caught.
    """
    from common.parity import mutations, suite
    from common.spec import find

    if spec_name:
        find(spec_name)
    bug = mutations.find(bug_name) if bug_name else None
    if bug and (spec_name or size is not None):
        raise SpecError("--inject brings its own spec and size; leave out --spec and --size.")
    if backend == "all":
        given = {"--spec": spec_name, "--size": size, "--inject": bug_name, "--device": device}
        options = [
            str(word) for option in given.items() if option[1] is not None for word in option
        ]
        ctx.exit(verify_all(options, as_json))
    reports = []
    for report in (
        [suite.verify_injected(backend, bug, device)]
        if bug
        else suite.verify(backend, spec_name, size, device)
    ):
        reports.append(report)
        if not as_json:
            click.echo(report.sentence())
    if as_json:
        click.echo(json.dumps([report.as_json() for report in reports], indent=2))
    ctx.exit(ParityError.exit_code if any(report.failed for report in reports) else 0)


def verify_all(options: list[str], as_json: bool) -> int:
    """Verify all four, each in its own process.

    Returns 3 if any backend failed a check, else the highest exit status.
    """
    from common.parity import suite

    reports, statuses = [], set()
    for name in BACKENDS:
        if as_json:
            child = suite.in_child(name, [*options, "--json"], stdout=subprocess.PIPE)
            reports += json.loads(child.stdout or "[]")
        else:
            child = suite.in_child(name, options)
        statuses.add(
            child.returncode if child.returncode >= 0 else 1
        )  # negative: ended by a signal
    if as_json:
        click.echo(json.dumps(reports, indent=2))
    return ParityError.exit_code if ParityError.exit_code in statuses else max(statuses)


@main.command()
@backend_option
@json_option
@click.pass_context
def bugs(ctx: click.Context, backend: str, as_json: bool) -> None:
    """Inject every known bug into a backend, one by one, and show the check that catches it.

    The exit status is 0 only if each bug is caught by one of its expected checks.
    """
    from tabulate import tabulate

    from common.parity import suite
    from common.parity.mutations import INJECTED_BUGS

    suite.second_device(backend)  # before the framework is used
    rows, escaped = [], False
    for bug in INJECTED_BUGS.values():
        report = suite.verify_injected(backend, bug)
        escaped |= report.failed is None or report.failed.name not in bug.caught_by
        rows.append({"bug": bug.name, "what": bug.what, **report.caught()})
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    else:
        click.echo(tabulate(rows, headers="keys", floatfmt=".1e"))
    ctx.exit(ParityError.exit_code if escaped else 0)
