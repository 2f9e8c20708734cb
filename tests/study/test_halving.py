"""Searches that stop trials on their way: who is stopped, what of the others changes, and what may be said of it."""

import math
import shutil
import signal

import numpy as np
import pytest

from finetune.analysis.answer import analyse
from finetune.analysis.table.trials import read_study
from finetune.errors import UserError
from finetune.population.train import Entry, Population
from finetune.report import terminal
from finetune.search.halving import Halving
from finetune.study.chunk import snapshot_of
from finetune.study.exploring import explore
from finetune.study.run import run
from tests.helpers import killed
from tests.helpers.studies import document, rows_of


@pytest.fixture(scope="module")
def halved(tmp_path_factory):
    """A search with halving and the same trials without, each trained by the program of one member."""
    directory, (config, search) = tmp_path_factory.mktemp("halving"), killed.halved("loop")
    run(config, directory / "whole", {}, [setting | {"seed": 0} for setting in search.wave(0, [])])
    explore(config, directory / "halved", search)
    return directory / "halved", directory / "whole"


def by_id(workdir):
    return {row["id"]: row for row in rows_of(workdir)}


def out_by_hand(whole):
    """Returns after which epoch each trial of the whole study is out: half after 2 epochs, half of the rest after 4."""
    curves = {}
    for row in rows_of(whole, "curves.jsonl"):
        curves.setdefault(row["id"], []).append(row["val_accuracy"])
    left, out = [row["id"] for row in sorted(rows_of(whole), key=order_of)], {}
    for epoch in (2, 4):
        ranked = sorted(left, key=lambda identity: -max(curves[identity][:epoch]))
        out |= dict.fromkeys(ranked[math.ceil(len(left) / 2) :], epoch)
        left = [identity for identity in left if identity not in out]
    return out


def order_of(row):
    rates = [setting["learning_rate"] for setting in killed.halved()[1].wave(0, [])]
    return rates.index(row["hparams"]["learning_rate"])


def test_the_worse_half_is_stopped_but_for_the_control(halved):
    found, out = by_id(halved[0]), out_by_hand(halved[1])
    for identity, row in found.items():
        control = int(identity, 16) < 16**12 / 4
        assert row["halving"]["control"] == control
        assert (row["halving"]["out"] or {}).get("epoch") == out.get(identity)
        assert row["status"] == ("stopped" if identity in out and not control else "complete")
        assert len([each for each in rows_of(halved[0], "curves.jsonl") if each["id"] == identity]) == (
            out[identity] if row["status"] == "stopped" else 6
        )
    assert {"stopped", "complete"} == {row["status"] for row in found.values()}
    assert any(row["halving"]["control"] and row["halving"]["out"] for row in found.values())


def test_those_that_go_on_are_as_if_nobody_had_been_stopped(halved):
    found, whole = by_id(halved[0]), by_id(halved[1])
    for identity, row in found.items():
        if row["status"] == "complete":
            assert {name: row[name] for name in ("metrics", "best", "last", "steps")} == {
                name: whole[identity][name] for name in ("metrics", "best", "last", "steps")
            }
        else:
            assert (row["metrics"], row["best"]) == ({}, None)
            assert row["reason"].startswith(f"stopped after epoch {row['halving']['out']['epoch']} of 6: number ")
    curves = {(row["id"], row["epoch"]): row for row in rows_of(halved[1], "curves.jsonl")}
    assert all(curves[row["id"], row["epoch"]] == row for row in rows_of(halved[0], "curves.jsonl"))


def test_a_population_shrinks_as_its_trials_stop_and_the_plan_knows_it(halved, tmp_path):
    config, search = killed.halved()
    explore(config, tmp_path / "study", search)
    (group,) = document(tmp_path / "study", "plan.json")["groups"]
    assert group["population_sizes"] == [16, 8]
    summary = document(tmp_path / "study", "summary.json")
    assert (summary["complete"], summary["stopped"]) == (16 - summary["stopped"], summary["stopped"])
    found, alone = by_id(tmp_path / "study"), by_id(halved[0])
    assert {each: row["status"] for each, row in found.items()} == {each: row["status"] for each, row in alone.items()}
    for identity, row in found.items():  # the program of fewer members rounds otherwise
        assert row["last"] == pytest.approx(alone[identity]["last"], rel=1e-5)


def test_the_same_again_trains_nothing_and_a_grid_trains_those_that_were_stopped(halved, tmp_path):
    config, search = killed.halved("loop")
    before = (halved[0] / "trials.jsonl").read_bytes()
    assert explore(config, halved[0], search).exit_status == 0
    assert (halved[0] / "trials.jsonl").read_bytes() == before
    shutil.copytree(halved[0], tmp_path / "study")
    results = run(config, tmp_path / "study", {}, [setting | {"seed": 0} for setting in search.wave(0, [])])
    assert {row["id"]: row["metrics"] for row in results.trials} == {
        identity: row["metrics"] for identity, row in by_id(halved[1]).items()
    }


def test_a_halved_search_that_is_killed_goes_on_to_the_same_bits(halved, tmp_path):
    with killed.served() as run:
        assert run(tmp_path / "killed", "record", 4, searched="halved") == -signal.SIGKILL
        assert {row["status"] for row in rows_of(tmp_path / "killed")} == {"stopped"}
        assert run(tmp_path / "killed", searched="halved") == 0
    for name in ("trials.jsonl", "curves.jsonl"):
        found, expected = (sorted(rows_of(each, name), key=str) for each in (tmp_path / "killed", halved[0]))
        assert found == expected


def test_a_snapshot_holds_no_rows_of_later_epochs():
    """It is written in the background, while training goes on: a rung that is yet to come has said nothing."""
    entry = Entry(None, "a", [{"epoch": 1, "diverged": False}])
    found = snapshot_of(Population(None, [entry], 1, 1), {})
    entry.curve.append({"epoch": 2, "diverged": False, "out": [2, 0.5, 2, 2, 1], "control": False})
    assert [row["epoch"] for row in found.curves[0]] == [1]


def test_what_was_stopped_is_no_result(halved):
    trials = read_study(halved[0])
    stopped = (trials.frame["status"] == "stopped").to_numpy()
    assert stopped.sum() == sum(row["status"] == "stopped" for row in rows_of(halved[0]))
    assert np.isnan(trials.frame["value"][stopped]).all()
    assert trials.design == "adaptive"
    answer = analyse(trials)
    assert len(answer.evidence.stands.order) == (~stopped).sum()
    rows = [row for row in rows_of(halved[0]) if row["halving"]["out"] and row["halving"]["control"]]
    text = "\n".join(answer.headline)
    (line,) = [line for line in answer.headline if line.startswith("Halving: ")]
    assert "\n".join(answer.headline).count("were stopped on their way") == 1
    assert line in " ".join(each.strip() for each in terminal.lines(answer))  # it is not left out for room
    assert (halved[0] / "report.html").exists()
    assert f"{stopped.sum()} of 16 trials were stopped on their way" in text
    assert f"Of the {len(rows)} that would have been and were not" in text


def test_what_cannot_be_halved(tmp_path):
    config, search = killed.halved()
    with pytest.raises(UserError, match="--seeds is 2 with --halving, allowed: 1"):
        explore(config, tmp_path / "seeds", search, seeds=2)
    config.hparams.epochs = 1
    with pytest.raises(UserError, match="--halving_start is 0.3, where no trial of at most 1 epochs can be stopped"):
        explore(config, tmp_path / "epochs", search)
    with pytest.raises(UserError, match="--halving is 1, allowed"):
        explore(config, tmp_path / "rule", search._replace(halving=Halving(1)))
