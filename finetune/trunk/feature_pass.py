"""The trunks of all groups of a study, run over the data once; what an earlier study has left is taken from disk.

Texts are cut to a few lengths, each to the shortest that holds it, if the trunk makes the same of them without padding.
"""

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from finetune.data import padding
from finetune.hosts import processes
from finetune.hosts.console import console
from finetune.member.params import Leaves
from finetune.member.task import Batch
from finetune.trunk import lengths
from finetune.trunk.choice import HostSplit, Trunk, pass_batch
from finetune.trunk.cut import Cut, Features
from finetune.trunk.feature_store import Checksum, FeatureStore, array_hash

_COMPILE_FLOPS, _COMPILE_FLOPS_CPU = 2e13, 2e11  # what is computed in the second that a program takes to compile
_ROUNDINGS = 256.0  # units of the last place that layers of single precision may add up to
_WORTH_KEEPING_FLOPS = 1e11  # less is computed again before a file is found and checked


class Pass:
    """The trunks of all groups that cache, as one pass over each split; features of splits that are `known` stay."""

    def __init__(
        self, trunks: Sequence[Trunk], base: HostSplit, splits: Sequence[HostSplit], batch_size: int,
        store: FeatureStore, known: Sequence[HostSplit] = (),
    ):  # fmt: skip
        cached = [trunk for trunk in trunks if trunk.mode == "cached"]
        self._splits, self._store = splits, store
        self._leaves, self._leaf_hashes = base, dict[str, str]()
        self._keeps = sum(trunk.flops for trunk in cached) >= _WORTH_KEEPING_FLOPS
        self._batch_size = pass_batch(batch_size)
        cuts = [[trunk.cuts[number] for trunk in cached] for number in range(len(splits))]
        self._shapes = [{name: one for cut in each for name, one in cut.features.items()} for each in cuts]
        self._names = [self._file_names(*each) for each in zip(cuts, splits, strict=True)]
        self._known = known or [{} for _ in splits]
        self._found = [self._find(number) for number in range(len(splits))]
        there = [before.keys() | found.keys() for before, found in zip(self._known, self._found, strict=True)]
        missing = [shapes.keys() - names for shapes, names in zip(self._shapes, there, strict=True)]
        self._base = jax.device_put(base) if any(missing) else {}
        self._cuts, self._missing = cuts, missing
        self._programs: dict[tuple[frozenset[str], int], Any] = {}
        flops = max((trunk.flops for trunk in cached), default=0.0) / sum(len(split["label"]) for split in splits)
        self._parts = self._parts_of([split for split, names in zip(splits, missing, strict=True) if names], flops)
        self.refused = ""  # why texts are not cut, if something is against it

    @property
    def batches(self) -> int:
        """The number of batches that are left to compute."""
        return sum(1 for number in range(len(self._splits)) for _ in self._batches(number))

    @property
    def is_found(self) -> bool:
        """Whether there are features, and the store holds all of them."""
        return any(self._found) and not self.batches

    def run(self, advance: Callable[[], None]) -> list[HostSplit]:
        """Returns the features of every split by name, arrays [examples, ...]; calls `advance` after every batch."""
        self._uncut_where_it_shows()
        return [
            {**self._known[number], **self._found[number], **self._compute(number, advance)}
            for number in range(len(self._splits))
        ]

    def imagined(self) -> list[HostSplit]:
        """Returns zeros in place of the features, to measure programs without the pass."""
        return [
            {name: np.zeros((len(split["label"]), *one.shape), one.dtype) for name, one in shapes.items()}
            for split, shapes in zip(self._splits, self._shapes, strict=True)
        ]

    def estimated_seconds(self) -> float:
        """Returns how long the pass will take, compiling included, from one batch; that one is compiled for it too."""
        number = next((number for number, names in enumerate(self._missing) if names), None)
        if number is None:
            return 0.0
        index, positions = next(self._batches(number))  # of the longest
        started = time.monotonic()
        jax.block_until_ready(self._batch(number, index, positions))
        compiled = time.monotonic()
        jax.block_until_ready(self._batch(number, index, positions))
        running, compiling = time.monotonic() - compiled, compiled - started
        keys = [(frozenset(self._missing[number]), each) for number in range(len(self._splits))
                for _, each in self._batches(number)]  # fmt: skip
        shorter = {key for key in keys if key[1] < positions}
        checked = 2 * len(shorter) * positions  # a batch of each, cut and whole
        passed = sum(each for _, each in keys)
        return (passed + checked) / positions * running + len(set(keys)) * max(compiling - running, 0.0)

    def _compute(self, number: int, advance: Callable[[], None]) -> HostSplit:
        """Returns the features of a split that have not been found; a batch is fetched while the next is computed."""
        examples, arrays = len(self._splits[number]["label"]), HostSplit()
        checksums: dict[str, Checksum] = {}

        def fetch(index: np.ndarray, batch: dict[str, jax.Array]) -> None:
            for name, piece in jax.device_get(batch).items():
                if name not in arrays:
                    arrays[name] = self._create(number, name, (examples, *piece.shape[1:]), piece.dtype)
                    checksums[name] = Checksum(arrays[name].shape, piece.dtype)
                arrays[name][index] = piece[: len(index)]
                if isinstance(arrays[name], np.memmap):
                    checksums[name].add(index, piece[: len(index)])
            advance()

        waiting = None
        for index, positions in self._batches(number):
            batch = self._batch(number, index, positions)
            if waiting is not None:
                fetch(*waiting)
            waiting = index, batch
        if waiting is not None:
            fetch(*waiting)
        for name, file in self._names[number].items():
            if name in arrays:
                self._store.keep(file, arrays[name], checksums[name].hex())
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
            if name not in self._known[number]
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

    def _parts_of(self, splits: Sequence[HostSplit], flops: float) -> list[list[lengths.Part]]:
        """Returns the examples of every split by the positions that they are cut to.

        splits: those to compute. flops: of one example. Where nothing is padded there is 1 position.
        """
        if not splits or not all(map(padding.padded, splits)):
            return [[lengths.Part(np.arange(len(split["label"])), 1)] for split in self._splits]
        costs = _COMPILE_FLOPS_CPU if jax.default_backend() == "cpu" else _COMPILE_FLOPS
        filled = np.concatenate([padding.filled(split) for split in splits])
        chosen = lengths.choose(filled, padding.whole(splits[0]), flops, costs)
        return [lengths.parts(padding.filled(split), chosen, self._batch_size) for split in self._splits]

    def _batches(self, number: int) -> Iterator[tuple[np.ndarray, int]]:
        """Yields (examples, positions) of what is to be computed of a split, the longest first."""
        for part in self._parts[number] if self._missing[number] else ():
            for start in range(0, len(part.examples), self._batch_size):
                yield part.examples[start : start + self._batch_size], part.positions

    def _batch(self, number: int, index: np.ndarray, positions: int) -> dict[str, jax.Array]:
        """Returns the features of a batch, which starts over at its end: all batches have one size."""
        split = self._splits[number]
        batch = {name: array[np.resize(index, self._batch_size)] for name, array in split.items()}
        return self._program(number, positions)(self._base, padding.cut(batch, positions))

    def _program(self, number: int, positions: int) -> Any:
        """Returns the program that computes the missing features of a split.

        A feature's name is a hash of what computes it, so that splits which lack the same have the same program.
        """
        key = frozenset(self._missing[number]), positions
        if key not in self._programs:
            self._programs[key] = _program(self._cuts_for(number, positions) or (), self._missing[number])
        return self._programs[key]

    def _cuts_for(self, number: int, positions: int) -> list[Cut] | None:
        """Returns the cuts that compute examples of so many positions; None if that changes their features' shapes."""
        split = self._splits[number]
        if not padding.padded(split) or positions == padding.whole(split):
            return list(self._cuts[number])
        shapes = {
            name: jax.ShapeDtypeStruct((*split[name].shape[1:-1], positions), split[name].dtype)
            for name in padding.padded(split)
        }
        found = [cut.resized(shapes) for cut in self._cuts[number]]
        return None if None in found else found  # type: ignore[return-value]

    def _uncut_where_it_shows(self) -> None:
        """Leaves all examples whole if a cut batch has features of other shapes, or other than rounding."""
        checked = set()
        for number in range(len(self._splits)):
            for index, positions in self._batches(number):
                key = frozenset(self._missing[number]), positions
                if key not in checked and positions not in (1, padding.whole(self._splits[number])):
                    self.refused = self.refused or self._difference(number, index, positions)
                checked.add(key)
        # Of all processes, since one that finds all features in its store has checked nothing.
        self.refused = next(filter(None, processes.here().of_all("whether texts are cut", self.refused)), "")
        if self.refused:
            console.print(f"texts are not cut to their lengths: {self.refused}", markup=False)
            self._parts = [
                [part._replace(positions=padding.whole(split)) for part in parts]
                for parts, split in zip(self._parts, self._splits, strict=True)
            ]

    def _difference(self, number: int, index: np.ndarray, positions: int) -> str:
        """Returns what is against cutting a batch, empty if nothing is."""
        if self._cuts_for(number, positions) is None:
            return "the shapes of features depend on the length of texts"
        cut = jax.device_get(self._batch(number, index, positions))
        full = jax.device_get(self._batch(number, index, padding.whole(self._splits[number])))
        for name, expected in full.items():
            expected, found = expected.astype(np.float64), cut[name].astype(np.float64)
            allowed = _tolerance(full[name].dtype) * max(float(np.max(np.abs(expected))), 1e-30)
            if not float(np.max(np.abs(found - expected))) <= allowed:
                return "features of a text depend on its padding"
        return ""


def _tolerance(dtype: Any) -> float:
    """Returns how far a feature may be off, relative to the largest, if it is computed in another order."""
    epsilon = float(jnp.finfo(dtype).eps) if jnp.issubdtype(dtype, jnp.floating) else 0.0
    return epsilon * (_ROUNDINGS if epsilon < 1e-4 else 4)


def features_of(cuts: Iterable[Cut]) -> Callable[[Leaves, Batch], Features]:
    """Returns the trunks of several cuts as one pass: (frozen leaves of all, batch) -> features of all.

    What several need is computed once: a frozen block is one computation, for whichever group it is frozen.
    """
    cuts = tuple(cuts)

    def trunk(frozen: Leaves, batch: Batch) -> Features:
        done: dict[str, Any] = {}
        return {name: feature for cut in cuts for name, feature in cut.trunk(frozen, batch, done).items()}

    return trunk


def _program(cuts: Sequence[Cut], wanted: set[str]) -> Any:
    """Returns the program that computes the `wanted` features of a batch."""
    trunk = features_of(cuts)

    def compute(base: Any, batch: Any) -> Any:
        return {name: feature for name, feature in trunk(base, batch).items() if name in wanted}

    return jax.jit(compute)
