"""Gets what a tox environment needs and pip alone does not install: a browser, a C++ compiler.

`python tests/support/provide.py browser|compiler` does nothing if the machine has one. Else it
installs one for this environment, or prints one sentence and leaves with status 1.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SECONDS = 600  #: for one installation


def works(command: Sequence[str]) -> bool:
    """Whether a command runs and leaves with status 0."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def browser() -> str | None:
    """The path of a Chromium that starts: CHROMIUM's, on PATH, or Playwright's own; or None."""
    if given := os.environ.get("CHROMIUM"):
        return given
    if found := next(filter(None, map(shutil.which, BROWSERS)), None):
        return found
    own = playwrights_own()
    return own if own and works([own, "--version"]) else None


def playwrights_own() -> str | None:
    """The path at which Playwright would install its Chromium; None without Playwright."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return None
    with sync_playwright() as playwright:
        return playwright.chromium.executable_path


def provide_browser() -> str | None:
    """Install a browser if there is none; the sentence that says why it could not."""
    if browser():
        return None
    works([sys.executable, "-m", "playwright", "install", "chromium"])
    if browser():
        return None
    if shutil.which("apt-get") and hasattr(os, "geteuid") and os.geteuid() == 0:
        os.environ["DEBIAN_FRONTEND"] = "noninteractive"
        works(["apt-get", "update", "-qq"])
        works(["apt-get", "install", "-y", "-qq", "--no-install-recommends", "chromium"])
    if browser():
        return None
    return (
        "There is no Chromium, and it could be installed neither by Playwright nor by apt-get: "
        "install one, or set CHROMIUM to its path."
    )


def compiler() -> list[str] | None:
    """The command of a C++ compiler: g++, or the one in the package ziglang; or None."""
    if found := shutil.which("g++"):
        return [found]
    zig = [sys.executable, "-m", "ziglang", "c++"]
    return zig if works([*zig, "--version"]) else None


def provide_compiler() -> str | None:
    """Install a compiler if there is none; the sentence that says why it could not."""
    if compiler():
        return None
    pins = ROOT / "constraints" / "hashed" / "compiler.txt"
    works([sys.executable, "-m", "pip", "install", "--require-hashes", "-r", str(pins)])
    if compiler():
        return None
    return "There is no g++, and pip could not install ziglang in its place: install g++."


if __name__ == "__main__":
    provided = {"browser": provide_browser, "compiler": provide_compiler}
    if trouble := provided[sys.argv[1]]():
        sys.exit(trouble)
