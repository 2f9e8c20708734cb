"""Where arrays and programs go: the only file that knows about devices.

Three layouts, one interface. `OneDevice`; `MembersOverDevices`, where each device trains its own members and no
device talks to another; `BatchOverDevices`, for fewer members than devices, where every device holds all members, reads
its part of a micro-batch, and sums of losses and gradients are added with `psum`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

# The roles of an argument: a tree with a leading member axis, something all devices hold whole, or an Order.
MEMBERS, ALL, ORDER = "members", "all", "order"
BATCH_AXIS = "batch"


class OneDevice:
    """Everything on the default device."""

    count = 1
    batch_axis: str | None = None

    def compile(self, function: Callable[..., Any], roles: Sequence[str], donate: tuple[int, ...] = ()) -> Any:
        """Returns `function` jitted for arguments of these roles, its results members (or per-member values)."""
        del roles
        return jax.jit(function, donate_argnums=donate)

    def put_members(self, tree: Any) -> Any:
        """Returns a tree of host arrays [members, ...] placed on the devices."""
        return jax.tree.map(jnp.asarray, tree)

    def put_all(self, tree: Any) -> Any:
        """Returns a tree of arrays placed whole on every device."""
        return jax.tree.map(jnp.asarray, tree)

    def put_order(self, order: Any) -> Any:
        """Returns an Order placed on the devices."""
        return jax.tree.map(jnp.asarray, order)

    def fetch(self, tree: Any) -> Any:
        """Returns a tree of members as host arrays [members, ...]."""
        return jax.device_get(tree)

    def take(self, members: Any, indices: Sequence[int]) -> Any:
        """Returns the members at `indices`."""
        return _gather(members, jnp.asarray(indices, jnp.int32))


@jax.jit
def _gather(tree: Any, indices: jax.Array) -> Any:
    return jax.tree.map(lambda leaf: leaf[indices], tree)


class MembersOverDevices(OneDevice):
    """Leaves [members, ...] lie as [devices, members / devices, ...]; the number of members must divide."""

    def __init__(self, devices: Sequence[jax.Device]):
        self.devices = list(devices)
        self.count = len(self.devices)

    def compile(self, function: Callable[..., Any], roles: Sequence[str], donate: tuple[int, ...] = ()) -> Any:
        axes = tuple(0 if role == MEMBERS else None for role in roles)
        return jax.pmap(function, in_axes=axes, devices=self.devices, donate_argnums=donate)

    def put_members(self, tree: Any) -> Any:
        def place(leaf: Any) -> Any:
            leaf = np.asarray(leaf)
            return jnp.asarray(leaf.reshape(self.count, -1, *leaf.shape[1:]))

        return jax.tree.map(place, tree)

    def put_all(self, tree: Any) -> Any:
        mesh = jax.sharding.Mesh(np.array(self.devices), ("devices",))
        return jax.device_put(tree, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec()))

    def put_order(self, order: Any) -> Any:
        return self.put_all(order)

    def fetch(self, tree: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), jax.device_get(tree))

    def take(self, members: Any, indices: Sequence[int]) -> Any:
        wanted = np.asarray(indices, np.int32)
        return self.put_members(jax.tree.map(lambda leaf: leaf[wanted], self.fetch(members)))


class BatchOverDevices(MembersOverDevices):
    """Every device holds all members; an Order lies as [devices, batches, examples a batch / devices]."""

    batch_axis = BATCH_AXIS

    def compile(self, function: Callable[..., Any], roles: Sequence[str], donate: tuple[int, ...] = ()) -> Any:
        axes = tuple(0 if role == ORDER else None for role in roles)
        del donate  # members are replicated by the call: there is no buffer of theirs to give away
        if ORDER not in roles:
            return jax.jit(function)
        return jax.pmap(function, BATCH_AXIS, in_axes=axes, out_axes=None, devices=self.devices)

    def put_members(self, tree: Any) -> Any:
        return self.put_all(tree)

    def put_order(self, order: Any) -> Any:
        def cut(rows: np.ndarray) -> np.ndarray:
            batches, width = rows.shape
            padded = np.pad(rows, ((0, 0), (0, -width % self.count)))
            return padded.reshape(batches, self.count, -1).swapaxes(0, 1)

        return jax.tree.map(lambda rows: jnp.asarray(cut(np.asarray(rows))), order)

    def fetch(self, tree: Any) -> Any:
        return jax.device_get(tree)


def choose_layout(members: int, limit: int) -> OneDevice:
    """Returns the layout for a population of `members` on this process's devices, at most `limit` of them, 0 = all."""
    devices = jax.local_devices()[: limit or None]
    if len(devices) == 1:
        return OneDevice()
    return MembersOverDevices(devices) if members >= len(devices) else BatchOverDevices(devices)


def padded_size(members: int, layout: OneDevice) -> int:
    """Returns the smallest number of members >= `members` that `layout` can hold."""
    return members if layout.batch_axis else -(-members // layout.count) * layout.count
