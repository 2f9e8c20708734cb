import itertools

import numpy as np
import pytest

from finetune.jaxpr.min_cut import smallest_cut


def separates(cut, start, edges, goal):
    waiting, seen = [vertex for vertex in start if vertex not in cut], set()
    while waiting:
        vertex = waiting.pop()
        if vertex in goal:
            return False
        if vertex not in seen:
            seen.add(vertex)
            waiting += [other for other in edges.get(vertex, ()) if other not in cut]
    return True


@pytest.mark.parametrize("seed", range(30))
def test_no_subset_that_separates_weighs_less(seed):
    random = np.random.default_rng(seed)
    vertices = range(9)
    edges = {a: [b for b in vertices if b > a and random.random() < 0.4] for a in vertices}
    weight = {vertex: int(random.integers(1, 6)) for vertex in vertices}
    start, goal = {0, 1, 2}, {2, 7, 8}
    subsets = itertools.chain.from_iterable(itertools.combinations(vertices, count) for count in range(10))
    least = min(sum(weight[v] for v in subset) for subset in subsets if separates(set(subset), start, edges, goal))

    cut = smallest_cut(start, edges, goal, weight)

    assert separates(cut, start, edges, goal)
    assert sum(weight[vertex] for vertex in cut) == least


def test_of_equal_cuts_the_one_nearest_to_the_start_is_taken():
    assert smallest_cut([0], {0: [1], 1: [2], 2: [3]}, [3], {0: 5, 1: 4, 2: 4, 3: 4}) == {1}


def test_nothing_is_cut_where_no_path_leads_to_the_goal():
    assert smallest_cut([0], {0: [1]}, [2], {0: 1, 1: 1, 2: 1}) == set()
