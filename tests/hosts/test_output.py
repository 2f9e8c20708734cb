"""What is printed is no reason to fail: terminals of few characters, readers that have gone, disks that are full."""

import io
import os
import subprocess
import sys

import pytest
from rich.table import Table

from finetune import cli
from finetune.hosts import output
from tests.test_main import ROOT


class Refusing(io.StringIO):
    """A stream that takes so many writes, and then raises."""

    def __init__(self, error, writes=0):
        super().__init__()
        self.left = [None] * writes
        self.raised = error

    def write(self, text):
        if not self.left:
            raise self.raised
        self.left.pop()
        return super().write(text)


def test_characters_that_a_terminal_lacks_are_spelt():
    beneath = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    print("0.91 ± 0.02 · Zoë − 3×", file=output.Unfailing(beneath), flush=True)
    assert beneath.buffer.getvalue() == b"0.91 +- 0.02 | Zo? - 3x\n"


def test_a_terminal_that_has_them_gets_them():
    beneath = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    print("0.91 ± 0.02 · Zoë", file=output.Unfailing(beneath), flush=True)
    assert beneath.buffer.getvalue().decode() == "0.91 ± 0.02 · Zoë\n"


@pytest.mark.parametrize("error", [BrokenPipeError(), OSError(28, "No space left"), ValueError("closed file")])
def test_a_stream_that_fails_is_not_written_to_any_more(error):
    beneath = Refusing(error, writes=2)
    stream = output.Unfailing(beneath)
    for line in "abc":
        print(line, file=stream)
    assert beneath.getvalue() == "a\n"
    assert stream.error is error


@pytest.mark.parametrize("error", [BrokenPipeError(), OSError(28, "No space left")])
def test_a_table_on_a_stream_that_fails(error, monkeypatch):
    monkeypatch.setattr(sys, "stdout", Refusing(error))
    table = Table("mean ± half")
    table.add_row("0.91±0.02")
    output.Console().print(table)


def test_a_table_on_a_terminal_of_few_characters(monkeypatch):
    beneath = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", beneath)
    table = Table("mean ± half")
    table.add_row("0.91±0.02")
    output.Console().print(table)
    assert "0.91+-0.02" in beneath.buffer.getvalue().decode("ascii")


def test_a_command_whose_output_is_lost_says_so_in_its_status(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", Refusing(OSError(28, "No space left on device")))
    assert cli.run(lambda: print("answer")) == 1
    assert capsys.readouterr().err.startswith("error: standard output cannot be written ([Errno 28] No space left")
    monkeypatch.setattr(sys, "stdout", Refusing(BrokenPipeError()))
    assert cli.run(lambda: print("answer")) == 1
    assert capsys.readouterr().err == ""


def test_a_file_that_cannot_be_read_takes_one_line(tmp_path, capsys):
    assert cli.run(lambda: (tmp_path / "absent" / "trials.jsonl").read_text()) == 2
    expected = f"error: {tmp_path}/absent/trials.jsonl: No such file or directory, allowed: files that can be read and"
    assert capsys.readouterr().err.startswith(expected)


def test_predictions_are_not_spelt_otherwise(monkeypatch):
    beneath = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", output.Unfailing(beneath))
    assert output.exact() is beneath


def test_descriptors_that_are_closed_are_not_given_to_files(tmp_path):
    code = (
        "import os; from finetune.hosts import output; output.guard()\n"
        "print('answer')\n"
        f"raise SystemExit(os.open({str(tmp_path / 'file')!r}, os.O_CREAT | os.O_RDWR))"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    closing = "import os, sys; os.close(1); os.close(2); os.execv(sys.executable, [sys.executable, '-c', sys.argv[1]])"
    done = subprocess.run([sys.executable, "-c", closing, code], env=environment, check=False)
    assert done.returncode >= 3
