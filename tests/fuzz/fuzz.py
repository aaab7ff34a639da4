"""Throw damaged and invented files at every reader of weights: `python tests/fuzz/fuzz.py`.

Each must be read as arrays or refused in one sentence, while Python is asked for nothing else: no
import, no file, no process, no compiled code (its audit events tell). Prints the outcomes as JSON,
and leaves with 1, and the bytes, at the first file that did something else. The tests run short
versions of the same.
"""

from __future__ import annotations

import io
import json
import pickletools
import struct
import sys
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

import click  # noqa: E402
import hostile  # noqa: E402
import safetensors  # noqa: E402, F401  # what is imported late is imported now
from hypothesis import HealthCheck, Phase, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from common.formats.readers import base, detect, mxnet, pickles  # noqa: E402

SEEDS = {path.name: path.read_bytes() for path in sorted(hostile.WEIGHT_FILES.iterdir())}
#: numbers at which readers go wrong
EDGES = [0, 1, 2, 7, 8, 255, 2**15, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63, 2**64 - 1]


class Lost(AssertionError):
    """Something that must not happen, happened."""


def attempt(data: bytes) -> str:
    """Read the bytes in this process; what came of it. Lost if no arrays and no refusal."""
    with hostile.Watch() as watch:
        try:
            found = detect.parse_open(io.BytesIO(data))
            outcome = f"read: {found.format}"
        except base.Unreadable as error:
            said = str(error)
            if not (said.isprintable() and len(said) < 400):
                raise Lost(f"a refusal that is no sentence: {said!r}") from error
            outcome = f"refused: {said.split(':')[0][:40]}"
    if watch.events:
        raise Lost(f"Python was asked for {watch.events}")
    return outcome


@st.composite
def edited(draw: Any, data: bytes) -> bytes:
    """The bytes with a few edits: other bytes, edges, cuts, pieces twice or elsewhere."""
    out = bytearray(data)
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, max(len(out) - 1, 0)))
        length = draw(st.integers(0, 24))
        match draw(st.integers(0, 6)):
            case 0:
                out[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
            case 1:
                out[at : at + 8] = struct.pack("<Q", draw(st.sampled_from(EDGES)))
            case 2:
                out[at : at + 4] = struct.pack("<I", draw(st.sampled_from(EDGES)) % 2**32)
            case 3:
                del out[at:]
            case 4:
                del out[at : at + length]
            case 5:
                out[at:at] = out[at : at + length]
            case 6:
                out[at:at] = draw(st.binary(max_size=8))
    return bytes(out)


@st.composite
def operations(draw: Any) -> bytes:
    """A pickle of operations drawn one after the other, many of them those of a state_dict."""
    pieces = [
        *(b"}", b"]", b")", b"(", b"s", b"u", b"a", b"e", b"t", b"\x85", b"\x86", b"\x87", b"R"),
        *(b"b", b"Q", b"N", b"\x88", b"\x89", b"0", b"2", b"o", b"\x81", b"\x94", b"\x93"),
        *(b"q\x00", b"h\x00", b"q\x01", b"h\x01", hostile.unicode("a"), hostile.unicode("storage")),
        *(hostile.name(*one) for one in sorted(pickles.NAMES)),
        *(hostile.name(*one) for one in (("os", "system"), ("builtins", "eval"), ("a", "b"))),
        *(hostile.tensor(), hostile.tensor((2, 1), (1, 2)), hostile.numbers((1, 2))),
        *(hostile.number(edge) for edge in EDGES),
    ]
    one = st.sampled_from(pieces) | st.binary(min_size=1, max_size=3)
    body = b"".join(draw(st.lists(one, max_size=40)))
    return b"\x80\x02" + body + b"."


@st.composite
def respliced(draw: Any) -> bytes:
    """A real pickle, some of whose operations are left out, doubled or exchanged."""
    data = pickle_of(draw(st.sampled_from(["torch.pt", "paddle.pdparams", "paddle-old.pdparams"])))
    starts = [at for _, _, at in pickletools.genops(data)]
    pieces = [data[a:b] for a, b in zip(starts, [*starts[1:], len(data)], strict=True)]
    for _ in range(draw(st.integers(1, 4))):
        at, other = draw(st.integers(0, len(pieces) - 1)), draw(st.integers(0, len(pieces) - 1))
        match draw(st.integers(0, 2)):
            case 0:
                pieces[at] = pieces[other]
            case 1:
                pieces.insert(at, pieces[other])
            case 2 if len(pieces) > 1:
                del pieces[at]
    return b"".join(pieces)


def pickle_of(name: str) -> bytes:
    """The pickle in a file, which PyTorch packs into an archive."""
    if not name.endswith(".pt"):
        return SEEDS[name]
    with zipfile.ZipFile(io.BytesIO(SEEDS[name])) as packed:
        return packed.read(next(one for one in packed.namelist() if one.endswith("data.pkl")))


@st.composite
def mxnet_lists(draw: Any) -> bytes:
    """MXNet's format, with numbers out of the way in every field."""
    edge = st.sampled_from([edge - 2**64 if edge >= 2**63 else edge for edge in EDGES])
    few = st.integers(-1, 3) | edge
    shape = tuple(draw(st.lists(few, max_size=4)))
    small = st.integers(-1, 14) | st.sampled_from([2**31 - 1, -(2**31)])
    return hostile.mxnet(
        magic=draw(st.sampled_from([*mxnet.MXNET_MAGICS, 0xF993FAC8, 4])),
        storage=draw(st.sampled_from([0, 0, 0, 1, -1])),
        shape=shape,
        axes=draw(st.just(len(shape)) | small),
        kind=draw(small),
        data=draw(st.binary(max_size=64)),
        words=tuple(draw(st.lists(st.binary(max_size=4), max_size=2))),
    )


@st.composite
def onnx_files(draw: Any) -> bytes:
    """ONNX graphs with numbers out of the way, and bytes in the place of messages."""
    edge = st.integers(0, 4) | st.sampled_from(EDGES)
    made = hostile.onnx(
        shape=tuple(draw(st.lists(edge, max_size=5))),
        kind=draw(st.integers(0, 24)),
        data=draw(st.binary(max_size=64)),
        more=draw(st.binary(max_size=12)),
        eps=draw(st.floats(width=32)),
    )
    return draw(st.just(made) | edited(made))


@st.composite
def npz_files(draw: Any) -> bytes:
    """Archives of one array whose header is edited."""
    header = hostile.npy(hostile.HEADER, draw(st.binary(max_size=16)))
    return hostile.packed({"a.npy": draw(edited(header))})


#: what is thrown, by name
KINDS: dict[str, Callable[[], Any]] = {
    **{name: lambda name=name: edited(SEEDS[name]) for name in SEEDS},  # type: ignore[misc]
    "any bytes": lambda: st.binary(max_size=200),
    "pickle": operations,
    "respliced pickle": respliced,
    "archive of a pickle": lambda: st.builds(hostile.archive, operations() | respliced()),
    "archive of an edited pickle": lambda: st.builds(
        hostile.archive, edited(pickle_of("torch.pt")), st.binary(max_size=64)
    ),
    "old torch": lambda: st.builds(hostile.old_torch, operations() | respliced()),
    "mxnet": mxnet_lists,
    "onnx": onnx_files,
    "npz": npz_files,
    "keras archive": lambda: st.builds(
        lambda weights, config: hostile.packed(
            {"model.weights.h5": weights, "config.json": config}
        ),
        edited(SEEDS["keras.weights.h5"]),
        st.binary(max_size=40),
    ),
    "safetensors": lambda: st.builds(
        hostile.safetensors,
        edited(
            b'{"__metadata__":{"googlenet":"{\\"spec\\":\\"d2l\\",\\"sha256\\":\\"0\\"}"},'
            b'"a":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]}}'
        ),
        st.binary(max_size=16),
    ),
}


def run(kind: str, count: int) -> Counter[str]:
    """Throw `count` files of a kind; the outcomes and how many had each."""
    outcomes: Counter[str] = Counter()
    for data in SEEDS.values():  # what a reader imports late is imported now
        detect.parse_open(io.BytesIO(data))

    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(KINDS[kind]())
    def throw(data: bytes) -> None:
        outcomes[attempt(data)] += 1

    throw()
    return outcomes


@click.command()
@click.option("--count", default=20_000, show_default=True, help="Files of each kind.")
@click.option("--kind", type=click.Choice(list(KINDS)), help="Only this kind.")
def main(count: int, kind: str | None) -> None:
    """Throw files at the readers and print what came of them."""
    if sys.platform == "linux":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (2**33, 2**33))  # a bomb ends this, not the machine
    total: dict[str, dict[str, int]] = {}
    for one in [kind] if kind else KINDS:
        total[one] = dict(run(one, count).most_common())
        print(f"{one}: {sum(total[one].values())}", file=sys.stderr, flush=True)
    files = sum(sum(outcomes.values()) for outcomes in total.values())
    print(json.dumps({"files": files, "outcomes": total}, indent=2))


if __name__ == "__main__":
    main()
