"""The minutes of a search: which waves begin, and what is remembered of them."""

from types import SimpleNamespace

import pytest

from finetune.errors import UserError
from finetune.storage import records
from finetune.study import budget
from finetune.study.budget import Budget


@pytest.fixture
def clock(monkeypatch):
    found = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(budget, "time", SimpleNamespace(monotonic=lambda: found.now))
    return found


def planned(workdir):
    """Ten runs take 60 s, and the report 12."""
    groups = [{"trials": 8, "seconds": 50.0}, {"trials": 2, "seconds": 10.0}]
    records.write(workdir / "plan.json", {"groups": groups, "seconds_by_part": {"report": 12.0}})
    return workdir / "search.json"


def test_a_wave_begins_that_ends_in_time(tmp_path, clock):
    time = Budget(2.0, planned(tmp_path))
    assert time.possible_runs() == 18  # (120 - 12) / 6
    clock.now += 48.0
    assert time.fits(1, 10)  # 60 s are left
    clock.now += 1.0
    assert not time.fits(1, 10)
    assert Budget(None, tmp_path / "search.json").fits(1, 10**9)


def test_what_was_spent_counts_and_what_is_done_is_not_asked(tmp_path, clock):
    time = Budget(2.0, planned(tmp_path))
    clock.now += 100.0
    time.ended(0)
    clock.now += 50.0
    time.ended(1)
    again = Budget(2.0, tmp_path / "search.json")
    assert again.seconds == 150.0
    assert again.fits(1, 10)
    assert not again.fits(2, 1)
    assert Budget(4.0, tmp_path / "search.json").fits(2, 13)  # 240 - 12 - 150 s for runs of 6 s
    assert not Budget(4.0, tmp_path / "search.json").fits(2, 14)


@pytest.mark.parametrize(
    "minutes, waves, line",
    [
        (0.0, 4, "--minutes is 0, allowed: more than 0"),
        (-1.0, 4, "--minutes is -1"),
        (float("nan"), 4, "--minutes is nan"),
        (5.0, 1, "--minutes is 5 with --waves=1, allowed: 2 or more waves"),
    ],
)
def test_budgets_that_are_none(minutes, waves, line):
    with pytest.raises(UserError, match=line):
        budget.check(minutes, waves)
