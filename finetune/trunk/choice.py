"""What becomes of a group's frozen part: computed by each member, once for all members, or once for all epochs.

cut.py cuts a program; here it is decided what a cut is worth, and what a group's programs read for it.
feature_pass.py runs the trunk over the data.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from finetune.config import TrunkConfig
from finetune.errors import UserError
from finetune.hosts import processes
from finetune.jaxpr.batch_axis import SIZES
from finetune.jaxpr.program import names, trace
from finetune.member.metric import as_metric
from finetune.member.params import partition
from finetune.member.step import Forward, Recipe, full_forward, seed_key, training_forward
from finetune.trials.grid import Trial
from finetune.trunk.cut import Cut

HostSplit = dict[str, np.ndarray]
Shapes = Mapping[str, jax.ShapeDtypeStruct]

# Reading a cached byte in every epoch costs time too: with fewer FLOPs for each, computing again is as good.
_FLOPS_A_BYTE = {"device": 50.0, "host": 500.0}

# Examples a batch of the pass on CPU: MiniLM on 64 tokens took 8.5 ms a text in batches of 16, 12.3 ms in 128.
_CPU_BATCH = 16


class Room(NamedTuple):
    """The bytes that features may take: on a device, and on the host, in memory or in files."""

    device: int
    host: int

    def only(self, place: str) -> "Room":
        """Returns the room without that of other places; `place` as of a `Trunk`, where nothing is cached empty."""
        return Room(*(bytes if place in (name, "") else 0 for name, bytes in self._asdict().items()))


class Trunk(NamedTuple):
    """What becomes of a group's frozen part.

    mode: none (each member computes it), shared (once a batch, for all members) or cached (once, for all epochs).
    place: where features are cached: device (programs index them there) or host (batches are handed to programs).
    train, evaluate: the program cut for training, with its dropout, and for evaluation; None if there is no trunk.
    judged: names of the arrays of a batch, besides the label, that the loss or a metric reads.
    """

    mode: str
    reason: str
    place: str = ""
    bytes: int = 0  # of the features of all splits
    flops: float = 0.0  # of the pass over them
    train: Cut | None = None
    evaluate: Cut | None = None
    judged: frozenset[str] = frozenset()

    @property
    def cuts(self) -> tuple[Cut, ...]:
        """The cuts for the training, validation and test splits."""
        assert self.train is not None
        assert self.evaluate is not None
        return self.train, self.evaluate, self.evaluate


def choose_trunk(
    config: TrunkConfig, recipe: Recipe, shapes: Shapes, splits: Sequence[HostSplit], trials: Sequence[Trial],
    room: Room, eval_batch: int = 2,
) -> Trunk:  # fmt: skip
    """Returns what pays for a group; `splits` are train, validation and test, evaluated by `eval_batch`."""
    frozen = {path: leaf for path, leaf in shapes.items() if path not in recipe.own}
    if not frozen:
        return Trunk("none", "nothing is frozen")
    if config.mode == "none":
        return Trunk("none", "so set")
    train, evaluate = _cuts(recipe, shapes, splits[0], "float32")
    if not train.features:
        return Trunk("shared", train.refused or "all that is frozen comes after what trains or after dropout")
    evaluated = {min(eval_batch, len(split["label"])) for split in splits[1:]} | {eval_batch, pass_batch(eval_batch)}
    # Where members are fewer than devices, batches are split, unless examples mix in them.
    parts = jax.device_count() if len(trials) < jax.device_count() and not recipe.mixes else 1
    refused = _refused(train, {recipe.micro_batch}, parts) or _refused(evaluate, evaluated, parts)
    if refused and config.dtype != "float32":  # what a trial computes cannot depend on how batches are cut
        raise UserError(f"trunk.dtype is {config.dtype!r}, and {refused}, allowed: 'float32'")
    if refused:
        return Trunk("shared", refused)
    judged = _judged(recipe, shapes, splits[0])
    shared = Trunk("shared", "so set", train=train, evaluate=evaluate, judged=judged)
    if config.mode == "shared":
        return shared
    if config.dtype != "float32":
        train, evaluate = _cuts(recipe, shapes, splits[0], config.dtype)
    train_bytes, train_flops = _cost(train, frozen, splits[:1])
    other_bytes, other_flops = _cost(evaluate, frozen, splits[1:])
    size, flops = train_bytes + other_bytes, train_flops + other_flops
    place = "device" if size <= room.device else "host"
    reason = ""
    if size > max(room) and config.dtype != "float32":  # what a trial computes cannot depend on what fits
        raise UserError(f"trunk.dtype is {config.dtype!r}, and features of {size / 1e9:.1f} GB do not fit into "
                        f"{max(room) / 1e9:.1f} GB, allowed: 'float32'")  # fmt: skip
    if size > max(room):
        reason = f"features of {size / 1e9:.1f} GB do not fit into {max(room) / 1e9:.1f} GB"
    elif config.mode != "cached" and config.dtype == "float32" and train_flops < _FLOPS_A_BYTE[place] * train_bytes:
        reason = f"a cache on the {place} is not worth it for {train_flops / train_bytes:.0f} FLOPs a byte"
    if reason:
        return shared._replace(reason=reason) if len(trials) > 1 else Trunk("none", f"one trial, and {reason}")
    epochs = max(int(trial.hparams["epochs"]) for trial in trials)
    reason = f"{flops / 1e9:.0f} GFLOP are spent once, not in each of {epochs} epochs, for {size / 1e6:.1f} MB"
    return Trunk("cached", reason, place, size, flops, train, evaluate, judged)


def pass_batch(eval_batch: int) -> int:
    """Returns the examples of a batch when a trunk runs over the data."""
    return min(eval_batch, _CPU_BATCH) if jax.default_backend() == "cpu" else eval_batch


def _refused(cut: Cut, sizes: Collection[int], parts: int) -> str | None:
    """Returns why batches of some of `sizes`, or one of so many parts of them, cannot be cut; None if all can."""
    return next(filter(None, map(cut.refuses, sorted({*sizes, *(-(-size // parts) for size in sizes)}))), None)


def _judged(recipe: Recipe, shapes: Shapes, split: HostSplit) -> frozenset[str]:
    """Returns the names of the arrays without which loss and metrics are others, or none."""
    batch = {name: jax.ShapeDtypeStruct((2, *array.shape[1:]), array.dtype) for name, array in split.items()}
    batch |= {"weight": jax.ShapeDtypeStruct((2,), np.float32), "index": jax.ShapeDtypeStruct((2,), np.int32)}
    forward = full_forward(recipe.task)
    outputs = jax.eval_shape(lambda leaves, batch: forward(leaves, {}, batch, 0.0, None), dict(shapes), batch)
    metrics = [each for each in map(as_metric, recipe.task.metrics.values()) if not each.of_split]

    def judge(outputs: Any, batch: Any) -> Any:
        return recipe.task.loss(outputs, batch, jnp.zeros(())), [metric.of(outputs, batch) for metric in metrics]

    def computed(batch: Mapping[str, Any]) -> list[str] | None:
        paths = jax.tree_util.tree_leaves_with_path((outputs, batch))
        try:
            program, _ = trace(judge, outputs, batch)
        except Exception:  # whatever a loss raises that misses an array
            return None
        named = names(program, [jax.tree_util.keystr(path) for path, _ in paths])
        return [named[value] for value in program.outputs]

    whole = computed(batch)
    return frozenset(
        name
        for name in split
        if name != "label" and computed({other: shape for other, shape in batch.items() if other != name}) != whole
    )


def _cuts(recipe: Recipe, shapes: Shapes, split: HostSplit, dtype: str) -> tuple[Cut, Cut]:
    """Returns the programs cut for training and for evaluation."""
    params, frozen = partition(shapes, recipe.own)
    example = _example(split)
    dropout = jax.ShapeDtypeStruct((), jnp.zeros(()).dtype)
    evaluate = Cut(full_forward(recipe.task), params, frozen, example, dropout, keys=False, dtype=dtype)
    forward = training_forward(recipe.task, recipe.paths, recipe.dropout)
    if recipe.state:  # padding does not count in batch statistics
        example["weight"] = jax.ShapeDtypeStruct((), np.float32)
    elif not recipe.dropout and _is_program_of(evaluate, forward, (params, frozen, example, dropout)):
        return evaluate, evaluate
    return Cut(forward, params, frozen, example, dropout, keys=True, dtype=dtype), evaluate


def _is_program_of(cut: Cut, forward: Forward, shapes: tuple[Any, ...]) -> bool:
    """Says whether `forward` with keys is the program of `cut`, which has none, so that no second one need be cut.

    Where derivatives have rules of their own it is not known, since names of programs leave them out.
    """
    params, frozen, example, dropout = shapes
    one = example, jax.eval_shape(seed_key, 0, 0)
    batch, keys = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((SIZES[0], *leaf.shape), leaf.dtype), one)
    arguments = params, frozen, batch, dropout, keys
    program, _ = trace(forward, *arguments)
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(arguments)]
    found = names(program, paths)
    rules = any(equation.primitive.name.startswith("custom") for equation in program.equations)
    return not rules and [found[value] for value in program.outputs] == cut.outputs


def _example(split: HostSplit) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns the shapes of one example's arrays; what the loss alone reads is not the model's."""
    return {
        name: jax.ShapeDtypeStruct(array.shape[1:], array.dtype) for name, array in split.items() if name != "label"
    }


def _cost(cut: Cut, frozen: Mapping[str, Any], splits: Sequence[HostSplit]) -> tuple[int, float]:
    """Returns the bytes of the features of all examples of `splits`, and the FLOPs that compute them."""
    examples = sum(len(split["label"]) for split in splits)
    size = sum(one.size * one.dtype.itemsize for one in cut.features.values())
    pair = {name: jax.ShapeDtypeStruct((2, *one.shape), one.dtype) for name, one in _example(splits[0]).items()}
    analysis = jax.jit(cut.trunk).lower(dict(frozen), pair).cost_analysis() or {}
    flops = float(processes.from_first("FLOPs of an example", repr(float(analysis.get("flops", 0.0)) / 2)))
    return examples * size, examples * flops


def cut_recipe(recipe: Recipe, trunk: Trunk) -> Recipe:
    """Returns the recipe whose programs are the tails alone, if there is a trunk."""
    if trunk.train is None or trunk.evaluate is None:
        return recipe
    return recipe._replace(forward=trunk.train.tail, evaluating_forward=trunk.evaluate.tail, whole=False)


def cut_frozen(frozen: dict[str, Any], trunk: Trunk) -> dict[str, Any]:
    """Returns what the programs of a group read for frozen leaves."""
    if trunk.train is None or trunk.evaluate is None:
        return frozen
    return trunk.evaluate.constants(frozen) | trunk.train.constants(frozen)


def cut_splits(splits: Sequence[HostSplit], features: Sequence[HostSplit], trunk: Trunk) -> list[HostSplit]:
    """Returns what the programs of a group read of each split, given the features of all groups."""
    if trunk.mode != "cached":
        return list(splits)
    return [
        {name: computed[name] for name in cut.features}
        | {name: split[name] for name in (*(cut.reads - {"weight"}), *trunk.judged, "label")}
        for split, computed, cut in zip(splits, features, trunk.cuts, strict=True)
    ]
