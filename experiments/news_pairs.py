"""Pairs of texts made of the packaged R8 news, for the studies of pairs in the README.

    python experiments/news_pairs.py runs/pairs

writes, each with train.csv and test.csv and columns first, second and label, below runs/pairs:

same      the beginning of a news and how it goes on, or how another one of the same topic does: label same or other
share     12 words of how it goes on and of how a news of another topic does: label is the share of the first, 0 to 1
together  as same, without those that do not belong together, and without labels
"""

import csv
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

from finetune.data import packaged

_WORDS = 24  # of a text; news of fewer than twice as many are left out
_MIXED = 12
_COUNTS = {"train": 2000, "test": 500}


class News(NamedTuple):
    """Words of a news: how it begins, how it goes on, and how others do, of the same topic and of another one."""

    first: list[str]
    own: list[str]
    near: list[str]
    far: list[str]


def news(texts: list[str], topics: list[str], count: int) -> list[News]:
    """Returns `count` news in an order that is always the same."""
    random = np.random.default_rng(0)
    words = [text.split() for text in texts]
    long = [place for place in random.permutation(len(words)) if len(words[place]) >= 2 * _WORDS]
    found = []
    for number, place in enumerate(long[:count]):
        behind = [*long[number + 1 :], *long]
        near, far = (
            next(each for each in behind if (topics[each] == topics[place]) == same and each != place)
            for same in (True, False)
        )
        found.append(News(words[place][:_WORDS], *(words[each][_WORDS:][:_WORDS] for each in (place, near, far))))
    return found


def mixed(own: list[str], other: list[str], share: float, random: np.random.Generator) -> list[str]:
    """Returns words of both, in their order, of which `share` are from the first."""
    kept = set(random.permutation(_MIXED)[: round(share * _MIXED)].tolist())
    return [own[place] if place in kept else other[place] for place in range(_MIXED)]


def write(file: Path, header: tuple[str, ...], rows: list[tuple[object, ...]]) -> None:
    """Writes a .csv file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])


def main(directory: Path) -> None:
    """Writes all files."""
    random = np.random.default_rng(1)
    for split, examples in packaged.read("r8").splits.items():
        found = news(list(examples.inputs), list(examples.labels), _COUNTS[split])
        same, share = [], []
        for place, each in enumerate(found):
            first, label = " ".join(each.first), ("same", "other")[place % 2]
            same.append((first, " ".join(each.own if label == "same" else each.near), label))
            part = random.integers(0, 5) / 4
            share.append((first, " ".join(mixed(each.own, each.far, part, random)), part))
        write(directory / "same" / f"{split}.csv", ("first", "second", "label"), same)
        write(directory / "share" / f"{split}.csv", ("first", "second", "label"), share)
        together = [(" ".join(each.first), " ".join(each.own)) for each in found]
        write(directory / "together" / f"{split}.csv", ("first", "second"), together)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
