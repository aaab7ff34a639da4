"""A spec's layer table, stages and totals, as plain data and as text."""

from __future__ import annotations

from typing import Any

from common.spec.arithmetic import layers, memory, smallest_input, stage_shapes, totals, walk
from common.spec.peers import PEERS
from common.spec.rows import Spec
from common.terminal import table as as_table


class Summary(dict[str, Any]):
    """What `describe` returns; it prints as text, and a notebook shows it as a table."""

    def __str__(self) -> str:
        return render(self)

    def _repr_html_(self) -> str:
        heads = ("layer", "kind", "output shape", "parameters", "multiply-adds")
        cells = [f"<th>{head}</th>" for head in heads]
        rows = [f"<tr>{''.join(cells)}</tr>"]
        for row in _layer_rows(self["layers"]):
            rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>")
        sums = f"{self['parameters']:,} parameters, {self['multiply_adds']:,} multiply-adds"
        return f"<table>{''.join(rows)}</table><p>{self['spec']}: {sums}</p>"


def summary(spec: Spec, compare: bool = False, depth: int | None = None) -> Summary:
    """A network's layers, shapes, parameters and memory, for a terminal or a notebook.

    `depth` sums up what lies deeper: 1 leaves the stages, 2 the rows. `compare` adds AlexNet,
    VGG-11 and NiN.
    """
    return Summary(describe(spec, compare, depth))


def describe(spec: Spec, compare: bool = False, depth: int | None = None) -> dict[str, Any]:
    """The summary as plain data: NCHW shapes for a batch of one, memory in float32 megabytes.

    With a `depth`, layers whose names have more parts are summed up.
    """
    table = layers(spec)
    parameters, multiply_adds = totals(table)
    found: dict[str, Any] = {
        "spec": spec.name,
        "input": [1, *spec.input],
        "parameters": parameters,
        "multiply_adds": multiply_adds,
        "smallest_input": smallest_input(spec),
        "memory": memory(spec),
        "stages": [{"name": name, "shape": shape} for name, shape in stage_shapes(spec).items()],
        "layers": [vars(layer) for layer in table],
    }
    if depth:
        found["layers"] = _summed_up(found["layers"], stage_shapes(spec), depth)
    if compare:
        found["compare"] = [peer(name) for name in PEERS]
    return found


def _summed_up(
    table: list[dict[str, Any]], stages: dict[str, Any], depth: int
) -> list[dict[str, Any]]:
    rows: dict[str, dict[str, Any]] = {}
    for layer in table:
        name = ".".join(layer["name"].split(".")[:depth])
        if name not in rows:
            kind = layer["kind"] if name == layer["name"] else ""
            rows[name] = {**layer, "name": name, "kind": kind}
            continue
        row = rows[name]
        for count in ("parameters", "multiply_adds"):
            if layer[count]:
                row[count] = (row[count] or 0) + layer[count]
        if not row["kind"]:  # the shape of a block is its own, not its last branch's
            row["shape"] = layer["shape"]
    return [{**row, "shape": stages.get(name, row["shape"])} for name, row in rows.items()]


def peer(name: str) -> dict[str, Any]:
    """A network to compare with: its input, parameters and multiply-adds."""
    shape, rows = PEERS[name]
    parameters, multiply_adds = totals(walk(rows, (1, *shape), None)[0])
    return {
        "name": name,
        "input": [1, *shape],
        "parameters": parameters,
        "multiply_adds": multiply_adds,
    }


def render(found: dict[str, Any]) -> str:
    """The summary as text."""
    table = _layer_rows(found["layers"])
    heads = ("layer", "kind", "output shape", "parameters", "multiply-adds")
    stages = [(stage["name"], _shape(stage["shape"])) for stage in found["stages"]]
    megabytes = {
        "input size (MB)": found["memory"]["input"],
        "forward/backward pass size (MB)": found["memory"]["forward_backward"],
        "parameters size (MB)": found["memory"]["parameters"],
        "estimated total size (MB)": found["memory"]["total"],
    }
    sums = [
        ("parameters", f"{found['parameters']:,}"),
        ("multiply-adds", f"{found['multiply_adds']:,}"),
        ("smallest input", "{0}x{0}".format(found["smallest_input"])),
        *((name, f"{size:.2f}") for name, size in megabytes.items()),
    ]
    parts = [
        as_table(table, heads),
        as_table(stages, ("stage", "output shape")),
        as_table(sums),
    ]
    if "compare" in found:
        networks = [{"name": found["spec"], **found}, *found["compare"]]
        rows = [
            (n["name"], _shape(n["input"]), f"{n['parameters']:,}", f"{n['multiply_adds']:,}")
            for n in networks
        ]
        parts.append(as_table(rows, ("network", "input", "parameters", "multiply-adds")))
    return "\n\n".join(parts)


def _layer_rows(layers: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    return [
        (
            layer["name"],
            layer["kind"],
            _shape(layer["shape"]),
            "" if layer["parameters"] is None else f"{layer['parameters']:,}",
            f"{layer['multiply_adds']:,}" if layer["multiply_adds"] else "",
        )
        for layer in layers
    ]


def _shape(shape: tuple[int, ...]) -> str:
    return "(" + ", ".join(str(side) for side in shape) + ")"
