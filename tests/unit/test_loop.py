"""The epoch loop that all backends share: with a trainer that only takes notes and a clock, and,
where what was learned counts, with the reference as the backend.

Long because one fake world serves all tests of the loop.
"""

# ruff: noqa: D102 - common/contract.py says what a backend's methods do

import io
import math
import signal
import sys
from dataclasses import replace
from itertools import count
from types import SimpleNamespace

import numpy as np
import pytest

from common.data.dataset import Dataset
from common.data.fashion_mnist import CLASSES
from common.data.sampling import batches, flip_mask
from common.errors import (
    DataError,
    DeviceError,
    DivergedError,
    OutOfMemoryError,
    RunError,
    Stopped,
)
from common.recipe import Recipe
from common.spec import MINI
from common.training import loop
from common.training.checkpoint import Checkpoint, Config
from common.training.history import Epoch, read_history, speed
from common.training.loop import EVALUATION_BATCH, LOG_EVERY, TrainingLoop
from common.training.run import Run
from common.weights import draw

# seconds on the clock
STEP, LOOK, WAIT = 2.0, 0.25, 0.5
EVALUATE, REPORT, BUILD = 100.0, 1000.0, 10_000.0
PROBED = ("parameters", "gradients", "state")  # by the backend; the loop names the others itself
PLACES = (*PROBED, "batch", "outputs", "evaluation")


def numbered(total):
    """Images that hold their own number, as a label cannot: the first pixels are its digits."""
    images = np.zeros((total, 1, 28, 28), np.uint8)
    images[:, 0, 0, 0], images[:, 0, 0, 1] = np.divmod(np.arange(total), 256)
    return images


def numbers(images):
    assert (images.shape[1:], images.dtype) == ((1, 28, 28), np.uint8)
    return (images[:, 0, 0, 0].astype(int) * 256 + images[:, 0, 0, 1]).tolist()


def labels_of(indices):
    return [index * 7 % 10 for index in indices]


def dataset(train, test):
    labels = [np.array(labels_of(range(total)), np.int64) for total in (train, test)]
    return Dataset(numbered(train), labels[0], numbered(test), labels[1], CLASSES, "fake")


class Scalar:
    """A number on a device: to look at it takes time."""

    def __init__(self, world, value):
        self.world, self.value = world, value

    def __float__(self):
        self.world.now += LOOK
        self.world.looks += 1
        return float(self.value)

    def __int__(self):
        return int(float(self))


class World:
    """A backend, its trainer and the clock that they move."""

    VERSION = "1.2.3"

    def __init__(self):
        self.now, self.looks = 0.0, 0
        self.log, self.steps, self.tests, self.epochs = [], [], [], []
        self.tuned, self.mirrored, self.parts = [], [], []
        self.accuracies = iter([0.125] * 99)
        self.devices = {what: {"gpu:3"} for what in PLACES}
        self.named = count()

    def perf_counter(self):
        return self.now

    monotonic = perf_counter

    def build(self, spec, dtype, device):
        self.now += BUILD
        self.log.append(("build", spec, dtype, device))
        self.weights = draw(spec, 99)
        return "the model"

    def write_weights(self, model, weights):
        self.log.append(("write", model))
        self.weights = {name: array.copy() for name, array in weights.items()}

    def read_weights(self, model):
        return self.weights

    def Trainer(self, model, recipe):
        self.log.append(("trainer", model, recipe))
        return self

    def out_of_memory(self, error):
        return str(error) == "no room on this GPU"

    def set_step(self, rate, seed):
        self.tuned.append((rate, seed))

    def prepare(self, images, mirrored=None):
        self.mirrored.append(mirrored)
        return images

    def place_labels(self, model, labels):
        return labels

    def train_step(self, images, labels, weight=1.0, last=True):
        self.now += STEP
        found = numbers(images)
        assert (labels.tolist(), labels.dtype) == (labels_of(found), np.int64)
        if self.parts and not self.parts[-1][2]:
            self.steps[-1] += found
        else:
            self.steps.append(found)
        self.parts.append((len(found), weight, last))
        assert len(self.tuned) == len(self.steps), "the rate is set before every step"
        # As if the loss of every example were its number, and every third were correct.
        return Scalar(self, np.mean(found)), Scalar(self, sum(n % 3 == 0 for n in found))

    def evaluate(self, some):
        self.now += EVALUATE
        self.tests.append([])
        for images, labels in some:
            assert 0 < len(labels) <= EVALUATION_BATCH
            assert labels.tolist() == labels_of(numbers(images))
            self.tests[-1] += numbers(images)
        total = len(self.tests[-1])
        return (0.5 + len(self.tests)) * total, next(self.accuracies) * total, total

    def read_state(self):
        return {}

    def tensor_devices(self, trainer):
        return {what: self.devices[what] for what in PROBED}

    def all_reduce_sum(self, numbers):
        return numbers  # the other workers add nothing

    def device_name(self, tensor):
        kinds = {Scalar: "outputs", np.ndarray: "batch", float: "evaluation"}
        devices = sorted(self.devices[kinds[type(tensor)]])
        return devices[next(self.named) % len(devices)]

    def report(self, epoch):
        self.now += REPORT
        self.epochs.append((epoch, len(self.steps), len(self.tests)))


class Lazy:
    """An executor that works when its result is asked for, and then takes its time."""

    world = None

    def __init__(self, workers):
        assert workers == 1, "the batches have an order"

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def submit(self, work, *arguments):
        def result():
            self.world.now += WAIT
            return work(*arguments)

        return SimpleNamespace(result=result)


@pytest.fixture
def world(monkeypatch):
    """A world whose clock the loop looks at."""
    found = World()
    clock = SimpleNamespace(perf_counter=found.perf_counter, monotonic=found.monotonic)
    monkeypatch.setattr(loop, "time", clock)
    return found


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Draw no picture and wait for no disk; test_run.py does."""
    monkeypatch.setattr("common.training.plots.curve", lambda epochs, title: repr(epochs).encode())
    monkeypatch.setattr("os.fsync", lambda handle: None)


RECIPE = Recipe(spec="mini", size=33, batch_size=32, epochs=3, seed=5)
# of 300 examples: 9 batches and one of 12


def first(recipe, data):
    return Checkpoint.first(Config.of(recipe, "fake", data))


def fitted(world, recipe=RECIPE, train=300, test=600, **options):
    data = dataset(train, test)
    start = options.pop("start", None) or first(recipe, data)
    return TrainingLoop(world, "fake", start, data, "gpu:3", report=world.report, **options)


# What the trainer gets


def test_every_epoch_takes_every_example_once_in_the_order_of_batches(world):
    fitted(world)()
    want = [b.tolist() for epoch in range(3) for b in batches(300, 32, 5, epoch)]
    assert world.steps == want
    for epoch in range(3):
        seen = np.concatenate(world.steps[10 * epoch : 10 * epoch + 10])
        assert sorted(seen) == list(range(300))
    assert world.steps[:10] != world.steps[10:20], "each epoch has its own order"
    assert world.mirrored == [None] * 30


def test_a_batch_comes_in_the_parts_of_the_recipe(world):
    """The last one too, of 3 examples: it has no empty parts. The losses stay those of a batch."""
    recipe = replace(RECIPE, epochs=1, flip=True)
    whole = fitted(world, recipe, train=35)().epochs[0]
    steps, mirrored = world.steps, np.concatenate(world.mirrored).tolist()
    world.__init__()
    epoch = fitted(world, replace(recipe, accumulate=5), train=35)().epochs[0]
    assert world.steps == steps
    assert np.concatenate(world.mirrored).tolist() == mirrored
    sizes, weights, last = zip(*world.parts, strict=True)
    assert sizes == (7, 7, 6, 6, 6, 1, 1, 1)
    assert weights == tuple(size / 32 for size in sizes[:5]) + (1 / 3,) * 3
    assert last == (False,) * 4 + (True,) + (False,) * 2 + (True,)
    assert epoch.losses == pytest.approx(whole.losses, rel=1e-12)
    assert epoch.train_accuracy == whole.train_accuracy


def test_mirrored_are_those_of_flips_each_epoch_anew(world):
    fitted(world, replace(RECIPE, flip=True))()
    for epoch in range(3):
        want = flip_mask(300, 5, epoch)
        assert 100 < want.sum() < 200
        for step in range(10 * epoch, 10 * epoch + 10):
            assert world.mirrored[step].tolist() == want[world.steps[step]].tolist()


def test_every_step_has_the_rate_of_the_recipe_and_a_seed_of_its_own(world):
    recipe = replace(RECIPE, schedule="cosine", warmup=0.2)
    fitted(world, recipe)()
    rates, seeds = zip(*world.tuned, strict=True)
    assert list(rates) == [recipe.rate(step, 30) for step in range(30)]
    assert len(set(rates)) > 20
    assert len(set(seeds)) == 30
    assert all(0 <= seed < 2**31 for seed in seeds)
    world.__init__()
    fitted(world, replace(recipe, seed=2**32 - 1))()
    assert not set(seeds) & {seed for _, seed in world.tuned}
    assert all(0 <= seed < 2**31 for _, seed in world.tuned)


def test_every_worker_draws_a_dropout_of_its_own(world):
    """As it sees other examples, so it drops other values: at no step the same seed as another."""
    seeds = []
    for rank in range(4):
        world.__init__()
        fitted(world, rank=rank, workers=4)()
        rates, drawn = zip(*world.tuned, strict=True)
        assert set(rates) == {RECIPE.rate(0, 30)}
        seeds += drawn
    assert len(set(seeds)) == 4 * 30


def test_a_worker_without_examples_counts_nothing(world):
    """It takes one example with weight 0, so that it takes part in the step."""
    summed, train_step = [], world.train_step
    world.all_reduce_sum = lambda numbers: (summed.append(numbers.tolist()), numbers)[1]
    world.train_step = lambda images, labels, weight, last: (
        train_step(images, labels)[0],
        Scalar(world, 1),
    )
    found = fitted(world, replace(RECIPE, batch_size=1, epochs=1), train=3, rank=1, workers=2)
    found.train(0)
    assert [len(step) for step in world.steps] == [1, 1, 1]
    assert summed
    assert not any(any(numbers[:-1]) for numbers in summed), "the last says how long it took"
    assert (found.progress.losses, found.progress.right) == ([0, 0, 0], 0)


def test_a_run_starts_from_the_canonical_weights_of_its_seed(world):
    fitted(world, replace(RECIPE, precision="bfloat16"))()
    recipe = replace(RECIPE, precision="bfloat16")
    assert world.log == [
        ("build", MINI, "bfloat16", "gpu:3"),
        ("write", "the model"),
        ("trainer", "the model", recipe),
    ]
    want = draw(MINI, 5)
    assert list(world.weights) == list(want)
    assert all((world.weights[name] == weight).all() for name, weight in want.items())


# What is measured


def test_means_weigh_every_example_the_same(world):
    for epoch in fitted(world)().epochs:
        assert epoch.loss == pytest.approx(299 / 2)
        assert epoch.train_accuracy == pytest.approx(1 / 3)
        assert epoch.loss != pytest.approx(np.mean(epoch.losses))
        assert epoch.examples == 300


def test_the_loss_of_every_step_is_kept(world):
    found = fitted(world)()
    losses = [loss for epoch in found.epochs for loss in epoch.losses]
    assert losses == [np.mean(step) for step in world.steps]


def test_a_batch_may_be_larger_than_the_data(world):
    found = fitted(world, replace(RECIPE, batch_size=64, epochs=1), train=7)()
    assert [len(step) for step in world.steps] == [7]
    assert (found.epochs[0].loss, found.epochs[0].train_accuracy) == (3, 3 / 7)


@pytest.mark.parametrize("test", [1, EVALUATION_BATCH, EVALUATION_BATCH + 1, 600])
def test_the_whole_test_set_is_evaluated_after_every_epoch(world, test):
    found = fitted(world, train=32, test=test)()
    assert world.tests == [list(range(test))] * 3
    assert [epoch.test_loss for epoch in found.epochs] == [1.5, 2.5, 3.5]
    assert [epoch.test_accuracy for epoch in found.epochs] == [0.125] * 3


def test_only_training_counts_as_time_and_what_it_waits_is_told(world, monkeypatch):
    monkeypatch.setattr(loop, "ThreadPoolExecutor", Lazy)
    Lazy.world = world
    found = fitted(world)()
    seconds = 10 * (WAIT + STEP + 2 * LOOK)  # the loss and the number correct of every step
    assert [epoch.seconds for epoch in found.epochs] == [seconds] * 3
    assert [epoch.wait for epoch in found.epochs] == [10 * WAIT] * 3
    assert speed(found.epochs[:1]) == 300 / seconds


def test_nothing_waits_for_the_device_but_a_look_every_few_steps(world, monkeypatch):
    looks = []
    sync_metrics = TrainingLoop.sync_metrics

    def noted(self, signum):
        looks.append(len(world.steps))
        return sync_metrics(self, signum)

    monkeypatch.setattr(TrainingLoop, "sync_metrics", noted)
    fitted(world, replace(RECIPE, batch_size=10, epochs=2))()
    assert looks == [LOG_EVERY, 30, 30 + LOG_EVERY, 60]
    assert world.looks == 2 * 60


def test_every_epoch_is_reported_when_it_is_over(world):
    found = fitted(world)()
    assert world.epochs == [(e, 10 * e.number, e.number) for e in found.epochs]
    assert [epoch.number for epoch in found.epochs] == [1, 2, 3]
    assert all(isinstance(epoch, Epoch) for epoch in found.epochs)
    assert (found.steps, found.losses) == (30, [])


def test_an_epoch_says_where_and_with_what_it_was_trained(world):
    last = fitted(world)().epochs[-1]
    assert (last.backend, last.version, last.device) == ("fake", "1.2.3", "gpu:3")
    assert last.places == {what: ["gpu:3"] for what in PLACES}


# The bar


def test_no_bar_is_drawn_where_there_is_no_terminal(world, capsys):
    fitted(world)()
    assert capsys.readouterr() == ("", "")


def test_a_terminal_gets_a_bar_with_means_so_far(world, monkeypatch):
    monkeypatch.setattr(sys, "stderr", terminal := io.StringIO())
    monkeypatch.setattr(terminal, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(loop, "LOG_EVERY", 1)
    fitted(world, replace(RECIPE, batch_size=10, epochs=2))()
    shown = terminal.getvalue()
    assert "epoch 1/2" in shown
    half = world.steps[: len(world.steps) // 2]  # the bar is drawn again when it ends
    right = sum(n % 3 == 0 for step in half for n in step) / sum(map(len, half))
    assert f"loss {np.mean([np.mean(step) for step in half]):.3f}, acc {right:.3f}" in shown


# What goes wrong


@pytest.mark.parametrize(
    ("what", "found"),
    [
        *((what, found) for what in PLACES[:-1] for found in ({"cpu"}, {"gpu:3", "cpu"})),
        *((what, set()) for what in PROBED),
    ],
)
def test_what_lies_elsewhere_stops_the_run_in_its_first_step(world, what, found):
    world.devices[what] = found
    if what == "state" and not found:  # plain gradient descent has none
        assert len(fitted(world)().epochs) == 3
        return
    where = "on cpu" if found else "on no device"
    with pytest.raises(DeviceError, match=f"{what}: {where}, and not on gpu:3"):
        fitted(world)()
    seen_before = found and what in PROBED
    assert len(world.steps) == (0 if seen_before else 1)


def test_an_evaluation_elsewhere_stops_the_run_too(world):
    world.devices["evaluation"] = {"cpu"}
    with pytest.raises(DeviceError, match="evaluation: on cpu"):
        fitted(world)()
    assert (len(world.steps), world.epochs) == (10, [])


def snapshot(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("value", "at"), [(math.nan, 1), (math.nan, 11), (math.inf, 13), (-math.inf, 20)]
)
def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_the_last_checkpoint(
    world, tmp_path, monkeypatch, value, at
):
    monkeypatch.setattr(loop, "LOG_EVERY", 1)
    step = World.train_step

    def bad(images, labels, weight=1.0, last=True):
        loss, correct = step(world, images, labels)
        if len(world.steps) == at:
            loss.value = value
            world.weights["head.bias"][:] = value  # what is learned from it is lost as well
        else:
            world.weights["head.bias"][:] = len(world.steps)
        return loss, correct

    kept = {}
    world.train_step = bad
    world.report = lambda epoch: kept.update(snapshot(tmp_path))
    with pytest.raises(DivergedError) as caught:
        fitted(world, run=Run(tmp_path), save_every=0)()
    assert f"became {value} at step {(at - 1) % 10 + 1} of epoch {(at - 1) // 10 + 1};" in str(
        caught.value
    )
    assert str(tmp_path) in str(caught.value)
    assert len(world.steps) == at
    if at > 1:
        last = Run(tmp_path).load()
        assert last.progress.steps == at - 1
        assert (last.weights["head.bias"] == at - 1).all()
        now = snapshot(tmp_path)
        assert {name for name in kept if now[name] != kept[name]} <= {"last.safetensors"}
        assert bool(kept) == (at > 10)
    else:
        assert snapshot(tmp_path) == {}


def test_without_a_run_there_is_nothing_that_was_kept(world):
    world.evaluate = lambda some: (math.nan, 0.5, 1)
    with pytest.raises(DivergedError, match=r"^The test loss became nan after epoch 1: a smaller"):
        fitted(world)()


def test_weights_that_are_not_finite_are_never_saved(world, tmp_path):
    fitted(world, replace(RECIPE, epochs=1), run=Run(tmp_path))()
    before = snapshot(tmp_path)
    assert len(before) == 4  # last, best, history, curve
    run = fitted(world, replace(RECIPE, epochs=1), run=Run(tmp_path))
    world.weights["stage1.0.norm.running_var"][1] = np.inf
    with pytest.raises(DivergedError, match=r"stage1.0.norm.running_var is no.* after step 10"):
        run()
    assert snapshot(tmp_path) == before


def break_at(world, where, error):
    def fail(*arguments, **options):
        raise error

    setattr(world, where, fail)


@pytest.mark.parametrize("where", ["build", "write_weights", "train_step", "evaluate"])
@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("no room on this GPU")])
def test_too_little_memory_names_half_the_batch(world, where, error):
    break_at(world, where, error)
    with pytest.raises(OutOfMemoryError) as caught:
        fitted(world)()
    said = "A batch of 32 does not fit in the memory of gpu:3: try `--batch-size 16`."
    assert str(caught.value) == said
    assert caught.value.__cause__ is error


def test_a_batch_of_one_cannot_be_halved(world):
    break_at(world, "train_step", MemoryError())
    with pytest.raises(OutOfMemoryError, match="try a smaller `--size`"):
        fitted(world, replace(RECIPE, batch_size=1), train=3)()


def test_other_errors_stay_what_they_are(world):
    break_at(world, "train_step", RuntimeError("a fault"))
    with pytest.raises(RuntimeError, match="a fault"):
        fitted(world)()
    break_at(world, "train_step", DataError("no room on this GPU"))
    with pytest.raises(DataError):
        fitted(world)()


class Broken:
    """Images of which one cannot be read."""

    def __init__(self, images, error):
        self.images, self.error, self.shape = images, error, images.shape

    def __getitem__(self, indices):
        if 7 in numbers(self.images[indices]):
            raise self.error
        return self.images[indices]

    def tobytes(self):
        return self.images.tobytes()  # for the fingerprint, when the file was still whole


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (DataError("images/7.png is damaged"), DataError),
        (MemoryError(), OutOfMemoryError),
        (ValueError("a fault"), ValueError),
    ],
)
@pytest.mark.parametrize("part", ["train", "test"])
def test_an_image_that_cannot_be_read_ends_the_run_with_its_own_error(world, part, error, kind):
    data = dataset(300, 600)
    broken = Broken(getattr(data, f"{part}_images"), error)
    bad = replace(data, **{f"{part}_images": broken})
    with pytest.raises(kind) as caught:
        TrainingLoop(world, "fake", first(RECIPE, data), bad, "gpu:3")()
    assert error in (caught.value, caught.value.__cause__)
    before = [7 in step for step in batches(300, 32, 5, 0)].index(True)
    assert len(world.steps) == (before if part == "train" else 10)


@pytest.mark.parametrize("change", ["labels", "order", "fewer", "test", "colour"])
def test_other_images_than_the_run_was_begun_with_are_refused(world, change):
    data = dataset(300, 600)
    start = first(RECIPE, data)
    labels = data.train_labels
    other = {
        "labels": lambda: replace(data, train_labels=np.where(np.arange(300) == 17, 8, labels)),
        "order": lambda: replace(data, train_labels=labels[::-1].copy()),
        "fewer": lambda: data.limit(299),
        "test": lambda: data.limit(None, 599),
        "colour": lambda: replace(data, train_images=data.train_images.repeat(3, 1)),
    }[change]()
    with pytest.raises(RunError, match=r"^The images in fake are not those .*`--data`\.$"):
        TrainingLoop(world, "fake", start, other, "gpu:3")
    assert world.log == [], "before anything is built"


# Checkpoints


def test_the_best_checkpoint_is_that_of_the_best_test_accuracy_and_the_first_of_equals(
    world, tmp_path
):
    run = Run(tmp_path)
    world.accuracies = iter([0.5, 0.75, 0.75, 0.25])
    fitted(world, replace(RECIPE, epochs=4), run=run)()
    assert len(run.load("best").progress.epochs) == 2
    assert run.load("best").progress.steps == 20
    assert len(run.load("last").progress.epochs) == 4


def test_the_history_and_the_curve_are_there_after_every_epoch(world, tmp_path):
    run, seen = Run(tmp_path), []
    world.report = lambda epoch: seen.append((read_history(run.history_file), snapshot(tmp_path)))
    found = fitted(world, run=run)()
    assert [history for history, _ in seen] == [found.epochs[:n] for n in (1, 2, 3)]
    curves = {files["curve.png"] for _, files in seen}
    assert len(curves) == 3


@pytest.mark.parametrize(
    ("every", "saves"),
    [(math.inf, [10, 20, 30]), (0, [*range(1, 31)]), (7, [3, 6, 9, 10, 11, 14, 17, 20])],
)
def test_checkpoints_come_after_so_many_seconds_and_after_every_epoch(
    world, tmp_path, monkeypatch, every, saves
):
    monkeypatch.setattr(loop, "LOG_EVERY", 1)
    run, found = Run(tmp_path), []
    monkeypatch.setattr(
        run, "save", lambda now, which="last": which == "last" and found.append(now.progress.steps)
    )
    monkeypatch.setattr(run, "record", lambda epochs: None)
    fitted(world, test=10, run=run, save_every=every)()
    assert sorted(set(found))[: len(saves)] == saves


def stop_at(call, signum=signal.SIGTERM):
    """A signal that comes before the loop's so-many-th question for one."""
    calls = count(1)
    return lambda: signum if next(calls) == call else 0


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_names_the_way_on(world, tmp_path, signum):
    with pytest.raises(Stopped) as caught:
        fitted(world, run=Run(tmp_path), stop=stop_at(3, signum))()
    assert str(caught.value) == f"stopped after step 3; go on with `--resume {tmp_path}`."
    assert caught.value.exit_code == 128 + signum
    assert len(world.steps) == 3
    assert Run(tmp_path).load().progress.losses == [np.mean(step) for step in world.steps]
    world.__init__()
    with pytest.raises(Stopped, match=r"^stopped after step 2\.$"):
        fitted(world, stop=stop_at(2, signum))()


def essence(checkpoint):
    """All that must not depend on how often a run was stopped."""
    epochs = [replace(epoch, seconds=0, wait=0) for epoch in checkpoint.progress.epochs]
    tensors = {"weights": checkpoint.weights, **checkpoint.state}
    bits = {
        (slot, name): array.tobytes()
        for slot, part in tensors.items()
        for name, array in part.items()
    }
    return replace(checkpoint.progress, epochs=epochs, seconds=0, wait=0), bits


def learn(reference, data, run, start, **options):
    return TrainingLoop(reference, "reference", start, data, "cpu", run, **options)()


@pytest.fixture
def three(pocket, monkeypatch):
    """Three recipes on the smallest network, which evaluates in two batches."""
    monkeypatch.setattr(loop, "EVALUATION_BATCH", 4)
    plain = Recipe(spec=pocket, size=9, batch_size=3, epochs=2, seed=4, lr=0.05)
    nesterov = replace(plain, momentum=0.9, nesterov=True, weight_decay=5e-4, label_smoothing=0.1)
    nesterov = replace(nesterov, flip=True, schedule="cosine", warmup=0.2)
    adam = replace(plain, optimizer="adam", lr=0.01, schedule="cosine", clip=0.5, accumulate=2)
    return {"plain": plain, "nesterov": nesterov, "adam": adam}


@pytest.fixture(params=["plain", "nesterov", "adam"])
def recipe(three, request):
    return three[request.param]


def uninterrupted(reference, data, recipe, folder):
    run = Run(folder)
    learn(reference, data, run, first(recipe, data))
    return essence(run.load()), essence(run.load("best"))


def test_a_run_that_is_stopped_anywhere_goes_on_bit_for_bit(reference, pictures, recipe, tmp_path):
    data = pictures(8, 6)
    want = uninterrupted(reference, data, recipe, tmp_path / "whole")
    assert len(want[0][0].epochs) == 2
    steps = set()
    for call in count(1):
        run = Run(tmp_path / str(call))
        try:
            learn(reference, data, run, first(recipe, data), stop=stop_at(call))
        except Stopped:
            start = run.load()
            steps.add((start.progress.steps, len(start.progress.epochs)))
        else:
            break
        learn(reference, data, run, start)
        assert (essence(run.load()), essence(run.load("best"))) == want, call
        history = [replace(epoch, seconds=0, wait=0) for epoch in read_history(run.history_file)]
        assert history == want[0][0].epochs
    assert call == 2 * (3 + 2) + 1, "three steps and two test batches an epoch"
    assert steps == {(1, 0), (2, 0), (3, 0), (4, 1), (5, 1), (6, 1)}


def test_a_run_that_is_stopped_at_every_step_goes_on_bit_for_bit(reference, pictures, tmp_path):
    recipe = Recipe(spec="mini", size=33, batch_size=3, epochs=1, momentum=0.9, flip=True)
    data = pictures(8, 3)
    want = uninterrupted(reference, data, recipe, tmp_path / "whole")
    run, start = Run(tmp_path / "stopped"), first(recipe, data)
    for step in (1, 2, 3):
        with pytest.raises(Stopped):
            learn(reference, data, run, start, stop=stop_at(1))
        start = run.load()
        assert (start.progress.steps, len(start.progress.losses)) == (step, step)
    learn(reference, data, run, start)
    assert (essence(run.load()), essence(run.load("best"))) == want


def test_every_checkpoint_on_the_way_goes_on_bit_for_bit(
    reference, pictures, recipe, tmp_path, monkeypatch
):
    monkeypatch.setattr(loop, "LOG_EVERY", 1)
    data, run, files = pictures(8, 6), Run(tmp_path), []
    monkeypatch.setattr(run, "save", lambda now, which="last": files.append(now.encode()))
    monkeypatch.setattr(run, "record", lambda epochs: None)
    learn(reference, data, run, first(recipe, data), save_every=0)
    starts = [Checkpoint.decode(data) for data in files]
    want = essence(starts[-1])
    assert len(starts) > 6
    for start in starts[:-1]:
        run = Run(tmp_path / "again")
        learn(reference, data, run, start)
        assert essence(run.load()) == want


class Killed(BaseException):
    """Nothing catches it."""


@pytest.mark.parametrize("victim", ["save best", "save last", "record", "report"])
@pytest.mark.parametrize("epoch", [1, 2])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_kill_at_the_end_of_an_epoch_loses_nothing_for_good(
    reference, pictures, three, tmp_path, victim, epoch, after
):
    recipe, data = three["nesterov"], pictures(8, 6)
    want = uninterrupted(reference, data, recipe, tmp_path / "whole")
    run = Run.create(tmp_path / "killed", first(recipe, data))
    save, record, report = run.save, run.record, lambda epoch: None

    def kill(name, work):
        def instead(*arguments):
            which = f"{name} {(*arguments, 'last')[1]}" if name == "save" else name
            here = which == victim and next(left) == epoch
            if here and not after:
                raise Killed
            work(*arguments)
            if here:
                raise Killed

        left = count(1)
        return instead

    run.save, run.record = kill("save", save), kill("record", record)
    try:
        learn(reference, data, run, first(recipe, data), report=kill("report", report))
    except Killed:
        run = Run(run.folder)
        start = run.load()
        run.record(start.progress.epochs)
        learn(reference, data, run, start)
    else:
        assert (victim, epoch) == ("save best", 2), "the second epoch was not the better one"
    assert (essence(run.load()), essence(run.load("best"))) == want
    history = [replace(epoch, seconds=0, wait=0) for epoch in read_history(run.history_file)]
    assert history == want[0][0].epochs


def test_a_finished_run_has_nothing_left_to_do(reference, pictures, three, tmp_path):
    data, run = pictures(8, 6), Run(tmp_path)
    done = learn(reference, data, run, first(three["plain"], data))
    before = snapshot(tmp_path)
    assert learn(reference, data, run, run.load()) == done
    assert snapshot(tmp_path) == before


def test_what_is_learned_is_the_textbook_s(reference, pictures, three):
    """The loop adds nothing of its own: the same steps by hand give the same bits."""
    recipe, data = three["nesterov"], pictures(8, 6)
    fit = TrainingLoop(reference, "reference", first(recipe, data), data, "cpu")
    fit()
    network = recipe.network()
    model = reference.build(network, "float32", "cpu")
    reference.write_weights(model, draw(network, recipe.seed))
    trainer, step = reference.Trainer(model, recipe), 0
    for epoch in range(2):
        mirrored = flip_mask(8, recipe.seed, epoch)
        for chosen in batches(8, 3, recipe.seed, epoch):
            trainer.set_step(recipe.rate(step, 6), 0)
            inputs = trainer.prepare(data.train_images[chosen], mirrored[chosen])
            trainer.train_step(inputs, data.train_labels[chosen])
            step += 1
    found, want = fit.checkpoint().weights, reference.read_weights(model)
    assert all((found[name] == want[name]).all() for name in want)
    assert any((found[name] != first(recipe, data).weights[name]).any() for name in want)
