"""Where arrays and programs go: the only file that knows about devices.

Four layouts, one interface. `OneDevice`, all members at once; `OneByOne`, one member after the other;
`MembersOverDevices`, where each device trains its own members and no device talks to another; `BatchOverDevices`, for
fewer members than devices, where every device holds all members, reads its part of a micro-batch, and sums of losses
and gradients are added with `psum`.

Several processes (hosts) run the same program on the devices of all. Each holds the members of its own devices, and
`fetch` gathers them on every process: all must take the same decisions, see processes.py.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

# The roles of an argument: a tree with a leading member axis, something all devices hold whole, or an Order.
MEMBERS, ALL, ORDER = "members", "all", "order"
BATCH_AXIS = "batch"


class OneDevice:
    """Everything on the default device."""

    count = 1
    batch_axis: str | None = None
    together = True  # one call moves all members

    def over_members(self, function: Callable[..., Any], roles: Sequence[str]) -> Callable[..., Any]:
        """Returns the function that applies one of a single member to all that a call moves."""
        return jax.vmap(function, tuple(0 if role == MEMBERS else None for role in roles))

    def each(self, call: Any, roles: Sequence[str]) -> Any:
        """Returns what applies `call`, of a compiled program, to all members."""
        del roles
        return call

    def compile(self, function: Callable[..., Any], roles: Sequence[str], donate: tuple[int, ...] = ()) -> Any:
        """Returns what `over_members` gave, jitted for arguments of these roles."""
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
        return _take(members, jnp.asarray(indices, jnp.int32))


@jax.jit
def _take(tree: Any, indices: jax.Array) -> Any:
    return jax.tree.map(lambda leaf: leaf[indices], tree)


class OneByOne(OneDevice):
    """Members are a list on the default device, and the program of one is called for each."""

    together = False

    def over_members(self, function: Callable[..., Any], roles: Sequence[str]) -> Callable[..., Any]:
        del roles
        return function

    def each(self, call: Any, roles: Sequence[str]) -> Any:
        return _Each(call, roles)

    def put_members(self, tree: Any) -> list[Any]:
        leaves, structure = jax.tree.flatten(tree)
        return [jax.tree.unflatten(structure, map(jnp.asarray, each)) for each in zip(*leaves, strict=True)]

    def fetch(self, tree: Sequence[Any]) -> Any:
        return jax.tree.map(lambda *leaves: np.stack(leaves), *jax.device_get(tree))

    def take(self, members: Any, indices: Sequence[int]) -> list[Any]:
        return [members[i] for i in indices]


class _Each:
    """A call for each of a list of members; results are a list, or a pair of lists where each gives a pair."""

    def __init__(self, call: Any, roles: Sequence[str]):
        self._call, self._listed = call, [role == MEMBERS for role in roles]

    def __call__(self, *arguments: Any) -> Any:
        number = len(arguments[self._listed.index(True)])
        found = [self._call(*self._of_one(i, arguments)) for i in range(number)]
        return tuple(map(list, zip(*found, strict=True))) if type(found[0]) is tuple else found

    def compiled(self, *arguments: Any) -> Any:
        """Returns the executable for arguments of these shapes."""
        return self._call.compiled(*self._of_one(0, arguments))

    def _of_one(self, i: int, arguments: Sequence[Any]) -> list[Any]:
        return [value[i] if listed else value for value, listed in zip(arguments, self._listed, strict=False)]


class MembersOverDevices(OneDevice):
    """Leaves [members, ...] lie as [devices, members / devices, ...]; the number of members must divide."""

    def __init__(self, devices: Sequence[jax.Device]):
        self.devices = list(devices)
        self.count = len(self.devices)
        self._local = [i for i, device in enumerate(self.devices) if device.process_index == jax.process_index()]
        local = Mesh(np.array([self.devices[i] for i in self._local]), ("devices",))
        self._cut_over = NamedSharding(local, PartitionSpec("devices"))

    def compile(self, function: Callable[..., Any], roles: Sequence[str], donate: tuple[int, ...] = ()) -> Any:
        axes = tuple(0 if role == MEMBERS else None for role in roles)
        return jax.pmap(function, in_axes=axes, devices=self.devices, donate_argnums=donate)

    def put_members(self, tree: Any) -> Any:
        return jax.tree.map(lambda leaf: self._cut(np.asarray(leaf)), tree)

    def _cut(self, leaf: np.ndarray) -> jax.Array:
        """Returns an array [n, ...] as [local devices, n / devices, ...]."""
        return jax.device_put(leaf.reshape(self.count, -1, *leaf.shape[1:])[self._local], self._cut_over)

    def put_all(self, tree: Any) -> Any:
        whole = NamedSharding(Mesh(np.array(self.devices), ("devices",)), PartitionSpec())
        if jax.process_count() == 1:
            return jax.device_put(tree, whole)
        # Not device_put, which compares the values of all processes, one exchange for each leaf.
        return jax.tree.map(lambda leaf: jax.make_array_from_process_local_data(whole, np.asarray(leaf)), tree)

    def put_order(self, order: Any) -> Any:
        return self.put_all(order)

    def fetch(self, tree: Any) -> Any:
        if jax.process_count() == 1:
            return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), jax.device_get(tree))
        gathered = multihost_utils.process_allgather(jax.tree.map(_local_part, tree))
        return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[3:]), gathered)

    def take(self, members: Any, indices: Sequence[int]) -> Any:
        wanted = np.asarray(indices, np.int32)
        return self.put_members(jax.tree.map(lambda leaf: leaf[wanted], self.fetch(members)))


def _local_part(leaf: jax.Array) -> np.ndarray:
    """Returns what this process holds of an array [devices, ...], as [local devices, ...]."""
    shards = sorted(leaf.addressable_shards, key=lambda shard: shard.index[0].start or 0)
    return np.concatenate([np.asarray(shard.data) for shard in shards])


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
        return jax.tree.map(lambda places: self._split(np.asarray(places)), order)

    def _split(self, places: np.ndarray) -> jax.Array:
        batches, width = places.shape
        padded = np.pad(places, ((0, 0), (0, -width % self.count)))
        return jax.device_put(padded.reshape(batches, self.count, -1).swapaxes(0, 1)[self._local], self._cut_over)

    def fetch(self, tree: Any) -> Any:
        jax.block_until_ready(tree)  # on all devices, so that no two programs exchange values at once
        return jax.tree.map(lambda leaf: np.asarray(leaf.addressable_shards[0].data), tree)


def choose_layout(mode: str, members: int, limit: int) -> OneDevice:
    """Returns the layout for a population of `members` in a mode, vmap or loop, on at most `limit` devices, 0 = all."""
    if mode == "loop":
        return OneByOne()
    devices = jax.devices()[: limit or None]
    if len(devices) == 1:
        return OneDevice()
    return MembersOverDevices(devices) if members >= len(devices) else BatchOverDevices(devices)


def padded_size(members: int, layout: OneDevice) -> int:
    """Returns the smallest number of members >= `members` that `layout` can hold."""
    return members if layout.batch_axis else -(-members // layout.count) * layout.count
