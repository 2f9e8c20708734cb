"""Minimum vertex cut by augmenting paths (Ford and Fulkerson 1956; Edmonds and Karp 1972)."""

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from typing import Any

_START, _GOAL = ("start",), ("goal",)


def smallest_cut(
    start: Iterable[int], edges: Mapping[int, Iterable[int]], goal: Iterable[int], weight: Mapping[int, int]
) -> set[int]:
    """Returns the vertices of least total weight that every path from `start` to `goal` meets.

    Vertices of `start` and `goal` may be among them. Of several such sets it is the one nearest to `start`.

    >>> sorted(smallest_cut([1], {1: [2], 2: [3, 4]}, [3, 4], {1: 9, 2: 5, 3: 2, 4: 3}))
    [2]
    """
    capacity: dict[Any, dict[Any, float]] = defaultdict(lambda: defaultdict(float))
    for vertex, size in weight.items():
        capacity["in", vertex]["out", vertex] = size
    for vertex, others in edges.items():
        for other in others:
            capacity["out", vertex]["in", other] = float("inf")
    for vertex in start:
        capacity[_START]["in", vertex] = float("inf")
    for vertex in goal:
        capacity["out", vertex][_GOAL] = float("inf")
    while _GOAL in (parents := _reached(capacity)):
        path, node = [], _GOAL
        while node != _START:
            path.append((parents[node], node))
            node = parents[node]
        flow = min(capacity[a][b] for a, b in path)
        for a, b in path:
            capacity[a][b] -= flow
            capacity[b][a] += flow
    return {vertex for vertex in weight if ("in", vertex) in parents and ("out", vertex) not in parents}


def _reached(capacity: Mapping[Any, Mapping[Any, float]]) -> dict[Any, Any]:
    """Returns the nodes reached from the start where capacity is left, each with the one before it."""
    parents: dict[Any, Any] = {_START: None}
    waiting = deque([_START])
    while waiting:
        node = waiting.popleft()
        for other, left in capacity[node].items():
            if left > 0 and other not in parents:
                parents[other] = node
                waiting.append(other)
    return parents
