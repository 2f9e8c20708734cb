"""Labels of several classes and of numbers, from files."""

import json

import numpy as np
import pytest

from finetune.config import DataConfig
from finetune.data import targets
from finetune.data.dataset import load
from finetune.data.delimited import read
from finetune.errors import UserError

TSV = "text\tlabel\na b\tred|blue\nc\t\nd\t blue | blue\ne\tgreen\n"
ROWS = [["red", "blue"], [], ["blue"], "green"]


@pytest.mark.parametrize("name", ["x.tsv", "x.jsonl"])
def test_several_labels_in_a_field(tmp_path, name):
    lines = [json.dumps({"text": "a", "label": label}) for label in ROWS]
    (tmp_path / name).write_text(TSV if name == "x.tsv" else "\n".join(lines))
    source = read(tmp_path / name, DataConfig(task="multilabel"))
    assert source.splits["train"].labels == [("red", "blue"), (), ("blue",), ("green",)]


def arrays(tmp_path, y):
    """Returns the name of a file of feature vectors that number the examples, with targets `y`."""
    np.savez(tmp_path / "x.npz", x_train=np.arange(len(y), dtype=np.float32)[:, None], y_train=y)
    return str(tmp_path / "x.npz")


def test_several_labels_become_ones_and_are_not_stratified(tmp_path):
    y = (np.arange(50)[:, None] % [2, 3, 5] == 0).astype(np.uint8)
    data = load(DataConfig(name=arrays(tmp_path, y), task="multilabel", validation_examples=9), None)
    assert data.classes == ("0", "1", "2")
    assert [len(split["label"]) for split in data[:3]] == [31, 9, 10]
    for split in data[:3]:
        assert split["label"].dtype == np.float32
        np.testing.assert_array_equal(split["label"], y[split["features"][:, 0].astype(int)])
    fewer = load(DataConfig(name=arrays(tmp_path, y), task="multilabel", classes=("2", "0")), None)
    assert (fewer.classes, len(fewer.test["label"])) == (("0", "2"), 10)
    np.testing.assert_array_equal(fewer.test["label"], data.test["label"][:, [0, 2]])
    assert fewer.content_hash != data.content_hash


def test_numbers_are_labels_without_classes(tmp_path):
    y = np.linspace(-3, 8, 40)
    data = load(DataConfig(name=arrays(tmp_path, y), task="regression", train_examples=20), None)
    assert (data.classes, data.train["label"].dtype) == ((), np.float32)
    assert [len(split["label"]) for split in data[:3]] == [20, 6, 8]
    seen = {value for split in data[:3] for value in split["features"][:, 0]}
    assert len(seen) == 34
    for split in data[:3]:
        np.testing.assert_allclose(split["label"], y[split["features"][:, 0].astype(int)], rtol=1e-6)


def test_numbers_of_a_packaged_set():
    data = load(DataConfig(name="digits", task="regression", train_examples=50), None)
    assert (set(data.train["label"]), data.classes) == (set(range(10)), ())


@pytest.mark.parametrize(
    "task, content, error",
    [
        ("regression", "text,label\na,1\nb,high\n", r"x\.csv:3: the target is 'high', allowed: a number"),
        ("regression", "text,label\na,1\nb,1e39\n", r"x\.csv:3: the target is '1e39', allowed: a number"),
        ("regression", "text,label\na,nan\n", r"x\.csv:2: the target is 'nan'"),
        ("regression", "text,label\na,\n", r"x\.csv:2: the label is empty"),
        ("regression", "text,label\na,2\nb,2.0\n", "all targets of train are 2, allowed: two different"),
        ("multilabel", "text,label\na,\nb,|\n", "no example in train has a label"),
    ],
)
def test_targets_that_cannot_be_used(tmp_path, task, content, error):
    (tmp_path / "x.csv").write_text(content)
    with pytest.raises(UserError, match=error):
        load(DataConfig(name=str(tmp_path / "x.csv"), task=task), None)


@pytest.mark.parametrize(
    "task, y, error",
    [
        ("regression", np.ones((4, 2)), r"y_train of .* is float64 \[4, 2\], allowed for regression: numbers \[4\]"),
        ("regression", np.array([1.0, np.inf]), "split train: the target is 'inf'"),
        ("multilabel", np.array([[0, 2], [1, 1]]), r"allowed for multilabel: 0 and 1, \[2, classes\]"),
    ],
)
def test_arrays_that_cannot_be_targets(tmp_path, task, y, error):
    with pytest.raises(UserError, match=error):
        load(DataConfig(name=arrays(tmp_path, y), task=task), None)


def test_settings_that_do_not_fit_the_task(tmp_path):
    name = arrays(tmp_path, np.arange(4.0))
    with pytest.raises(UserError, match=r"data\.classes is '1', allowed for regression: none"):
        load(DataConfig(name=name, task="regression", classes=("1",)), None)
    name = arrays(tmp_path, np.eye(4))
    with pytest.raises(UserError, match=r"data\.label_separator is '', allowed"):
        load(DataConfig(name=name, task="multilabel", label_separator=""), None)


def test_a_list_of_lists_is_no_label(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"text": "a", "label": ["b", ["c"]]}\n')
    with pytest.raises(UserError, match=r"x\.jsonl:1: a label is \['c'\], allowed: a text or a number"):
        read(tmp_path / "x.jsonl", DataConfig(task="multilabel"))


@pytest.mark.parametrize(
    "names, places", [(("0", "1", "2"), [0, 1, 2]), (("x", "7", "1"), None), (("1", "2", "3"), None)]
)
def test_a_choice_is_named_by_its_column_or_its_number(tmp_path, names, places):
    header = ("question", *names, "label")
    rows = [dict(zip(header, ("q", "a", "b", "c", str(row % 3)), strict=True)) for row in range(30)]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = DataConfig(task="choice", text_columns=header[:-1])
    source = read(tmp_path / "x.jsonl", config)
    if places is None:
        with pytest.raises(UserError, match=r"data\.text_columns names choice \d '1', allowed for choice: no name"):
            targets.encode(source, config)
        return
    assert targets.encode(source, config)[1]["train"].tolist() == places * 10
