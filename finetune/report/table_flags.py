"""Flags that say how a table from elsewhere is read, of the commands that read one."""

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from absl import flags

from finetune import cli
from finetune.errors import UserError

if TYPE_CHECKING:  # it takes a second to import
    from finetune.analysis.table.trials import Trials

# Name -> how it is defined, what it says.
_FLAGS: dict[str, tuple[Callable[..., Any], str]] = {
    "metric": (flags.DEFINE_string, "the column of the table that says how good a trial is"),
    "minimize": (flags.DEFINE_bool, "less of the metric is better; asked for where its name does not say"),
    "maximize": (flags.DEFINE_bool, "more of the metric is better; asked for where its name does not say"),
    "hyperparameters": (flags.DEFINE_list, "the columns that are hyperparameters, instead of a guess"),
    "ignore": (flags.DEFINE_list, "columns to read the table without"),
    "seed_column": (flags.DEFINE_string, "the column that tells repeats of a setting apart"),
}


def define(values: flags.FlagValues) -> None:
    """Adds the flags to others."""
    for name, (add, words) in _FLAGS.items():
        add(name, None, words, flag_values=values)


def given(values: flags.FlagValues) -> list[str]:
    """Returns the names of those that are given."""
    return [name for name in _FLAGS if values[name].value is not None]


def check(values: flags.FlagValues) -> None:
    """Raises UserError for flags that contradict each other."""
    if values.minimize and values.maximize:
        raise UserError("--minimize and --maximize are given, allowed: one of both")


def read(table: str, values: flags.FlagValues) -> "Trials":
    """Returns the trials of a table, read as the flags say."""
    from finetune.analysis.table.columns import Asked
    from finetune.analysis.table.trials import read_table

    named = None if values.hyperparameters is None else tuple(values.hyperparameters)
    asked = Asked(named, tuple(values.ignore or ()), values.seed_column)
    minimize = True if values.minimize else False if values.maximize else None
    return read_table(table, values.metric, minimize, asked)


def main(about: str, define_flags: Callable[[], flags.FlagValues], command: Callable[[list[str]], None]) -> int:
    """Runs a command that has these flags, or says what it is about, and returns its exit status."""
    arguments = sys.argv[1:]
    asks_help = cli.asks_help(arguments)
    return cli.run(lambda: _print_help(about, define_flags()) if asks_help else command(arguments))


def _print_help(about: str, values: flags.FlagValues) -> None:
    print(about)
    for name in values:
        print(f"  --{name}: {values[name].help}")
