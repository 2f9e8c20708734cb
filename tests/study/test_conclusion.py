"""A finished study that is started again: nothing is read or drawn that has not changed."""

import pytest

from finetune import report
from finetune.storage import records
from finetune.study import run
from tests.helpers import studies
from tests.helpers.large import axes, make

TRIALS, EPOCHS = 20, 4


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """The work directory of a finished study, whose report is of another one."""
    workdir = tmp_path_factory.mktemp("large") / "study"
    make(workdir, TRIALS, EPOCHS)
    return workdir


def again(workdir):
    return run.run(studies.digits(), workdir, axes(TRIALS, EPOCHS))


def answer(capsys):
    """Returns what was printed below the table of settings."""
    return capsys.readouterr().out.rpartition("trials (")[2].splitlines()[1:]


@pytest.fixture
def read(monkeypatch):
    """The names of the files whose lines are read."""
    names = []
    each = records.each
    monkeypatch.setattr(records, "each", lambda path: names.append(path.name) or each(path))
    return names


@pytest.fixture
def drawn(monkeypatch):
    """An item for each report that is drawn."""
    reports = []
    write = report.write
    monkeypatch.setattr(report, "write", lambda *arguments: reports.append(arguments) or write(*arguments))
    return reports


def test_with_nothing_to_do_no_curve_is_read_and_nothing_is_drawn(workdir, capsys, read, drawn):
    again(workdir)
    expected = answer(capsys)
    assert len(drawn) == 1
    before = {name: (workdir / name).read_bytes() for name in ("report.html", "curves.jsonl", "summary.json")}
    read.clear()
    results = again(workdir)
    assert len(results.trials) == TRIALS
    assert "curves.jsonl" not in read
    assert len(drawn) == 1
    assert {name: (workdir / name).read_bytes() for name in before} == before
    assert answer(capsys) == expected
    assert expected[-1] == f"Report: {workdir}/report.html"


@pytest.mark.parametrize("name", ["curves.jsonl", "plan.json"])
def test_what_has_changed_is_drawn_again(workdir, name, capsys, drawn):
    content = bytearray((workdir / name).read_bytes())
    content[len(content) // 2] ^= 1
    (workdir / name).write_bytes(content)
    again(workdir)
    assert len(drawn) == 1
    told = capsys.readouterr().out
    assert ("curves.jsonl: 1 damaged lines dropped" in told) == (name == "curves.jsonl")
    again(workdir)
    assert len(drawn) == 1


def test_another_version_draws_again(workdir, drawn, monkeypatch):
    monkeypatch.setattr("finetune.hosts.versions.__version__", "0.0.0")
    again(workdir)
    assert len(drawn) == 1
