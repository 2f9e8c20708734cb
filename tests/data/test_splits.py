import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.data import splits


def test_quotas_are_the_largest_remainders():
    # The textbook example of the method: 100,000 votes, 10 seats. The last class may take none.
    votes = np.array([47_000, 16_000, 15_900, 12_000, 6_000, 3_100])
    limits = np.array([10, 10, 10, 10, 10, 0])
    assert splits.quotas(votes, 10, limits).tolist() == [5, 2, 1, 1, 1, 0]


@pytest.mark.parametrize(
    "counts, total, limits, expected",
    [
        ([90, 9, 1], 10, [90, 9, 1], [8, 1, 1]),  # a tenth is 9, 0.9, 0.1: the rarest is given one by the largest
        ([90, 9, 1], 2, [90, 9, 1], [2, 0, 0]),  # no room for one of each
        ([4, 4], 8, [4, 4], [4, 4]),
        ([3, 0, 3], 2, [3, 0, 3], [1, 0, 1]),
        ([5, 1], 3, [4, 0], [3, 0]),  # the last of a class stays
        ([2, 2, 2], 3, [1, 1, 1], [1, 1, 1]),
    ],
)
def test_quotas(counts, total, limits, expected):
    assert splits.quotas(np.array(counts), total, np.array(limits)).tolist() == expected


@given(st.lists(st.integers(0, 6), min_size=1, max_size=80), st.integers(0, 1), st.integers(0, 5), st.data())
def test_stratify(labels, leave, seed, data):
    labels = np.array(labels)
    counts = np.bincount(labels, minlength=7)
    room = sum(max(count - leave, 0) for count in counts)
    assert splits.room(labels, leave) == room
    total = data.draw(st.integers(0, room))
    mask = splits.stratify(labels, total, (seed, 0), leave)
    taken = np.bincount(labels[mask], minlength=7)
    assert mask.sum() == total
    assert (taken <= np.maximum(counts - leave, 0)).all()
    if total >= np.count_nonzero(counts > leave):
        assert (taken[counts > leave] >= 1).all()


def test_shares_are_proportional_to_within_one():
    labels = np.repeat([0, 1, 2], [500, 300, 200])
    taken = np.bincount(labels[splits.stratify(labels, 99, (0, 0))])
    assert np.abs(taken - 99 * np.array([0.5, 0.3, 0.2])).max() < 1


def test_key_decides_the_draw():
    labels = np.repeat([0, 1], 50)
    draws = {key: tuple(np.flatnonzero(splits.stratify(labels, 20, key))) for key in [(0, 0), (0, 1), (1, 0)]}
    assert len(set(draws.values())) == 3
    assert draws[0, 0] == tuple(np.flatnonzero(splits.stratify(labels, 20, (0, 0))))


def test_draw_is_the_same_on_every_machine():
    # Pinned: a study's trials are identified by their data, which must not move with NumPy.
    chosen = np.flatnonzero(splits.stratify(np.repeat([0, 1], 8), 6, (7, 1)))
    assert chosen.tolist() == [1, 2, 3, 8, 10, 11]
