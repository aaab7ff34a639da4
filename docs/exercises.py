"""Runs for an exercise of the book: what do the ideas of the later papers bring to its network?

`python docs/exercises.py --backend torch` trains every row with three seeds on the full
Fashion-MNIST and writes what docs/generate.py needs to docs/results/exercises. All rows have one
recipe, the book's with fewer epochs: SGD 0.1, batch 128, 96 pixels, 6 epochs, in bfloat16. The 18
runs took seven minutes on an H100, three at a time. Without a GPU use `--size 48 --epochs 3
--seeds 1`. Fewer than two epochs say nothing: without a norm the loss is still on its first
plateau. A run that is there is kept.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # run from anywhere, installed or not

from backends import FRAMEWORKS  # noqa: E402
from common.page.results import EXERCISES  # noqa: E402
from common.recipe import PRECISIONS  # noqa: E402

SMALLEST = 2  #: epochs


def main() -> None:
    """Train what is missing, one run after the other."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--backend", choices=FRAMEWORKS, default="torch")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--precision", choices=PRECISIONS, default="bfloat16")
    parser.add_argument("--seeds", type=int, default=3, help="how many")
    asked = parser.parse_args()
    if asked.epochs < SMALLEST:
        parser.error(f"--epochs must be at least {SMALLEST}: before, the loss is on its plateau")
    for name, (spec, smoothing) in EXERCISES.items():
        for seed in range(asked.seeds):
            kept = ROOT / "docs" / "results" / "exercises" / f"{name}-{seed}"
            if (kept / "history.jsonl").exists():
                continue
            with tempfile.TemporaryDirectory() as folder:
                recipe, run = Path(folder, "recipe.toml"), Path(folder, "run")
                recipe.write_text(
                    f'recipe = "d2l"\nname = "d2l"\nspec = "{spec}"\nsize = {asked.size}\n'
                    f"epochs = {asked.epochs}\nlabel_smoothing = {smoothing}\nseed = {seed}\n"
                    f'precision = "{asked.precision}"\n'
                )
                command = [sys.executable, "-m", "common.cli", "train", "--out", str(run)]
                command += ["--backend", asked.backend, "--device", asked.device]
                subprocess.run([*command, "--recipe", str(recipe)], cwd=ROOT, check=True)
                kept.mkdir(parents=True, exist_ok=True)
                for file in ("config.json", "history.jsonl"):
                    shutil.copyfile(run / file, kept / file)
    subprocess.run([sys.executable, "docs/generate.py"], cwd=ROOT, check=True)


if __name__ == "__main__":
    main()
