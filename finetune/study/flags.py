"""The flags of a study: what they are called, what they say, and the config with its overrides."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from absl import flags
from ml_collections import config_flags

from finetune import config as settings
from finetune.errors import UserError, one_of
from finetune.study import config_file

_TYPES: dict[type, tuple[Callable[[str], Any], str]] = {int: (int, "a whole number"), float: (float, "a number")}
_CONFIG = "a config file, such as configs/quickstart.py, or the name of one that `finetune configs` lists"


def define() -> flags.FlagValues:
    """Returns the flags of a study, --config aside."""
    values = flags.FlagValues()
    flags.DEFINE_string("workdir", None, "the directory of the study; starting again continues it", flag_values=values)
    flags.DEFINE_multi_string(
        "grid",
        [],
        "an axis: NAME=a,b,c or NAME=log:LOW:HIGH:N or NAME=lin:LOW:HIGH:N; repeatable. NAME@CHOICE=... holds "
        "for trials with that choice alone: learning_rate@head=1e-2,1e-1",
        flag_values=values,
    )
    flags.DEFINE_integer("seeds", None, "train every setting with the seeds 0 to N-1", flag_values=values)
    _define_search(values)
    flags.DEFINE_bool("plan_only", False, "print the plan and what it costs; train nothing", flag_values=values)
    flags.DEFINE_bool("retry", False, "try trials that have failed twice again", flag_values=values)
    flags.DEFINE_bool("fail_fast", False, "raise what a trial raises; train no others", flag_values=values)
    flags.DEFINE_string("coordinator", "", "HOST:PORT of the first of several processes", flag_values=values)
    flags.DEFINE_integer("processes", 1, "how many processes train the study together", flag_values=values)
    flags.DEFINE_integer("process", 0, "which of them this is, from 0; the first one writes", flag_values=values)
    return values


def _define_search(values: flags.FlagValues) -> None:
    flags.DEFINE_multi_string(
        "space",
        [],
        "search instead of a grid: NAME=log:LOW:HIGH, NAME=lin:LOW:HIGH or NAME=a,b,c; repeatable; NAME@CHOICE too",
        flag_values=values,
    )
    flags.DEFINE_string(
        "search",
        "sobol",
        "how settings of a --space are chosen: sobol, random, tpe; range tests learning rates",
        flag_values=values,
    )
    flags.DEFINE_integer("trials", 64, "settings of a search, each with the seeds of --seeds", flag_values=values)
    flags.DEFINE_integer(
        "waves", 1, "in how many parts, the next after the results of those before", flag_values=values
    )
    flags.DEFINE_integer(
        "halving", 0, "while they train, one of so many trials of a search goes on; 0: all do", flag_values=values
    )
    flags.DEFINE_float(
        "halving_start", 0.2, "the share of its epochs after which a trial may first be stopped", flag_values=values
    )
    flags.DEFINE_float(
        "halving_control", 0.1, "the share of trials never stopped: they tell how often it is wrong", flag_values=values
    )
    flags.DEFINE_integer(
        "halving_rungs", 0, "how often a trial may be stopped; 0: as often as its epochs allow", flag_values=values
    )
    flags.DEFINE_integer("search_seed", 0, "of the settings that are chosen", flag_values=values)
    flags.DEFINE_float(
        "minutes", None, "a search begins no wave that would not end in time, by what is measured", flag_values=values
    )
    flags.DEFINE_string(
        "optuna", "", "journal:FILE, where the search is a study of Optuna too; goes on from one", flag_values=values
    )
    flags.DEFINE_integer("finalists", 0, "how many of the best settings get more seeds", flag_values=values)
    flags.DEFINE_integer("finalist_seeds", 5, "how many seeds these have then", flag_values=values)


def _check_search(values: flags.FlagValues) -> None:
    """Raises UserError for flags of a search without a --space, and for a grid beside one."""
    if values.space and values.grid:
        raise UserError(
            f"--grid={values.grid[0]} is beside --space, allowed: one of them; --space=NAME=a,b,c is a list"
        )
    of_search = flags.FlagValues()
    _define_search(of_search)
    given = [name for name in of_search if values[name].present]
    if given and not values.space:
        raise UserError(f"--{given[0]} is given without --space, allowed: with a --space that is searched")


def help_lines() -> Iterator[str]:
    """Yields what the flags and all settings are."""
    yield f"  --config: {_CONFIG}"
    values = define()
    yield from (f"  --{name}: {values[name].help}" for name in values)
    yield "\nSettings, each overridden by --config.NAME=VALUE, and their defaults:"
    yield from (f"  {line}" for line in settings.help_lines())


def parse(arguments: Sequence[str]) -> tuple[flags.FlagValues, str, list[str]]:
    """Returns (flags, what --config names, overrides of its settings); raises UserError for what is wrong with them."""
    overrides = [_checked(each) for each in arguments if _name(each).startswith("config.")]
    named = [each.partition("=")[2] for each in arguments if _name(each) == "config"]
    if len(named) != 1:
        raise UserError(f"--config is {', '.join(named)!r}, allowed: one file, such as --config=configs/quickstart.py, "
                        f"or one of {', '.join(config_file.packaged())}")  # fmt: skip
    values = define()
    try:
        plain = [each for each in arguments if _name(each).partition(".")[0] != "config"]
        rest = values(["finetune", *plain])
    except flags.Error as error:
        raise UserError(str(error)) from None
    if len(rest) > 1:
        raise UserError(f"argument {rest[1]!r} is no flag, allowed: flags as --help lists them")
    _check_search(values)
    if not values.workdir:
        raise UserError("--workdir is missing, allowed: a directory for the study, such as --workdir=runs/first")
    return values, named[0], overrides


def overridden(config: settings.Config, overrides: Sequence[str]) -> settings.Config:
    """Returns a config with typed overrides, such as --config.optimizer.name=sgd; raises UserError as `parse` does."""
    values = flags.FlagValues()
    config_flags.DEFINE_config_dataclass("config", config, flag_values=values, sys_argv=["finetune", *overrides])
    try:
        values(["finetune", *overrides])
    except flags.Error as error:
        raise UserError(str(error)) from None
    found: settings.Config = values.config
    return found


def _name(argument: str) -> str:
    """Returns the name of a flag, "" of what is none."""
    return argument.lstrip("-").partition("=")[0] if argument.startswith("-") else ""


def _checked(argument: str) -> str:
    """Returns an override as config_flags reads it; raises UserError for an unknown setting or one of another type."""
    name, equals, value = argument.lstrip("-").partition("=")
    known = dict(settings.fields(settings.Config()))
    setting = name.removeprefix("config.")
    if setting not in known:
        raise one_of("setting", setting, known)
    convert, allowed = _TYPES.get(type(known[setting]), (str, "text"))
    if not equals:
        raise UserError(f"--config.{setting} has no value, allowed: --config.{setting}={allowed.upper()}")
    try:
        convert(value)
    except ValueError:
        raise UserError(f"--config.{setting} is {value!r}, allowed: {allowed}") from None
    if isinstance(known[setting], tuple):
        return f"--config.{setting}={tuple(filter(None, value.split(',')))!r}"
    return f"--config.{setting}={value}"
