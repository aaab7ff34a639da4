"""The four backends stay parallel, hold no number of the network, and common holds no framework."""

import ast
from pathlib import Path

import pytest

from backends import FRAMEWORKS
from common.parity.mutations import INJECTED_BUGS

ROOT = Path(__file__).parents[2]
FILES = ("googlenet.py", "train.py", "optimizers.py", "weights.py", "parallel.py")
FORWARD = dict.fromkeys(
    ("call", "hybrid_forward", "__call__"), "forward"
)  # each framework's word for it

#: what a backend has more or less than the others, and why
EXCEPTIONS = {
    "torch": {
        "BatchNorm": "PyTorch alone keeps the unbiased running variance",
        "BatchNorm.forward": "the same",
        "SyncBatchNorm": "the same",
        "SyncBatchNorm.of": "the same",
        "SyncBatchNorm.forward": "the same",
        "moved": "PyTorch alone makes the host wait for what is not in pinned memory",
        "Trainer._passes": "what is captured as a CUDA graph is a function of its own",
    },
    "tf": {
        "MaxPool": "Keras pools know no padding but 'same'",
        "MaxPool.__init__": "the same",
        "MaxPool.forward": "the same",
        "centred": "Keras pads by itself only as 'same'",
        "AdaptiveAvgPool": "Keras's must know the image size when it is traced",
        "AdaptiveAvgPool.__init__": "the same",
        "AdaptiveAvgPool.forward": "the same",
        "AdaptiveAvgPool.windows": "the same",
        "cross_entropy": "TensorFlow's sparse loss has no float64 kernel on a GPU",
        "variable": "Keras variables have no names that tell where they are",
        "autocast": "Keras layers take their precision when they are made",
        "Trainer._update": "what becomes a graph is a function of its own",
        "Trainer._logits": "the same",
        "SGD": "Keras keeps the learning rate inside the velocity",
        "SGD.__init__": "the same",
        "SGD.update_step": "the same",
        "Adam": "Keras puts eps inside the corrected root",
        "Adam.__init__": "the same",
        "Adam.update_step": "the same",
        "decayed": "Keras's weight decay is not added to the gradient",
        "slot_of": "Keras finds the state of a variable by its index",
        "add_up": "what is summed over replicas is summed in a graph",
    },
    "mxnet": {
        "AdaptiveAvgPool": "Gluon has the operation and no block for it",
        "AdaptiveAvgPool.__init__": "the same",
        "AdaptiveAvgPool.forward": "the same",
        "cross_entropy": "Gluon's loss has no label smoothing",
        "SGD": "MXNet keeps the learning rate inside the velocity",
        "SGD.__init__": "the same",
        "SGD.create_state": "the same",
        "SGD.update": "the same",
        "Adam": "MXNet puts eps inside the corrected root",
        "Adam.__init__": "the same",
        "Adam.create_state": "the same",
        "Adam.update": "the same",
        "Store": "MXNet's servers keep the first value of a key, whosever it is",
        "Store.__init__": "the same",
        "Store.__del__": "the same",
        "Store.broadcast": "the same",
        "Store.pushpull": "the same",
        "announce": "MXNet's kvstore does not wait for the first value of a key",
    },
    "paddle": {
        "GlobalAvgPool": "Paddle's AdaptiveAvgPool2D divides its gradient in float32",
        "GlobalAvgPool.forward": "the same",
        "AvgPool": "Paddle's average pools divide their gradient in float32",
        "AvgPool.__init__": "the same",
        "AvgPool.forward": "the same",
        "native_device": "Paddle's device names are the contract's",
        "cross_entropy": "Paddle's takes no logit for further than 64 below the largest",
        "dtype": "Paddle's set_value does not convert",
    },
}


def parse(path):
    return ast.parse((ROOT / path).read_text())


def outline(backend, file):
    """Functions, classes and methods in the order of the file, under the contract's words."""
    names = []
    for node in parse(f"backends/{backend}/{file}").body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.append(node.name)
        if isinstance(node, ast.ClassDef):
            methods = [inner.name for inner in node.body if isinstance(inner, ast.FunctionDef)]
            names += [f"{node.name}.{FORWARD.get(method, method)}" for method in methods]
    return names


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("backend", FRAMEWORKS)
def test_every_backend_holds_the_same_names_in_the_same_order(backend, file):
    """PyTorch's, but for the exceptions of either."""
    excused = {*EXCEPTIONS["torch"], *EXCEPTIONS[backend]}
    found = [name for name in outline(backend, file) if name not in EXCEPTIONS[backend]]
    assert found == [name for name in outline("torch", file) if name not in excused]
    assert len(found) > 3


@pytest.mark.parametrize("backend", FRAMEWORKS)
def test_every_exception_is_still_needed(backend):
    names = {b: {name for file in FILES for name in outline(b, file)} for b in FRAMEWORKS}
    for name in EXCEPTIONS[backend]:
        others = [b for b in FRAMEWORKS if name not in EXCEPTIONS[b]]
        assert others
        assert all((name in names[backend]) != (name in names[b]) for b in others), name


@pytest.mark.parametrize("backend", FRAMEWORKS)
def test_every_backend_exports_the_same_names(backend):
    def exported(name):
        for node in parse(f"backends/{name}/__init__.py").body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                return ast.literal_eval(node.value)
        return None

    assert exported(backend) == exported("torch")


@pytest.mark.parametrize("backend", FRAMEWORKS)
def test_every_backend_injects_every_bug_in_the_same_order(backend):
    body = parse(f"backends/{backend}/injects.py").body
    names = [node.name for node in body if isinstance(node, ast.FunctionDef)]
    wanted = [bug.replace("-", "_") for bug in INJECTED_BUGS]
    assert [name for name in names if name in wanted] == wanted  # helpers may stand between


@pytest.mark.parametrize("backend", FRAMEWORKS)
def test_every_framework_has_a_simulated_device(backend):
    body = parse(f"backends/simulated/{backend}.py").body
    names = [node.name for node in body if isinstance(node, ast.FunctionDef)]
    assert names[:2] == ["start", "copies"]


@pytest.mark.parametrize("backend", FRAMEWORKS)
def test_no_number_of_the_network_stands_in_a_network_file(backend):
    """Numbers other than 0, 1 and -1 may stand only in the line that names the axes."""
    tree = parse(f"backends/{backend}/googlenet.py")
    axes = [
        node
        for node in tree.body
        if isinstance(node, ast.Assign) and "CHANNELS" in ast.unparse(node.targets[0])
    ]
    assert len(axes) == 1
    named = {id(node) for node in ast.walk(axes[0])}
    numbers = [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, (int, float, complex))
        and not isinstance(node.value, bool)
        and id(node) not in named
    ]
    assert set(numbers) <= {0, 1}


@pytest.mark.parametrize("backend", FRAMEWORKS)
def test_a_network_file_can_be_read_at_once(backend):
    lines = (ROOT / f"backends/{backend}/googlenet.py").read_text().splitlines()
    assert 60 <= len(lines) <= 180
    assert max(map(len, lines)) <= 100


@pytest.mark.parametrize("backend", FRAMEWORKS)
def test_no_backend_asks_for_the_name_of_a_spec(backend):
    for path in (ROOT / "backends" / backend).glob("*.py"):
        assert "spec.name" not in path.read_text()


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").partition(".")[0]


@pytest.mark.parametrize("folder", ["common", "backends/numpy"])
def test_no_framework_is_imported(folder):
    frameworks = {*FRAMEWORKS.values(), "keras"}
    for path in (ROOT / folder).rglob("*.py"):
        assert not frameworks & set(imports(path)), path


@pytest.mark.parametrize("backend", FRAMEWORKS)
def test_a_backend_imports_no_other_backend(backend):
    others = {f"backends.{name}" for name in (*FRAMEWORKS, "numpy") if name != backend}
    for path in (ROOT / "backends" / backend).glob("*.py"):
        text = path.read_text()
        assert not [other for other in others if other in text], path


@pytest.mark.parametrize("backend", FRAMEWORKS)
def test_the_benchmark_asks_every_framework_the_same(backend):
    def functions(name):
        body = parse(f"benchmarks/probes/{name}.py").body
        found = [node for node in body if isinstance(node, ast.FunctionDef)]
        return [(node.name, ast.unparse(node.args)) for node in found]

    assert functions(backend) == functions("torch")
