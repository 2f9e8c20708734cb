"""A study that is left in the middle, damaged or short of disk, and started again."""

import errno
import json
import random
import shutil

import pytest

from finetune.errors import UserError
from finetune.population import train
from finetune.storage import checkpoint, manifest, records, snapshot
from finetune.study import ledger, run, training
from finetune.trials import grid
from tests.helpers.studies import by_id, close, document, rows_of, saved_at_once

AXES = {"learning_rate": [0.003, 0.03], "epochs": [1, 2, 4], "seed": [0, 1]}


class Crash(BaseException):
    """Ends a run as a signal that cannot be caught does: nothing is written after it."""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The work directory of a study that was never stopped."""
    workdir = tmp_path_factory.mktemp("undisturbed") / "study"
    run.run(saved_at_once(), workdir, AXES)
    return workdir


def crash_after(monkeypatch, owner, name, calls):
    """Arranges that the call after so many of a function ends the run."""
    function, left = getattr(owner, name), iter(range(calls))

    def counted(*arguments, **options):
        if next(left, None) is None:
            raise Crash
        return function(*arguments, **options)

    monkeypatch.setattr(owner, name, counted)


def crashed(workdir, monkeypatch, owner=train, name="_train_epoch", calls=3, config=None):
    """A work directory whose study was left in its fourth epoch, or where it is said."""
    with monkeypatch.context() as patch:
        crash_after(patch, owner, name, calls)
        with pytest.raises(Crash):
            run.run(config or saved_at_once(), workdir, AXES)
    return workdir


def same(workdir, undisturbed):
    """Checks that two studies have the same results to the bit, and no row twice."""
    assert by_id(workdir) == by_id(undisturbed)
    curves = [
        {(row["id"], row["epoch"]): row for row in rows_of(each, "curves.jsonl")} for each in (workdir, undisturbed)
    ]
    assert curves[0] == curves[1]
    assert len(rows_of(workdir, "curves.jsonl")) == len(curves[0])


def test_what_was_running_goes_on_to_the_same_bits(tmp_path, undisturbed, monkeypatch):
    workdir = crashed(tmp_path / "study", monkeypatch)
    assert len(rows_of(workdir)) == 8  # after two of four epochs
    epochs = []
    train_epoch = train._train_epoch
    monkeypatch.setattr(train, "_train_epoch", lambda *each: epochs.append(each[1].epoch) or train_epoch(*each))
    run.run(saved_at_once(), workdir, AXES)
    assert epochs in ([2, 3], [3])  # the snapshot of the third epoch may not have been on the disk
    same(workdir, undisturbed)
    assert not (workdir / "checkpoints" / "population").exists()


def test_training_left_within_an_epoch(tmp_path, undisturbed, monkeypatch):
    monkeypatch.setattr(training, "steps_a_call", lambda group: 1)
    workdir = crashed(tmp_path / "study", monkeypatch, training.Training, "_pause", 4)
    found = snapshot.newest(workdir, pytest.fail)
    assert (found.epoch, found.micro_batches) in ((1, 1), (1, 0), (2, 0))
    run.run(saved_at_once(), workdir, AXES)
    same(workdir, undisturbed)


def test_a_study_left_while_it_records(tmp_path, undisturbed, monkeypatch):
    workdir = crashed(tmp_path / "study", monkeypatch, records, "append", 4)
    run.run(saved_at_once(), workdir, AXES)
    same(workdir, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize(
    "execution", [{"mode": "loop", "chunk": 6}, {"mode": "vmap", "chunk": 5}], ids=["loop", "chunks"]
)
def test_other_ways_to_run_resume_to_the_same_bits(tmp_path, monkeypatch, execution):
    config = saved_at_once(**execution)
    run.run(config, tmp_path / "undisturbed", AXES)
    workdir = crashed(tmp_path / "study", monkeypatch, calls=4, config=config)
    run.run(config, workdir, AXES)
    same(workdir, tmp_path / "undisturbed")


@pytest.mark.slow
@pytest.mark.parametrize("before, after", [(2, 1), (1, 2), (0, 1)])
def test_another_number_of_devices(tmp_path, undisturbed, monkeypatch, before, after):
    workdir = crashed(tmp_path / "study", monkeypatch, config=saved_at_once(devices=before))
    epochs = []
    train_epoch = train._train_epoch
    monkeypatch.setattr(train, "_train_epoch", lambda *each: epochs.append(each[1].epoch) or train_epoch(*each))
    run.run(saved_at_once(devices=after), workdir, AXES)
    assert epochs[0] >= 2
    found, expected = by_id(workdir), by_id(undisturbed)
    assert found.keys() == expected.keys()
    for identity, row in found.items():  # the best epoch may be another one of equals
        assert row["steps"] == expected[identity]["steps"]
        assert row["last"] == pytest.approx(expected[identity]["last"], rel=1e-5)


def test_a_grid_extended_while_it_runs(tmp_path, undisturbed, monkeypatch):
    workdir = crashed(tmp_path / "study", monkeypatch)
    run.run(saved_at_once(), workdir, AXES | {"seed": [0, 1, 2]})
    found = by_id(workdir)
    assert len(found) == 18
    assert by_id(undisturbed).items() <= found.items()


@pytest.mark.parametrize("name", ["members", "table.json", "manifest.json"])
def test_a_damaged_snapshot_is_told_and_the_one_before_is_used(tmp_path, undisturbed, monkeypatch, capsys, name):
    workdir = crashed(tmp_path / "study", monkeypatch)
    directory = workdir / "checkpoints" / "population"
    newest = sorted(directory.iterdir())[-1]
    file = newest / name
    file = (
        file
        if file.is_file()
        else max((each for each in file.rglob("*") if each.is_file()), key=lambda e: e.stat().st_size)
    )
    file.write_bytes(file.read_bytes()[:-3])
    run.run(saved_at_once(), workdir, AXES)
    assert f"{newest} is not used: " in capsys.readouterr().out
    same(workdir, undisturbed)


def test_a_failed_save_of_a_snapshot_ends_with_one_line(tmp_path, undisturbed, monkeypatch):
    describe = manifest.describe

    def full(file):
        if "population" in str(file):
            raise OSError(errno.ENOSPC, "No space left on device")
        return describe(file)

    with monkeypatch.context() as patch:
        patch.setattr(manifest, "describe", full)
        with pytest.raises(UserError, match="cannot be written .No space left on device., allowed: a disk with space"):
            run.run(saved_at_once(), tmp_path / "study", AXES)
    run.run(saved_at_once(), tmp_path / "study", AXES)
    same(tmp_path / "study", undisturbed)


def damage(content, chance, how):
    place = chance.randrange(len(content))
    if how == "truncated":
        return content[:place]
    return content[:place] + bytes([content[place] ^ 1 << chance.randrange(8)]) + content[place + 1 :]


@pytest.mark.parametrize("how", ["truncated", "flipped"])
@pytest.mark.parametrize("name", ["trials.jsonl", "curves.jsonl", "plan.json", "config.json", "summary.json"])
def test_a_damaged_file_of_results_is_noticed(tmp_path, undisturbed, how, name):
    """20 times: what a study reads when it starts is what was there, or less."""
    chance = random.Random(f"{name} {how}")
    expected = {key: rows_of(undisturbed, key) for key in ("trials.jsonl", "curves.jsonl")}
    config, trials = saved_at_once(), by_id(undisturbed)
    ids = {each: grid.from_row(row["hparams"]) for each, row in trials.items()}
    for _ in range(20):
        workdir = tmp_path / "study"
        shutil.rmtree(workdir, ignore_errors=True)
        shutil.copytree(undisturbed, workdir, ignore=shutil.ignore_patterns("checkpoints"))
        content = damage((workdir / name).read_bytes(), chance, how)
        (workdir / name).write_bytes(content)
        told = []
        found = ledger.Ledger(workdir, config.checkpoint, ids, False, told.append)
        assert found.done.items() <= {each: _without(row) for each, row in trials.items()}.items()
        for key, rows in expected.items():
            left = records.read(workdir / key)
            assert all(row in [_without(each) for each in rows] for row in left)
        if name.endswith(".json"):
            assert len(found.done) == len(trials)
            _check_document(workdir / name, undisturbed / name)
        elif how == "flipped" and len(records.read(workdir / name)) < len(expected[name]):
            assert any(name in line for line in told)


def _without(row):
    return {key: value for key, value in row.items() if key != "crc32"}


def _check_document(file, original):
    """Checks that a document is read as it was, or not at all."""
    try:
        found = records.read_document(file)
    except UserError:
        return
    if not file.exists():  # dropped
        return
    assert found == _without(json.loads(original.read_text())) or file.stat().st_size == 0


@pytest.mark.parametrize("name", ["trials.jsonl", "plan.json", "config.json", "summary.json"])
def test_a_study_repairs_itself(tmp_path, undisturbed, name, capsys):
    workdir = shutil.copytree(undisturbed, tmp_path / "study")
    content = bytearray((workdir / name).read_bytes())
    content[len(content) // 2] ^= 1
    (workdir / name).write_bytes(bytes(content))
    run.run(saved_at_once(), workdir, AXES)
    close(rows_of(workdir), rows_of(undisturbed), 1e-5)
    if name != "summary.json":
        assert name in capsys.readouterr().out
    assert records.is_whole(workdir / "summary.json")
    assert document(workdir, "summary.json")["complete"] == 12


def test_damaged_weights_are_told_and_can_be_trained_again(tmp_path, undisturbed, capsys):
    workdir = shutil.copytree(undisturbed, tmp_path / "study")
    base = workdir / "checkpoints" / "base" / "manifest.ocdbt"
    base.write_bytes(base.read_bytes()[:-1])
    trial = sorted((workdir / "checkpoints" / "trials").iterdir())[0]
    (trial / "best" / "_METADATA").write_text("{")
    run.run(saved_at_once(), workdir, AXES)
    output = capsys.readouterr().out.replace("\n", "")
    assert "checkpoints/base was damaged (manifest.ocdbt has changed) and is written again" in output
    assert f"{trial} is removed: _METADATA has changed" in output
    assert rows_of(workdir) == rows_of(undisturbed)

    config = saved_at_once()
    config.checkpoint.trials = (trial.name,)
    run.run(config, workdir, AXES)
    assert checkpoint.load(trial / "best").keys() == {"head/kernel", "head/bias"}
    close(rows_of(workdir), rows_of(undisturbed), 1e-5)


def test_an_older_format_is_refused_in_one_line(tmp_path, undisturbed):
    workdir = shutil.copytree(undisturbed, tmp_path / "study")
    for change in ({"crc32": None, "format": None}, {"format": 1}, {"format": 2}):
        config = document(undisturbed, "config.json") | change
        config = {name: value for name, value in config.items() if value is not None}
        if "format" in config:
            config.pop("crc32")
            records.write(workdir / "config.json", config)
        else:
            (workdir / "config.json").write_text(json.dumps(config))
        with pytest.raises(UserError, match="a study of format [12], allowed: format 3; use a new directory"):
            run.run(saved_at_once(), workdir, AXES)


def test_trials_of_another_study_without_its_config(tmp_path, undisturbed):
    workdir = shutil.copytree(undisturbed, tmp_path / "study")
    (workdir / "config.json").unlink()
    other = saved_at_once()
    other.data.split_seed = 1
    with pytest.raises(UserError, match="holds trials of another study and no config.json"):
        run.run(other, workdir, AXES)
