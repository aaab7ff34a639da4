"""`googlenet convert`: weights from any native format to any other, with a check of the result.

`common.formats.sandbox` reads the source, and `common.formats.identify` finds its network. The
destination's framework writes the new file in a temporary folder, in a process of its own. The file
is then read back and must hold the same bits. Only then is it copied to its place. `--check` also
runs both files on the same images. `--expect` compares with logits that the user computed.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from backends import FRAMEWORKS, load, require
from backends.numpy import GoogLeNet, resize
from common.convert import onnx
from common.convert.expect import Expected
from common.data.sources import load as load_data
from common.errors import BackendError, ParityError, WeightsError
from common.files import ROOT, write_whole
from common.formats import sandbox
from common.formats.assumptions import assumptions
from common.formats.identify import Known, identify
from common.formats.naming import FORMATS
from common.formats.readers import detect
from common.spec import Spec, find
from common.weights import Weights, not_finite, save, sha256, with_eps
from common.weights import load as load_canonical

ONNX = "onnx"
SUFFIXES = {form.suffix: name for name, form in FORMATS.items()}
RECORDS_EPS = ("safetensors", ONNX)  #: formats with a place for the eps of the norms
RUNS = {
    "safetensors": "NumPy",
    "npz": "NumPy",
    ONNX: "onnxruntime",
}  #: what runs the formats that have no framework
IMAGES = 8  #: number of images that `--check` runs
TOLERANCE = {
    "float32": 1e-5,
    "float64": 1e-12,
}  #: of logits, relative to the largest; as in the parity checks


@dataclass(frozen=True)
class Converted:
    """What was read, what was written, and the difference between source and destination."""

    source: str
    destination: str
    format: str  #: of the source
    stored: str  #: the dtypes in it
    names: str  #: the naming that it uses: a key in `common.formats.naming.NAMINGS`
    spec: str
    also: tuple[str, ...]  #: other specs with the same tensors; only `--spec` can choose one
    channels: int
    classes: int
    tensors: int
    dtype: str  #: of the destination
    sha256: str  #: of the canonical weights, the same in both files
    not_finite: tuple[str, ...]  #: the canonical names of the tensors that hold NaN or infinity
    eps: float | None  #: of the norms in the destination
    assumed: list[str]  #: what the weights do not tell
    notes: list[str]  #: what was changed or left out
    expected: dict[str, Any] | None  #: the difference from the user's own logits
    check: dict[str, Any] | None  #: what ran the two files, and their largest difference


def convert(
    source: Path,
    destination: Path,
    spec_name: str | None = None,
    compare: bool = False,
    key: str | None = None,
    eps: float | None = None,
    expect: tuple[Path, Path] | None = None,
) -> Converted:
    """Write the weights of `source` to `destination`, whose suffix selects the format.

    `key` chooses one of several dicts in the source, `eps` is that of its norms. `expect` names
    images and the logits that the source's own program gives for them.

    WeightsError for an unusable source, network or destination; BackendError if a framework is not
    installed; ParityError if the two files compute different logits, or others than the expected
    ones. The destination is written only after the new weights have been checked.
    """
    target = destination_format(source, destination)
    if spec_name:
        find(spec_name)
    sandbox.require_file(source)
    need(target)
    expected = Expected.read(*expect) if expect else None
    file = sandbox.read_file(source)
    known = identify(file, spec_name, str(source), key, eps)
    dtype, odd = known.weights["head.weight"].dtype.name, not_finite(known.weights)
    if compare:
        if odd:
            raise WeightsError(
                f"{source} holds NaN or infinity in {odd[0]}, so its logits cannot be compared: "
                "leave out `--check`."
            )
        if target == ONNX and dtype != "float32":
            raise WeightsError(
                f"{source} holds {dtype}, which onnxruntime does not run: leave out `--check`."
            )
        need(file.format)
        if target == ONNX:
            onnx.package("onnxruntime")
    made = known if target in RECORDS_EPS else with_own_eps(known)
    comparison = expected.compare(known, made, str(source)) if expected else None
    with temporary_folder() as folder:
        work = Work(folder, made, compare)
        written = folder / f"weights{suffix_of(target)}"
        logits = work.write(target, written)
        verify(read_back(target, written, made), made, destination)
        check = None
        if logits is not None:
            first = Work(folder, known, compare).run(file.format)
            check = compared(file.format, first, target, logits, destination)
        put(destination, written.read_bytes())
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
        tensors=len(known.weights),
        dtype=dtype,
        sha256=sha256(made.weights),
        not_finite=tuple(odd),
        eps=made.spec.norm.eps if made.spec.norm else None,
        assumed=assumptions(known, file.format == "tf"),
        notes=list(made.notes),
        expected=comparison,
        check=check,
    )


def with_own_eps(known: Known) -> Known:
    """The same function for a class whose norms have the spec's own eps."""
    own = find(known.spec.name).norm
    if not (known.spec.norm and own) or known.spec.norm.eps == own.eps:
        return known
    note = (
        f"The destination's class has eps {own.eps:.6g}: gamma is multiplied by "
        f"sqrt((var + {own.eps:.6g}) / (var + {known.spec.norm.eps:.6g})), which is exact in "
        "evaluation."
    )
    return replace(
        known,
        spec=known.spec.at(eps=own.eps),
        weights=with_eps(known.weights, known.spec.norm.eps, own.eps),
        notes=(*known.notes, note),
    )


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder that is deleted afterwards; WeightsError if the disk is full."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
    except OSError as error:
        raise WeightsError(
            f"{tempfile.gettempdir()} has no room for the converted weights "
            f"({error.strerror or error}): name a folder with room in TMPDIR."
        ) from error


def suffix_of(target: str) -> str:
    """The file suffix of a format."""
    return next(suffix for suffix, name in SUFFIXES.items() if name == target)


def destination_format(source: Path, destination: Path) -> str:
    """The format that the destination's suffix selects; WeightsError for a bad destination."""
    if destination.is_dir():
        raise WeightsError(f"{destination} is a folder: name the file to write in it.")
    target = next((SUFFIXES[s] for s in SUFFIXES if destination.name.endswith(s)), None)
    if target is None or destination.name in SUFFIXES:
        raise WeightsError(
            f"{destination} names no format: its name must end in {', '.join(SUFFIXES)}."
        )
    if destination.exists() and source.exists() and destination.samefile(source):
        raise WeightsError(f"{destination} is the source itself: name another file to write.")
    if destination.exists() or destination.is_symlink():
        raise WeightsError(f"{destination} is there already: remove it, or name another file.")
    if not destination.parent.is_dir():
        raise WeightsError(f"{destination.parent} is not a folder: make it first, or name another.")
    return target


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


def verify(back: Weights, known: Known, destination: Path) -> None:
    """WeightsError unless the weights that were read back have the same bits."""
    for name, array in known.weights.items():
        found = back.get(name)
        if found is None or found.dtype != array.dtype or found.tobytes() != array.tobytes():
            raise WeightsError(
                f"{destination} was not written: {name} changed when the file was read back."
            )
    if len(back) != len(known.weights):
        raise WeightsError(
            f"{destination} was not written: the file has other tensors when it is read back."
        )


def read_back(target: str, written: Path, known: Known) -> Weights:
    """The canonical weights in a file that was just written."""
    back = identify(sandbox.read_file(written), known.spec.name, written.name)
    if target in RECORDS_EPS and known.spec.norm and back.spec.norm != known.spec.norm:
        raise WeightsError(f"{written.name} was not written: it records another eps.")
    return back.weights


@dataclass(frozen=True)
class Work:
    """Known weights in a temporary folder, and the processes that write and run them there.

    Each format is run in a process of its own: by its framework, by the reference (NumPy) for
    safetensors, or by onnxruntime for ONNX.
    """

    folder: Path
    known: Known
    compare: bool

    def __post_init__(self) -> None:
        save(self.folder / "canonical.safetensors", self.known.weights, self.known.spec)
        if self.compare:
            dtype = self.known.weights["head.weight"].dtype
            np.save(self.folder / "images.npy", images(self.known.spec).astype(dtype))

    def write(self, target: str, path: Path) -> np.ndarray | None:
        """Write the file; if logits are compared, run it and return its logits."""
        if target == ONNX:
            path.write_bytes(onnx.encode(self.known.spec, self.known.weights))
        elif target not in FRAMEWORKS:
            save(path, self.known.weights, self.known.spec)
        if target in FRAMEWORKS or self.compare:
            return self.run(target, path)
        return None

    def run(self, form: str, path: Path | None = None) -> np.ndarray | None:
        """Run one format; with a path, the framework first writes the file there and reads it."""
        spec, logits = self.known.spec, self.folder / f"{form}.npy"
        job = {
            "form": form,
            "spec": [spec.name, spec.input[0], spec.head.width, spec.norm and spec.norm.eps],
            "weights": str(self.folder / "canonical.safetensors"),
            "file": str(path) if path else None,
            "images": str(self.folder / "images.npy") if self.compare else None,
            "logits": str(logits),
        }
        do(job)
        return np.load(logits) if self.compare else None


def do(job: dict[str, Any]) -> None:
    """Run a job in a process of its own; BackendError if it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "common.convert.conversion"],
        cwd=ROOT,
        input=json.dumps(job),
        capture_output=True,
        text=True,
        errors="replace",
    )
    if done.returncode:
        last = (done.stderr.splitlines() or [f"status {done.returncode}"])[-1]
        if done.returncode != BackendError.exit_code:
            last = f"{job['form']} could not write or run the weights: {last}"
        raise BackendError(last)


def images(spec: Spec) -> np.ndarray:
    """The first images of the shipped sample as the network's input: float64 (N, C, H, W)."""
    channels, height, width = spec.input
    sample = load_data("sample").test_images[:IMAGES]
    return np.repeat(resize(sample, height, width), channels, axis=1)


def compared(
    source: str, first: Any, target: str, second: Any, destination: Path
) -> dict[str, Any]:
    """The difference between the logits of the two files; ParityError if it is too large."""
    largest = float(np.abs(first.astype(np.float64)).max())
    difference = float(np.abs(first.astype(np.float64) - second).max())
    one, other = (RUNS.get(form, form) for form in (source, target))
    if not difference <= TOLERANCE[first.dtype.name] * largest:
        raise ParityError(
            f"{destination} was not written: {one} and {other} give logits that differ by "
            f"{difference:.1e}, and the largest logit is {largest:.1e}."
        )
    found = {"source": one, "destination": other, "images": len(first)}
    return found | {"difference": difference, "largest": largest}


def render(found: Converted) -> str:
    """The result as text."""
    widened = "" if found.stored == found.dtype else f" (held as {found.stored})"
    text = (
        f"{found.source}: {found.format} with {found.names}, network {found.spec}, "
        f"{found.channels} channel(s), {found.classes} classes, {found.dtype}{widened}\n"
        f"{found.destination}: written, read again: {found.tensors} tensors, the same bits, "
        f"SHA-256 {found.sha256}"
    )
    text += "".join(f"\n{note}" for note in found.notes)
    text += "\nassumed, because weights do not tell:"
    text += "".join(f"\n  {line}" for line in found.assumed)
    if found.not_finite:
        text += (
            f"\nwarning: {len(found.not_finite)} tensors hold NaN or infinity, the first is "
            f"{found.not_finite[0]}: the network computes nothing useful with them."
        )
    if found.expected:
        text += (
            f"\nexpected: on {found.expected['images']} images the logits differ from yours by at "
            f"most {found.expected['difference']:.1e}, the largest is "
            f"{found.expected['largest']:.1e}"
        )
    if found.check is None:
        return text
    return (
        f"{text}\ncheck: {found.check['source']} and {found.check['destination']} on "
        f"{found.check['images']} images: logits differ by at most "
        f"{found.check['difference']:.1e}, the largest is {found.check['largest']:.1e}"
    )


# --- in the process that writes or runs one format
def main() -> None:
    """Run the jobs on stdin, one per line."""
    for line in sys.stdin:
        job = json.loads(line)
        name, channels, classes, eps = job["spec"]
        spec = find(name).at(channels=channels, classes=classes, eps=eps)
        weights = load_canonical(Path(job["weights"]), spec)
        x = np.load(job["images"]) if job["images"] else None
        path = Path(job["file"]) if job["file"] else None
        try:
            logits = end(job["form"], spec, weights, path, x)
        except BackendError as error:
            print(error, file=sys.stderr)
            sys.exit(error.exit_code)
        if logits is not None:
            np.save(job["logits"], logits)
        print("done", flush=True)


def end(
    form: str, spec: Spec, weights: Weights, path: Path | None, x: np.ndarray | None
) -> np.ndarray | None:
    """Write the file if there is a path and a framework; return the logits of x if x is given."""
    if form in FRAMEWORKS:
        backend, dtype = load(form), weights["head.weight"].dtype.name
        model = backend.build(spec, dtype, "cpu")
        backend.write_weights(model, weights)
        if path:
            backend.save(model, path)
        if path and x is not None:  # read the file with the framework itself
            model = backend.build(spec, dtype, "cpu")
            backend.load(model, path)
        return None if x is None else backend.forward(model, x, False)["head"]
    if x is None:
        return None
    if form == ONNX and path:
        return onnx.run(path, x)
    reference = GoogLeNet(spec, load_canonical(path, spec) if path else weights)
    return reference.forward(x.astype(np.float64))["head"].astype(x.dtype)


if __name__ == "__main__":
    main()
