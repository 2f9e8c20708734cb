"""Trials that start from the best of others: equal to runs by hand, through a crash, an extension, and lost weights."""

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from finetune.config import Config
from finetune.data.dataset import Dataset
from finetune.errors import UserError
from finetune.member.objective import Target
from finetune.member.params import abstract, partition, unflatten
from finetune.member.step import Shared
from finetune.population import train
from finetune.storage import checkpoint
from finetune.study import run, traits
from finetune.study.problem import Subject
from finetune.trials import parents
from finetune.trials.grid import make_trials
from tests.helpers import tasks
from tests.helpers.studies import rows_of
from tests.helpers.training import relative, train_member

EXAMPLES, BATCH, EPOCHS = 12, 4, 3
STEM = ("stem/bias", "stem/kernel")  # has pretrained weights; block_0 starts from `base` without being pretrained
CHAINS = ["head>last:1>all", "head", "all", "head>last:1"]
AXES: dict[str, Any] = {"trainable": CHAINS, "learning_rate": [0.02, 0.1], "seed": [0, 1]}
SAID: list[str] = []


def settings(mode: str = "vmap", keep: int = 100, devices: int = 1) -> Config:
    config = Config()
    config.execution.mode, config.execution.epochs_on_device, config.execution.devices = mode, "scan", devices
    config.hparams.batch_size, config.hparams.epochs, config.hparams.l2_sp = BATCH, EPOCHS, 0.1
    config.evaluation.metric, config.trunk.mode, config.trunk.store_gigabytes = "loss", "cached", 0.0
    config.checkpoint.keep, config.checkpoint.interval_seconds = keep, 0.0
    return config


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, float64: None) -> None:
    """Studies are of `tasks.mlp()`, and nothing is drawn; what they tell goes to SAID."""
    task = tasks.mlp()
    split = tasks.data(EXAMPLES)
    dataset = Dataset(split, split, split, ("a", "b", "c"), "content")
    found = Subject(
        task=task, shapes=abstract(task), base=tasks.base_leaves(task), pretrained=frozenset(STEM), dataset=dataset,
        architecture={}, tokenizer=None, description={"model": "mlp"}, target=Target(0.0, 1.0), metric="loss",
        larger_is_better=True, traits=traits.NONE,
    )  # fmt: skip
    monkeypatch.setattr(run, "load", lambda config, task, own: found)
    monkeypatch.setattr(run.reporting.Reporting, "update", lambda self: None)
    monkeypatch.setattr(run.reporting.Reporting, "end", lambda self: None)
    monkeypatch.setattr(run.reporting, "show", lambda answer: None)
    SAID.clear()
    monkeypatch.setattr(run, "tell", SAID.append)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The work directory of a study that was never stopped, filled by the first test that asks for it."""
    workdir = tmp_path_factory.mktemp("whole") / "study"

    def trained() -> Any:
        if not workdir.exists():
            run.run(settings(), workdir, AXES)
        return workdir

    return trained


def rows(workdir: Any) -> dict[tuple[str, float, int], dict[str, Any]]:
    found = rows_of(workdir)
    assert len({row["id"] for row in found}) == len(found)
    keys = [(row["hparams"]["trainable"], row["hparams"]["learning_rate"], row["seed"]) for row in found]
    return dict(zip(keys, found, strict=True))


def alone(stage: str, rate: float, seed: int, start: dict[str, Any]) -> tuple[float, dict[str, Any]]:
    """Returns (validation loss, leaves) at the best epoch of one member that is stepped by hand from `start`."""
    recipe = tasks.make_recipe(tasks.mlp(), stage, EXAMPLES, BATCH)
    base = jax.tree.map(jnp.asarray, tasks.base_leaves(recipe.task))
    trained, frozen = partition(base, frozenset(recipe.paths))
    shared = Shared(frozen, {path: leaf for path, leaf in trained.items() if path in STEM})
    member = tasks.start(recipe, shared, learning_rate=rate, seed=seed, batch_size=BATCH, epochs=EPOCHS, l2_sp=0.1)
    if start:
        member = member._replace(params={**trained, **start})
    split, history = tasks.data(EXAMPLES), train_member(recipe, shared, member, EPOCHS)
    best = (np.inf, {})
    for after in history[EXAMPLES // BATCH :: EXAMPLES // BATCH]:
        outputs = recipe.task.apply(unflatten({**frozen, **after.params}), split, 0.0, None)
        loss = float(recipe.task.loss(outputs, split, jnp.zeros(())).mean())
        best = min(best, (loss, after.params), key=lambda pair: pair[0])
    return best


def test_each_stage_equals_a_run_by_hand_from_the_best_of_the_stage_before(whole: Any) -> None:
    found = rows(whole())
    assert len(found) == 16
    for seed in (0, 1):
        start: dict[str, Any] = {}
        parent = None
        for length, stage in enumerate(("head", "last:1", "all")):
            chain = ">".join(("head", "last:1", "all")[: length + 1])
            by_hand = {rate: alone(stage, rate, seed, start) for rate in AXES["learning_rate"]}
            for rate, (loss, leaves) in by_hand.items():
                row = found[chain, rate, seed]
                assert row.get("parent") == parent
                assert row["metrics"]["val_loss"] == pytest.approx(loss, rel=1e-10)
                kept = checkpoint.load(whole() / "checkpoints" / "trials" / row["id"] / "best")
                assert kept.keys() == leaves.keys()
                assert max(relative(kept[path], leaves[path]) for path in leaves) < 1e-10
            best = min(by_hand, key=lambda rate: by_hand[rate][0])
            start, parent = by_hand[best][1], found[chain, best, seed]["id"]


@pytest.mark.parametrize("mode, devices", [("loop", 1), ("vmap", 2), ("vmap", 4)])  # 2 members: split, or their batches
def test_members_in_a_loop_or_over_devices_do_the_same(whole: Any, tmp_path: Any, mode: str, devices: int) -> None:
    axes = {**AXES, "trainable": ["head", "head>last:1"], "seed": [1]}
    run.run(settings(mode, devices=devices), tmp_path / "study", axes)
    for key, row in rows(tmp_path / "study").items():
        expected = rows(whole())[key]
        assert row.get("parent") == expected.get("parent")
        assert row["metrics"] == pytest.approx(expected["metrics"], rel=1e-10)


class Crash(BaseException):
    """Ends a run as a signal that cannot be caught does."""


@pytest.mark.parametrize("calls", [2, 7, 10])  # epochs: 3 of all, 3 of head, 3 of head>last:1, 3 of the longest
def test_a_study_left_in_any_stage_ends_as_if_it_had_not_been(
    whole: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    undisturbed = whole()
    train_epoch, left = train._train_epoch, iter(range(calls))

    def counted(*arguments: Any) -> Any:
        if next(left, None) is None:
            raise Crash
        return train_epoch(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(train, "_train_epoch", counted)
        with pytest.raises(Crash):
            run.run(settings(keep=0), tmp_path / "study", AXES)
    run.run(settings(keep=0), tmp_path / "study", AXES)
    assert rows(tmp_path / "study") == rows(undisturbed)
    assert not list((tmp_path / "study" / "checkpoints" / "trials").iterdir())  # no chain needs any of them
    assert not SAID


def check_same(found: dict[Any, dict[str, Any]], whole: dict[Any, dict[str, Any]]) -> None:
    """Checks rows of seed 1 against those of a study that was trained at once."""
    assert found.keys() <= whole.keys()
    for key, row in found.items():
        for name in ("id", "parent", "ancestors", "status", "steps"):
            assert row.get(name) == whole[key].get(name)
        assert row["metrics"] == pytest.approx(whole[key]["metrics"], rel=1e-10)


def rates(stages: int, *values: float) -> dict[str, Any]:
    """Returns axes of seed 1 whose chains have up to so many stages; of AXES, head is better at 0.1."""
    chains = ["head", "head>last:1", "head>last:1>all"][:stages]
    return {"trainable": chains, "learning_rate": list(values), "seed": [1]}


def test_a_later_extension_ends_as_if_all_had_been_asked_for_at_once(whole: Any, tmp_path: Any) -> None:
    undisturbed, workdir = whole(), tmp_path / "study"
    run.run(settings(), workdir, rates(3, 0.02))
    before = rows(workdir)
    run.run(settings(), workdir, rates(3, 0.02, 0.1))
    after = rows(workdir)
    assert len(after) == 6
    check_same(after, rows(undisturbed))
    assert all(after[key]["id"] == row["id"] for key, row in before.items())
    assert after["head>last:1", 0.02, 1]["metrics"] != before["head>last:1", 0.02, 1]["metrics"]
    again = [after["head>last:1", 0.02, 1]["id"], after["head>last:1>all", 0.02, 1]["id"]]
    assert [line.split(": ")[0] for line in SAID] == [f"trial {identity} is trained again" for identity in again]
    curves = [(row["id"], row["epoch"]) for row in rows_of(workdir, "curves.jsonl")]
    assert sorted(curves) == sorted((row["id"], epoch) for row in after.values() for epoch in (1, 2, 3))
    for trial in (workdir / "checkpoints" / "trials").iterdir():  # what is kept is what was trained last
        kept = checkpoint.load(undisturbed / "checkpoints" / "trials" / trial.name / "best")
        for path, leaf in checkpoint.load(trial / "best").items():
            assert relative(leaf, kept[path]) < 1e-10


def test_an_extension_that_is_no_better_trains_nothing_again(tmp_path: Any) -> None:
    run.run(settings(), tmp_path / "study", rates(2, 0.1))
    before = rows(tmp_path / "study")
    run.run(settings(), tmp_path / "study", rates(2, 0.02, 0.1))
    after = rows(tmp_path / "study")
    assert not SAID
    assert len(after) == 4
    assert {key: after[key] for key in before} == before


def test_a_parent_whose_weights_are_gone_is_trained_again(tmp_path: Any) -> None:
    run.run(settings(keep=0), tmp_path / "study", rates(2, 0.1))
    before = rows(tmp_path / "study")
    run.run(settings(keep=0), tmp_path / "study", rates(2, 0.02, 0.1))
    after = rows(tmp_path / "study")
    assert len(SAID) == 1
    assert before["head>last:1", 0.1, 1]["parent"] in SAID[0]
    assert {key: after[key]["metrics"] for key in before} == {key: row["metrics"] for key, row in before.items()}
    assert after["head>last:1", 0.02, 1]["parent"] == before["head>last:1", 0.1, 1]["parent"]


def test_a_smaller_study_starts_from_what_it_holds_itself(tmp_path: Any) -> None:
    run.run(settings(keep=0), tmp_path / "study", rates(2, 0.02, 0.1))
    parent = rows(tmp_path / "study")["head>last:1", 0.02, 1]["parent"]
    run.run(settings(keep=0), tmp_path / "study", rates(2, 0.02))
    run.run(settings(keep=0), tmp_path / "alone", rates(2, 0.02))
    found, alone = (rows(tmp_path / name)["head>last:1", 0.02, 1] for name in ("study", "alone"))
    assert found["parent"] == alone["parent"] != parent
    assert found["metrics"] == pytest.approx(alone["metrics"], rel=1e-10)


def test_what_was_on_its_way_from_another_parent_starts_again(
    whole: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed, train_epoch, left = whole(), train._train_epoch, iter(range(4))

    def counted(*arguments: Any) -> Any:
        if next(left, None) is None:
            raise Crash
        return train_epoch(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(train, "_train_epoch", counted)
        with pytest.raises(Crash):
            run.run(settings(), tmp_path / "study", rates(2, 0.02))
    run.run(settings(), tmp_path / "study", rates(2, 0.02, 0.1))
    check_same(rows(tmp_path / "study"), rows(undisturbed))


def test_a_trial_without_one_to_start_from_fails_and_says_why(tmp_path: Any) -> None:
    def by_l2() -> dict[tuple[str, float], dict[str, Any]]:
        return {(row["hparams"]["trainable"], row["hparams"]["l2"]): row for row in rows_of(tmp_path / "study")}

    axes: dict[str, Any] = {"trainable": ["head", "head>all"], "l2": [1e308]}  # its first gradient has no finite norm
    run.run(settings(), tmp_path / "study", axes)
    assert by_l2()["head", 1e308]["status"] == "diverged"
    child = by_l2()["head>all", 1e308]
    assert child["status"] == "failed"
    assert child["reason"].endswith("no trial of trainable 'head' with seed 0 and data_seed 0 has a result")
    run.run(settings(), tmp_path / "study", {**axes, "l2": [0.0, 1e308]})  # with one that has: it is tried again
    good = by_l2()["head", 0.0]["id"]
    assert by_l2()["head>all", 0.0]["parent"] == good
    assert by_l2()["head>all", 1e308]["parent"] == good


def test_a_plan_needs_no_parents(tmp_path: Any) -> None:
    run.run(settings(), tmp_path / "study", AXES, plan_only=True)
    groups = json.loads((tmp_path / "study" / "plan.json").read_text())["groups"]
    assert [group["signature"]["trainable"] for group in groups] == ["head", "all", "head>last:1", "head>last:1>all"]
    assert not (tmp_path / "study" / "trials.jsonl").exists()


def test_a_chain_without_its_first_stages_is_refused() -> None:
    def check(axes: dict[str, Any], *sweep: dict[str, Any]) -> None:
        parents.checked(make_trials(Config(), axes, sweep or ({},)))

    check({"trainable": ["head>all", "head"], "seed": [0, 1]})
    with pytest.raises(UserError, match="'head>last:1>all', which starts from .*'head,head>last:1,head>last:1>all'"):
        check({"trainable": ["head", "head>last:1>all"]})
    with pytest.raises(UserError, match="there is none with seed 1 and data_seed 0"):
        check({}, {"trainable": "head", "seed": 0}, {"trainable": "head>all", "seed": 1})


def test_the_parent_is_the_best_with_a_result_and_of_equals_the_first() -> None:
    trials = make_trials(Config(), {"trainable": ["head", "head>all"], "learning_rate": [1, 2, 3], "seed": [0, 1]})
    ids = {f"{trial.choices['trainable']} {trial.hparams['learning_rate']:g} {trial.hparams['seed']}": trial
           for trial in trials}  # fmt: skip
    found = parents.find(ids)
    values = {"head 1 0": 0.3, "head 2 0": 0.5, "head 3 0": 0.5, "head 2 1": 0.9, "head>all 1 0": 2.0}
    assert found.parent("head>all 3 0", values) == "head 2 0"
    assert found.parent("head>all 3 1", values) == "head 2 1"
    assert found.parent("head>all 3 1", {"head 2 0": 1.0}) is None
    assert found.needed(values, []) == {"head 2 0", "head 2 1"}
    assert found.families(["head 1 0", "head 2 0", "head>all 1 0"]) == 1
    assert found.families(ids) == 2
    assert found.needed(values, ["head>all 1 1", "head>all 2 1", "head>all 3 1"]) == {"head 2 0"}
