"""The hyper-parameters of a training run as frozen data, and the named recipes."""

from __future__ import annotations

import math
import tomllib
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from common.errors import FieldError, SpecError, UnknownNameError, one_line
from common.spec import Spec, find, float32, is_number, is_whole

OPTIMIZERS = ("sgd", "adam")
SCHEDULES = ("constant", "cosine")
PRECISIONS = ("float32", "bfloat16")
AUTO = "auto"  #: the fastest precision of the device, chosen when a run begins


def _require(holds: bool, field: str, value: object, rule: str) -> None:
    if not holds:
        raise FieldError(field, value, rule)


@dataclass(frozen=True)
class Recipe:
    """What to train and how. The defaults come from the book (d2l, section GoogLeNet).

    Every framework uses these formulas for a gradient g of the mean loss:

    - clipping: g = g min(1, clip / n), where n is the L2 norm of all gradients of the batch
      together; exactly, without the 1e-6 that PyTorch's `clip_grad_norm_` adds to n
    - then weight decay, for convolutions and linear layers, not for biases and norms:
      g = g + decay w
    - sgd: v = momentum v + g; w = w - rate v, or with Nesterov w = w - rate (g + momentum v)
    - adam: m = beta1 m + (1 - beta1) g; s = beta2 s + (1 - beta2) g^2;
      w = w - rate m / (1 - beta1^t) / (sqrt(s / (1 - beta2^t)) + eps)

    With `accumulate`, a batch is computed in that many parts, which need less memory. Each part
    counts by its number of examples, so g is still that of the mean over the whole batch. A batch
    norm normalises each part by itself.

    The optimizer's state does not contain the learning rate, so the rate may change at any step.
    Real numbers are rounded to float32, because some frameworks store them as float32.
    Sources: Sutskever et al. (2013) for sgd, Kingma and Ba (2015) for adam, Loshchilov and Hutter
    (2017) for the cosine schedule, Szegedy et al. (2016) for label smoothing, Pascanu et al. (2013)
    for clipping.
    """

    name: str = "d2l"
    spec: str = "d2l"
    size: int = 96  #: height and width of the input, in pixels
    batch_size: int = 128
    epochs: int = 10
    optimizer: str = "sgd"
    lr: float = 0.1
    momentum: float = 0.0
    nesterov: bool = False
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    schedule: str = "constant"
    warmup: float = 0.0  #: share of all steps in which the rate rises from almost 0
    clip: float = 0.0  #: largest L2 norm of all gradients together; 0 is no clipping
    accumulate: int = 1  #: parts of a batch, whose gradients add up to one step
    weight_decay: float = 0.0
    label_smoothing: float = 0.0  #: share of the target that is spread over all classes
    dropout: float = 0.0  #: before every head; it replaces the spec's dropout
    flip: bool = False  #: mirror a random half of the training images in each epoch
    precision: str = "float32"  #: of the computation, or `auto`; weights are always float32
    seed: int = 0

    def __post_init__(self) -> None:
        for field in ("name", "spec"):
            value = getattr(self, field)
            holds = isinstance(value, str) and value.isprintable() and len(value) <= 100
            _require(holds, field, value, "a printable text of at most 100 characters")
        for field in ("nesterov", "flip"):
            value = getattr(self, field)
            _require(isinstance(value, bool), field, value, "true or false")
        for field, known in (
            ("optimizer", OPTIMIZERS),
            ("schedule", SCHEDULES),
            ("precision", (AUTO, *PRECISIONS)),
        ):
            value = getattr(self, field)
            _require(value in known, field, value, f"one of {', '.join(known)}")
        for field in ("size", "batch_size", "epochs", "accumulate", "seed"):
            value = getattr(self, field)
            least = 0 if field == "seed" else 1
            _require(is_whole(value, least), field, value, f"a whole number of at least {least}")
        parts = self.accumulate <= self.batch_size
        _require(parts, "accumulate", self.accumulate, f"at most batch_size, {self.batch_size}")
        _require(self.seed < 2**32, "seed", self.seed, "below 2^32")
        shares = ("momentum", "beta1", "beta2", "warmup", "label_smoothing", "dropout")
        for field in ("lr", "clip", "weight_decay", "eps", *shares):
            value = getattr(self, field)
            _require(is_number(value), field, value, "a number")
        for field in ("lr", "clip", "weight_decay", "eps"):
            value = float32(getattr(self, field))
            _require(0 <= value < math.inf, field, value, "at least 0 and finite in float32")
            object.__setattr__(self, field, value)
        for field in shares:
            value = float32(getattr(self, field))
            _require(0 <= value < 1, field, getattr(self, field), "at least 0 and below 1")
            object.__setattr__(self, field, value)
        adam = self.optimizer == "adam"
        _require(not (adam and self.momentum), "momentum", self.momentum, "0 with adam")
        _require(not adam or self.eps > 0, "eps", self.eps, "larger than 0 with adam")
        needs = not self.nesterov or (self.optimizer == "sgd" and self.momentum > 0)
        _require(needs, "nesterov", self.nesterov, "false without sgd and a momentum")

    def steps_an_epoch(self, examples: int) -> int:
        """The number of steps in an epoch of that many examples; the last batch may be smaller."""
        return math.ceil(examples / self.batch_size)

    def rate(self, step: int, steps: int) -> float:
        """The learning rate at `step`, counted from 0, of a run of `steps` steps; in float32."""
        warm = self.warmup * steps
        share = min(1.0, (step + 1) / (warm + 1))
        if self.schedule == "cosine" and step > warm:
            share = (1 + math.cos(math.pi * (step - warm) / (steps - warm))) / 2
        return float32(self.lr * share)

    def slots(self) -> tuple[str, ...]:
        """The names of the optimizer's state; each has one tensor for each trained weight."""
        if self.optimizer == "adam":
            return ("mean", "square")
        return ("velocity",) if self.momentum else ()

    def as_json(self) -> dict[str, Any]:
        """The fields as plain data; a number has the fewest digits that mean the same float32."""
        return {name: shortest(value) for name, value in asdict(self).items()}

    def network(self, channels: int = 1, classes: int = 10) -> Spec:
        """The spec with this recipe's image size and dropout, and these channels and classes."""
        return find(self.spec).at(self.size, channels, classes, self.dropout)


def shortest(value: Any) -> Any:
    """A float32 with the fewest digits that are rounded to it; any other value as it is."""
    if not isinstance(value, float):
        return value
    short = (float(f"{value:.{digits}g}") for digits in range(1, 10))
    return next((each for each in short if float32(each) == value), value)


D2L = Recipe()

#: our own recipe; docs/training.md has its results
BEST = Recipe(
    name="best",
    spec="d2l-bn",
    size=64,  # 96 costs twice the time
    momentum=0.9,
    nesterov=True,
    schedule="cosine",
    warmup=0.15,
    weight_decay=5e-4,
    label_smoothing=0.1,
    dropout=0.2,
    flip=True,
    precision=AUTO,
)

#: the README's first command: a minute on the sample, without what pays in longer runs
QUICK = replace(
    BEST,
    name="quick",
    spec="mini",
    size=33,
    batch_size=8,
    epochs=15,
    dropout=0.0,
    flip=False,
    precision="float32",
)

RECIPES = {
    recipe.name: recipe
    for recipe in (
        D2L,
        # a published variant of the book's recipe with a larger batch
        replace(D2L, name="d2l-512", batch_size=512),
        # a published recipe with its own network, at 224 pixels
        replace(D2L, name="blog-224", spec="blog-224", size=224, optimizer="adam", lr=0.001),
        # the network of a published PyTorch variant, with the book's recipe: none was published
        replace(D2L, name="d2l-bn", spec="d2l-bn"),
        BEST,
        QUICK,
        # 0.90 on the full data set in about two minutes
        replace(QUICK, name="fast", batch_size=64, epochs=4, label_smoothing=0.0),
    )
}


def recipe_of(given: str) -> Recipe:
    """The recipe of a name, or of the TOML file whose path ends in `.toml`."""
    return read_recipe(Path(given)) if given.endswith(".toml") else find_recipe(given)


def read_recipe(path: Path) -> Recipe:
    """The recipe in a TOML file; SpecError if it is none.

    `recipe` names the recipe that the file begins with (`d2l` if it is left out). Every other key
    is a field of `Recipe` that it changes. The name is the file's, unless the file gives another.
    """
    try:
        found = tomllib.loads(path.read_bytes().decode())
    except OSError as error:
        raise SpecError(f"{path} cannot be read ({error.strerror}).") from error
    except ValueError as error:  # not UTF-8, or not TOML
        raise SpecError(f"{path} is not a TOML file ({one_line(error)}).") from error
    base = find_recipe(str(found.pop("recipe", D2L.name)))
    known = [field.name for field in fields(Recipe)]
    for key in found:
        if key not in known:
            raise SpecError(f"{path}: {key!r} is not a field of a recipe: {', '.join(known)}.")
    if set(str(found.get("name"))) & set("/\\"):
        raise SpecError(
            f"{path}: name is {found['name']!r}: it must be without / and \\, because it names the "
            "folder of the run."
        )
    try:
        return replace(base, **{"name": path.stem, **found})
    except FieldError as error:
        raise SpecError(
            f"{path}: {error.field} is {error.value!r}: it must be {error.rule}."
        ) from (error)


def find_recipe(name: str) -> Recipe:
    """The recipe with this name; UnknownNameError if there is none."""
    if name not in RECIPES:
        raise UnknownNameError("recipe", name, RECIPES, ", or give a file that ends in .toml")
    return RECIPES[name]
