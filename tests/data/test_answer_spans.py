"""Answers that are words of a text: what of them counts, where they are among tokens, and what is refused."""

import numpy as np
import pytest

from finetune.data import answer_spans
from finetune.data.answer_spans import Answer
from finetune.errors import UserError
from tests.helpers import pairs


@pytest.mark.parametrize(
    "answer, wanted",
    [
        ("The Norman's army", ["normans", "army"]),
        ("a an the", []),
        ("U.S. (1999-2001)", ["us", "19992001"]),
        ("theatre\tan  Answer", ["theatre", "answer"]),
        ("the-end", ["theend"]),
        ("the\u2014end", ["\u2014end"]),  # no ASCII punctuation: a word ends at it
    ],
)
def test_what_counts_is_what_squads_script_compares(answer, wanted):
    assert answer_spans.normalised(answer) == wanted


CONTEXT = "good film, very good book"  # tokens: good film [UNK] very good book


def test_words_are_found_among_tokens(tmp_path):
    encoded = answer_spans.encode([("bad", CONTEXT)], pairs.write_tokenizer(tmp_path), 20)
    # [CLS] bad [SEP] good film , very good book [SEP]: "film," is one word.
    assert encoded["first"][0].tolist() == [-1, -1, -1, 0, 1, -1, 2, 3, 4, -1]
    assert encoded["last"][0].tolist() == [-1, -1, -1, 0, -1, 1, 2, 3, 4, -1]
    assert encoded["token_type_ids"][0].tolist() == [0, 0, 0, 1, 1, 1, 1, 1, 1, 1]


def test_the_text_is_cut_and_what_is_cut_within_a_word_is_no_end(tmp_path):
    encoded = answer_spans.encode([("bad", CONTEXT)], pairs.write_tokenizer(tmp_path), 6)
    assert encoded["first"][0].tolist() == [-1, -1, -1, 0, 1, -1]
    assert encoded["last"][0].tolist() == [-1, -1, -1, 0, -1, -1]
    assert encoded["cut"].tolist() == [True]
    with pytest.raises(UserError, match="cannot encode the texts"):
        answer_spans.encode([("bad " * 9, CONTEXT)], pairs.write_tokenizer(tmp_path), 6)


def test_answers_are_located(tmp_path):
    texts = [("bad", CONTEXT), ("good", "the book")]
    encoded = answer_spans.encode(texts, pairs.write_tokenizer(tmp_path), 20)
    answers = [(Answer("film, very", -1), Answer("good", 16)), (Answer("book", 4),)]
    found = answer_spans.located(texts, answers, encoded["first"], encoded["last"])
    assert np.argwhere(found["label"] == 1).tolist() == [[0, 4, 0], [0, 6, 1], [1, 4, 0], [1, 4, 1]]
    assert found["counted"].tolist() == [[0, 1, 2, 0, 3], [0, -1, -1, -1, -1]]
    assert found["answers"].tolist() == [[[1, 2], [0, -1]], [[0, -1], [-1, -1]]]
    assert found["begins"][1].tolist() == [-1, -1, -1, 0, 0, -1, -1, -1, -1, -1]
    assert found["ends"][1].tolist() == [-1, -1, -1, 0, 1, -1, -1, -1, -1, -1]
    second = answer_spans.located(texts[:1], [(Answer("good", 16),)], encoded["first"][:1], encoded["last"][:1])
    assert np.argwhere(second["label"] == 1).tolist() == [[0, 7, 0], [0, 7, 1]]
    with pytest.raises(UserError, match="the answer 'novel' is not in its text 'good film"):
        answer_spans.located(texts[:1], [(Answer("novel", -1),)], encoded["first"][:1], encoded["last"][:1])


def test_fields_of_answers():
    squad = {"text": ["good", "book"], "answer_start": [0, 21]}
    assert answer_spans.parsed(squad, "x") == (Answer("good", 0), Answer("book", 21))
    assert answer_spans.parsed("good", "x") == (Answer("good", -1),)
    assert answer_spans.parsed(["good", "film"], "x") == (Answer("good", -1), Answer("film", -1))
    for value in ([], "", {"text": [], "answer_start": []}, {"text": ["good"], "answer_start": [0, 1]}, 3, [None]):
        with pytest.raises(UserError, match="x: the answers are .*, allowed: a text, a list of texts, or"):
            answer_spans.parsed(value, "x")
