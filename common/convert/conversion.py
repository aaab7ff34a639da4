"""`googlenet convert`: weights from any native format to any other, with a check of the result.

`common.formats.sandbox` reads the source, and `common.formats.identify` finds its network. The
destination's framework writes the new file in a temporary folder, in a process of its own. The file
is then read back and must hold the same bits. Only then is it copied to its place. `--check` also
runs both files on the same images. `--expect` compares with logits that the user computed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from backends import FRAMEWORKS, require
from common.convert import onnx
from common.convert.expect import Expected
from common.convert.onnx import ONNX
from common.convert.own import Own, known_from, opened, require_suffix, save_into
from common.convert.process import Work, images, started, verify
from common.convert.report import Converted, compared
from common.errors import ParityError, WeightsError
from common.files import write_whole
from common.formats import sandbox
from common.formats.assumptions import assumptions
from common.formats.identify import Known, identify, with_own_eps
from common.formats.naming import FORMATS, NAMINGS, SUFFIXES, WRITTEN, Layers, belongs, ours
from common.formats.readers import detect
from common.formats.readers.base import File
from common.spec import find
from common.weights import Weights, not_finite, sha256, shapes

RECORDS_EPS = ("safetensors", ONNX)  #: formats with a place for the eps of the norms
RUNS = {
    "safetensors": "NumPy",
    "npz": "NumPy",
    ONNX: "onnxruntime",
}  #: what runs the formats that have no framework
TOLERANCE = {
    "float32": 1e-5,
    "float64": 1e-12,
}  #: of logits, relative to the largest; as in the parity checks


def convert(
    source: Path,
    destination: Path,
    spec_name: str | None = None,
    compare: bool = False,
    key: str | None = None,
    eps: float | None = None,
    expect: tuple[Path, Path] | None = None,
    names: str = "ours",
    own: OwnNetwork | None = None,
) -> Converted:
    """Write the weights of `source` to `destination`, whose suffix selects the format.

    `key` chooses one of several dicts in the source, `eps` is that of its norms. `expect` names
    images and the logits that the source's own program gives for them. `names` is a key of WRITTEN.
    `own` is a user's network that the destination is for, or that alone can read the source.

    WeightsError for an unusable source, network or destination; BackendError if a framework is not
    installed; ParityError if the two files compute different logits, or others than the expected
    ones. The destination is written only after the new weights have been checked.
    """
    source = sandbox.weights_file(source)
    target, suffix = destination_format(source, destination)
    if spec_name:
        find(spec_name)
    if own and own.into:
        require_suffix(destination, own.backend, "--into")
    else:
        need(target)
    expected = Expected.read(*expect) if expect else None
    if own and own.into:
        file, known = read_source(source, spec_name, key, eps, None)
        return into(source, file, known, own, destination, suffix)
    with started(target) as process:
        file, known = read_source(source, spec_name, key, eps, own)
        if compare:
            require_comparable(source, file, known, target)
        records = names == "ours" and (target in RECORDS_EPS or suffix == ".keras")
        made = known if records else with_own_eps(known)
        layout = named_layout(made, target, suffix, names)
        comparison = expected.compare(known, made, str(source)) if expected else None
        with temporary_folder() as folder:
            work = Work(folder, made, compare)
            written = folder / f"weights{suffix}"
            if layout:
                logits = work.write_named(target, written, layout, process)
            else:
                logits = work.write(target, written, process)
                verify(read_back(written, made, records), made, destination)
            check = None
            if logits is not None:
                first = Work(folder, known, compare).run(runner(file.format))
                one, other = (RUNS.get(form, form) for form in (runner(file.format), target))
                tolerance = TOLERANCE[known.weights["head.weight"].dtype.name]
                failed = f"{destination} was not written"
                check = compared(one, first, other, logits, tolerance, failed)
            put(destination, written.read_bytes())
    found = converted(source, file, known, made, destination)
    return replace(found, expected=comparison, check=check)


def read_source(
    source: Path,
    spec_name: str | None,
    key: str | None,
    eps: float | None,
    own: OwnNetwork | None,
) -> tuple[File, Known]:
    """What the source holds, and the network that it is; `own` reads it in place of our readers."""
    if own is None:
        file = sandbox.read_file(source)
        return file, identify(file, spec_name, str(source), key, eps)
    if own.backend == "tf":  # Keras reads it, by its ending
        require_suffix(source, own.backend, "--from")
    if eps is not None and not spec_name:
        raise WeightsError("`--eps` with `--from` needs `--spec`: name the network's spec too.")
    spec = find(spec_name).at(eps=eps) if spec_name else None
    with opened(own.target, own.backend, spec, own.python) as network:
        file, known = known_from(network, source, key)
        network.compare(known.weights, images(known.spec.at(size=network.side)))
    return File(own.backend, known.weights, file.stored), known


def runner(form: str) -> str:
    """What runs the source's weights: the framework of its format, or the reference."""
    return form if form in FRAMEWORKS else "safetensors"


def require_comparable(source: Path, file: File, known: Known, target: str) -> None:
    """WeightsError or BackendError unless both files can be run on images."""
    if odd := not_finite(known.weights):
        raise WeightsError(
            f"{source} holds NaN or infinity in {odd[0]}, so its logits cannot be compared: "
            "leave out `--check`."
        )
    dtype = known.weights["head.weight"].dtype.name
    if target == ONNX and dtype != "float32":
        raise WeightsError(
            f"{source} holds {dtype}, which onnxruntime does not run: leave out `--check`."
        )
    need(runner(file.format))
    if target == ONNX:
        onnx.package("onnxruntime")


@dataclass(frozen=True)
class OwnNetwork:
    """A user's network `FILE.py:NAME`: the destination is for it, or it reads the source."""

    target: str
    backend: str
    into: bool
    python: str | None = None


def into(
    source: Path, file: File, known: Known, own: OwnNetwork, destination: Path, suffix: str
) -> Converted:
    """Write known weights under the names and layouts of a user's network.

    The norms of the network may have the eps of the weights or the spec's own.
    """
    with temporary_folder() as folder, ExitStack() as stack:
        written = folder / f"weights{suffix}"

        def proved(given: Known) -> Own:
            return stack.enter_context(opened(own.target, own.backend, given.spec, own.python))

        try:
            made, network = known, proved(known)
        except ParityError:
            if (made := with_own_eps(known)) is known:
                raise
            network = proved(made)
        made, check = save_into(network, made, written, images(made.spec.at(size=network.side)))
        put(destination, written.read_bytes())
    return replace(converted(source, file, known, made, destination), check=check)


def converted(source: Path, file: File, known: Known, made: Known, destination: Path) -> Converted:
    """What was read and written, as data."""
    return Converted(
        source=str(source),
        destination=str(destination),
        format=detect.TITLES[file.format],
        stored=file.stored,
        names=known.naming,
        spec=known.spec.name,
        also=known.also,
        channels=known.spec.input[0],
        classes=known.spec.head.width,
        tensors=len(made.weights),
        dtype=made.weights["head.weight"].dtype.name,
        sha256=sha256(made.weights),
        not_finite=tuple(not_finite(known.weights)),
        eps=made.spec.norm.eps if made.spec.norm else None,
        assumed=assumptions(known, file),
        notes=list(made.notes),
        expected=None,
        check=None,
    )


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder that is deleted afterwards; WeightsError if it cannot be used: a full disk."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
    except OSError as error:
        raise WeightsError(
            f"The temporary folder cannot be used ({error.strerror or error}): name another in "
            "TMPDIR."
        ) from error


def destination_format(source: Path, destination: Path) -> tuple[str, str]:
    """The format that the destination's suffix selects, and the suffix.

    WeightsError for a bad destination.
    """
    if destination.is_dir():
        raise WeightsError(f"{destination} is a folder: name the file to write in it.")
    suffix = next((each for each in SUFFIXES if destination.name.endswith(each)), None)
    if suffix is None or destination.name in SUFFIXES:
        ending = f"its name must end in {', '.join(SUFFIXES)}"
        if destination.suffix == ".h5":
            ending = f"Keras writes weights to {destination.with_suffix('.weights.h5')}"
        raise WeightsError(f"{destination} names no format: {ending}.")
    if destination.exists() and source.exists() and destination.samefile(source):
        raise WeightsError(f"{destination} is the source itself: name another file to write.")
    if destination.exists() or destination.is_symlink():
        raise WeightsError(f"{destination} is there already: remove it, or name another file.")
    if not destination.parent.is_dir():
        raise WeightsError(f"{destination.parent} is not a folder: make it first, or name another.")
    return SUFFIXES[suffix], suffix


def need(form: str) -> None:
    """BackendError, with the install command, unless the package for this format is installed."""
    if form == ONNX:
        onnx.package("onnx")
    elif backend := FORMATS[form].backend:
        require(backend)


def put(destination: Path, data: bytes) -> None:
    """Write the destination in one step and check its bytes; WeightsError if that fails."""
    try:
        write_whole(destination, data)
        same = destination.read_bytes() == data
    except OSError as error:
        reason = error.strerror or error
        raise WeightsError(f"{destination} cannot be written: {reason}.") from error
    if not same:
        raise WeightsError(f"{destination} holds other bytes than were written: check the disk.")


def read_back(written: Path, known: Known, records_eps: bool) -> Weights:
    """The canonical weights in a file that was just written."""
    back = identify(sandbox.read_file(written), known.spec.name, written.name)
    if records_eps and known.spec.norm and back.spec.norm != known.spec.norm:
        raise WeightsError(f"{written.name} was not written: it records another eps.")
    return back.weights


def named_layout(known: Known, target: str, suffix: str, names: str) -> Layers | None:
    """The names of the layers to write; None for our own names, which the backend writes.

    WeightsError if no class with these names is known for this network and format.
    """
    namings = WRITTEN[names]
    table = NAMINGS["torch"] if target in ("npz", "safetensors") else NAMINGS[target]
    if names == "ours":
        return next(ours(known.spec)) if target == "npz" else None
    needed = {name.rpartition(".")[0] for name in shapes(known.spec)}
    usable = [each for each in namings if each in table and belongs(each, known.spec)]
    for naming in usable if suffix != ".keras" else ():
        for layers in table[naming](known.spec):
            if needed <= layers.keys():
                return layers
    where = [FORMATS[form].suffix for form in FRAMEWORKS if {*namings} & {*NAMINGS[form]}]
    raise WeightsError(
        f"`--names {names}` writes {' or '.join(where)} files of the networks that have these "
        f"names, and not {known.spec.name} as {suffix}."
    )
