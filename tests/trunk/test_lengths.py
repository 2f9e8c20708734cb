"""The lengths of a pass: chosen where they save more than they cost, and every example in exactly one part."""

import numpy as np

from finetune.trunk import lengths


def test_a_length_is_added_while_it_saves_more_than_its_compilation():
    filled = np.array([10] * 60 + [30] * 20 + [64] * 20)  # 100 examples of 64 positions, 64 FLOPs each: one a position
    # 16 saves 60 · 48 = 2,880 FLOPs, 32 alone 80 · 32 = 2,560; 32 beside 16 saves 20 · 32 = 640 more; nothing is left.
    for cost, expected in ((3000, (64,)), (2800, (16, 64)), (630, (16, 32, 64)), (0, (16, 32, 64))):
        assert lengths.choose(filled, 64, 64.0, cost) == expected


def test_nothing_is_cut_where_all_is_filled_or_short():
    assert lengths.choose(np.full(9, 64), 64, 64.0, 0.0) == (64,)
    assert lengths.choose(np.full(9, 3), 8, 8.0, 0.0) == (8,)


def test_every_example_is_in_one_part_that_holds_it_and_only_the_longest_is_unfilled():
    filled = np.random.default_rng(0).integers(0, 65, 103)
    found = lengths.parts(filled, (16, 32, 64), 8)
    assert [part.positions for part in found] == [64, 32, 16]
    assert sorted(np.concatenate([part.examples for part in found])) == list(range(103))
    for part in found:
        assert (filled[part.examples] <= part.positions).all()
    assert [len(part.examples) % 8 for part in found] == [103 % 8, 0, 0]
