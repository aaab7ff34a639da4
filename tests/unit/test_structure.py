"""The four backends stay parallel, hold no number of the network, and common holds no framework."""

import ast
from pathlib import Path

import pytest

from backends import FRAMEWORKS
from common.parity.mutations import INJECTED_BUGS

ROOT = Path(__file__).parents[2]
EVERY = (*FRAMEWORKS, "numpy")
FILES = (
    "googlenet.py",
    "device.py",
    "train.py",
    "probes.py",
    "optimizers.py",
    "weights.py",
    "parallel.py",
)
FORWARD = dict.fromkeys(
    ("call", "hybrid_forward", "__call__"), "forward"
)  # each framework's word for it

#: what a backend has more or less than the others, by the reason; `A.*` is a class and its methods
EXCEPTIONS = {
    "torch": {
        "its own initial values are not the spec's": ["initialize"],
        "memory must be pinned, or the host waits": ["to_device"],
        "what a CUDA graph captures is a function": ["Trainer.forward_backward"],
        "it keeps the unbiased running variance": ["SyncBatchNorm.*"],
        "its `backward` sums over the workers": ["sync_gradients"],
    },
    "tf": {
        "Keras asks a layer for its weights and shapes": [
            f"{name}.{method}"
            for name in ("Conv", "Inception", "Branches", "Residual", "Auxiliary", "GoogLeNet")
            for method in ("build", "compute_output_shape")
        ],
        "what a tf.function traces is a function": [
            "Trainer.whole_step",
            "Trainer.part_step",
            "Trainer.eval_logits",
        ],
        "a device is a context": ["device_of"],
        "a layer gets its precision when it is made": ["autocast"],
        "the sparse loss has no float64 kernel on a GPU": ["cross_entropy"],
        "Keras's optimizers are other formulas": ["SGD.*", "Adam.*", "decayed", "slot_of"],
        "variables are found by their path": ["variable"],
        "a sum over replicas is a graph": ["add_up"],
        "its optimizer sums over the workers, behind any clipping": ["sum_gradients"],
    },
    "mxnet": {
        "Gluon's loss has no label smoothing": ["cross_entropy"],
        "MXNet's optimizers are other formulas": ["SGD.*", "Adam.*"],
        "a server keeps the first value of a key": ["Store.*", "announce"],
    },
    "paddle": {
        "its device names are the contract's": ["native_device"],
        "its loss clips logits, and smooths in float32": ["cross_entropy"],
        "set_value does not convert": ["dtype"],
        "its `backward` sums over the workers": ["sync_gradients"],
        "what a thread runs is a function": ["Trainer.forward_backward"],
    },
}


def excused(backend, name):
    """Whether a name is one of the backend's exceptions."""
    names = {each for names in EXCEPTIONS[backend].values() for each in names}
    return name in names or f"{name.partition('.')[0]}.*" in names


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
    kept = [
        [n for n in outline(each, file) if not (excused(backend, n) or excused("torch", n))]
        for each in (backend, "torch")
    ]
    assert kept[0] == kept[1]
    assert len(kept[0]) >= 3


@pytest.mark.parametrize("backend", FRAMEWORKS)
def test_every_exception_is_still_needed(backend):
    """What is excused for a backend is there, or is lacking, in no other but those excused too."""
    names = {b: {name for file in FILES for name in outline(b, file)} for b in FRAMEWORKS}
    every = {name for found in names.values() for name in found}
    for name in (each for listed in EXCEPTIONS[backend].values() for each in listed):
        stem = name.removesuffix(".*")
        assert stem in every, name
        others = [b for b in FRAMEWORKS if not excused(b, stem)]
        assert others
        assert all((stem in names[backend]) != (stem in names[b]) for b in others), name


def exported(backend):
    """What a backend's `__init__` imports from its modules: the name and the module."""
    found = {}
    for node in parse(f"backends/{backend}/__init__.py").body:
        if isinstance(node, ast.ImportFrom) and node.module.startswith(f"backends.{backend}."):
            found |= {alias.name: node.module for alias in node.names}
    return found


def protocol(name):
    """The methods of a class of the contract by name."""
    (node,) = [n for n in parse("common/contract.py").body if getattr(n, "name", "") == name]
    return {each.name: each for each in node.body if isinstance(each, ast.FunctionDef)}


def signature(node):
    """The parameters of a function without `self`, with their defaults."""
    names = [each.arg for each in node.args.args if each.arg != "self"]
    defaults = [ast.unparse(each) for each in node.args.defaults]
    return names, defaults


@pytest.mark.parametrize("backend", EVERY)
def test_every_backend_exports_the_contract(backend):
    """And nothing else; the reference also exports what tests compute with."""
    more = {"cross_entropy", "resize"} if backend == "numpy" else set()
    assert {*exported(backend)} == {*protocol("Backend"), "GoogLeNet", "Trainer"} | more
    assert "VERSION" in (ROOT / f"backends/{backend}/__init__.py").read_text()


@pytest.mark.parametrize("backend", EVERY)
def test_every_signature_is_the_contract_s(backend):
    """Names, order and defaults of all parameters, and types on each of them."""
    modules = {
        name: parse(f"{module.replace('.', '/')}.py") for name, module in exported(backend).items()
    }
    for name, want in protocol("Backend").items():
        (found,) = [n for n in modules[name].body if getattr(n, "name", "") == name]
        assert signature(found) == signature(want), name
        assert all(each.annotation for each in found.args.args), name
        assert found.returns is not None, name
    (trainer,) = [n for n in modules["Trainer"].body if getattr(n, "name", "") == "Trainer"]
    methods = {each.name: each for each in trainer.body if isinstance(each, ast.FunctionDef)}
    for name, want in protocol("Trainer").items():
        assert signature(methods[name]) == signature(want), name
        assert all(each.annotation for each in methods[name].args.args[1:]), name


def test_another_signature_is_seen():
    found, want = (ast.parse(f"def f({each}): ...").body[0] for each in ("a, b=1", "a, b=2"))
    assert signature(found) != signature(want)


@pytest.mark.parametrize("backend", FRAMEWORKS)
def test_every_backend_has_every_injected_bug_in_the_same_order(backend):
    body = parse(f"backends/mutations/{backend}.py").body
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
    tree = parse(f"backends/{backend}/googlenet.py")
    numbers = [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, (int, float, complex))
        and not isinstance(node.value, bool)
    ]
    assert set(numbers) <= {0, 1}


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
        assert "from backends import" not in text, path  # it would name another without a dot
        assert "from .." not in text, path


@pytest.mark.parametrize("backend", FRAMEWORKS)
def test_the_benchmark_asks_every_framework_the_same(backend):
    def functions(name):
        body = parse(f"benchmarks/probes/{name}.py").body
        found = [node for node in body if isinstance(node, ast.FunctionDef)]
        return [(node.name, ast.unparse(node.args)) for node in found]

    assert functions(backend) == functions("torch")
