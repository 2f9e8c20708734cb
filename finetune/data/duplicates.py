"""Examples of validation and test that are in train too: what is remembered of them counts as what was learned."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping

import numpy as np


def count(
    train: Mapping[str, np.ndarray], validation: Mapping[str, np.ndarray], test: Mapping[str, np.ndarray]
) -> dict[str, int]:
    """Returns how many examples of a split are, as the model reads them, also in train, and of how many.

    {"validation_in_train", "of", "test_in_train", "of_test"}: two examples are one if all arrays but "label" are equal,
    so that texts that differ only behind max_length, or in what the tokenizer drops, are.
    """
    seen = set(_digests(train))
    return {
        "validation_in_train": _among(seen, _digests(validation)),
        "of": len(validation["label"]),
        "test_in_train": _among(seen, _digests(test)),
        "of_test": len(test["label"]),
    }


def told(counts: Mapping[str, int]) -> list[str]:
    """Returns a line for each split that has examples of train."""
    lines = []
    for split, total in (("validation", "of"), ("test", "of_test")):
        if shared := counts[f"{split}_in_train"]:
            share = shared / counts[total]
            lines.append(
                f"{shared:,} of {counts[total]:,} {split} examples ({share:.1%}) are in train too,"
                " as the model reads them: its score rewards what is remembered"
            )
    return lines


def _among(seen: set[bytes], digests: Iterable[bytes]) -> int:
    return sum(digest in seen for digest in digests)


def _digests(split: Mapping[str, np.ndarray]) -> Iterator[bytes]:
    """Yields a hash of each example: a set of them takes little memory, however large the examples are."""
    arrays = [np.ascontiguousarray(split[name]) for name in sorted(split) if name != "label"]
    for index in range(len(split["label"])):
        digest = hashlib.blake2b(digest_size=16)
        for array in arrays:
            digest.update(array[index].tobytes())
        yield digest.digest()
