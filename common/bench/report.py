"""The tables of the benchmark, as text."""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby
from typing import Any

from common.terminal import table as as_table

#: heads of the tables, and what each shows of a row
COLUMNS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "": lambda row: row["role"],
    "loop": lambda row: row["loop"],
    "precision": lambda row: row["precision"],
    "examples/s": lambda row: row["median"],
    "range": lambda row: f"{row['lowest']} to {row['highest']}",
    "ratio": lambda row: row["ratio"],
    "of the roofline": lambda row: _roofline(row),
    "of peak": lambda row: _peak(row),
    "memory": lambda row: _memory(row),
    "start": lambda row: f"{row['start']} s",
    "compile": lambda row: f"{row['compile']} s",
    "real data": lambda row: row["real"],
    "wait": lambda row: None if row["wait"] is None else f"{row['wait']:.1%}",
}
#: the same for the tables of several workers
WORKERS = {
    "workers": lambda row: row["workers"],
    **{head: COLUMNS[head] for head in ("examples/s", "range", "ratio")},
}
SETTING = ("backend", "version", "device", "spec", "batch_size", "size", "threads")


def _roofline(row: dict[str, Any]) -> str | None:
    """None in results from before it was measured."""
    if row["roofline"] is None:
        return None
    limits = f"{row['peak']:.0f} GFLOP/s, {row['bandwidth']:.0f} GB/s"
    return f"{row['roofline']:.1%} of {limits}"


def _peak(row: dict[str, Any]) -> str | None:
    """None where the share of the roofline is known."""
    known = row["roofline"] is not None
    return None if known else f"{row['share']:.1%} of {row['peak']:.0f} GFLOP/s"


def cells(
    rows: list[dict[str, Any]], columns: dict[str, Callable[[dict[str, Any]], Any]]
) -> tuple[list[str], list[list[Any]]]:
    """The heads of the columns that are not empty, and the cells of each row."""
    table = {head: [of(row) for row in rows] for head, of in columns.items()}
    kept = {head: cells for head, cells in table.items() if cells.count(None) < len(cells)}
    return list(kept), [list(row) for row in zip(*kept.values(), strict=True)]


def _memory(row: dict[str, Any]) -> str:
    both = {"": row["memory"], " on the GPU": row["device_memory"]}
    return ", ".join(f"{size} MB{where}" for where, size in both.items() if size is not None)


def render(found: dict[str, Any]) -> str:
    """The rows as text, one table for each setting."""
    parts = [f"{found['machine']}; real data: {found['data']}"]
    for setting, rows in groupby(found["rows"], key=lambda row: [row[k] for k in SETTING]):
        backend, version, device, spec, batch_size, size, count = setting
        cores = f", --threads {count}" if count else ""
        parts.append(
            f"{backend} {version} on {device}, {spec}, batch {batch_size} at {size} pixels{cores}"
        )
        heads, table = cells(list(rows), COLUMNS)
        parts.append(as_table(table, heads))
    return "\n\n".join(parts)


def render_scaling(found: dict[str, Any]) -> str:
    """The speeds with several workers as text."""
    first = found["scaling"][0]
    head = (
        f"{found['machine']}; real data: {found['data']}\n\n{first['backend']} {first['version']} "
        f"on {first['device']}, {first['precision']}, batch {first['batch_size']} of all workers "
        f"at {first['size']} pixels"
    )
    rows = [[of(row) for of in WORKERS.values()] for row in found["scaling"]]
    return f"{head}\n\n{as_table(rows, list(WORKERS))}"


def render_profile(found: dict[str, Any]) -> str:
    """The profiles as text."""
    parts = [found["machine"]]
    for each in found["profiles"]:
        step, floor = each["step"], each["floor"]
        parts.append(
            f"{each['backend']} {each['version']} on {each['device']}, {each['loop']} in "
            f"{each['precision']}, batch {each['batch_size']} at {each['size']} pixels: "
            f"{step * 1e3:.1f} ms a step, at the peak {floor * 1e3:.1f} ms ({floor / step:.1%})"
        )
        rows = [
            (
                row["name"][:60],
                f"{row['calls']:.1f}",
                f"{row['seconds'] * 1e3:.1f}",
                f"{row['share']:.1%}",
            )
            for row in each["operators"]
        ]
        heads = ("operator", "calls", "ms a step", "share")
        parts.append(as_table(rows, heads))
    return "\n\n".join(parts)
