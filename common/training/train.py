"""Execute the plan of a run: check the device, train, report each epoch."""

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
    """Train to the end and report it; of several workers only the first writes files."""

    def report(epoch: Epoch) -> None:
        log(epoch)
        lines.epoch(epoch)

    run = None if rank else plan.run
    loop = TrainingLoop(  # before `Run.create`: a rejected device leaves no folder
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
        run.describe(plan.checkpoint.config)  # --resume may change the precision and more
        run.record(plan.checkpoint.progress.epochs)  # the history as of the checkpoint
    lines.start(plan, device, workers)
    lines.end(loop().epochs, plan.run)
