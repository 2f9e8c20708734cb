"""Pairs of texts made of the packaged R8 news, for the studies of pairs in the README.

    python experiments/news_pairs.py runs/pairs

writes, each with train.csv and test.csv and columns first, second and label, below runs/pairs:

same      the beginning of a news and how it goes on, or how another one of the same topic does: label same or other
share     the second text is mixed of both, 12 words: label is the share of words that go on, 0 to 1
together  as same, without those that do not belong together, and without labels
"""

import csv
import sys
from pathlib import Path

import numpy as np

from finetune.data import packaged

_WORDS = 24  # of a text; news of fewer than twice as many are left out
_MIXED = 12
_COUNTS = {"train": 2000, "test": 500}


def halves(texts: list[str], topics: list[str], count: int) -> list[tuple[list[str], list[str], list[str]]]:
    """Returns (words of the beginning, of how it goes on, of how another of the topic does) of `count` news."""
    random = np.random.default_rng(0)
    words = [text.split() for text in texts]
    long = [place for place in random.permutation(len(words)) if len(words[place]) >= 2 * _WORDS]
    by_topic = {topic: [place for place in long if topics[place] == topic] for topic in set(topics)}
    rows = []
    for place in long[:count]:
        others = by_topic[topics[place]]
        other = others[(others.index(place) + 1) % len(others)]
        rows.append((words[place][:_WORDS], words[place][_WORDS:][:_WORDS], words[other][_WORDS:][:_WORDS]))
    return rows


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
        found = halves(list(examples.inputs), list(examples.labels), _COUNTS[split])
        same, share = [], []
        for place, (first, own, other) in enumerate(found):
            label = ("same", "other")[place % 2]
            same.append((" ".join(first), " ".join(own if label == "same" else other), label))
            part = random.integers(0, 5) / 4
            share.append((" ".join(first), " ".join(mixed(own, other, part, random)), part))
        write(directory / "same" / f"{split}.csv", ("first", "second", "label"), same)
        write(directory / "share" / f"{split}.csv", ("first", "second", "label"), share)
        together = [(" ".join(first), " ".join(own)) for first, own, _ in found]
        write(directory / "together" / f"{split}.csv", ("first", "second"), together)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
