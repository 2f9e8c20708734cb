"""A chain of stages: "head>all" trains the head, and then all of the model from the best head.

Linear probing, then fine-tuning (Kumar et al. 2022, Fine-Tuning can Distort Pretrained Features) is head>all; gradual
unfreezing (Howard and Ruder 2018, Universal Language Model Fine-tuning) is head>last:1>last:2>all.
"""

from collections.abc import Iterable

_THEN = ">"


def stages(spec: str) -> list[str]:
    """Returns what trains in each stage of a value of `trainable`, first to last.

    >>> stages("head > last:1>all")
    ['head', 'last:1', 'all']
    """
    return [part.strip() for part in spec.split(_THEN)]


def spelt(spec: str) -> str:
    """Returns a value of `trainable` as it is written, so that one chain has one spelling.

    >>> spelt("head > all"), spelt("head")
    ('head>all', 'head')
    """
    return _THEN.join(stages(spec))


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
