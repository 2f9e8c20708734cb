"""Weights on disk: round trips, the best few trials, and what is damaged."""

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from finetune.errors import UserError
from finetune.models.weights import from_study
from finetune.storage import checkpoint, records


def leaves(value: float, *names: str) -> dict[str, np.ndarray]:
    return {name: np.full((2, 3), value, np.float32) for name in names or ("block_0/kernel", "head/kernel")}


def record(workdir: Path, values: dict[str, float | None]) -> None:
    rest = {"hparams": {}, "status": "complete", "metrics": {}, "steps": 1, "reason": None}
    rows = [
        {"id": identity, "best": None if value is None else {"epoch": 1, "value": value}, **rest}
        for identity, value in values.items()
    ]
    records.append(workdir / "trials.jsonl", rows)


def offer(keeper: checkpoint.Keeper, identity: str, value: float) -> None:
    for wanted in keeper.wanted({identity: value}):
        keeper.take(wanted, value, leaves(value), leaves(-value))


def on_disk(workdir: Path) -> set[str]:
    return {path.name for path in (workdir / "checkpoints" / "trials").iterdir()}


def test_round_trip_keeps_every_bit(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    stored = {
        "embeddings/word/embedding": random.normal(size=(5, 4)).astype(np.float32),
        "block_0/mlp/up/bias": np.array([np.float32(1e-40), -0.0, 3.5], np.float32),
        "scale": np.array(2.5, np.float32),
        "head/kernel": random.normal(size=(4, 2)),
        "ids": np.arange(3, dtype=np.int32),
    }
    checkpoint.save(tmp_path / "base", stored)
    loaded = checkpoint.load(tmp_path / "base")
    assert loaded.keys() == stored.keys()
    for path, leaf in stored.items():
        assert loaded[path].dtype == leaf.dtype, path
        assert np.asarray(loaded[path]).tobytes() == leaf.tobytes(), path


def test_saving_again_replaces(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "base", leaves(1, "old/kernel"))
    checkpoint.save(tmp_path / "base", leaves(2, "new/kernel"))
    loaded = checkpoint.load(tmp_path / "base")
    assert loaded.keys() == {"new/kernel"}
    np.testing.assert_array_equal(loaded["new/kernel"], 2)


def test_the_keeper_keeps_the_best_and_removes_what_they_displace(tmp_path: Path) -> None:
    keeper = checkpoint.Keeper(tmp_path, 2, (), {}, writes=True)
    for identity, value, expected in [
        ("a", 0.5, {"a"}),
        ("b", 0.3, {"a", "b"}),
        ("c", 0.2, {"a", "b"}),
        ("d", 0.4, {"a", "d"}),
        ("e", 0.4, {"a", "d"}),
        ("f", 0.9, {"a", "f"}),
    ]:
        offer(keeper, identity, value)
        assert on_disk(tmp_path) == expected
    trial = tmp_path / "checkpoints" / "trials" / "f"
    np.testing.assert_array_equal(checkpoint.load(trial / "best")["head/kernel"], np.float32(0.9))
    np.testing.assert_array_equal(checkpoint.load(trial / "last")["head/kernel"], np.float32(-0.9))


def test_named_trials_are_kept_beside_the_best(tmp_path: Path) -> None:
    keeper = checkpoint.Keeper(tmp_path, 1, ("b",), {}, writes=True)
    assert keeper.wanted({"a": 0.1, "b": 0.2, "c": 0.3}) == ["b", "c"]
    for identity, value in {"b": 0.2, "c": 0.3, "d": 0.4}.items():
        offer(keeper, identity, value)
    assert on_disk(tmp_path) == {"b", "d"}


def test_weights_without_a_result_are_removed(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "checkpoints" / "trials" / "crashed" / "best", leaves(1))
    checkpoint.Keeper(tmp_path, 3, (), {}, writes=True).settle()
    assert on_disk(tmp_path) == set()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.99])
def test_a_flipped_byte_is_noticed(tmp_path: Path, share: float) -> None:
    checkpoint.save(tmp_path / "base", leaves(1, "head/kernel"))
    for file in [file for file in (tmp_path / "base").rglob("*") if file.is_file() and file.stat().st_size]:
        content = file.read_bytes()
        place = int(share * len(content))
        file.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        with pytest.raises(UserError, match="base' cannot be read .*(has changed|damaged|not finished|format)"):
            checkpoint.load(tmp_path / "base")
        file.write_bytes(content)
    np.testing.assert_array_equal(checkpoint.load(tmp_path / "base")["head/kernel"], 1)


def test_saves_in_two_threads_wait_for_each_other(tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda number: checkpoint.save(tmp_path / str(number), leaves(number)), range(6)))
    assert [float(checkpoint.load(tmp_path / str(number))["head/kernel"][0, 0]) for number in range(6)] == list(
        range(6)
    )


def test_a_keeper_of_none_keeps_none(tmp_path: Path) -> None:
    keeper = checkpoint.Keeper(tmp_path, 0, (), {}, writes=True)
    assert keeper.wanted({"a": 1.0}) == []
    assert not (tmp_path / "checkpoints").exists()


def test_a_keeper_that_does_not_write_decides_the_same(tmp_path: Path) -> None:
    keeper = checkpoint.Keeper(tmp_path, 1, (), {}, writes=False)
    keeper.take("a", 0.5, leaves(1), leaves(1))
    assert keeper.wanted({"b": 0.5}) == []
    assert keeper.wanted({"b": 0.6}) == ["b"]
    assert not (tmp_path / "checkpoints").exists()


def test_a_continued_study_remembers_what_is_kept(tmp_path: Path) -> None:
    first = checkpoint.Keeper(tmp_path, 2, (), {}, writes=True)
    for identity, value in {"a": 0.5, "b": 0.7}.items():
        offer(first, identity, value)
    record(tmp_path, {"a": 0.5, "b": 0.7, "gone": 0.9, "diverged": None})
    found = dict(checkpoint.kept(tmp_path))
    assert found == {"a": 0.5, "b": 0.7}
    again = checkpoint.Keeper(tmp_path, 2, (), found, writes=True)
    assert again.wanted({"c": 0.4}) == []
    offer(again, "c", 0.6)
    assert on_disk(tmp_path) == {"b", "c"}


def test_the_best_parameters_are_the_base_with_the_best_trial_over_it(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "checkpoints" / "base", leaves(0, "stem/kernel", "block_0/kernel", "head/kernel"))
    keeper = checkpoint.Keeper(tmp_path, 3, (), {}, writes=True)
    for identity, value in {"a": 0.5, "b": 0.75, "c": 0.25}.items():
        keeper.take(identity, value, leaves(value, "head/kernel"), leaves(-1, "head/kernel"))
    record(tmp_path, {"a": 0.5, "b": 0.75, "c": 0.25})
    records.write(tmp_path / "config.json", {"architecture": {"model": "vit"}})
    best = from_study.parameters(tmp_path)
    assert {path: float(np.asarray(leaf)[0, 0]) for path, leaf in best.items()} == {
        "stem/kernel": 0.0,
        "block_0/kernel": 0.0,
        "head/kernel": 0.75,
    }


def test_a_study_without_weights(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no finished trial's weights"):
        from_study.parameters(tmp_path)
    record(tmp_path, {"a": 0.5})
    with pytest.raises(UserError, match="holds no finished trial's weights"):
        from_study.parameters(tmp_path)


def damage_remove(path: Path) -> None:
    shutil.rmtree(path)


def damage_empty(path: Path) -> None:
    for file in list(path.iterdir()):
        shutil.rmtree(file) if file.is_dir() else file.unlink()


def damage_metadata(path: Path) -> None:
    (path / "_METADATA").write_text("{")


def damage_data(path: Path) -> None:
    """Cuts every file that holds values to half."""
    files = [file for file in path.rglob("*") if file.is_file() and file.name[0] not in "_"]
    assert files
    for file in files:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def damage_values(path: Path) -> None:
    shutil.rmtree(next(file for file in path.rglob("d") if file.is_dir()))


@pytest.mark.parametrize("damage", [damage_remove, damage_empty, damage_metadata, damage_data, damage_values])
def test_a_damaged_checkpoint_is_one_line(tmp_path: Path, damage: object) -> None:
    checkpoint.save(tmp_path / "base", leaves(1, "head/kernel"))
    damage(tmp_path / "base")  # type: ignore[operator]
    with pytest.raises(UserError, match="checkpoint '.*base' cannot be read .*, allowed: one that finetune wrote") as e:
        checkpoint.load(tmp_path / "base")
    assert "\n" not in str(e.value)


def test_the_bytes_of_leaves() -> None:
    assert checkpoint.content(leaves(0) | {"scale": np.float64(1)}) == 2 * 2 * 3 * 4 + 8


def test_what_others_start_from_is_kept_until_they_do_not_need_it(tmp_path: Path) -> None:
    waiting = {"head"}

    def needed(values: dict[str, float]) -> set[str]:  # the best of those called head_, while somebody waits
        heads = [identity for identity in values if identity.startswith("head_")]
        return {max(heads, key=values.__getitem__)} if heads and waiting else set()

    keeper = checkpoint.Keeper(tmp_path, 1, (), {}, writes=True, needed=needed)
    seen = []
    for identity, value in {"head_a": 0.1, "other": 0.9, "head_b": 0.3, "head_c": 0.2}.items():
        offer(keeper, identity, value)
        seen.append(on_disk(tmp_path))
    assert seen == [{"head_a"}, {"head_a", "other"}, {"head_b", "other"}, {"head_b", "other"}]
    np.testing.assert_array_equal(keeper.best_leaves("head_b")["head/kernel"], np.float32(0.3))
    waiting.clear()
    keeper.settle()
    assert on_disk(tmp_path) == {"other"}
    with pytest.raises(UserError, match="head_b/best' cannot be read"):
        keeper.best_leaves("head_b")


_FULL = """
import resource, sys
from pathlib import Path
import numpy as np
from finetune.storage import checkpoint
from finetune.errors import UserError
leaves = {f"block_{number}/kernel": np.random.default_rng(number).random(50_000) for number in range(4)}
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))  # a file may not grow beyond it, as on a full disk
for attempt in range(3):
    try:
        checkpoint.save(Path(sys.argv[1]) / "checkpoints" / "base", leaves)
    except UserError as error:
        print(error)
"""


def test_a_disk_that_is_full_in_the_middle_of_a_checkpoint(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(Path(checkpoint.__file__).parents[2])}
    command = [sys.executable, "-c", _FULL, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    said = f"{tmp_path}/checkpoints/base cannot be written (File too large), allowed: a disk with space; the same"
    assert [line[: len(said)] for line in done.stdout.splitlines()] == [said] * 3
    assert done.stderr == ""
    assert list((tmp_path / "checkpoints").iterdir()) == []
