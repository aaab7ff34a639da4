"""Runs the command line: `python -m common.cli`."""

from common.cli import main

if __name__ == "__main__":
    main()
