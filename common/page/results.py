"""Readers of the results in docs/results, for the README and the page.

Each file holds what a command printed with `--json`, for a backend B:

- `verify-B.json`: `googlenet verify`; `same-padding-B.json`: with `--inject same-padding`
- `bugs-B.json`: `googlenet bugs`
- `bench-B.json`: `googlenet bench`; `size-B.json`, `batch_size-B.json` and `threads-B.json`: with
  several values of that option; `peer-B.json`: with `--peer`; `profile-B.json`: with `--profile`;
  `workers-B.json`: with `--workers 1,2`

`gpu-torch.json` is what benchmarks/gpu.py prints. `ordinary-B.json` is what docs/ordinary.py
writes. `pitfalls-B.json` comes from the tests in tests/pitfalls. `runs/NAME/` holds the
`config.json` and the `history.jsonl` of a training run.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from common.errors import GoogLeNetError, SpecError
from common.parity.mutations import INJECTED_BUGS
from common.parity.report import CHECK_KEY, Report
from common.recipe import find_recipe
from common.spec import D2L, SPECS, float32, is_number
from common.spec.arithmetic import layers, smallest_input, totals
from common.training.checkpoint import Config, config_from
from common.training.history import Epoch, read_history, speed

Found = TypeVar("Found")

TITLES = {"torch": "PyTorch", "tf": "TensorFlow", "mxnet": "MXNet Gluon", "paddle": "PaddlePaddle"}

#: published runs of 10 epochs: recipe, source, loss, train and test accuracy, examples/s
PUBLISHED = (
    ("`d2l`, batch 128", "d2l, MXNet, GPU", 0.256, 0.903, 0.907, 2343.6),
    ("`d2l`, batch 128", "d2l, PyTorch, GPU", 0.262, 0.900, 0.886, 3265.5),
    ("`d2l`, batch 128", "d2l, TensorFlow, GPU", 0.248, 0.905, 0.899, 3758.1),
    ("`d2l`, batch 128", "d2l, Paddle, GPU", 0.213, 0.919, 0.904, 1381.9),
    ("`d2l`, batch 512", "a blog's PyTorch, GPU", 0.464, 0.824, 0.795, 431.9),
    ("`blog-224`, Adam", "a blog's PyTorch, GPU", 0.183, None, 0.9154, None),
)


#: the runs of an exercise of the book (docs/exercises.py): the spec and the label smoothing
EXERCISES = {
    "d2l": ("d2l", 0.0),
    "d2l-bn": ("d2l-bn", 0.0),
    "d2l-bn-smoothed": ("d2l-bn", 0.1),
    "d2l-v2": ("d2l-v2", 0.0),
    "d2l-factorized": ("d2l-factorized", 0.0),
    "d2l-residual": ("d2l-residual", 0.0),
}


class Unusable(GoogLeNetError):
    """A results file that cannot be shown: `missing`, `damaged`, or from an `other` version."""

    def __init__(self, why: str, path: Path) -> None:
        super().__init__(f"{path} is {why}: write it again with the command that made it.")
        self.why, self.path = why, path


@dataclass(frozen=True)
class Run:
    """One training run: its configuration and its epochs."""

    name: str
    config: Config
    epochs: list[Epoch]


def verified(root: Path, backend: str) -> list[Report]:
    """Every report of a backend's parity checks; Unusable if the file is not of this version."""
    return _reports(root / "docs" / "results" / f"verify-{backend}.json", backend)


def injected(root: Path, backend: str) -> Report:
    """The report with d2l's TensorFlow padding injected; Unusable as above."""
    path = root / "docs" / "results" / f"same-padding-{backend}.json"
    reports = _reports(path, backend)
    if len(reports) != 1:
        raise Unusable("other", path)
    return reports[0]


def _reports(path: Path, backend: str) -> list[Report]:
    def parse(found: Any) -> list[Report]:
        reports = [_checked(Report.from_json(each)) for each in found]
        if not reports or any(report.backend != backend for report in reports):
            raise ValueError("results of another backend")
        if not {report.spec for report in reports} <= {*SPECS}:
            raise ValueError("unknown specs")
        return reports

    return read(path, parse)


def _checked(report: Report) -> Report:
    for check in report.checks:
        _number(check.tolerance)
        for error in (check.error, *check.stages.values()):
            _number(0 if error is None else error)
    return report


def stage_names() -> list[str]:
    """The five stages and the head."""
    return [*(name for name, _ in D2L.stages()), "head"]


def stages_of(reports: list[Report], path: Path) -> dict[str, float]:
    """The error of each stage in the first report that has them; Unusable if none has."""
    for report in reports:
        for check in report.checks:
            known = [name for name, error in check.stages.items() if error is not None]
            if check.name == "forward" and known == stage_names():
                return check.stages
    raise Unusable("other", path)


def caught(root: Path, backend: str) -> dict[str, dict[str, Any]]:
    """The check that caught each bug, by the bug's name; Unusable as above."""

    def parse(found: Any) -> dict[str, dict[str, Any]]:
        rows = {row["bug"]: row for row in found}
        if not rows or not {*rows} <= {*INJECTED_BUGS}:
            raise ValueError("other bugs")
        for row in rows.values():
            if CHECK_KEY in row:
                row["check"] = row.pop(CHECK_KEY)
                _number(0 if row["error"] is None else row["error"])
                row["where"].split()
        return rows

    return read(root / "docs" / "results" / f"bugs-{backend}.json", parse)


def ordinary(root: Path, backend: str) -> list[tuple[float, float]]:
    """For each seed the error of float32 gradients: by the largest difference, and by length."""

    def parse(found: Any) -> list[tuple[float, float]]:
        return [(_number(row["largest"]), _number(row["length"])) for row in found["rows"]]

    return read(root / "docs" / "results" / f"ordinary-{backend}.json", parse)


def pitfalls(root: Path, backend: str) -> dict[str, tuple[float, float]]:
    """The error of each pitfall without our fix and with it; Unusable as above."""

    def parse(found: Any) -> dict[str, tuple[float, float]]:
        return {
            name: (_number(both["without"]), _number(both["with"]))
            for name, both in found["traps"].items()
        }

    return read(root / "docs" / "results" / f"pitfalls-{backend}.json", parse)


def speeds(
    root: Path, kind: str = "bench", key: str = "rows"
) -> list[tuple[str, list[dict[str, Any]]]]:
    """Each machine and the rows of all benchmarks of a kind on it; Unusable as above.

    Rows from before the roofline was measured have None there.
    """
    added = dict.fromkeys(("bandwidth", "roofline")) if key == "rows" else {}

    def parse(found: Any) -> tuple[str, list[dict[str, Any]]]:
        rows = [{str(key): value for key, value in row.items()} for row in found[key]]
        rows = [row | {new: row.get(new) for new in added} for row in rows]
        if not rows or any(list(row) != list(rows[0]) for row in rows):
            raise ValueError("rows with different fields")
        return str(found["machine"]), rows

    folder = root / "docs" / "results"
    paths = sorted(folder.glob(f"{kind}-*.json"))
    if not paths:
        raise Unusable("missing", folder / f"{kind}-*.json")
    tables: dict[str, list[dict[str, Any]]] = {}
    for path in paths:
        machine, rows = read(path, parse)
        table = tables.setdefault(machine, [])
        if table and list(table[0]) != list(rows[0]):
            raise Unusable("other", path)
        table += rows
    return list(tables.items())


def runs(root: Path, name: str = "runs") -> tuple[list[Run], list[Unusable]]:
    """The training runs in a folder of the results, and an error for each that cannot be read."""
    found, wrong = [], []
    folder = root / "docs" / "results" / name
    for each in sorted(folder.iterdir()) if folder.is_dir() else ():
        try:
            config = read(each / "config.json", config_from)
            path = each / "history.jsonl"
            try:
                epochs = read_history(path)
            except GoogLeNetError as error:
                raise Unusable("damaged" if path.exists() else "missing", path) from error
            if not epochs:
                raise Unusable("damaged", path)
            find_recipe(config.recipe.name)
            found.append(Run(each.name, config, epochs))
        except Unusable as error:
            wrong.append(error)
        except GoogLeNetError:
            wrong.append(Unusable("other", each / "config.json"))
    return found, wrong if found or wrong else [Unusable("missing", folder)]


def exercise_rows(found: list[Run]) -> list[tuple[Any, ...]]:
    """The rows of the exercise: name, parameters, multiply-adds, smallest image, accuracy, recipe.

    The accuracy on the test set is the mean over the seeds, with half of the spread of several;
    None for a row without runs. SpecError if the runs of a row differ in more than the seed.
    """
    rows: list[tuple[Any, ...]] = []
    for name, (spec_name, smoothing) in EXERCISES.items():
        spec = SPECS[spec_name]
        parameters, multiply_adds = totals(layers(spec))
        own = [run for run in found if run.name.rpartition("-")[0] == name]
        recipes = {replace(run.config.recipe, seed=0) for run in own}
        if len(recipes) > 1 or any(
            (r.spec, r.label_smoothing) != (spec_name, float32(smoothing)) for r in recipes
        ):
            raise SpecError(f"The runs of the exercise {name} are not one recipe's.")
        accuracy = amount = None
        if own:
            last = [run.epochs[-1].test_accuracy for run in own]
            accuracy = f"{sum(last) / len(last):.4f}"
            accuracy += f" ± {(max(last) - min(last)) / 2:.4f}" if len(last) > 1 else ""
            (recipe,) = recipes
            seeds = f"{len(own)} seed{'s' * (len(own) > 1)}"
            amount = f"{len(own[0].epochs)} epochs at {recipe.size}, {seeds}"
        costs = f"{parameters:,}", f"{multiply_adds / 1e6:.1f} M"
        rows.append((f"`{name}`", *costs, smallest_input(spec), accuracy, amount))
    return rows


def read(path: Path, parse: Callable[[Any], Found]) -> Found:
    """The result of `parse` on a JSON file; Unusable if there is no file that it accepts."""
    try:
        text = path.read_text()
    except FileNotFoundError as error:
        raise Unusable("missing", path) from error
    except (OSError, UnicodeDecodeError) as error:
        raise Unusable("damaged", path) from error
    try:
        found = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise Unusable("damaged", path) from error
    try:
        return parse(found)
    except (GoogLeNetError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise Unusable("other", path) from error


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _number(value: Any) -> float:
    if not is_number(value):
        raise TypeError(f"{value!r} is no number")
    return value


def training_rows(found: list[Run]) -> list[tuple[Any, ...]]:
    """Our runs under the published ones: recipe, run, amount, loss, accuracies, examples/s."""
    rows: list[tuple[Any, ...]] = [(*row[:2], "60,000 x 10", *row[2:]) for row in PUBLISHED]
    for run in found:
        recipe, last = run.config.recipe, run.epochs[-1]
        name = f"`{recipe.name}`"
        if recipe.spec != find_recipe(recipe.name).spec:
            name += f" with `{recipe.spec}`"
        if recipe.size != find_recipe(recipe.name).size:
            name += f" at {recipe.size}"
        what = f"{name}, batch {recipe.batch_size}" + (
            f", seed {recipe.seed}" if recipe.seed else ""
        )
        each = [f"{TITLES[one.backend]} {one.version.partition('+')[0]}" for one in run.epochs]
        titles = list(dict.fromkeys(each))
        where = f"**ours**, {' then '.join(titles)}, {last.device}, {recipe.precision}"
        amount = f"{last.examples:,} x {len(run.epochs)}"
        accuracies = (round(last.train_accuracy, 3), round(last.test_accuracy, 4))
        figures = (round(last.loss, 3), *accuracies, round(speed(run.epochs), 1))
        rows.append((what, where, amount, *figures))
    return rows
