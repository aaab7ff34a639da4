"""Runs in the user's own environment and process: loads their network and answers requests.

`process.py` starts this file by its path, with the path of a backend's `trace.py`. It imports the
standard library and NumPy; `trace.py` imports its framework. Nothing of this project is on
`sys.path`, so a user's own `common` or `backends` is theirs.

A message is a line of JSON, then the bytes of its arrays. Both directions have a pipe of their
own, so what the user's code prints goes where it always goes.
"""

import contextlib
import importlib.util
import json
import os
import sys
import tempfile
import traceback

with contextlib.suppress(ImportError):  # without NumPy, `trace.py` cannot be imported: see `serve`
    import numpy as np

ARRAY = "\0array:"  # in JSON: the number of an array that follows; no text begins so


def send(stream, message):
    """Write a message; the arrays in it, at any depth, follow the JSON."""
    arrays = []

    def plain(value):
        if isinstance(value, np.generic):
            return value.item()
        arrays.append(value)
        return f"{ARRAY}{len(arrays) - 1}"

    body = json.dumps(message, default=plain)
    head = f"[{body}, {json.dumps([(a.dtype.str, a.shape) for a in arrays])}]"
    stream.write(head.encode() + b"\n")
    for array in arrays:
        stream.write(np.ascontiguousarray(array).tobytes())
    stream.flush()


def receive(stream):
    """Read a message; None at the end of the stream."""
    line = stream.readline()
    if not line.endswith(b"\n"):
        return None
    head, forms = json.loads(line)
    arrays = []
    for kind, shape in forms:
        empty = np.empty(shape, np.dtype(kind))
        data = stream.read(empty.nbytes)
        if len(data) < empty.nbytes:  # the other process has ended
            return None
        arrays.append(np.frombuffer(data, empty.dtype).reshape(shape).copy())

    def whole(value):
        if isinstance(value, str) and value.startswith(ARRAY):
            return arrays[int(value[len(ARRAY) :])]
        if isinstance(value, dict):
            return {key: whole(each) for key, each in value.items()}
        return [whole(each) for each in value] if isinstance(value, list) else value

    return whole(head)


def load(path, name):
    """Run a Python file as a module of that name."""
    found = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module
    found.loader.exec_module(module)
    return module


@contextlib.contextmanager
def without_notices():
    """Drop what a framework writes to stderr while it is imported, unless an exception leaves.

    The twin of `backends.without_notices`, which this file cannot import.
    """
    try:
        kept = os.dup(2)
    except OSError:  # there is no stderr
        yield
        return
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield
        except BaseException:
            file.seek(0)
            os.write(kept, file.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def load_user(path):
    """Run the user's file, as part of its package if it is in one: relative imports work."""
    folder, stem = os.path.split(os.path.splitext(path)[0])
    parts = [stem]
    while os.path.exists(os.path.join(folder, "__init__.py")):
        folder, last = os.path.split(folder)
        parts.insert(0, last)
    sys.path.insert(0, folder)
    if len(parts) > 1:
        return importlib.import_module(".".join(parts))
    return load(path, stem if stem.isidentifier() and stem not in sys.modules else "user_network")


class MissingError(Exception):
    """A name that the user's file does not have."""


def named(module, name):
    """What a name in the user's file stands for; MissingError if there is none."""
    if not hasattr(module, name):
        raise MissingError(name)
    return getattr(module, name)


class NoNetworkError(Exception):
    """What a name stands for is no network."""


def require_network(thing):
    """NoNetworkError unless it may be a network, its class or a function."""
    kind = type(thing).__name__
    if callable(thing) and kind not in ("Symbol", "Program"):
        return
    if isinstance(thing, dict):
        raise NoNetworkError(f"an object of {kind}, which may hold weights")
    raise NoNetworkError("None" if thing is None else f"an object of {kind}")


def failure(error, folder):
    """An exception of the user's code as data: its type, its message and its line in their file."""
    where = ""
    for frame in traceback.extract_tb(error.__traceback__):
        if frame.filename.startswith(folder + os.sep) and "site-packages" not in frame.filename:
            where = f"{os.path.relpath(frame.filename, folder)}:{frame.lineno}"
    return {"type": type(error).__name__, "message": str(error), "where": where}


def serve(tracer_path, target, inlet, outlet):
    """Load the user's network, then answer requests until the pipe closes."""
    path, _, name = target.rpartition(":")
    path = os.path.abspath(path)
    folder = os.path.dirname(path)
    stage, network = "framework", None
    while (request := receive(inlet)) is not None:
        call, given = request["call"], request.get("with", {})
        try:
            if call == "load":
                with without_notices():
                    tracer = load(tracer_path, "_googlenet_tracer")
                    if given["dtype"]:
                        tracer.DTYPES = (given["dtype"],)
                    tracer.prepare(folder)
                stage = "load"
                module = load_user(path)
                thing = named(module, name)
                require_network(thing)
                if given["step"]:
                    named(module, given["step"])
                answer = {"version": tracer.VERSION}
            elif call == "open":
                stage = "run"
                network = tracer.Network(thing, given["x"], folder)
                answer = {
                    "dtype": network.dtype,
                    "layout": network.layout,
                    "notes": network.notes,
                }
            elif call == "write":
                network.write({int(key): array for key, array in given["arrays"].items()})
                answer = {}
            elif call == "start":
                answer = network.start(named(module, given["name"]))
            else:  # trace, shapes, read, train, savable, save, put
                answer = getattr(network, call)(**given)
            send(outlet, {"answer": answer})
        except (Exception, SystemExit) as error:
            where = call if call in ("put", "savable", "start", "train") else stage
            send(outlet, {"error": {"stage": where, **failure(error, folder)}})


if __name__ == "__main__":
    del sys.path[0]  # this file's folder
    serve(
        sys.argv[1],
        sys.argv[2],
        os.fdopen(int(sys.argv[3]), "rb"),
        os.fdopen(int(sys.argv[4]), "wb"),
    )
