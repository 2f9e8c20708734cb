"""Features on disk: found again by what they depend on, bounded, and never wrong."""

import os

import numpy as np
import pytest

from finetune.errors import UserError
from finetune.trunk import feature_pass
from finetune.trunk.feature_pass import Pass
from finetune.trunk.feature_store import Checksum, FeatureStore, checksum_of
from tests.helpers.tasks import base_leaves, data, make_recipe, mlp
from tests.trunk.test_choice import trunk_of

ARRAY = np.arange(12, dtype=np.float32).reshape(3, 4)


def keep(store, name, array=ARRAY):
    created = store.create(name, array.shape, array.dtype)
    created[:] = array
    store.keep(name, created, checksum_of(array))


def find(store, name, array=ARRAY):
    return store.find(name, array.shape, array.dtype)


def test_what_was_kept_is_found_by_the_next_study(tmp_path):
    keep(FeatureStore(tmp_path / "new", 100), "a")
    np.testing.assert_array_equal(find(FeatureStore(tmp_path / "new", 100), "a"), ARRAY)
    assert find(FeatureStore(tmp_path / "new", 100), "b") is None


def test_the_oldest_files_are_dropped_first(tmp_path):
    for age, name in enumerate("cab"):
        keep(FeatureStore(tmp_path, 150), name)
        os.utime(tmp_path / f"{name}.features", (1e9 + age, 1e9 + age))
    keep(FeatureStore(tmp_path, 150), "new")  # 4 x 48 bytes: one has to go
    assert sorted(file.stem for file in tmp_path.glob("*.features")) == ["a", "b", "new"]
    assert sorted(file.stem for file in tmp_path.glob("*.sha256")) == ["a", "b", "new"]


def test_what_a_study_reads_is_not_dropped_for_what_it_adds(tmp_path):
    store = FeatureStore(tmp_path, 100)
    for name in "abc":
        keep(store, name)
    assert find(store, "a") is not None
    assert find(store, "c") is None  # there was no room: it stayed in memory


@pytest.mark.parametrize("damage", ["flip", "cut"])
def test_a_damaged_file_is_not_taken(tmp_path, damage):
    keep(FeatureStore(tmp_path, 100), "a")
    content = bytearray((tmp_path / "a.features").read_bytes())
    content[5] ^= 1
    (tmp_path / "a.features").write_bytes(content if damage == "flip" else content[:-1])
    assert find(FeatureStore(tmp_path, 100), "a") is None
    assert list(tmp_path.iterdir()) == []


def test_two_writers_with_one_process_id_do_not_meet(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "getpid", lambda: 7)  # as in two containers
    first, second = FeatureStore(tmp_path, 1000), FeatureStore(tmp_path, 1000)
    one = first.create("a", ARRAY.shape, ARRAY.dtype)
    one[:] = ARRAY
    other = second.create("a", ARRAY.shape, ARRAY.dtype)
    np.testing.assert_array_equal(one, ARRAY)
    first.keep("a", one, checksum_of(ARRAY))
    np.testing.assert_array_equal(find(FeatureStore(tmp_path, 1000), "a"), ARRAY)
    other[:] = ARRAY
    second.keep("a", other, checksum_of(ARRAY))
    np.testing.assert_array_equal(find(FeatureStore(tmp_path, 1000), "a"), ARRAY)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.features", "a.sha256"]


def test_what_another_program_has_written_to_is_neither_kept_nor_trained_on(tmp_path):
    store = FeatureStore(tmp_path, 1000)
    created = store.create("a", ARRAY.shape, ARRAY.dtype)
    created[:] = ARRAY
    (unfinished,) = tmp_path.glob("*.new")
    with unfinished.open("r+b") as file:
        file.write(bytes(ARRAY.nbytes))  # zeros in its place
    with pytest.raises(UserError, match="has changed while it was filled, allowed: a directory"):
        store.keep("a", created, checksum_of(ARRAY))
    assert list(tmp_path.iterdir()) == []


def test_a_checksum_takes_rows_in_any_order_and_tells_shapes_and_types():
    checksum = Checksum(ARRAY.shape, ARRAY.dtype)
    checksum.add([2, 0], ARRAY[[2, 0]])
    assert checksum.hex() != checksum_of(ARRAY)
    checksum.add([1], ARRAY[1:2])
    assert checksum.hex() == checksum_of(ARRAY)
    others = [ARRAY[::-1], ARRAY + 1, ARRAY.view(np.int32), ARRAY.reshape(3, 2, 2), np.zeros_like(ARRAY)]
    assert len({checksum_of(each) for each in (ARRAY, *others)}) == 6


def test_a_directory_that_cannot_be_written_costs_nothing_but_the_files(tmp_path):
    (tmp_path / "file").write_text("")
    store = FeatureStore(tmp_path / "file" / "below", 100)
    keep(store, "a")
    assert find(store, "a") is None


@pytest.mark.parametrize("suffix", [".features", ".sha256"])
def test_a_link_whose_end_is_gone(tmp_path, suffix):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / f"a{suffix}").symlink_to(tmp_path / "absent")
    store = FeatureStore(tmp_path / "store", 200)
    assert store.room_bytes > 0
    assert find(store, "a") is None
    keep(store, "a")
    np.testing.assert_array_equal(find(FeatureStore(tmp_path / "store", 200), "a"), ARRAY)
    assert not (tmp_path / "absent").exists()


def test_a_system_that_cannot_take_room_for_a_file_at_once(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "posix_fallocate", raising=False)  # as on macOS
    keep(FeatureStore(tmp_path, 100), "a")
    np.testing.assert_array_equal(find(FeatureStore(tmp_path, 100), "a"), ARRAY)


def test_a_directory_that_is_not_ours_has_no_room(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert FeatureStore(tmp_path, 100).room_bytes == 0


def computed(tmp_path, monkeypatch, split, base, trainable="head"):
    """Returns how many batches a pass computes, and its features."""
    monkeypatch.setattr(feature_pass, "_WORTH_KEEPING_FLOPS", 0)
    recipe = make_recipe(mlp(), trainable, examples=10, micro_batch=2)
    trunk_pass = Pass([trunk_of(recipe, split, mode="cached")], base, [split] * 3, 5, FeatureStore(tmp_path, 10**6))
    return trunk_pass.batches, trunk_pass.run(lambda: None)


def test_a_pass_is_made_once_for_the_same_weights_and_examples(tmp_path, monkeypatch):
    base, split = base_leaves(mlp()), data(10)
    batches, features = computed(tmp_path, monkeypatch, split, base)
    assert batches == 6
    batches, again = computed(tmp_path, monkeypatch, split, {**base, "head/bias": base["head/bias"] + 1})
    assert batches == 0  # no feature depends on the head
    for one, other in zip(features, again, strict=True):
        for name, array in one.items():
            np.testing.assert_array_equal(array, other[name])


@pytest.mark.parametrize("change", ["weights", "examples", "program"])
def test_a_pass_is_made_again_for_others(tmp_path, monkeypatch, change):
    base, split, trainable = base_leaves(mlp()), data(10), "head"
    computed(tmp_path, monkeypatch, split, base)
    if change == "weights":
        base = {**base, "stem/bias": base["stem/bias"] + 1}
    elif change == "examples":
        split = {**split, "x": split["x"] + 1}
    else:
        trainable = "last:1"
    assert computed(tmp_path, monkeypatch, split, base, trainable)[0] == 6
