"""Whether a group trains on features of its frozen part, and those features, computed once for all groups and epochs.

trunk.py cuts a program; here it is decided what a cut is worth, and its trunk is run over the data.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from finetune.grid import Trial
from finetune.params import partition
from finetune.step import Recipe, full_forward
from finetune.trunk import Cut, features_of

HostSplit = dict[str, np.ndarray]

# Reading a cached byte in every epoch costs time too: with fewer FLOPs for each, computing again is as good.
_FLOPS_A_BYTE = 50.0
# Examples a batch of the pass on CPU: MiniLM on 64 tokens took 8.5 ms a text in batches of 16, 12.3 ms in 128.
_CPU_BATCH = 16


class Trunk(NamedTuple):
    """What becomes of a group's frozen part. mode: none (nothing is frozen), shared (in every step) or cached (once).

    train, evaluate: the program cut for training, with its dropout, and for evaluation; None unless cached.
    """

    mode: str
    reason: str
    bytes: int = 0  # of the features of all splits
    flops: float = 0.0  # of the pass over them
    train: Cut | None = None
    evaluate: Cut | None = None


def choose_trunk(
    mode: str,
    recipe: Recipe,
    shapes: Mapping[str, jax.ShapeDtypeStruct],
    splits: Sequence[HostSplit],
    trials: Sequence[Trial],
    free_bytes: int,
) -> Trunk:
    """Returns what pays for a group; `splits` are train, validation and test, `free_bytes` bounds a cache."""
    params, frozen = partition(shapes, frozenset(recipe.paths))
    if not frozen:
        return Trunk("none", "nothing is frozen")
    if mode == "shared":
        return Trunk("shared", "so set")
    example = {name: jax.ShapeDtypeStruct(array.shape[1:], array.dtype) for name, array in splits[0].items()}
    example.pop("label")
    dropout = jax.ShapeDtypeStruct((), jnp.zeros(()).dtype)
    forward = full_forward(recipe.task)
    evaluate = Cut(forward, params, frozen, example, dropout, keys=False)
    train = Cut(forward, params, frozen, example, dropout, keys=True) if recipe.dropout else evaluate
    if not train.features:
        return Trunk("shared", train.refused or "all that is frozen comes after what trains or after dropout")
    train_bytes, train_flops = _cost(train, frozen, example, len(splits[0]["label"]))
    other_bytes, other_flops = _cost(evaluate, frozen, example, sum(len(split["label"]) for split in splits[1:]))
    size, flops = train_bytes + other_bytes, train_flops + other_flops
    if mode != "cached" and train_flops < _FLOPS_A_BYTE * train_bytes:
        return Trunk("shared", f"a cache is not worth it for {train_flops / train_bytes:.0f} FLOPs a byte")
    if mode != "cached" and size > free_bytes:
        return Trunk("shared", f"features of {size / 1e9:.1f} GB do not fit into {free_bytes / 1e9:.1f} GB")
    epochs = max(int(trial.hparams["epochs"]) for trial in trials)
    reason = f"{flops / 1e9:.0f} GFLOP are spent once, not in each of {epochs} epochs, for {size / 1e6:.1f} MB"
    return Trunk("cached", reason, size, flops, train, evaluate)


def _cost(cut: Cut, frozen: Mapping[str, Any], example: Mapping[str, Any], examples: int) -> tuple[int, float]:
    """Returns the bytes of the features of so many examples, and the FLOPs that compute them."""
    size = sum(one.size * one.dtype.itemsize for one in cut.features.values())
    batch = {name: jax.ShapeDtypeStruct((2, *one.shape), one.dtype) for name, one in example.items()}
    analysis = jax.jit(cut.trunk).lower(dict(frozen), batch).cost_analysis() or {}
    return examples * size, examples * float(analysis.get("flops", 0.0)) / 2


def cut_recipe(recipe: Recipe, trunk: Trunk) -> Recipe:
    """Returns the recipe whose programs are the tails alone, if the trunk is cached."""
    if trunk.train is None or trunk.evaluate is None:
        return recipe
    return recipe._replace(forward=trunk.train.tail, evaluating_forward=trunk.evaluate.tail)


def cut_frozen(frozen: dict[str, Any], trunk: Trunk) -> dict[str, Any]:
    """Returns what the programs of a group read for frozen leaves."""
    if trunk.train is None or trunk.evaluate is None:
        return frozen
    return trunk.evaluate.constants(frozen) | trunk.train.constants(frozen)


def cut_splits(splits: Sequence[HostSplit], features: Sequence[HostSplit], trunk: Trunk) -> list[HostSplit]:
    """Returns what the programs of a group read of each split, given the features of all groups."""
    if trunk.train is None or trunk.evaluate is None:
        return list(splits)
    return [
        {name: computed[name] for name in cut.features} | {name: split[name] for name in (*cut.reads, "label")}
        for split, computed, cut in zip(splits, features, _cuts(trunk), strict=True)
    ]


def _cuts(trunk: Trunk) -> tuple[Cut, ...]:
    assert trunk.train is not None
    assert trunk.evaluate is not None
    return trunk.train, trunk.evaluate, trunk.evaluate


class Pass:
    """The trunks of all groups that cache, as one pass over each split."""

    def __init__(self, trunks: Sequence[Trunk], base: HostSplit, splits: Sequence[HostSplit], batch_size: int):
        self._cached = [trunk for trunk in trunks if trunk.mode == "cached"]
        self._base = jax.device_put(base) if self._cached else {}
        self._splits = splits
        self._batch_size = min(batch_size, _CPU_BATCH) if jax.default_backend() == "cpu" else batch_size
        self._programs = [
            jax.jit(features_of([_cuts(trunk)[number] for trunk in self._cached])) for number in range(len(splits))
        ]

    @property
    def batches(self) -> int:
        """The number of batches of the whole pass."""
        return sum(-(-len(split["label"]) // self._batch_size) for split in self._splits) if self._cached else 0

    def run(self, advance: Callable[[], None]) -> list[HostSplit]:
        """Returns the features of every split by name, arrays [examples, ...]; calls `advance` after every batch."""
        found = []
        for number, split in enumerate(self._splits):
            examples = len(split["label"]) if self._cached else 0
            pieces = []
            for start in range(0, examples, self._batch_size):
                pieces.append(jax.device_get(self._batch(number, start)))
                advance()
            found.append(_joined(pieces, examples) if pieces else {})
        return found

    def imagined(self) -> list[HostSplit]:
        """Returns zeros in place of the features, to measure programs without the pass."""
        wanted = [
            {name: one for trunk in self._cached for name, one in _cuts(trunk)[i].features.items()} for i in range(3)
        ]
        return [
            {name: np.zeros((len(split["label"]), *one.shape), one.dtype) for name, one in features.items()}
            for split, features in zip(self._splits, wanted, strict=True)
        ]

    def estimated_seconds(self) -> float:
        """Returns how long the pass will take, from one batch."""
        if not self._cached:
            return 0.0
        jax.block_until_ready(self._batch(0, 0))
        started = time.monotonic()
        jax.block_until_ready(self._batch(0, 0))
        return self.batches * (time.monotonic() - started)

    def _batch(self, number: int, start: int) -> dict[str, jax.Array]:
        """Returns the features of a batch of a split, which starts over at its end: all batches have one size."""
        split = self._splits[number]
        index = np.arange(start, start + self._batch_size) % len(split["label"])
        return self._programs[number](self._base, {name: array[index] for name, array in split.items()})


def _joined(pieces: Sequence[HostSplit], examples: int) -> HostSplit:
    return {name: np.concatenate([piece[name] for piece in pieces])[:examples] for name in pieces[0]}
