import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from finetune import assets
from finetune.data import text
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


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="ab,é \u0301\n\t\x1c\x85\u00a0\u200bΣ", max_size=60), st.integers(3, 8))
@example("a" + " " * 20 + "b", 4)
@example("\x01 " * 10 + "b", 4)
def test_a_long_text_is_cut_as_if_all_of_it_were_tokenised(tokenizer_file, sentence, max_length):
    whole = Tokenizer.from_file(str(tokenizer_file))
    whole.no_padding()
    whole.enable_truncation(max_length)
    encoded = text.encode([sentence], tokenizer_file, max_length)
    assert encoded["input_ids"][0].tolist() == whole.encode(sentence).ids


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
