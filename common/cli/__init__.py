"""The command line: `googlenet COMMAND`; `python -m common.cli` is the same."""

from common.cli import check, convert, networks, parity, runs, tools, train
from common.cli.app import main

__all__ = ["check", "convert", "main", "networks", "parity", "runs", "tools", "train"]
