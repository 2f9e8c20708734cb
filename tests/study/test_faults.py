"""A study that is killed again and again ends as one that was never disturbed."""

import collections
import os
import random
import signal

import pytest

from tests.helpers import killed
from tests.helpers.studies import rows_of

# The largest number of a phase's call at which a process is killed: little enough that trials are left for all kills.
CALLS = {"load": 1, "compile": 1, "trunk": 1, "train": 3, "checkpoint": 4, "record": 3, "summary": 1}


@pytest.fixture
def server():
    with killed.served() as run:
        yield run


def moments(chance):
    """Yields (phase, call, seconds) for ever, each phase as often as the others."""
    while True:
        for phase in chance.sample(sorted(CALLS), len(CALLS)):
            yield phase, chance.randint(1, CALLS[phase]), chance.uniform(0, killed.PHASES[phase][2])


@pytest.mark.slow
@pytest.mark.parametrize("kills", [11, pytest.param(25, marks=pytest.mark.long)])
def test_a_study_killed_many_times(tmp_path, server, kills):
    seed = int(os.environ.get("FAULT_SEED", random.SystemRandom().randrange(10**6)))
    print(f"FAULT_SEED={seed}")
    assert server(tmp_path / "undisturbed") == 0
    hits = collections.Counter()
    for phase, call, seconds in moments(random.Random(seed)):
        status = server(tmp_path / "killed", phase, call, seconds)
        print(f"{phase} call {call} + {1000 * seconds:.1f} ms: exit status {status}")
        assert status == -signal.SIGKILL, "the study ended before it was killed often enough"
        hits[phase] += 1
        if hits.total() == kills - 1:
            break
    assert server(tmp_path / "killed", "report", 1, 0.1) == -signal.SIGKILL  # all trials are done by then
    assert server(tmp_path / "killed") == 0
    assert (tmp_path / "killed" / "report.html").exists()
    assert min(hits[phase] for phase in CALLS) >= (kills - 1) // len(CALLS)

    expected = {row.pop("id"): row for row in rows_of(tmp_path / "undisturbed")}
    found = [(row.pop("id"), row) for row in rows_of(tmp_path / "killed")]
    assert len(found) == len(expected) == 60
    assert dict(found) == expected
    curves = {(row["id"], row["epoch"]): row for row in rows_of(tmp_path / "undisturbed", "curves.jsonl")}
    again = rows_of(tmp_path / "killed", "curves.jsonl")
    assert len(again) == len(curves)
    assert {(row["id"], row["epoch"]): row for row in again} == curves
