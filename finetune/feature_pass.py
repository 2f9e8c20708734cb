"""The trunks of all groups of a study, run over the data once; what an earlier study has left is taken from disk."""

import hashlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from finetune.feature_store import FeatureStore, array_hash
from finetune.features import HostSplit, Trunk
from finetune.trunk import Cut, features_of

# Examples a batch of the pass on CPU: MiniLM on 64 tokens took 8.5 ms a text in batches of 16, 12.3 ms in 128.
_CPU_BATCH = 16
_WORTH_KEEPING_FLOPS = 1e11  # less is computed again before a file is found and checked


class Pass:
    """The trunks of all groups that cache, as one pass over each split."""

    def __init__(
        self, trunks: Sequence[Trunk], base: HostSplit, splits: Sequence[HostSplit], batch_size: int,
        store: FeatureStore,
    ):  # fmt: skip
        cached = [trunk for trunk in trunks if trunk.mode == "cached"]
        self._splits, self._store = splits, store
        self._leaves, self._leaf_hashes = base, dict[str, str]()
        self._keeps = sum(trunk.flops for trunk in cached) >= _WORTH_KEEPING_FLOPS
        self._batch_size = min(batch_size, _CPU_BATCH) if jax.default_backend() == "cpu" else batch_size
        cuts = [[trunk.cuts[number] for trunk in cached] for number in range(len(splits))]
        self._shapes = [{name: one for cut in each for name, one in cut.features.items()} for each in cuts]
        self._names = [self._file_names(*each) for each in zip(cuts, splits, strict=True)]
        self._found = [self._find(number) for number in range(len(splits))]
        missing = [shapes.keys() - found for shapes, found in zip(self._shapes, self._found, strict=True)]
        self._base = jax.device_put(base) if any(missing) else {}
        self._programs = [_program(*each) for each in zip(cuts, missing, strict=True)]

    @property
    def batches(self) -> int:
        """The number of batches that are left to compute."""
        return sum(
            -(-len(split["label"]) // self._batch_size)
            for split, program in zip(self._splits, self._programs, strict=True)
            if program
        )

    @property
    def is_found(self) -> bool:
        """Whether there are features, and the store holds all of them."""
        return any(self._found) and not self.batches

    def run(self, advance: Callable[[], None]) -> list[HostSplit]:
        """Returns the features of every split by name, arrays [examples, ...]; calls `advance` after every batch."""
        return [self._found[number] | self._compute(number, advance) for number in range(len(self._splits))]

    def imagined(self) -> list[HostSplit]:
        """Returns zeros in place of the features, to measure programs without the pass."""
        return [
            {name: np.zeros((len(split["label"]), *one.shape), one.dtype) for name, one in shapes.items()}
            for split, shapes in zip(self._splits, self._shapes, strict=True)
        ]

    def estimated_seconds(self) -> float:
        """Returns how long the pass will take, from one batch."""
        number = next((number for number, program in enumerate(self._programs) if program), None)
        if number is None:
            return 0.0
        jax.block_until_ready(self._batch(number, 0))
        started = time.monotonic()
        jax.block_until_ready(self._batch(number, 0))
        return self.batches * (time.monotonic() - started)

    def _compute(self, number: int, advance: Callable[[], None]) -> HostSplit:
        """Returns the features of a split that have not been found."""
        if self._programs[number] is None:
            return {}
        examples, arrays = len(self._splits[number]["label"]), HostSplit()
        for start in range(0, examples, self._batch_size):
            batch = jax.device_get(self._batch(number, start))
            for name, piece in batch.items():
                if name not in arrays:
                    arrays[name] = self._create(number, name, (examples, *piece.shape[1:]), piece.dtype)
                arrays[name][start : start + self._batch_size] = piece[: examples - start]
            advance()
        for name, file in self._names[number].items():
            if name in arrays:
                self._store.keep(file, arrays[name])
        return arrays

    def _create(self, number: int, name: str, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        return self._store.create(self._names[number][name], shape, dtype) if self._keeps else np.empty(shape, dtype)

    def _find(self, number: int) -> HostSplit:
        """Returns the features of a split that the store holds."""
        if not self._keeps:
            return {}
        examples = len(self._splits[number]["label"])
        found = {
            name: self._store.find(self._names[number][name], (examples, *one.shape), one.dtype)
            for name, one in self._shapes[number].items()
        }
        return {name: array for name, array in found.items() if array is not None}

    def _file_names(self, cuts: Sequence[Cut], split: HostSplit) -> dict[str, str]:
        """Returns feature -> the name of its file, a hash of program, weights, examples and what computes them."""
        if not self._keeps:
            return {}
        names = {}
        for cut in cuts:
            leaves, arrays = cut.needs
            inputs = [f"{path} {self._leaf_hash(path)}" for path in sorted(leaves)]
            inputs += [f"{name} {array_hash(split[name])}" for name in sorted(arrays)]
            computer = jax.default_backend(), jax.__version__, str(jax.config.values["jax_default_matmul_precision"])
            for name in cut.features:
                names[name] = hashlib.sha256("\n".join((name, *inputs, *computer)).encode()).hexdigest()
        return names

    def _leaf_hash(self, path: str) -> str:
        if path not in self._leaf_hashes:
            self._leaf_hashes[path] = array_hash(self._leaves[path])
        return self._leaf_hashes[path]

    def _batch(self, number: int, start: int) -> dict[str, jax.Array]:
        """Returns the features of a batch of a split, which starts over at its end: all batches have one size."""
        split = self._splits[number]
        index = np.arange(start, start + self._batch_size) % len(split["label"])
        return self._programs[number](self._base, {name: array[index] for name, array in split.items()})


def _program(cuts: Sequence[Cut], wanted: set[str]) -> Any:
    """Returns the program that computes the `wanted` features of a batch, None if there are none."""
    if not wanted:
        return None
    trunk = features_of(cuts)

    def compute(base: Any, batch: Any) -> Any:
        return {name: feature for name, feature in trunk(base, batch).items() if name in wanted}

    return jax.jit(compute)
