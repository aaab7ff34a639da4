"""What a machine lacks is installed, or one sentence says what to do."""

import subprocess
import sys

import provide
import pytest


@pytest.fixture
def bare(monkeypatch):
    """A machine without a browser, a compiler and a network; the commands that were tried."""
    tried = []
    monkeypatch.delenv("CHROMIUM", raising=False)
    monkeypatch.setattr(provide.shutil, "which", lambda name: None)
    monkeypatch.setattr(provide, "playwrights_own", lambda: None)
    monkeypatch.setattr(provide, "works", lambda command: (tried.append(command), False)[1])
    return tried


def test_what_is_there_is_taken(monkeypatch, bare):
    monkeypatch.setattr(provide.shutil, "which", lambda name: f"/bin/{name}")
    assert provide.compiler() == ["/bin/g++"]
    assert provide.browser() == "/bin/chromium"
    assert provide.provide_browser() is provide.provide_compiler() is None
    assert bare == []
    monkeypatch.setenv("CHROMIUM", "/my/own")
    assert provide.browser() == "/my/own"


def test_a_machine_without_a_way_gets_one_sentence(bare):
    for provided in (provide.provide_browser, provide.provide_compiler):
        sentence = provided()
        assert sentence.endswith(".")
        assert "install" in sentence
    assert [sys.executable, "-m", "playwright", "install", "chromium"] in bare
    assert any("--require-hashes" in command for command in bare)


def test_root_gets_debian_s_browser_after_playwright_s(monkeypatch, bare):
    have = {"apt-get"}
    monkeypatch.setattr(provide.shutil, "which", lambda name: name if name in have else None)
    monkeypatch.setattr(provide.os, "geteuid", lambda: 0, raising=False)

    def works(command):
        bare.append(command)
        if command[:2] == ["apt-get", "install"]:
            have.add("chromium")
        return command[0] == "apt-get"

    monkeypatch.setattr(provide, "works", works)
    assert provide.provide_browser() is None
    assert [command[0] for command in bare] == [sys.executable, "apt-get", "apt-get"]
    bare.clear()
    have.discard("chromium")
    monkeypatch.setattr(provide.os, "geteuid", lambda: 1000, raising=False)
    assert provide.provide_browser()
    assert [command[0] for command in bare] == [sys.executable]


def test_the_script_leaves_with_the_sentence(tmp_path):
    program = (
        "import runpy, shutil, sys, os; os.environ.pop('CHROMIUM', None);"
        "shutil.which = lambda name: None; sys.modules['playwright'] = None;"
        "sys.argv = ['provide.py', 'browser'];"
        f"runpy.run_path({provide.__file__!r}, run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("There is no Chromium")
    assert len(done.stderr.splitlines()) == 1
