"""Seconds of calls that are compared, and what they were measured on."""

import datetime
import importlib.metadata
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

_AT_LEAST_SECONDS = 0.3  # of a repeat; what is shorter is called more often


def in_turns(calls: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Returns the median seconds of each call over repeats in turns, after a first round that warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(1 + repeats):
        for name, call in calls.items():
            seconds[name].append(_mean_seconds(call))
    return {name: statistics.median(each[1:]) for name, each in seconds.items()}


def _mean_seconds(call: Callable[[], Any]) -> float:
    started, times = time.monotonic(), 0
    while times == 0 or time.monotonic() - started < _AT_LEAST_SECONDS:
        call()
        times += 1
    return (time.monotonic() - started) / times


def once(call: Callable[[], Any]) -> float:
    """Returns the seconds of one call."""
    started = time.monotonic()
    call()
    return time.monotonic() - started


def product_rate(repeats: int = 10) -> float:
    """Returns the FLOP/s of a product as large as those of an encoder: [2048, 384] x [384, 1536], float32."""
    left, right = jnp.ones((2048, 384)), jnp.ones((384, 1536))
    product = jax.jit(jnp.matmul)
    seconds = in_turns({"product": lambda: jax.block_until_ready(product(left, right))}, repeats)["product"]
    return 2 * 2048 * 384 * 1536 / seconds


def machine(packages: Sequence[str] = ("jax", "flax", "optax")) -> dict[str, Any]:
    """Returns the date, the device, the number of CPU cores, and versions."""
    return {
        "date": datetime.date.today().isoformat(),
        "device": jax.devices()[0].device_kind,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in packages},
    }
