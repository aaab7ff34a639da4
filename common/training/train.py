"""Carries out the plan of a run: checks the device, trains, reports each epoch."""

from __future__ import annotations

from collections.abc import Callable

from common.training.history import Epoch
from common.training.loop import TrainingLoop
from common.training.plan import Plan
from common.training.report import Lines
from common.training.run import Run


def train(
    plan: Plan,
    device: str,
    lines: Lines,
    log: Callable[[Epoch], None],
    stop: Callable[[], int],
    save_every: float,
    rank: int = 0,
    workers: int = 1,
) -> None:
    """Train to the end and report it; of several workers the first alone writes."""

    def report(epoch: Epoch) -> None:
        log(epoch)
        lines.epoch(epoch)

    run = None if rank else plan.run
    loop = TrainingLoop(  # a device or precision that is refused leaves no folder behind
        plan.backend,
        plan.backend_name,
        plan.checkpoint,
        plan.data,
        device,
        run,
        report,
        stop,
        save_every,
        rank,
        workers,
    )
    if run and plan.new:
        Run.create(run.folder, plan.checkpoint)
    elif run:
        run.record(plan.checkpoint.progress.epochs)  # as it was at the checkpoint
    lines.start(plan, device, workers)
    lines.end(loop().epochs, plan.run)
