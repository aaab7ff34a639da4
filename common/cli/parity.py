"""`googlenet verify`, `bugs`."""

from __future__ import annotations

import json
import subprocess

import click

from common.cli.app import (
    BACKENDS,
    COUNT,
    SPEC,
    Known,
    KnownOption,
    backend_option,
    bug_names,
    device_option,
    json_option,
    main,
)
from common.errors import ParityError, SpecError
from common.terminal import progress, say, table


@main.command()
@click.option("--backend", required=True, type=click.Choice([*BACKENDS, "all"]))
@click.option("--spec", "spec_name", type=SPEC, cls=KnownOption, help="Only this spec.")
@click.option("--size", type=COUNT, help="Only this image size.")
@click.option(
    "--inject",
    "bug_name",
    type=Known("BUG", bug_names),
    cls=KnownOption,
    help="Inject a bug; a check must catch it.",
)
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
    """Compare a backend with the NumPy reference.

    The checks compare parameters, activations, loss, gradients, optimizer steps and statistics.
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
    with progress(f"starting {backend}"):
        for report in (
            [suite.verify_injected(backend, bug, device)]
            if bug
            else suite.verify(backend, spec_name, size, device)
        ):
            reports.append(report)
            if not as_json:
                say(report.sentence())
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
    """Inject every known bug and show the check that catches it.

    The exit status is 0 only if each bug is caught by one of its expected checks.
    """
    from common.parity import suite
    from common.parity.mutations import INJECTED_BUGS

    rows, escaped = [], False
    with progress(f"starting {backend}", len(INJECTED_BUGS), unit="bugs") as bar:
        suite.second_device(backend)  # before the framework is used
        for bug in INJECTED_BUGS.values():
            bar.advance(0, bug.name)
            report = suite.verify_injected(backend, bug)
            escaped |= report.failed is None or report.failed.name not in bug.caught_by
            rows.append({"bug": bug.name, "what": bug.what, **report.caught()})
            bar.advance()
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    else:
        heads = list(dict.fromkeys(name for row in rows for name in row))
        cells = [[row.get(name) for name in heads] for row in rows]
        found = [[f"{c:.1e}" if isinstance(c, float) else c for c in row] for row in cells]
        click.echo(table(found, heads))
    ctx.exit(ParityError.exit_code if escaped else 0)
