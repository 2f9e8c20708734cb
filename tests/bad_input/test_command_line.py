"""Mistakes in the command line beyond a table: flags that are missing, and whole processes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from finetune import __main__
from tests.bad_input.table_flags import FLAGS, GRID
from tests.helpers.mistakes import check_error


def test_missing_flags(inputs, tmp_path, fails):
    fails([f"--workdir={tmp_path}/study"], ["--config", "configs/quickstart.py"])
    fails([f"--config={tmp_path}/absent.py", f"--workdir={tmp_path}/study"], ["--config", "absent.py"])
    fails([f"--config={tmp_path}", f"--workdir={tmp_path}/study"], ["--config", str(tmp_path)])
    fails([f"--config={inputs}/vit.py"] * 2 + [f"--workdir={tmp_path}/study"], ["--config", "vit.py, ", "one file"])
    fails([f"--config={inputs}/vit.py"], ["--workdir is missing"])
    fails([f"--config={inputs}/vit.py", "--workdir="], ["--workdir is missing"])


@pytest.mark.parametrize("arguments, words", [FLAGS["unknown setting"], GRID["grid too large"]])
def test_as_a_process(inputs, tmp_path, arguments, words):
    command = [sys.executable, "-m", "finetune", f"--config={inputs}/vit.py", f"--workdir={tmp_path}/study", *arguments]
    root = Path(__main__.__file__).parent.parent
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": str(root)}
    )
    check_error(done.returncode, done.stderr, words)
