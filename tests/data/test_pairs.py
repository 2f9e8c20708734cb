"""Pairs of texts: how tokenizers join them, how they are cut, and from which files they are read."""

import numpy as np
import pytest

from finetune.config import DataConfig
from finetune.data import text
from finetune.data.dataset import load
from finetune.errors import UserError
from tests.helpers import exports, pairs

CLS, SEP, GOOD, BAD, VERY = 2, 3, 4, 5, 8


@pytest.mark.parametrize(
    "kind, ids, types",
    [
        ("bert", [CLS, GOOD, SEP, BAD, BAD, SEP], [0, 0, 0, 1, 1, 1]),
        ("roberta", [CLS, GOOD, SEP, SEP, BAD, BAD, SEP], [0] * 7),
    ],
)
def test_pairs_are_joined_by_the_template_of_their_tokenizer(tmp_path, kind, ids, types):
    encoded = text.encode([("good", "bad bad"), ("good", "")], pairs.write_tokenizer(tmp_path, kind), 20)
    assert encoded["input_ids"][0].tolist() == ids
    assert encoded["token_type_ids"][0].tolist() == types
    assert encoded["length"].tolist() == [len(ids), len(ids) - 2]
    assert encoded["token_type_ids"].dtype == np.uint8
    assert not encoded["cut"].any()


def test_the_longer_text_of_a_pair_is_cut_first(tmp_path):
    found = [("very very very very good", "bad"), ("good", "bad"), ("good", "very very very very bad")]
    encoded = text.encode(found, pairs.write_tokenizer(tmp_path), 7)
    assert encoded["input_ids"].tolist() == [
        [CLS, VERY, VERY, VERY, SEP, BAD, SEP],
        [CLS, GOOD, SEP, BAD, SEP, 0, 0],
        [CLS, GOOD, SEP, VERY, VERY, VERY, SEP],
    ]
    assert encoded["cut"].tolist() == [True, False, True]


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".jsonl"])
def test_pairs_of_a_file(tmp_path, ending):
    tokenizer = pairs.write_tokenizer(tmp_path)
    file = pairs.write_rows(tmp_path / f"pairs{ending}", ("premise", "hypothesis", "label"), pairs.rows(40))
    config = DataConfig(name=str(file), text_columns=("premise", "hypothesis"), max_length=6)
    dataset = load(config, tokenizer)
    assert dataset.classes == ("other", "same")
    assert set(dataset.train) == {"input_ids", "length", "token_type_ids", "label"}
    # A model without types of tokens: that they are not there changes what the data are.
    without = load(config, tokenizer, token_types=False)
    assert set(without.train) == {"input_ids", "length", "label"}
    assert without.content_hash != dataset.content_hash
    assert "pairs of texts" in dataset.notes[0]
    assert "longer than data.max_length and cut" in dataset.notes[0]


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"text_columns": ("premise", "hypotheses")}, r"pairs\.csv:2: no column 'hypotheses', present: premise"),
        (
            {"text_columns": ("premise",)},
            r"data\.text_columns is 'premise', allowed for classification: two columns, such as",
        ),
        (
            {"text_columns": ("premise", "premise")},
            r"data\.text_columns is 'premise, premise', allowed for classification: two",
        ),
        ({"task": "tokens"}, "data.text_columns is .*, allowed for tokens: none"),
        ({"task": "choice"}, "data.text_columns is .*, allowed for choice: those of the first text and of all choices"),
        ({"task": "contrastive", "text_columns": ()}, "data.text_columns is '', allowed for contrastive: two columns"),
        ({"name": "digits"}, "data.text_columns is .* for data.name 'digits', allowed: empty"),
        ({"max_length": 3}, "data.max_length is 3, allowed: more than the 3 special tokens of a pair of texts"),
    ],
)
def test_what_is_no_pair_is_refused(tmp_path, settings, message):
    file = pairs.write_rows(tmp_path / "pairs.csv", ("premise", "hypothesis", "label"), pairs.rows(40))
    given = {"name": str(file), "text_columns": ("premise", "hypothesis")} | settings
    with pytest.raises(UserError, match=message):
        load(DataConfig(**given), pairs.write_tokenizer(tmp_path))


def test_a_tokenizer_that_joins_nothing_is_refused(tmp_path):
    with pytest.raises(UserError, match="puts nothing between the texts of a pair"):
        text.encode([("good", "bad")], exports.write_tokenizer(tmp_path), 8)


def test_answers_that_are_cut_off_are_told(tmp_path):
    rows = [("good", "very very very very bad", ["bad"]) for _ in range(20)]
    file = pairs.write_rows(tmp_path / "questions.jsonl", ("question", "context", "label"), rows)
    config = DataConfig(name=str(file), task="question_answering", text_columns=("question", "context"), max_length=7)
    dataset = load(config, pairs.write_tokenizer(tmp_path))
    assert "20 of 20 answers are cut off with their texts" in dataset.notes[0]
    assert (dataset.train["label"] < 1).all()
    for task in ("question_answering", "contrastive"):
        config.task, config.classes = task, ("good",)
        with pytest.raises(UserError, match=f"data.classes is 'good', allowed for {task}: none"):
            load(config, tmp_path / "tokenizer.json")


def answers_of(tmp_path, rows, **settings):
    """Returns the data set of a file of questions, texts and answers."""
    file = pairs.write_rows(tmp_path / "questions.jsonl", ("question", "context", "label"), rows)
    columns = ("question", "context")
    config = DataConfig(name=str(file), task="question_answering", text_columns=columns, max_length=60, **settings)
    return load(config, pairs.write_tokenizer(tmp_path))


def test_answers_that_are_too_long_to_be_given_are_told(tmp_path):
    rows = [("good", "bad " + "very " * count, ["very " * count]) for count in [30] * 10 + [31] * 10]
    dataset = answers_of(tmp_path, rows)
    seen = [part["label"] for part in dataset[:2]]
    long = sum(int(((part[..., 1] == 1).argmax(1) - (part[..., 0] == 1).argmax(1) == 30).sum()) for part in seen)
    assert f"{long} of 16 answers of train and validation have more than 30 tokens" in dataset.notes[0]
    assert not any("30 tokens" in note for note in answers_of(tmp_path, rows[:10]).notes)


def test_an_answer_that_is_not_in_its_text_is_told_by_its_row(tmp_path):
    rows = [("good", "very bad", ["bad"])] * 20
    for place in (0, 13, 19):
        found = [*rows[:place], ("good", "very bad", ["film"]), *rows[place + 1 :]]
        with pytest.raises(UserError, match=f"^split train, row {place + 1}: the answer 'film' is not in its text 'v"):
            answers_of(tmp_path, found)
