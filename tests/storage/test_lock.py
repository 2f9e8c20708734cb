"""Two processes on one work directory."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from finetune.errors import UserError
from finetune.storage import lock

_HOLDER = """
import sys, time
from pathlib import Path
from finetune.storage import lock
with lock.held(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path):
    """Another process that holds the lock of tmp_path."""
    environment = os.environ | {"PYTHONPATH": str(Path(lock.__file__).parents[2])}
    command = [sys.executable, "-c", _HOLDER, str(tmp_path)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_the_second_process_is_told_of_the_first_which_leaves_no_lock_behind(tmp_path, holder):
    with pytest.raises(UserError) as error, lock.held(tmp_path):
        pass
    started = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[+-]\d\d:\d\d"
    assert re.search(f"in use by process {holder.pid} since {started}, allowed: one process", str(error.value))

    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with lock.held(tmp_path):
        assert json.loads((tmp_path / "lock").read_text())["process"] == os.getpid()
    with lock.held(tmp_path):
        pass


def test_a_holder_that_has_not_written_yet(tmp_path):
    with lock.held(tmp_path):
        (tmp_path / "lock").write_text("")
        with pytest.raises(UserError, match="in use by another process, allowed"), lock.held(tmp_path):
            pass


@pytest.mark.parametrize("there", [True, False])
def test_a_link_is_not_followed(tmp_path, there):
    victim = tmp_path / "victim"
    if there:
        victim.write_text("theirs")
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "lock").symlink_to(victim)
    with pytest.raises(UserError, match="lock cannot be written"), lock.held(tmp_path / "study"):
        pass
    assert [path.read_text() for path in tmp_path.glob("victim")] == ["theirs"] * there
