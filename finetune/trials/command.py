"""The command that started a study, in parts: config.json holds it, and the next command is made of it."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from finetune.trials import chain

_MODULE = ["python", "-m", "finetune"]
_CONSOLE = ("finetune", "finetune.exe")
_OF_ONE_START = ("plan_only", "noplan_only", "coordinator", "processes", "process")  # not of the next one
_WITHOUT_VALUE = ("plan_only", "noplan_only")
OF_A_SEARCH = (
    *("space", "search", "trials", "waves", "search_seed", "finalists", "finalist_seeds", "minutes", "optuna"),
    *("halving", "halving_start", "halving_control", "halving_rungs"),
)


class Command(NamedTuple):
    """program: what is run. flags: all but axes. grid: values of each axis, as --grid takes them. seeds: of --seeds.

    search: flags of a search.
    """

    program: list[str]
    flags: list[str]
    grid: dict[str, str]
    seeds: str | None
    search: Sequence[str] = ()

    def __str__(self) -> str:
        axes = [f"--grid={name}={values}" for name, values in self.grid.items()]
        seeds = [f"--seeds={self.seeds}"] if self.seeds else []
        return shlex.join([*self.program, *self.flags, *self.search, *axes, *seeds])

    def training(self, grid: Mapping[str, Sequence[Any]], seeds: int | None) -> "Command":
        """Returns the command with these axes in place of its own, and the seeds 0 to `seeds` − 1 or else its own."""
        if "trainable" in grid:
            grid = {**grid, "trainable": chain.with_shorter(map(str, grid["trainable"]))}
        kept = {name: text for name, text in self.grid.items() if name != "seed" or seeds is None}
        axes = _without_stale(kept, grid) | {name: ",".join(map(written, values)) for name, values in grid.items()}
        earlier = None if "seed" in axes else self.seeds
        flags = list(map(_beside, self.flags)) if self.search else self.flags  # a grid is not part of a search
        return self._replace(flags=flags, grid=axes, seeds=earlier if seeds is None else str(seeds), search=())


def as_typed(arguments: Sequence[Any]) -> list[str]:
    """Returns the words of a command as it is typed, of the arguments of a process.

    >>> as_typed(["/somewhere/finetune/__main__.py", "--seeds=3"])
    ['python', '-m', 'finetune', '--seeds=3']
    """
    words = list(map(str, arguments))
    program = PurePosixPath(words[0].replace("\\", "/")) if words else PurePosixPath()
    return ["python", "-m", program.parent.name, *words[1:]] if program.name == "__main__.py" else words


def parse(arguments: Sequence[Any]) -> Command | None:
    """Returns the command that a process of these arguments is, None of one that is not ours."""
    words = as_typed(arguments)
    if words[:3] == _MODULE:
        program, words = words[:3], words[3:]
    elif words and PurePosixPath(words[0].replace("\\", "/")).name in _CONSOLE:
        program, words = ["finetune"], words[1:]
    else:
        return None
    if words and not words[0].startswith("-"):  # run, or what plans a run
        program, words = [*program, "run"], words[1:]
    found = Command(program, [], {}, None)
    while words:
        flag = words.pop(0)
        name, equals, value = flag.lstrip("-").partition("=")
        if name not in ("grid", "seeds", *_OF_ONE_START, *OF_A_SEARCH):
            found.flags.append(flag)
            continue
        if not equals and name not in _WITHOUT_VALUE and words:
            value = words.pop(0)
        if name == "grid":
            axis, _, values = value.partition("=")
            found.grid[axis.strip()] = values
        elif name == "seeds":
            found = found._replace(seeds=value)
        elif name in OF_A_SEARCH:
            found = found._replace(search=(*found.search, f"--{name}={value}"))
    return found


def _beside(flag: str) -> str:
    """Returns a flag with another work directory, beside that of the search."""
    return f"{flag}_grid" if flag.startswith("--workdir=") else flag


def written(value: Any) -> str:
    """Returns a value as a command takes it: short where that is exact."""
    short = f"{value:g}" if isinstance(value, float) else str(value)
    return short if not isinstance(value, float) or float(short) == value else repr(value)


def _without_stale(axes: Mapping[str, str], grid: Mapping[str, Sequence[Any]]) -> dict[str, str]:
    """Returns the axes of a command without those that `grid` overrules: NAME@CHOICE by NAME, or for lack of CHOICE."""
    gone = {
        choice
        for name, values in grid.items()
        for choice in map(str.strip, axes.get(name, "").split(","))
        if choice not in map(str, values)
    }
    conditional = {name: name.partition("@") for name in axes if "@" in name}
    stale = [name for name, (base, _, choice) in conditional.items() if base in grid or choice.strip() in gone]
    return {name: values for name, values in axes.items() if name not in stale}
