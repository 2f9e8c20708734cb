"""How a group is best run on this machine: compile the candidates, see what fits in memory, time real micro-batches."""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import numpy as np
import psutil

from finetune.config import ExecutionConfig
from finetune.errors import OutOfMemory
from finetune.hosts import processes
from finetune.member.epoch import epoch_order
from finetune.member.params import abstract
from finetune.population.group import Cost, Execution, Group, by_order, laid_out
from finetune.population.parallel import OneDevice, choose_layout, padded_size
from finetune.population.train import whole_pass
from finetune.trials import hparams
from finetune.trunk.choice import Room
from finetune.trunk.feature_store import FeatureStore

_MEMORY_SHARE = 0.8  # of the free memory that a group may take
# Of the trained leaves at once: parameters, two moments, gradient, update, best, and their successors.
_STATE_COPIES = 8
_WARM_SECONDS = 2.0  # a first call this slow is as good as a second one
_LONG_SECONDS = 20.0  # a first call this slow is measurement enough
_CLEARLY_FASTER = 0.9  # of the time by loop; less is within the noise of a shared machine


def choose(config: ExecutionConfig, group: Group, earlier: Execution | None) -> Group:
    """Returns the group compiled in the fastest way that fits into memory.

    `earlier` is what was chosen when the study first ran: it is taken again, so that a continued study is the same
    computation. Raises UserError if not even one member fits.
    """
    most = max(map(len, by_order(group.trials.values())))
    size = earlier.size if earlier else min(config.chunk or most, most, _upper_bound(group))
    while True:
        options = [(earlier.mode, earlier.on_device)] if earlier else _options(config, group, size)
        tried = [_measure(config, group, mode, on_device, size) for mode, on_device in options]
        fitting = [each for each in tried if each is not None]
        if fitting:
            break
        if size == 1:
            free = f"{free_bytes() / 1e9:.1f} GB"
            raise OutOfMemory(f"one member needs more than the {free} that are free, allowed: a smaller model or batch")
        size = -(-size // 2)
    best = min(fitting, key=_comparable_seconds)
    looped_seconds = [each.one_member_step_seconds for each in fitting if each.one_member_step_seconds]
    reason = earlier.reason if earlier else _reason(fitting, len(options))
    return best._replace(
        execution=best.execution._replace(reason=reason),
        one_member_step_seconds=min(looped_seconds, default=None),
    )


def free_bytes() -> int:
    """Returns the memory that a program may still take: of the first process's first device, or machine on CPU."""
    statistics = jax.local_devices()[0].memory_stats() or {}
    free = psutil.virtual_memory().available
    if "bytes_limit" in statistics:
        free = statistics["bytes_limit"] - statistics["bytes_in_use"]
    return int(processes.from_first("free memory", str(int(_MEMORY_SHARE * free))))


def feature_room(store: FeatureStore) -> Room:
    """Returns the bytes that features may take; half of the free memory is left to members."""
    host = int(_MEMORY_SHARE * psutil.virtual_memory().available) // 2
    return Room(free_bytes() // 2, int(processes.from_first("room for features", str(max(host, store.room_bytes)))))


def _upper_bound(group: Group) -> int:
    """Returns how many members fit if nothing but the state of what they train counted."""
    return max(1, free_bytes() // (_STATE_COPIES * group.trained_bytes))


def _options(config: ExecutionConfig, group: Group, size: int) -> list[tuple[str, bool]]:
    """Returns the (mode, on_device) to compare.

    XLA on CPU runs a convolution slowly in a loop on the device, and slower still with a kernel for each member, so
    that only there stepping from the host is a candidate of its own.
    """
    single_device = choose_layout("vmap", size, config.devices).count == 1
    modes = ["vmap", "loop"] if size > 1 and single_device else ["vmap"] if size > 1 else ["loop"]
    if config.mode != "auto":
        modes = [config.mode]
    if group.stays_on_host or (modes == ["loop"] and group.hands_to_each):
        return [(mode, False) for mode in modes]
    if config.epochs_on_device != "auto":
        return [(mode, config.epochs_on_device == "scan") for mode in modes]
    steps = "loop" in modes and (group.hands_to_each or _convolves_on_cpu(group))
    return [(mode, True) for mode in modes] + [("loop", False)] * steps


def _convolves_on_cpu(group: Group) -> bool:
    if jax.default_backend() != "cpu":
        return False
    batch = {name: array[:2] for name, array in group.splits.validation.items()}
    shapes = abstract(group.recipe.task)
    params = {path: shapes[path] for path in group.recipe.own}
    program = jax.make_jaxpr(
        lambda params: group.recipe.evaluating_forward(params, group.shared.frozen, batch, 0.0, None)
    )
    return "conv_general_dilated" in str(program(params))


def _measure(config: ExecutionConfig, group: Group, mode: str, on_device: bool, size: int) -> Group | None:
    """Returns the group compiled for a mode, with what it costs; None if it does not fit into memory."""
    least = jax.device_count() if group.recipe.mixes else size  # of which a batch is computed whole
    layout = choose_layout(mode, max(size, least), config.devices)
    if group.stays_on_host and layout.batch_axis:
        layout = OneDevice()  # a batch is handed whole
    size = padded_size(size, layout)
    group = laid_out(group, layout, on_device)
    calls = 1 if layout.together else size
    try:
        cost = _cost(group, size // calls)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        processes.met_by_all(error)
        return None
    if cost is None or cost.bytes + (calls - 1) * _STATE_COPIES * group.trained_bytes > free_bytes():
        return None
    return group._replace(
        execution=Execution(mode, on_device, size, ""),
        cost=Cost._make([*(calls * each for each in cost[:4]), cost.bytes]),
        one_member_step_seconds=None if layout.together else cost.train_step_seconds,
    )


def _cost(group: Group, size: int) -> Cost | None:
    """Returns what the programs of a group cost for `size` members; None, before any runs, if they do not fit."""
    programs, recipe = group.programs, group.recipe
    values = [trial.hparams for trial in group.trials.values()][:size]
    members = programs.init(group.shared, hparams.stack(values, size))
    order = group.layout.put_order(epoch_order(0, 0, recipe.examples, recipe.micro_batch))
    validation, validation_order, _ = whole_pass(group, group.splits.validation)

    fixed = group.shared, group.splits.train, order

    def train(members: Any, steps: int) -> Any:
        return programs.train(members, *fixed, np.int32(0), np.int32(0), np.int32(steps))

    def evaluate(members: Any, steps: int) -> Any:
        return programs.validate(members, group.shared, validation, validation_order, np.int32(steps), np.int32(1))[0]

    steps = min(2, -(-recipe.examples // recipe.micro_batch))
    peak = int(processes.from_first("memory of a program", str(_bytes(programs.compile(members, *fixed)))))
    if peak > free_bytes():
        return None
    members, train_seconds = _seconds_a_step(train, members, steps)
    members, eval_seconds = _seconds_a_step(evaluate, members, 1)
    flops = {name: _flops(programs.compiled[name].executables.values()) for name in ("train", "validate")}
    return Cost(train_seconds, eval_seconds, flops["train"], flops["validate"], peak)


def _seconds_a_step(call: Callable[[Any, int], Any], members: Any, steps: int) -> tuple[Any, float]:
    """Returns the members, and the seconds of a step: of two calls the faster, since other work only slows them."""

    def timed(members: Any, steps: int) -> tuple[Any, float]:
        started = time.monotonic()
        members = jax.block_until_ready(call(members, steps))
        seconds = (time.monotonic() - started) / steps
        return members, float(processes.from_first("seconds of a step", repr(seconds)))

    members, first = timed(members, 1)
    if first > _LONG_SECONDS:
        return members, first
    members, second = timed(members, 1 if first > _WARM_SECONDS else steps)
    return members, min(first, second)


def _bytes(executable: Any) -> int:
    """Returns what a program holds at once: arguments, results that are not arguments again, and temporaries."""
    memory = executable.memory_analysis()
    if memory is None:
        return 0
    results = memory.output_size_in_bytes - memory.alias_size_in_bytes
    return int(memory.argument_size_in_bytes + results + memory.temp_size_in_bytes)


def _flops(executables: Iterable[Any]) -> float:
    """Returns the FLOPs of a call; a loop's body is counted once."""
    return sum(float((each.cost_analysis() or {}).get("flops", 0.0)) for each in executables if each is not None)


def _comparable_seconds(each: Group) -> float:
    """Returns the seconds of a step, those of vmap raised by what it must be faster by to be chosen."""
    return each.cost.train_step_seconds / (_CLEARLY_FASTER if each.layout.together else 1.0)


def _reason(fitting: Sequence[Group], options: int) -> str:
    if options == 1:
        return "the only way that the settings, the devices and the number of members leave"
    return "a micro-batch of all members took " + ", ".join(
        f"{1e3 * each.cost.train_step_seconds:.1f} ms by {each.execution.mode} "
        f"({'looped on the device' if each.execution.on_device else 'stepped from the host'})"
        for each in fitting
    )
