import json

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
        ("val.csv", b"text,label\na,b\n", r"split .*val\.csv is 'val', allowed: test, train, validation"),
    ],
)
def test_bad_files(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        delimited.read(tmp_path if name == "val.csv" else tmp_path / name, CONFIG)
    assert "\n" not in str(caught.value)


def test_two_files_of_one_split(tmp_path):
    write(tmp_path / "train.csv")
    write(tmp_path / "train.tsv")
    with pytest.raises(UserError, match=r"train\.csv and in .*train\.tsv"):
        delimited.read(tmp_path, CONFIG)
