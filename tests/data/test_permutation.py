"""Permutations are the same everywhere: their words are those of PCG64, pinned here."""

import numpy as np

from finetune.data.permutation import permutation

# The first words that the reference implementation of PCG64 (XSL-RR) gives for SeedSequence([0, 0, 1]) and [3, 1, 1].
WORDS = {
    (0, 0, 1): [
        8286993518594409552, 7213445024538350215, 10643195521338302242, 5340313491792118612,
        3003713484507544164, 3386897294829994955, 2057472189449209202, 1982851449904719215,
    ],
    (3, 1, 1): [
        13719566562492753167, 14672421074322852681, 6219940424850848680, 1271795033357526652,
        17785438624416813087, 10586340150700216437, 5236540186426443897, 11523280092735543183,
    ],
}  # fmt: skip


def test_a_permutation_sorts_pinned_words() -> None:
    for key, words in WORDS.items():
        assert permutation(8, key).tolist() == sorted(range(8), key=lambda place: words[place])
    assert permutation(8, (0, 0, 1)).tolist() == [7, 6, 4, 5, 3, 1, 0, 2]


def test_a_permutation_holds_every_number_once_and_any_comes_first() -> None:
    firsts = [permutation(5, (seed, 1))[0] for seed in range(1000)]
    assert sorted(permutation(1000, (2,))) == list(range(1000))
    assert np.bincount(firsts).min() > 150  # 200 each, standard deviation 13
