import json
import re

import pandas
import pytest

from finetune.config import DataConfig
from finetune.data import delimited
from finetune.errors import UserError

ROWS = [("plain", "b"), ('with "quotes", commas', "a"), ("two\nlines and a\ttab", "b"), ("ünïcode", "7"), ("3.5", "a")]
FRAME = pandas.DataFrame({"extra": 1, "text": [text for text, _ in ROWS], "label": [label for _, label in ROWS]})
CONFIG = DataConfig(name="")


def write(file, frame=FRAME):
    if file.suffix == ".jsonl":
        frame.to_json(file, orient="records", lines=True, force_ascii=False)
    else:
        frame.to_csv(file, index=False, sep="\t" if file.suffix == ".tsv" else ",")


@pytest.mark.parametrize("suffix", delimited.SUFFIXES)
def test_reads_what_pandas_wrote(tmp_path, suffix):
    write(tmp_path / f"x{suffix}")
    source = delimited.read(tmp_path / f"x{suffix}", CONFIG)
    assert (source.kind, list(source.splits)) == ("text", ["train"])
    assert list(zip(*source.splits["train"], strict=True)) == ROWS


def test_directory_of_splits_and_column_names(tmp_path):
    frame = FRAME.rename(columns={"text": "sentence", "label": "topic"})
    write(tmp_path / "train.csv", frame)
    write(tmp_path / "validation.tsv", frame[:2])
    write(tmp_path / "test.jsonl", frame[2:])
    (tmp_path / "README.md").write_text("not data")
    source = delimited.read(tmp_path, DataConfig(text_column="sentence", label_column="topic"))
    assert {split: len(e.labels) for split, e in source.splits.items()} == {"train": 5, "validation": 2, "test": 3}


def test_long_fields_byte_order_mark_and_numbers(tmp_path):
    file = tmp_path / "x.csv"
    file.write_text("\ufefftext,label\n" + "word " * 100_000 + ",a\n\n12.50, 3 \n", encoding="utf-8")
    texts, labels = delimited.read(file, CONFIG).splits["train"]
    assert (len(texts[0]), texts[1], labels) == (500_000, "12.50", ["a", "3"])
    lines = [{"text": 12.5, "label": True}, {"text": "x", "label": 3}]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    assert delimited.read(tmp_path / "x.jsonl", CONFIG).splits["train"] == (["12.5", "x"], ["True", "3"])


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("x.csv", b"", r"x\.csv has no rows"),
        ("x.csv", b"text,label\n", r"x\.csv has no rows"),
        ("x.csv", b"body,label\nhello,a\n", r"x\.csv:2: no column 'text', present: body, label"),
        ("x.csv", b"text,topic\nhello,a\n", r"no column 'label', present: text, topic"),
        ("x.csv", b"text,label\nhello,a\nworld, \n", r"x\.csv:3: the label is empty"),
        ("x.csv", b"text,label\nhello\n", r"x\.csv:2: the row does not have 2 fields"),
        ("x.csv", b"text,label\nhello, world,a\n", r"x\.csv:2: the row does not have 2 fields"),
        ("x.csv", b'text,label\n"hello" world,a\n', r"x\.csv:2: .*quote"),
        ("x.tsv", b'text\tlabel\n"hello\ta\nworld\tb\n', r"x\.tsv:2: .*quote"),
        ("x.csv", "text,label\nüber,a\n".encode("latin-1"), r"x\.csv is not UTF-8"),
        ("x.jsonl", b"\xff\xfe\n", r"x\.jsonl is not UTF-8"),
        ("x.jsonl", b"", r"x\.jsonl has no rows"),
        ("x.jsonl", b'{"text": "a", "label": "b"}\n{"text": \n', r"x\.jsonl:2: not JSON"),
        ("x.jsonl", b"[" * 100_000, r"x\.jsonl:1: not JSON"),
        ("x.jsonl", b'["a", "b"]\n', r"x\.jsonl:1: not a JSON object"),
        ("x.jsonl", b'{"text": "a"}\n', r"x\.jsonl:1: no column 'label', present: text"),
        ("x.jsonl", b'{"text": null, "label": "a"}\n', r"x\.jsonl:1: text is null"),
        ("held.csv", b"text,label\na,b\n", r"split .*held\.csv is 'held', allowed: test, train, validation"),
        (
            "x.tsv",
            b'text\tlabel\n"one\ta\ntwo"\tb\n' * 20,
            r"x\.tsv:2: a quote opens here and closes in line 3, .* of 2",
        ),
        ("x.tsv", b'text\tlabel\n"one\ta\nx\tb\n\ntwo"\tb\n', r"x\.tsv:2: .* closes in line 5, .* of 3"),
        ("x.csv", b'text,label\n"one,a\ntwo",b\nx,a\n', r"x\.csv:2: a quote opens here and closes in line 3"),
        ("x.csv", b'text,label\n"one,1.5\ntwo",2\nx,3\n', r"x\.csv:2: a quote opens here and closes in line 3"),
        ("x.csv", b"text,label,label\nhello,a,b\n", r"x\.csv:1: 'label' is there 2 times, allowed: each name once"),
        ("x.jsonl", b'{"text": "a", "text": "b", "label": "c"}\n', r"x\.jsonl:1: 'text' is there 2 times"),
        (
            "x.jsonl",
            b'{"text": ["a", "b"], "label": "c"}\n',
            r'x\.jsonl:1: text is \["a", "b"\], allowed: a text or a number',
        ),
        (
            "x.jsonl",
            b'{"text": "a", "label": "c"}\n{"text": "a", "label": {"is": 1}}\n',
            r'x\.jsonl:2: label is \{"is": 1\}',
        ),
        ("x.jsonl", b'{"text": "a", "label": NaN}\n', r"x\.jsonl:1: label is NaN, allowed: a text or a number"),
        ("x.jsonl", b'{"text": Infinity, "label": "c"}\n', r"x\.jsonl:1: text is Infinity"),
    ],
)
def test_bad_files(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        delimited.read(tmp_path if name == "held.csv" else tmp_path / name, CONFIG)
    assert "\n" not in str(caught.value)


def test_two_files_of_one_split(tmp_path):
    write(tmp_path / "train.csv")
    write(tmp_path / "train.tsv")
    with pytest.raises(UserError, match=r"train\.csv and in .*train\.tsv"):
        delimited.read(tmp_path, CONFIG)


def test_a_quoted_field_may_go_over_lines_that_look_like_rows(tmp_path):
    (tmp_path / "x.csv").write_text('text,label\n"Hello, world\nbye",a\nx,b\n')
    assert delimited.read(tmp_path / "x.csv", CONFIG).splits["train"] == (["Hello, world\nbye", "x"], ["a", "b"])
    (tmp_path / "x.csv").write_text("text,,\none,1,2\n")
    assert delimited.read_texts(tmp_path / "x.csv", "text") == ([2], ["one"])


def test_splits_and_endings_as_people_spell_them(tmp_path):
    for name in ("Train.CSV", "dev.TSV"):
        write(tmp_path / name.lower())
        (tmp_path / name.lower()).rename(tmp_path / name)
    (tmp_path / "TESTING.JSONL").write_text('\ufeff{"text": "a", "label": "b"}\n', encoding="utf-8")
    source = delimited.read(tmp_path, CONFIG)
    assert {split: len(e.labels) for split, e in source.splits.items()} == {"train": 5, "validation": 5, "test": 1}
    assert (source.splits["test"], source.notes) == ((["a"], ["b"]), ())
    write(tmp_path / "val.csv")
    with pytest.raises(UserError, match=r"split validation is in .*dev\.TSV and in .*val\.csv"):
        delimited.read(tmp_path, CONFIG)


@pytest.mark.parametrize(
    "name, content",
    [
        ("test.csv", "id,text\n1,one\n2,two\n"),
        ("test.csv", "text,label\none,\ntwo, \n"),
        ("test.jsonl", '{"text": "one"}\n{"text": "two", "label": null}\n'),
        ("test.tsv", "text\tlabel\none\t-1\ntwo\t-1\n"),
    ],
)
def test_a_test_split_without_labels_is_not_scored(tmp_path, name, content):
    write(tmp_path / "train.csv")
    (tmp_path / name).write_text(content)
    source = delimited.read(tmp_path, CONFIG)
    assert list(source.splits) == ["train"]
    assert re.search("test.* (has no labels: it is not scored|label -1 in every row)", source.notes[0])


def test_a_label_of_minus_one_that_train_has_is_one(tmp_path):
    for split, labels in {"train": (-1, 1, 1), "test": (-1, -1)}.items():
        write(tmp_path / f"{split}.csv", pandas.DataFrame({"text": "a", "label": labels}))
    assert delimited.read(tmp_path, CONFIG).splits["test"].labels == ["-1", "-1"]
    config = DataConfig(name="", task="regression")
    assert delimited.read(tmp_path, config).splits["test"].labels == [-1.0, -1.0]
    write(tmp_path / "train.csv", pandas.DataFrame({"text": "a", "label": (0.5, 4)}))
    assert list(delimited.read(tmp_path, config).splits) == ["train"]


def test_some_labels_missing_in_test_is_an_error(tmp_path):
    write(tmp_path / "train.csv")
    (tmp_path / "test.csv").write_text("text,label\none,a\ntwo,\n")
    with pytest.raises(UserError, match=r"test\.csv:3: the label is empty"):
        delimited.read(tmp_path, CONFIG)
