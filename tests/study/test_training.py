"""Which parts of a group are tried, and which trials end failed: of a group that is faked, and of studies."""

from types import SimpleNamespace

import jax
import pytest

from finetune.errors import OutOfMemory, UserError
from finetune.study import run, training
from finetune.study.chunk import Chunk
from finetune.study.training import train_group
from tests.helpers.studies import by_id, document, rows_of, saved_at_once


class Fake:
    """Work on trials named by letters, whose chunks of `fitting` train, but for one trial that raises `error`."""

    def __init__(self, names="abcdefgh", fitting=8, culprit="", error=ValueError, preparing=None):
        self.group = self.of(dict.fromkeys(names), 0)
        self.fitting, self.culprit, self.error, self.preparing = fitting, culprit, error, preparing
        self.prepared, self.tried, self.done, self.failed, self.shrunk, self.endings = [], [], [], {}, [], 0

    def of(self, trials, size):
        return SimpleNamespace(
            trials=trials, execution=SimpleNamespace(size=size), is_measured=size > 0,
            _replace=lambda trials: self.of(trials, size),
        )  # fmt: skip

    def left(self, trials):
        return {name: None for name in trials if name not in self.done and name not in self.failed}

    def prepare(self, group, most):
        names = "".join(group.trials)
        self.prepared.append((names, most))
        if self.preparing:
            self.preparing(names)
        size = min(most or len(names), len(names))
        ready = self.of(group.trials, size)
        return [Chunk(ready, dict.fromkeys(names[i : i + size])) for i in range(0, len(names), size)]

    def train(self, chunk):
        names = "".join(chunk.trials)
        self.tried.append(names)
        if chunk.group.execution.size > self.fitting:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: 1 byte")
        if self.culprit and self.culprit in names:
            raise self.error("it breaks")
        self.done += names

    def fail(self, group, trials, error):
        self.failed |= dict.fromkeys(trials, error)

    def shrink(self, size, smaller):
        self.shrunk.append((size, smaller))

    def ended(self):
        self.endings += 1


def test_all_train_in_the_chunks_that_were_prepared():
    work = Fake()
    train_group(work.group, 3, work)
    assert work.tried == ["abc", "def", "gh"]
    assert (work.prepared, work.failed, work.endings) == ([("abcdefgh", 3)], {}, 3)


def test_one_that_raises_is_found_by_halves_of_one_program():
    work = Fake(culprit="f")
    train_group(work.group, 0, work)
    assert work.tried == ["abcdefgh", "abcd", "efgh", "ef", "e", "f", "gh"]
    assert {name: str(error) for name, error in work.failed.items()} == {"f": "it breaks"}
    assert sorted(work.done) == list("abcdegh")
    assert work.prepared == [("abcdefgh", 0)]


def test_chunks_are_halved_until_they_fit_and_stay_small():
    work = Fake(fitting=2)
    train_group(work.group, 0, work)
    assert work.prepared == [("abcdefgh", 0), ("abcdefgh", 4), ("abcdefgh", 2)]
    assert work.tried == ["abcdefgh", "abcd", "ab", "cd", "ef", "gh"]
    assert (work.shrunk, work.failed, work.endings) == ([(8, 4), (4, 2)], {}, 4)


def test_what_is_done_is_not_prepared_again():
    work = Fake()
    train = work.train

    def later(chunk):
        if "c" in chunk.trials:
            work.fitting = 1
        train(chunk)

    work.train = later
    train_group(work.group, 2, work)
    assert work.prepared == [("abcdefgh", 2), ("cdefgh", 1)]
    assert work.tried == ["ab", "cd", *"cdefgh"]


def test_memory_that_does_not_suffice_for_one():
    work = Fake("abc", fitting=0)
    train_group(work.group, 0, work)
    assert work.shrunk == [(3, 2), (2, 1)]
    assert list(work.failed) == ["a", "b", "c"]


def raising(error, culprit=""):
    """Returns what raises for names among which is the culprit."""

    def prepare(names):
        if culprit in names:
            raise error

    return prepare


def test_what_one_member_needs_too_much_of_fails_all_at_once():
    work = Fake(preparing=raising(OutOfMemory("one member needs more")))
    train_group(work.group, 0, work)
    assert len(work.prepared) == 1
    assert {type(error) for error in work.failed.values()} == {MemoryError}
    assert len(work.failed) == 8


def test_what_raises_before_a_program_runs_is_the_fault_of_all():
    work = Fake(preparing=raising(TypeError("no such argument")))
    train_group(work.group, 0, work)
    assert (len(work.prepared), len(work.failed), work.tried) == (1, 8, [])


def test_what_a_program_raises_while_it_is_measured_is_one_trials():
    work = Fake("abcd", preparing=raising(jax.errors.JaxRuntimeError("a callback"), "c"))
    train_group(work.group, 0, work)
    assert [names for names, _ in work.prepared] == ["abcd", "ab", "cd", "c", "d"]
    assert list(work.failed) == ["c"]
    assert work.done == ["a", "b", "d"]


def test_what_the_user_can_mend_is_raised():
    work = Fake(culprit="c", error=UserError)
    with pytest.raises(UserError, match="it breaks"):
        train_group(work.group, 0, work)
    assert work.failed == {}


class Culprit:
    """`train_chunk`, which cannot train trials with one learning rate."""

    def __init__(self, error):
        self.error, self.sizes, self.train_chunk = error, [], training.train_chunk

    def __call__(self, group, population, *rest):
        self.sizes.append(population.size)
        if any(entry.trial.hparams["learning_rate"] == 0.03 for entry in population.places):
            raise self.error
        return self.train_chunk(group, population, *rest)


def test_a_trial_that_raises_fails_alone_and_is_tried_once_more(tmp_path, monkeypatch, capsys):
    axes = {"learning_rate": [0.003, 0.01, 0.03], "epochs": [1, 2, 4], "seed": [0]}
    with monkeypatch.context() as patch:
        patch.setattr(training, "train_chunk", Culprit(ValueError("a callback\nin two lines")))
        results = run.run(saved_at_once(), tmp_path / "study", axes)
    assert results.exit_status == 1
    rows = by_id(tmp_path / "study").values()
    failed = [row for row in rows if row["status"] == "failed"]
    assert {row["hparams"]["learning_rate"] for row in failed} == {0.03}
    assert [(row["reason"], row["attempts"]) for row in failed] == [("ValueError: a callback", 1)] * 3
    assert len(rows) == 9
    assert document(tmp_path / "study", "summary.json")["failed"] == 3
    assert f"trial {failed[0]['id']} failed: ValueError: a callback" in capsys.readouterr().out

    with monkeypatch.context() as patch:
        patch.setattr(training, "train_chunk", Culprit(ValueError("again")))
        assert run.run(saved_at_once(), tmp_path / "study", axes).exit_status == 1
        patch.setattr(training, "train_chunk", pytest.fail)
        assert run.run(saved_at_once(), tmp_path / "study", axes).exit_status == 1  # twice is enough
    results = run.run(saved_at_once(), tmp_path / "study", axes, retry=True)
    assert (results.exit_status, len(results.trials)) == (0, 9)
    assert {row["status"] for row in by_id(tmp_path / "study").values()} == {"complete"}


def test_fail_fast_raises_what_the_trial_raises(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "train_chunk", Culprit(ValueError("a callback")))
    axes = {"learning_rate": [0.03, 0.003], "seed": [0]}
    with pytest.raises(ValueError, match="a callback"):
        run.run(saved_at_once(), tmp_path / "study", axes, fail_fast=True)
    assert [row["status"] for row in rows_of(tmp_path / "study")][-1] == "failed"


def test_memory_that_never_suffices(tmp_path, monkeypatch):
    culprit = Culprit(jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes"))
    monkeypatch.setattr(training, "train_chunk", culprit)
    config = saved_at_once()
    results = run.run(config, tmp_path / "study", {"learning_rate": [0.003, 0.03], "seed": [0, 1]})
    assert results.exit_status == 1
    assert culprit.sizes[:3] == [4, 2, 2] or culprit.sizes[:2] == [4, 2]
    reasons = {(row["hparams"]["learning_rate"], row["status"], row["reason"]) for row in rows_of(tmp_path / "study")}
    assert reasons == {(0.003, "complete", None), (0.03, "failed", "out of memory")}
    assert config.execution.chunk == 0
