"""A study on machines as people have them: no home, no account, no wide characters, no call of Linux alone."""

import os
import subprocess
import sys

import pytest

from tests.test_main import ROOT

CONFIG = """
from tests.helpers.studies import digits
def get_config(arg=""):
    config = digits()
    config.hparams.epochs = 1
    config.trunk.mode = "cached"
    return config
"""
# What an account without an entry, and a system that is not Linux, lack.
LACKING = """
import os, pwd
def unknown(number):
    raise KeyError(f"getpwuid(): uid not found: {number}")
pwd.getpwuid = unknown
if hasattr(os, "posix_fallocate"):
    del os.posix_fallocate
"""


def run(directory, *arguments, stdout=subprocess.PIPE, **environment):
    path = os.pathsep.join(map(str, (directory, ROOT)))
    environment = {"PATH": os.defpath, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", **environment}
    command = [sys.executable, "-m", "finetune", f"--config={directory / 'config.py'}", "--seeds=2"]
    command += [f"--workdir={directory / 'study'}", *arguments]
    return subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, env=environment, text=True, check=False)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The directory of a study that ran in a bare environment, and what it printed."""
    directory = tmp_path_factory.mktemp("machine")
    (directory / "config.py").write_text(CONFIG)
    (directory / "sitecustomize.py").write_text(LACKING)
    return directory, run(directory, PYTHONIOENCODING="ascii", LANG="C", TMPDIR=str(directory / "absent"))


def test_a_bare_environment(finished):
    directory, done = finished
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.isascii()
    assert done.stdout.splitlines()[-1] == f"Report: {directory}/study/report.html"
    assert "no report" not in done.stdout
    assert (directory / "study" / "report.html").stat().st_size > 100_000


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_a_disk_that_is_full_for_what_is_printed(finished):
    directory, _ = finished
    with open("/dev/full", "w") as full:
        done = run(directory, stdout=full)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_reader_that_has_gone(finished):
    directory, _ = finished
    reader, writer = os.pipe()
    os.close(reader)
    done = run(directory, stdout=writer)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")
