"""Holds a user's own network against the reference and names its mistakes.

`graph` is the reference as single steps, `mistakes` the known mistakes and their edits of a step.
`process` talks to the user's network, which a backend's `trace.py` records. `match` and `anatomy`
find its layers, `diagnose` compares the steps, `checker` puts it together, `report` says it.
"""

from common.check.api import assert_same, check_against, check_file, check_live

__all__ = ["assert_same", "check_against", "check_file", "check_live"]
