"""Texts to token ids, by a tokenizer.json of the tokenizers library."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tokenizers import Encoding, Tokenizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from finetune.errors import UserError

# An encoding keeps the strings and offsets of all tokens, those cut off included: hold few at a time.
_TEXTS_AT_ONCE = 1024
_LARGEST_ID = 2**31 - 1


class Row(NamedTuple):
    """A text, or a pair of them, as tokens: which they are, of which text, and whether some were cut off."""

    ids: list[int]
    types: list[int]
    cut: bool


def encode(
    texts: Sequence[str] | Sequence[tuple[str, str]], tokenizer_file: Path | None, max_length: int, width: int = 0
) -> dict[str, np.ndarray]:
    """Returns "input_ids" uint16 [N, T], int32 for vocabularies above 65,536, "length" int32 [N] and "cut" bool [N].

    T is the length of the longest text, special tokens included, at most `max_length` and at least `width`; shorter
    ones are padded at the end, and longer ones are "cut". Pairs of texts are joined as the tokenizer says, the longer
    one cut first, and have "token_type_ids" uint8 [N, T] too. Raises UserError without a tokenizer, or for one that
    cannot be read.
    """
    pairs = isinstance(texts[0], tuple)
    tokenizer, pad_id = _read(tokenizer_file, max_length, pairs)
    rows: list[Row] = []
    for start in range(0, len(texts), _TEXTS_AT_ONCE):
        rows.extend(_encoded(tokenizer, texts[start : start + _TEXTS_AT_ONCE], max_length, tokenizer_file))
    arrays = _padded([row.ids for row in rows], tokenizer, pad_id, tokenizer_file, width)
    return arrays | _of_rows(rows, arrays["input_ids"].shape, pairs)


def _of_rows(rows: Sequence[Row], shape: tuple[int, ...], pairs: bool) -> dict[str, np.ndarray]:
    """Returns "cut", and of pairs "token_type_ids"."""
    cut = {"cut": np.array([row.cut for row in rows], bool)}
    if not pairs:
        return cut
    types = np.zeros(shape, np.uint8)
    for place, row in enumerate(rows):
        types[place, : len(row.types)] = row.types
    return {**cut, "token_type_ids": types}


def encode_with_offsets(
    texts: Sequence[tuple[str, str]], tokenizer_file: Path | None, max_length: int, width: int = 0
) -> tuple[dict[str, np.ndarray], list[np.ndarray]]:
    """Returns what `encode` does of pairs of which the second text alone is cut, and the characters of its tokens.

    These are int32 [tokens, 2] for each pair, start and end in the second text, 0 and 0 where a token is not of it.
    """
    tokenizer, pad_id = _read(tokenizer_file, max_length, pairs=True)
    tokenizer.enable_truncation(max_length, strategy="only_second")
    rows: list[Row] = []
    offsets: list[np.ndarray] = []
    for start in range(0, len(texts), _TEXTS_AT_ONCE):
        try:
            encodings = tokenizer.encode_batch(list(texts[start : start + _TEXTS_AT_ONCE]))
        except Exception as error:  # as in `_encoded`
            _check_room(tokenizer, texts, max_length)
            raise UserError(f"tokenizer {tokenizer_file} cannot encode the texts: {error}") from error
        rows += [Row(encoding.ids, encoding.type_ids, bool(encoding.overflowing)) for encoding in encodings]
        for encoding in encodings:
            of_second = np.array(encoding.sequence_ids, object) == 1
            offsets.append(np.where(of_second[:, None], np.array(encoding.offsets, np.int32), 0))
    arrays = _padded([row.ids for row in rows], tokenizer, pad_id, tokenizer_file, width)
    return arrays | _of_rows(rows, arrays["input_ids"].shape, True), offsets


def _check_room(tokenizer: Tokenizer, texts: Sequence[tuple[str, str]], max_length: int) -> None:
    """Raises UserError if the first text of a pair leaves no room for the second."""
    tokenizer.no_truncation()
    try:
        longest = max(len(tokenizer.encode(first, add_special_tokens=False).ids) for first, _ in texts)
    except Exception:  # another error than that of room
        return
    least = longest + tokenizer.num_special_tokens_to_add(is_pair=True) + 1
    if max_length < least:
        raise UserError(f"data.max_length is {max_length}, allowed: at least {least}, as the longest question needs")


def encode_each(
    texts: Sequence[tuple[Any, ...]], tokenizer_file: Path | None, max_length: int, width: int = 0
) -> dict[str, np.ndarray]:
    """Returns what `encode` does of examples of K texts, or pairs of texts: arrays [N, K, ...], "cut" bool [N]."""
    encoded = encode([text for example in texts for text in example], tokenizer_file, max_length, width)
    cut = np.asarray(encoded.pop("cut").reshape(len(texts), -1).any(axis=1))
    arrays = {name: array.reshape(len(texts), -1, *array.shape[1:]) for name, array in encoded.items()}
    return {**arrays, "cut": cut}


def encode_for(
    task: str, texts: Sequence[Any], tokenizer_file: Path | None, max_length: int, width: int = 0
) -> dict[str, np.ndarray]:
    """Returns texts, pairs of them, or several, as a kind of task reads them; see `encode` and `encode_each`."""
    if task == "contrastive":
        return encode_each(texts, tokenizer_file, max_length, width)
    if task == "choice":
        pairs = [tuple((first, choice) for choice in choices) for first, *choices in texts]
        return encode_each(pairs, tokenizer_file, max_length, width)
    return encode(texts, tokenizer_file, max_length, width)


def encode_words(
    texts: Sequence[Sequence[str]], tokenizer_file: Path | None, max_length: int, width: int = 0
) -> dict[str, np.ndarray]:
    """Returns what `encode` does of texts that are parted into words, and "word" int32 [N, T].

    "word" is the place of the word whose first token this is, and -1 for other tokens of it, special ones and padding.
    Words beyond `max_length` are "cut".
    """
    tokenizer, pad_id = _read(tokenizer_file, max_length)
    rows, words, cut = [], [], []
    for start in range(0, len(texts), _TEXTS_AT_ONCE):
        part = [list(text) for text in texts[start : start + _TEXTS_AT_ONCE]]
        try:
            encodings = tokenizer.encode_batch(part, is_pretokenized=True)
        except Exception as error:  # as in `_encoded`
            raise UserError(f"tokenizer {tokenizer_file} cannot encode the words: {error}") from error
        rows += [encoding.ids for encoding in encodings]
        words += [encoding.word_ids for encoding in encodings]
        cut += [bool(encoding.overflowing) for encoding in encodings]
    arrays = _padded(rows, tokenizer, pad_id, tokenizer_file, width) | {"cut": np.array(cut, bool)}
    arrays["word"] = np.full(arrays["input_ids"].shape, -1, np.int32)
    for row, places in enumerate(words):
        starts = [i for i, place in enumerate(places) if place is not None and (not i or places[i - 1] != place)]
        arrays["word"][row, starts] = [places[i] for i in starts]
    return arrays


def _padded(
    rows: Sequence[list[int]], tokenizer: Tokenizer, pad_id: int, tokenizer_file: Path | None, width: int
) -> dict[str, np.ndarray]:
    length = np.array([len(row) for row in rows], np.int32)
    largest = max(tokenizer.get_vocab_size() - 1, pad_id, *(max(row, default=0) for row in rows))
    if largest > _LARGEST_ID:
        raise UserError(f"tokenizer {tokenizer_file} has token {largest}, allowed: at most {_LARGEST_ID}")
    dtype = np.uint16 if largest < 2**16 else np.int32
    input_ids = np.full((len(rows), max(width, *length)), pad_id, dtype)
    for index, row in enumerate(rows):
        input_ids[index, : len(row)] = row
    return {"input_ids": input_ids, "length": length}


def _encoded(tokenizer: Tokenizer, texts: Sequence[Any], max_length: int, file: Path | None) -> list[Row]:
    try:
        found = _encodings(tokenizer, texts, max_length)
        return [Row(encoding.ids, encoding.type_ids, bool(encoding.overflowing)) for encoding in found]
    except Exception as error:  # the library raises a bare Exception, as for a word without an unknown token
        raise UserError(f"tokenizer {file} cannot encode the texts: {error}") from error


def _encodings(tokenizer: Tokenizer, texts: Sequence[Any], max_length: int) -> list[Encoding]:
    """Returns each text cut at `max_length`, without tokenising all of a long text where possible."""
    if isinstance(texts[0], tuple) or not isinstance(tokenizer.pre_tokenizer, BertPreTokenizer):
        return tokenizer.encode_batch_fast(texts)
    # This pre-tokenizer always splits at a space, so that the tokens of a text begin with those of its first words. One
    # more than fit shows that a text is cut.
    starts = [" ".join(text.split(" ", max_length + 1)[: max_length + 1]) for text in texts]
    encodings = tokenizer.encode_batch_fast(starts)
    # Words of nothing but removed characters, or none between two spaces, can leave too few tokens.
    return [
        encoding if encoding.overflowing or start == text else tokenizer.encode(text)
        for encoding, start, text in zip(encodings, starts, texts, strict=True)
    ]


def document(file: Path) -> str:
    """Returns a tokenizer.json, which lower-cases first where sentence_bert_config.json beside it asks for that.

    Raises OSError and ValueError for files that cannot be read.
    """
    content = file.read_text(encoding="utf-8")
    beside = file.with_name("sentence_bert_config.json")
    if not beside.is_file() or json.loads(beside.read_text(encoding="utf-8-sig")).get("do_lower_case") is not True:
        return content
    found = json.loads(content)
    given = found.get("normalizer")
    normalizers = [{"type": "Lowercase"}, *([] if given is None else [given])]
    return json.dumps(found | {"normalizer": {"type": "Sequence", "normalizers": normalizers}}, ensure_ascii=False)


def _read(file: Path | None, max_length: int, pairs: bool = False) -> tuple[Tokenizer, int]:
    """Returns a tokenizer that cuts at `max_length` and pads nothing, and its padding id."""
    if file is None:
        raise UserError("no tokenizer for the text data: set data.tokenizer to the path of a tokenizer.json")
    if not file.is_file():
        raise UserError(f"tokenizer {file}: no such file")
    try:
        tokenizer = Tokenizer.from_str(document(file))
    except Exception as error:  # the library raises a bare Exception
        raise UserError(f"tokenizer {file} is not a tokenizer.json of the tokenizers library: {error}") from error
    special = tokenizer.num_special_tokens_to_add(is_pair=pairs)
    if pairs and not special:
        raise UserError(
            f"tokenizer {file} puts nothing between the texts of a pair, allowed: one that says how to join"
        )
    if max_length <= special:
        what = "pair of texts" if pairs else "text"
        raise UserError(f"data.max_length is {max_length}, allowed: more than the {special} special tokens of a {what}")
    pad_id = (tokenizer.padding or {}).get("pad_id", 0)
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length)
    return tokenizer, pad_id
