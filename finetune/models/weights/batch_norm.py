"""Running averages of batch norms: leaves mean and variance of frozen ones, as files hold them, state of live ones."""

from collections.abc import Container, Mapping
from typing import Any

_STATE = "batch_stats/"  # Flax's name of them
_LIVE = {"/mean": "/mean", "/variance": "/var"}  # of a frozen one -> of a live one


def as_state(leaves: Mapping[str, Any], wanted: Container[str]) -> dict[str, Any]:
    """Returns {path: leaf} with averages at the paths of live norms, where these are `wanted`."""
    return {live if (live := _live(path)) in wanted else path: leaf for path, leaf in leaves.items()}


def as_leaves(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """Returns {path: leaf} with averages at the paths of frozen norms."""
    return {_frozen(path): leaf for path, leaf in leaves.items()}


def _live(path: str) -> str:
    layer, slash, name = path.rpartition("/")
    return f"{_STATE}{layer}{_LIVE[slash + name]}" if slash + name in _LIVE else path


def _frozen(path: str) -> str:
    if not path.startswith(_STATE):
        return path
    layer, slash, name = path.removeprefix(_STATE).rpartition("/")
    return layer + next(frozen for frozen, live in _LIVE.items() if live == slash + name)
