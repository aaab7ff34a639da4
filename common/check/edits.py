"""The edits of a step that are mistakes, and their names.

`variants` lists the edited parameters of a step, the likely ones first. `names` says which mistakes
of `mistakes.py` an edited step makes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import permutations
from typing import Any

import numpy as np

from common.check.graph import ACTIVATIONS, INPUT, Node, Params, output_size

EPS = (1e-5, 1e-3, 1e-6, 1e-4, 1e-2, 2e-5, 1e-7, 1e-8, 1e-12, 0.0)
#: what a convolution's padding may be filled with, by the name of NumPy's mode
BORDERS = {
    "reflect": "the image's reflection",
    "edge": "copies of the edge",
    "wrap": "the image's other side",
}
RESIDUAL, RESIDUALS = ".scale", (1.0, 0.1, 0.17, 0.2, 0.3)  #: how much of a residual is added


def variants(node: Node, shape: Sequence[int], want: Sequence[int]) -> Iterator[Params]:
    """Edited parameters of a step, from an input of `shape` to an output of `want`.

    The likely ones first. Variants of another output shape are left out.
    """
    p = node.p
    match node.kind:
        case "conv":
            for bias in (p["bias"], not p["bias"]):
                base = {**p, "bias": bias}
                if bias != p["bias"]:
                    yield base
                for window in _windows(base, shape, want[2:]):
                    if window != p:
                        yield window
                if p["kernel"] != (1, 1):
                    for border in BORDERS:
                        yield {**base, "border": border}
                for layout in ("height and width exchanged", "turned by 180 degrees"):
                    if p["kernel"] != (1, 1):
                        yield {**base, "layout": layout}
            if p["bias"]:
                yield {**p, "bias": 2}
        case "norm":
            for mode in dict.fromkeys((p["mode"], "batch", "outside")):
                for affine in (True, "no scale", "no shift", False):
                    for eps in (p["eps"], *EPS):
                        change = {**p, "mode": mode, "affine": affine, "eps": eps}
                        if change != p and not (eps != p["eps"] and abs(eps - p["eps"]) < 1e-9):
                            yield change
            yield {**p, "mode": "identity"}
        case "act":
            yield from ({**p, "fn": fn} for fn in ("none", *ACTIVATIONS) if fn != p["fn"])
        case "pool":
            yield from _pools(p, shape, want)
        case "concat":
            for order in permutations(range(len(node.inputs))):
                if order != p["order"]:
                    yield {**p, "order": order}
        case "gap":
            first = (f"mean of the first {k}x{k}" for k in (2, 3, 4, 5, 6, 7, 8))
            for fn in ("max", "sum", "flatten", "flatten (H, W, C)", *first, "mean"):
                if fn != p["fn"]:
                    yield {**p, "fn": fn}
        case "flatten":
            yield {**p, "order": "HWC"}
        case "linear":
            yield {**p, "bias": not p["bias"]}
            yield {**p, "bias": 2}
        case "out":
            ends = "log softmax that ends at -64"
            for fn in ("softmax", "log softmax", ends, *ACTIVATIONS):
                if fn != p["fn"]:
                    yield {**p, "fn": fn}
        case "affine":
            scales = RESIDUALS if node.name.endswith(RESIDUAL) else (1.0,)
            for scale in scales:
                change = {
                    **p,
                    "scale": (scale,) * len(p["scale"]),
                    "shift": (0.0,) * len(p["shift"]),
                }
                if change != p:
                    yield change
        case "add":
            yield {**p, "left out": True}
        case "local norm":
            size, alpha = p["size"], p["alpha"]
            for k in (p["k"], 1.0, 2.0):
                for beta in (p["beta"], 0.75, 0.5):
                    for other in (alpha, alpha * size, alpha / size, 1e-4, 1e-4 * size, 1e-3, 1.0):
                        if (other, beta, k) != (alpha, p["beta"], p["k"]):
                            yield {**p, "alpha": other, "beta": beta, "k": k}
            yield {**p, "fn": "none"}


def _fronts(size: int, out: int, kernel: int, stride: int, most: int) -> Iterator[tuple[int, int]]:
    """The paddings (front, behind) that turn `size` into `out`; even ones if they do."""
    for front in range(most + 1):
        needed = (out - 1) * stride + kernel - size - front
        if needed <= front < needed + stride:
            yield front, front
        elif 0 <= needed <= most + stride:
            yield front, needed
        elif needed < 0 and -needed < stride:
            yield front, 0


def _windows(p: Params, shape: Sequence[int], out: Sequence[int]) -> Iterator[Params]:
    """Strides, paddings and dilations of a convolution between two image sizes."""
    strides = [p["stride"], *((s, s) for s in (1, 2, 3, 4) if (s, s) != p["stride"])]
    for dilation in (p["dilation"], 2, 3) if p["kernel"] != (1, 1) else (p["dilation"],):
        for stride in strides:
            base = {**p, "stride": stride, "dilation": dilation}
            span = [(k - 1) * dilation + 1 for k in p["kernel"]]
            if max(stride) > 1:
                same = {**base, "pad": "same"}
                if output_size(same, shape) == tuple(out):
                    yield same
            high = list(_fronts(shape[2], out[0], span[0], stride[0], span[0] - 1))
            wide = list(_fronts(shape[3], out[1], span[1], stride[1], span[1] - 1))
            pads = [(*a, *b) for a in high for b in wide if (a[0] == b[0]) or span[0] != span[1]]
            pads.sort(key=lambda pad: pad[0] != pad[1] or pad[2] != pad[3])
            yield from ({**base, "pad": pad} for pad in pads)


def _pools(p: Params, shape: Sequence[int], want: Sequence[int]) -> Iterator[Params]:
    """Other fills, functions and windows of a pool."""
    if len(want) == 2:
        want = (*want, 1, 1)
    out = tuple(want[2:])
    functions = dict.fromkeys((p["fn"], "avg with padding", "avg", "max"))
    if p["fn"] == "max":
        yield {**p, "fill": "0"}
    kernels = [p["kernel"], *((k, k) for k in (2, 3, 4, 5, 7) if (k, k) != p["kernel"])]
    tried = []
    for fn in functions:
        for kernel in kernels:
            strides = [p["stride"], *((s, s) for s in (1, 2, 3, 4, 5) if (s, s) != p["stride"])]
            for stride in strides:
                base = {**p, "fn": fn, "kernel": kernel, "stride": stride}
                tries = [base]
                if max(stride) > 1:
                    tries.append({**base, "pad": "same", "ceil": False})
                for front in range(max(kernel) // 2 + 1):
                    pad = (front,) * 4
                    tries += [{**base, "pad": pad, "ceil": ceil} for ceil in (False, True)]
                    behind = (front, front + 1, front, front + 1)
                    tries.append({**base, "pad": behind, "ceil": False})
                for each in tries:
                    fits = output_size(each, shape) == out
                    if fits and each != p:
                        for fill in ("-inf", "0") if fn == "max" else ("-inf",):
                            tried.append({**each, "fill": fill})
    tried.sort(key=lambda q: _distance(p, q))
    yield from tried
    if out == tuple(shape[2:]):
        yield {**p, "fn": "none"}


def _distance(p: Params, q: Params) -> int:
    """How far two pools are apart; of paddings, an even one is nearer than `'same'`."""
    facts = sum(p[key] != q[key] for key in ("fn", "kernel", "stride", "fill", "ceil"))
    pad = 0 if p["pad"] == q["pad"] else 7
    if pad and q["pad"] != "same":
        pad = 6 if q["pad"][0] == q["pad"][1] else 9
    return 8 * facts + pad


Named = tuple[str, dict[str, Any]]  #: a mistake's name, and the fields of its words


def names(node: Node, p: Params) -> list[Named]:
    """The mistakes that the step makes with these parameters, with the fields of their words."""
    found: list[Named] = []
    old = node.p
    if "exchanged" in p:  # a pool and a local norm; the first of the two has the name
        return [("local-norm-order", {"theirs": p["exchanged"]})] if p["exchanged"] else []
    if "reads" in p:
        found.append(("other-input", {"theirs": p["reads"], "ours": node.inputs[0]}))
    around = ("before", "insert", "reads")  # what stands around the step is not the step's own
    changed = {key for key in p if p.get(key) != old.get(key) and key not in around}
    for key in ("before", "insert"):
        for kind, q in p.get(key, ()):
            found.append(inserted(kind, q, node.inputs[:1] == (INPUT,) or node.name == INPUT))
    match node.kind:
        case "conv":
            if "stride" in changed:
                found.append(("stride", _both(p["stride"], old["stride"])))
            if "pad" in changed:
                found.append(_padding(p, old))
            if "dilation" in changed:
                found.append(("dilation", {"theirs": p["dilation"], "ours": old["dilation"]}))
            if "border" in changed:
                found.append(("padding-mode", {"theirs": BORDERS[p["border"]]}))
            if "layout" in changed:
                found.append(("kernel-layout", {"theirs": p["layout"]}))
            if "bias" in changed:
                found.append(_bias(p))
        case "norm":
            if p["mode"] == "identity":
                return [*found, ("norm-missing", {})]
            if p["mode"] == "groups":
                return [*found, ("other-norm", {"theirs": p["words"]})]
            if "mode" in changed:
                kind = "norm-batch-statistics" if p["mode"] == "batch" else "norm-eps-outside"
                found.append((kind, {}))
            if "eps" in changed:
                found.append(
                    ("norm-eps", {"theirs": f"{p['eps']:.4g}", "ours": f"{old['eps']:.4g}"})
                )
            if "affine" in changed:
                every = {True: "a scale and a shift", False: "no scale and no shift"}
                found.append(("norm-affine", {"theirs": every.get(p["affine"], p["affine"])}))
        case "act":
            if "fn" in changed:
                missing = p["fn"] == "none"
                found.append(("missing-relu" if missing else "activation", {"theirs": p["fn"]}))
        case "pool":
            found += _pool_names(p, old, changed)
        case "concat":
            if "order" in changed:
                order = ", ".join(_branch(node, i) for i in p["order"])
                found.append(("swapped-branches", {"theirs": order}))
        case "gap":
            if "fn" in changed:
                if p["fn"].startswith("flatten"):
                    found.append(("missing-global-pool", {}))
                else:
                    found.append(("global-pool", {"theirs": p["fn"]}))
        case "flatten":
            if "order" in changed:
                found.append(("flatten-order", {}))
        case "linear":
            if "bias" in changed:
                found.append(_bias(p))
        case "out":
            if "fn" in changed and "softmax" in p["fn"]:
                fn = p["fn"].removesuffix(" that ends at -64")
                what = "probabilities" if fn == "softmax" else "log probabilities"
                found.append(("softmax-at-end", {"theirs": fn, "what": what}))
            elif "fn" in changed:
                found.append(("activation-at-end", {"theirs": p["fn"]}))
        case "affine":
            if changed and node.name.endswith(RESIDUAL):
                words = {"theirs": f"{p['scale'][0]:.4g}", "ours": f"{old['scale'][0]:.4g}"}
                found.append(("unscaled-residual", words))
            elif changed:
                found.append(("missing-affine", {}))
        case "add":
            if "left out" in changed:
                found.append(("missing-residual", {}))
        case "local norm":
            if p.get("fn") == "none":
                found.append(("missing-local-norm", {}))
            elif changed == {"alpha"} and p["alpha"] == old["alpha"] * old["size"]:
                found.append(("local-norm-alpha", {}))
            elif changed:
                theirs, ours = (
                    ", ".join(f"{key} {q[key]:g}" for key in sorted(changed)) for q in (p, old)
                )
                found.append(("local-norm", {"theirs": theirs, "ours": ours}))
    return found


def inserted(kind: str, p: Params, at_input: bool) -> Named:
    """The name of a step that the reference does not have."""
    if kind == "act":
        if p["fn"] == "relu":
            return "extra-relu", {}
        return "extra-activation", {"theirs": p["fn"]}
    if kind == "affine":
        if p.get("dropout"):
            return "dropout-downscale", {"theirs": f"{p['scale'][0]:.4g}"}
        scale, shift = np.unique(np.round(p["scale"], 9)), np.unique(np.round(p["shift"], 9))
        several = len(scale) > 1 or len(shift) > 1
        words = "x times " + ", ".join(f"{s:.6g}" for s in scale[:3]) if np.any(scale != 1) else "x"
        if np.any(shift):
            words += " plus " + ", ".join(f"{s:.6g}" for s in shift[:3])
        words += " (by channel)" if several else ""
        return ("input-scaled" if at_input else "scaled"), {"theirs": words}
    if kind == "clip":
        return "extra-activation", {"theirs": f"a clip to {p['low']:.4g} and {p['high']:.4g}"}
    if kind == "channels":
        more = ", ..." if len(p["order"]) > 6 else ""
        return "channel-order", {"theirs": ", ".join(map(str, p["order"][:6])) + more}
    if kind == "turn":
        return "turned-image", {}
    if kind == "mask":
        return "dropout-active", {"theirs": f"{np.mean(p['mask'] == 0):.0%}"}
    if kind == "pool":
        return "extra-pool", {"theirs": window(p)}
    return "extra-layer", {"theirs": kind}


def _bias(p: Params) -> Named:
    """The name of another bias: none, one more, or the layer's own twice."""
    if p["bias"] == 2:
        return "bias-twice", {}
    return "extra-bias" if p["bias"] else "missing-bias", {"theirs": ""}


def _branch(node: Node, index: int) -> str:
    """A branch's name in the spec, such as 5x5 or branches.2."""
    part, number, *_ = node.inputs[index].removeprefix(f"{node.name}.").split(".")
    return f"{part}.{number}" if part == "branches" else part.removeprefix("branch").strip("_")


def _both(theirs: tuple[int, int], ours: tuple[int, int]) -> dict[str, Any]:
    return {"theirs": _size(theirs), "ours": _size(ours)}


def _size(size: tuple[int, ...]) -> str:
    return str(size[0]) if len(set(size)) == 1 else "x".join(map(str, size))


def pad_words(pad: Any) -> str:
    """A padding in words."""
    if pad == "same":
        return "'same'"
    top, bottom, left, right = pad
    if top == bottom and left == right:
        return _size((top, left))
    return f"{_size((top, left))} in front and {_size((bottom, right))} behind"


def _padding(p: Params, old: Params) -> Named:
    off = p["pad"] == "same" or p["pad"][0] != p["pad"][1] or p["pad"][2] != p["pad"][3]
    words = {"theirs": pad_words(p["pad"])}
    return ("same-padding", words) if off else ("padding", words | {"ours": pad_words(old["pad"])})


def window(p: Params) -> str:
    """A pool's window in words."""
    words = (
        f"kernel {_size(p['kernel'])}, stride {_size(p['stride'])}, padding {pad_words(p['pad'])}"
    )
    return words + (", rounded up" if p["ceil"] else "")


def _pool_names(p: Params, old: Params, changed: set[str]) -> list[Named]:
    if p["fn"] == "none":
        return [("missing-pool", {})]
    found: list[Named] = []
    if "fn" in changed and "max" not in (p["fn"], old["fn"]):
        counts = p["fn"] == "avg with padding"
        found.append(("counted-padding", {"theirs": "counts" if counts else "does not count"}))
    elif "fn" in changed:
        padded = " (the padding counts)" if p["fn"] == "avg with padding" and any(p["pad"]) else ""
        average = p["fn"] != "max"
        found.append(("avg-pool" if average else "max-pool", {"theirs": padded}))
    if "fill" in changed and p["fn"] == "max":
        found.append(("zero-padded-pool", {}))
    off = p["pad"] == "same" or p["pad"][0] != p["pad"][1]
    if changed & {"kernel", "stride"} or ("pad" in changed and not off):
        found.append(("pool-window", {"theirs": window(p), "ours": window(old)}))
    else:
        if "pad" in changed:
            found.append(_padding(p, old))
        if "ceil" in changed:
            found.append(("ceil-pool" if p["ceil"] else "floor-pool", {}))
    return found
