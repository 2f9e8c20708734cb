import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from finetune import assets
from finetune.config import DataConfig
from finetune.data import text
from finetune.data.dataset import load
from finetune.errors import UserError

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b", "##b", "cd", "##é", ","]


@pytest.fixture(scope="module")
def tokenizer_file(tmp_path_factory) -> Path:
    """A small WordPiece tokenizer of the BERT kind; its file asks for padding and cutting, which must not last."""
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.enable_padding(length=20, pad_id=0)
    tokenizer.enable_truncation(3)
    file = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    tokenizer.save(str(file))
    return file


def test_ids_lengths_and_padding(tokenizer_file):
    encoded = text.encode(["a ab, cd", "", "A"], tokenizer_file, 128)
    assert encoded["input_ids"].tolist() == [
        [2, 4, 4, 6, 9, 7, 3],
        [2, 3, 0, 0, 0, 0, 0],
        [2, 4, 3, 0, 0, 0, 0],
    ]
    assert encoded["length"].tolist() == [7, 2, 3]
    assert (encoded["input_ids"].dtype, encoded["length"].dtype) == (np.uint16, np.int32)


def test_cut_texts_end_as_whole_ones_do(tokenizer_file):
    encoded = text.encode(["a b a b a b", "a"], tokenizer_file, 4)
    assert encoded["input_ids"].tolist() == [[2, 4, 5, 3], [2, 4, 3, 0]]
    assert encoded["length"].tolist() == [4, 3]
    assert encoded["cut"].tolist() == [True, False]


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="ab,é \u0301\n\t\x1c\x85\u00a0\u200bΣ", max_size=60), st.integers(3, 8))
@example("a" + " " * 20 + "b", 4)
@example("\x01 " * 10 + "b", 4)
def test_a_long_text_is_cut_as_if_all_of_it_were_tokenised(tokenizer_file, sentence, max_length):
    whole = Tokenizer.from_file(str(tokenizer_file))
    whole.no_padding()
    whole.enable_truncation(max_length)
    encoded = text.encode([sentence], tokenizer_file, max_length)
    expected = whole.encode(sentence)
    assert encoded["input_ids"][0].tolist() == expected.ids
    whole.no_truncation()
    assert encoded["cut"].tolist() == [len(whole.encode(sentence).ids) > max_length]


def test_other_tokenizers_and_large_vocabularies(tmp_path):
    vocabulary = {f"w{i}": i for i in range(2**16 + 1)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    encoded = text.encode(["w65536 w1 w2 w3", "w5"], tmp_path / "tokenizer.json", 3)
    assert encoded["input_ids"].dtype == np.int32
    assert encoded["input_ids"].tolist() == [[65536, 1, 2], [5, 0, 0]]


def test_bad_tokenizers(tmp_path, tokenizer_file):
    (tmp_path / "bad.json").write_text('{"version": "1.0"')
    for file, max_length, message in [
        (None, 8, "set data.tokenizer"),
        (tmp_path / "absent.json", 8, "no such file"),
        (tmp_path / "bad.json", 8, "is not a tokenizer.json"),
        (tokenizer_file, 2, "max_length is 2, allowed: more than the 2 special tokens"),
    ]:
        with pytest.raises(UserError, match=message):
            text.encode(["a"], file, max_length)


@pytest.mark.assets
def test_minilm_ids_equal_the_golden_ones():
    golden = json.loads((Path(__file__).parents[1] / "golden/minilm.json").read_text())["examples"]
    encoded = text.encode([e["text"] for e in golden], assets.path("minilm") / "tokenizer.json", 128)
    for row, length, reference in zip(encoded["input_ids"], encoded["length"], golden, strict=True):
        assert row[:length].tolist() == reference["input_ids"]
        assert not row[length:].any()


def test_words_keep_their_place_at_their_first_token(tokenizer_file):
    encoded = text.encode_words([["ab", "a", "cd,"], ["b"]], tokenizer_file, 128)
    # [CLS] a ##b a cd , [SEP]: the comma is a token of the third word.
    assert encoded["input_ids"].tolist() == [[2, 4, 6, 4, 7, 9, 3], [2, 5, 3, 0, 0, 0, 0]]
    assert encoded["word"].tolist() == [[-1, 0, -1, 1, 2, -1, -1], [-1, 0, -1, -1, -1, -1, -1]]
    assert encoded["length"].tolist() == [7, 3]
    assert encoded["cut"].tolist() == [False, False]
    encoded = text.encode_words([["ab", "a", "cd"]], tokenizer_file, 5)
    assert (encoded["word"].tolist(), encoded["cut"].tolist()) == ([[-1, 0, -1, 1, -1]], [True])


def test_tags_of_words_become_labels_of_tokens(tokenizer_file, tmp_path):
    rows = [{"text": ["ab", "a"], "label": ["N", "V"]}, {"text": ["cd"], "label": ["N"]}] * 5
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, rows)))
    config = DataConfig(name=str(tmp_path / "x.jsonl"), task="tokens", tokenizer=str(tokenizer_file))
    data = load(config, None)
    assert (data.classes, [len(split["label"]) for split in data[:3]]) == (("N", "V"), [7, 1, 2])
    for split in data[:3]:
        assert split["label"].dtype == np.int32
        for length, labels in zip(split["length"], split["label"].tolist(), strict=True):
            assert labels == ([-1, 0, -1, 1, -1] if length == 5 else [-1, 0, -1, -1, -1])


@pytest.mark.parametrize(
    "row, error",
    [
        ({"text": ["a", "b"], "label": ["N"]}, r"x\.jsonl:1: 1 tags for 2 words, allowed: one for each"),
        ({"text": "a b", "label": ["N"]}, r"x\.jsonl:1: text is 'a b', allowed for tokens: a list, not empty"),
        ({"text": ["a"], "label": [None]}, r"x\.jsonl:1: label has 'None', allowed: texts that are not empty"),
        ({"text": ["a"], "label": ["N"]}, "the data has one tag only, 'N'"),
    ],
)
def test_words_and_tags_that_cannot_be_used(tmp_path, row, error):
    (tmp_path / "x.jsonl").write_text(json.dumps(row))
    with pytest.raises(UserError, match=error):
        load(DataConfig(name=str(tmp_path / "x.jsonl"), task="tokens"), None)
