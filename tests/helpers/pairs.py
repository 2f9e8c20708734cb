"""Pairs of texts: a tokenizer that joins them, and files of them."""

import csv
import json

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from tests.helpers import exports

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
_WORDS = ("good", "bad", "film", "book", "very")


def write_tokenizer(directory, kind="bert"):
    """Writes a tokenizer.json of a few words, that joins pairs as the tokenizers of BERT or of RoBERTa do."""
    vocabulary = {name: number for number, name in enumerate((*SPECIAL, *_WORDS))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = ("[SEP]", 3), ("[CLS]", 2)
    tokenizer.post_processor = {"bert": processors.BertProcessing, "roberta": processors.RobertaProcessing}[kind](*ends)
    tokenizer.save(str(directory / "tokenizer.json"))
    return directory / "tokenizer.json"


def rows(count):
    """Returns (premise, hypothesis, whether they are of one kind) of `count` pairs, the same at every call."""
    random = np.random.default_rng(5)
    first, second = (random.integers(0, 2, count) for _ in range(2))

    def told(kinds):
        return [" ".join(["very"] * random.integers(0, 3) + [_WORDS[kind], _WORDS[2 + kind]]) for kind in kinds]

    return list(
        zip(
            told(first),
            told(second),
            ["same" if a == b else "other" for a, b in zip(first, second, strict=True)],
            strict=True,
        )
    )


def write_rows(file, header, found):
    """Writes a .csv, .tsv or .jsonl file."""
    if file.suffix == ".jsonl":
        file.write_text("".join(json.dumps(dict(zip(header, row, strict=True))) + "\n" for row in found))
        return file
    with file.open("w", newline="") as stream:
        csv.writer(stream, delimiter="\t" if file.suffix == ".tsv" else ",").writerows([header, *found])
    return file


def config(directory, found=None, header=("premise", "hypothesis", "label")):
    """Returns the config of a study of pairs in `directory`, of a tiny BERT with two types of tokens."""
    made = exports.text_config(directory)
    write_tokenizer(directory)
    made.data.name = str(write_rows(directory / "pairs.csv", header, found or rows(60)))
    made.data.text_columns, made.data.label_column, made.data.max_length = header[:2], header[2], 10
    return made
