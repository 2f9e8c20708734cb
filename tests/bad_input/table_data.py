"""Mistakes in the choice of data, and in files of data.

name: (arguments, words of the line); {inputs} holds what `files.write` wrote.
"""

from tests.helpers.mistakes import BERT

DATA = {
    "unknown set": (["--config.data.name=digit"], ["data.name", "'digit'", "'digits'"]),
    "absent file": (["--config.data.name=there/is/none.csv"], ["there/is/none.csv", "no such file"]),
    "unknown ending": (["--config.data.name={inputs}/tokenizer.json"], ["tokenizer.json", ".csv", ".npz"]),
    "TFDS set not prepared": (["--config.data.name=tfds:mnist"], ["'mnist'", "not prepared", "tfds build"]),
    "one class": (["--config.data.classes=3"], ["one class", "'3'", "two or more"]),
    "unknown class": (["--config.data.classes=3,12"], ["data.classes", "'12'"]),
    "too many examples": (["--config.data.train_examples=5000"], ["data.train_examples is 5000", "at most"]),
    "too many held out": (["--config.data.validation_examples=5000"], ["validation would take 5000", "at most"]),
    "missing column": (
        [*BERT, "--config.data.name={inputs}/texts.csv", "--config.data.text_column=txt"],
        ["texts.csv", "no column 'txt'", "text, label"],
    ),
    "missing column of a pair": (
        [*BERT, "--config.data.name={inputs}/texts.csv", "--config.data.text_columns=text,other"],
        ["texts.csv", "no column 'other'", "text, label"],
    ),
    "three texts": ([*BERT, "--config.data.text_columns=a,b,c"], ["data.text_columns", "'a, b, c'", "two columns"]),
    "empty file": ([*BERT, "--config.data.name={inputs}/empty.csv"], ["empty.csv", "no rows"]),
    "not UTF-8": ([*BERT, "--config.data.name={inputs}/latin.csv"], ["latin.csv", "not UTF-8"]),
    "no tokenizer": (
        ["--config.data.name={inputs}/texts.csv", *BERT[:2], *BERT[3:]],
        ["tokenizer", "data.tokenizer"],
    ),
    "bad tokenizer": (
        [*BERT, "--config.data.name={inputs}/texts.csv", "--config.data.tokenizer={inputs}/texts.csv"],
        ["texts.csv", "tokenizer.json"],
    ),
    "token outside the vocabulary": (
        [*BERT, "--config.data.name={inputs}/texts.csv", "--config.data.tokenizer={inputs}/large.json"],
        ["token 40001", "vocabulary of 30522"],
    ),
    "max_length below zero": (
        [*BERT, "--config.data.name={inputs}/texts.csv", "--config.data.max_length=-1"],
        ["data.max_length is -1", "0 to"],
    ),
    "truncated npz": (["--config.data.name={inputs}/cut.npz"], ["cut.npz", "not a whole .npz"]),
    "pickled npz": (["--config.data.name={inputs}/pickled.npz"], ["pickled.npz", "plain arrays"]),
    "negative label": (["--config.data.name={inputs}/negative.npz"], ["y_train", "label -1", "0 or more"]),
    "label out of range": (["--config.data.name={inputs}/unseen.npz"], ["label '6'", "test", "out of range"]),
    "features for a ViT": (["--config.data.name={inputs}/features.npz", *BERT[3:]], ["'vit'", "features"]),
    "unreadable image": (["--config.data.name={inputs}/images", *BERT[3:]], ["broken.png", "not an image"]),
    "empty folder": (["--config.data.name={inputs}/empty"], ["empty", "holds no data"]),
    "open quote": ([*BERT, "--config.data.name={inputs}/quote.csv"], ["quote.csv:", "quote"]),
    "too many fields": ([*BERT, "--config.data.name={inputs}/wide.csv"], ["wide.csv:2", "2 fields"]),
    "empty label": ([*BERT, "--config.data.name={inputs}/nolabel.csv"], ["nolabel.csv:3", "label is empty"]),
    "list in jsonl": ([*BERT, "--config.data.name={inputs}/list.jsonl"], ["list.jsonl:1", "not a JSON object"]),
    "deep jsonl": ([*BERT, "--config.data.name={inputs}/deep.jsonl"], ["deep.jsonl:1", "not JSON"]),
    "null in jsonl": ([*BERT, "--config.data.name={inputs}/null.jsonl"], ["null.jsonl:1", "text is null"]),
    "half a character": ([*BERT, "--config.data.name={inputs}/half.jsonl"], ["half.jsonl:1", "\\ud800", "Unicode"]),
    "unknown split": ([*BERT, "--config.data.name={inputs}/folder"], ["'held_out'", "validation"]),
    "tokenizer without the words": (
        [*BERT[:2], "--config.data.name={inputs}/texts.csv", "--config.data.tokenizer={inputs}/strict.json", *BERT[3:]],
        ["strict.json", "cannot encode"],
    ),
    "token beyond all arrays": (
        [
            *BERT[:2],
            "--config.data.name={inputs}/texts.csv",
            "--config.data.tokenizer={inputs}/largest.json",
            *BERT[3:],
        ],
        ["largest.json", "token 2147483648"],
    ),
    "values that are not finite": (["--config.data.name={inputs}/nan.npz", *BERT[3:]], ["x_train", "not finite"]),
    "labels that are too few": (["--config.data.name={inputs}/fewer.npz", *BERT[3:]], ["y_train", "[9]", "[10]"]),
    "unknown array": (["--config.data.name={inputs}/names.npz"], ["'images'", "x_train"]),
    "images of two sizes": (["--config.data.name={inputs}/sizes", *BERT[3:]], ["8 x 8", "8 x 9", "data.image_size"]),
    "images beyond memory": (["--config.data.image_size=2000000"], ["2000000 x 2000000", "GB", "free"]),
}
