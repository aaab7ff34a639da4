"""The command line: `googlenet COMMAND`; `python -m common.cli` is the same."""

from common.cli import convert, networks, parity, runs, tools, train
from common.cli.app import main

__all__ = ["convert", "main", "networks", "parity", "runs", "tools", "train"]
