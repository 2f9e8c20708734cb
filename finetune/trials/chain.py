"""A chain of stages: "head>all" trains the head, and then all of the model from the best head.

Linear probing, then fine-tuning (Kumar et al. 2022, Fine-Tuning can Distort Pretrained Features) is head>all; gradual
unfreezing (Howard and Ruder 2018, Universal Language Model Fine-tuning) is head>last:1>last:2>all.
"""

import itertools
from collections.abc import Iterable

_THEN, _AND, _NOT = ">", "+", "!"


def stages(spec: str) -> list[str]:
    """Returns what trains in each stage of a value of `trainable`, first to last.

    >>> stages("head > last:1>all")
    ['head', 'last:1', 'all']
    """
    return [part.strip() for part in spec.split(_THEN)]


def spelt(spec: str) -> str:
    """Returns a value of `trainable` as it is written, so that one chain has one spelling.

    >>> spelt("head > all"), spelt("norm + head+norm"), spelt("all+!norm + ! bias+ head")
    ('head>all', 'head+norm', 'all+!bias+!norm+head')
    """
    return _THEN.join(map(_sorted_terms, stages(spec)))


def _sorted_terms(stage: str) -> str:
    """Returns the terms of a stage sorted, each once, as far as their order means nothing: a "!" takes from before."""
    terms = [part.strip() for part in stage.split(_AND)]
    plain = [_NOT + term[1:].strip() if term.startswith(_NOT) else term for term in terms if term]
    runs = itertools.groupby(plain, key=lambda term: term.startswith(_NOT))
    return _AND.join(term for _, run in runs for term in sorted(set(run)))


def adapts(spec: str) -> bool:
    """Says whether `spec` holds lora, so that the task needs adapters, whose leaves are below "lora"."""
    return any(term.strip().split("/")[0] == "lora" for term in spec.split("+"))


def shorter(spec: str) -> str:
    """Returns a chain without its last stage, whose trials the chain's own start from; "" if it has only one.

    >>> shorter("head>last:1>all"), shorter("all")
    ('head>last:1', '')
    """
    return _THEN.join(stages(spec)[:-1])


def with_shorter(specs: Iterable[str]) -> list[str]:
    """Returns values of `trainable`, each after the shorter chains that it needs.

    >>> with_shorter(["all", "head>last:1>all"])
    ['all', 'head', 'head>last:1', 'head>last:1>all']
    """
    found: list[str] = []
    for spec in specs:
        parts = stages(spec)
        found += [_THEN.join(parts[: length + 1]) for length in range(len(parts))]
    return list(dict.fromkeys(found))
