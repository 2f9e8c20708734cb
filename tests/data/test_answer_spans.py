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
    with pytest.raises(UserError, match="data.max_length is 6, allowed: at least 13, as the longest question needs"):
        answer_spans.encode([("bad " * 9, CONTEXT), ("bad", CONTEXT)], pairs.write_tokenizer(tmp_path), 6)
    answer_spans.encode([("bad " * 9, CONTEXT)], pairs.write_tokenizer(tmp_path), 13)


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
    with pytest.raises(UserError, match="example 0: the answer 'novel' is not in its text 'good film"):
        answer_spans.located(texts[:1], [(Answer("novel", -1),)], encoded["first"][:1], encoded["last"][:1])


@pytest.mark.parametrize(
    "context, answer, wanted",
    [
        ("start the art.", "art", (2, 2)),
        ("the start, he said", "he", (2, 2)),
        ("in 1990 or 19", "19", (3, 3)),
        ("tell us of the US", "US", (4, 4)),  # as it is written before another case
        ("start of Art now", "art", (2, 2)),
        ("anew a book", "a book", (1, 2)),
        ("see the book", "a book", (2, 2)),  # what counts is the same
        ("(good film), good-film", " good film", (0, 1)),
        ("a two-year plan", "year", (1, 1)),  # no whole word: as it is found first
        ("no! yes", "!", (0, 0)),
        ("one\u2014two one", "one", (1, 1)),
    ],
)
def test_an_answer_is_whole_words_where_there_are_such(context, answer, wanted):
    assert answer_spans._span(context, answer_spans.words(context), Answer(answer, -1)) == wanted


def test_an_answer_stays_where_it_is_said_to_start():
    assert answer_spans._span("start art", answer_spans.words("start art"), Answer("art", 2)) == (0, 0)


def test_fields_of_answers():
    squad = {"text": ["good", "book"], "answer_start": [0, 21]}
    assert answer_spans.parsed(squad, "x") == (Answer("good", 0), Answer("book", 21))
    assert answer_spans.parsed("good", "x") == (Answer("good", -1),)
    assert answer_spans.parsed(["good", "film"], "x") == (Answer("good", -1), Answer("film", -1))
    for value in ([], "", {"text": [], "answer_start": []}, {"text": ["good"], "answer_start": [0, 1]}, 3, [None]):
        with pytest.raises(UserError, match="x: the answers are .*, allowed: a text, a list of texts, or"):
            answer_spans.parsed(value, "x")
