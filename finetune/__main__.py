"""python -m finetune: flags -> study.run. `--help` lists them; README shows them at work."""

import functools
import shlex
import signal
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import config_flags

from finetune import cli
from finetune import config as settings
from finetune.errors import UserError, one_of
from finetune.hosts import output

_TYPES: dict[type, tuple[Callable[[str], Any], str]] = {int: (int, "a whole number"), float: (float, "a number")}


def _define_flags(arguments: list[str]) -> flags.FlagValues:
    values = flags.FlagValues()
    config_flags.DEFINE_config_file(
        "config", None, "a config file, such as configs/quickstart.py", flag_values=values, sys_argv=arguments
    )
    flags.DEFINE_string("workdir", None, "the directory of the study; starting again continues it", flag_values=values)
    flags.DEFINE_multi_string(
        "grid",
        [],
        "an axis: NAME=a,b,c or NAME=log:LOW:HIGH:N or NAME=lin:LOW:HIGH:N; repeatable. NAME@CHOICE=... holds "
        "for trials with that choice alone: learning_rate@head=1e-2,1e-1",
        flag_values=values,
    )
    flags.DEFINE_integer("seeds", None, "train every setting with the seeds 0 to N-1", flag_values=values)
    flags.DEFINE_bool("plan_only", False, "print the plan and what it costs; train nothing", flag_values=values)
    flags.DEFINE_bool("retry", False, "try trials that have failed twice again", flag_values=values)
    flags.DEFINE_bool("fail_fast", False, "raise what a trial raises; train no others", flag_values=values)
    flags.DEFINE_string("coordinator", "", "HOST:PORT of the first of several processes", flag_values=values)
    flags.DEFINE_integer("processes", 1, "how many processes train the study together", flag_values=values)
    flags.DEFINE_integer("process", 0, "which of them this is, from 0; the first one writes", flag_values=values)
    return values


def _print_help() -> None:
    values = _define_flags([])
    print(f"{__doc__}\n")
    for name in values:
        print(f"  --{name}: {values[name].help}")
    print("\nSettings, each overridden by --config.NAME=VALUE, and their defaults:")
    for name, value in settings.fields(settings.Config()):
        print(f"  {name} = {value!r}")


def _checked(argument: str) -> str:
    """Returns an override as config_flags reads it; raises UserError for an unknown setting or one of another type."""
    name, equals, value = argument.lstrip("-").partition("=")
    if not argument.startswith("-") or not name.startswith("config."):
        return argument
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
    return argument


def _config_file(arguments: list[str]) -> str:
    files = [each.removeprefix("--config=").split(":")[0] for each in arguments if each.startswith("--config=")]
    if len(files) != 1 or not Path(files[0]).is_file():
        given = ", ".join(files)
        raise UserError(f"--config is {given!r}, allowed: one file, such as --config=configs/quickstart.py")
    return files[0]


def _parse(arguments: list[str]) -> flags.FlagValues:
    """Returns the parsed flags; raises UserError for whatever is wrong with them."""
    file = _config_file(arguments)
    checked = sorted((_checked(argument) for argument in arguments), key=lambda each: not each.startswith("--config="))
    try:
        values = _define_flags(checked)
        rest = values(["finetune", *checked])
        if not isinstance(values.config, settings.Config):
            raise UserError(f"get_config() of {file} returns {values.config!r}, allowed: a finetune.config.Config")
    except flags.Error as error:
        raise UserError(str(error)) from None
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # whatever the user's config file raises
        raise UserError(f"config file {file}: {type(error).__name__}: {error}") from error
    if len(rest) > 1:
        raise UserError(f"argument {rest[1]!r} is no flag, allowed: flags as --help lists them")
    if not values.workdir:
        raise UserError("--workdir is missing, allowed: a directory for the study, such as --workdir=runs/first")
    return values


def _sweep(file: Path, defined: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    """Returns what `sweep()` of a config file yields, one empty assignment if there is none."""
    try:
        return list(defined["sweep"]()) if "sweep" in defined else ({},)
    except (Exception, SystemExit) as error:  # whatever the user's sweep raises
        raise UserError(
            f"sweep() of {file}: {type(error).__name__}: {error}, allowed: a generator of one dict for each trial"
        ) from error


def _run(arguments: list[str]) -> int:
    values = _parse(arguments)
    file = _config_file(arguments)
    print(f"finetune: {file} -> {values.workdir}", flush=True)
    from finetune.hosts import processes, signals  # after the first line, since JAX takes its time

    processes.join(values.coordinator, values.processes, values.process)
    # After JAX, which takes over signals where several processes meet.
    signals.install(_say_stopped, processes.here().tell_stop)
    return processes.run(functools.partial(_train, values, file))


def _train(values: flags.FlagValues, file: str) -> int:
    from finetune.hosts import processes, signals
    from finetune.study.run import run
    from finetune.trials import grid

    axes = grid.parse_axes(values.grid, values.seeds)
    try:
        defined = cli.defined(file)
        sweep = _sweep(Path(file), defined)
        found = run(
            values.config, values.workdir, axes, sweep, values.plan_only, retry=values.retry,
            fail_fast=values.fail_fast, task=defined.get("task"),
        )  # fmt: skip
        return int(processes.from_first("the end", str(found.exit_status)))
    except signals.Stopped as stopped:
        processes.here().tell_stop(stopped.number)
        _say_stopped(stopped)
        return stopped.status


def _say_stopped(stopped: BaseException) -> None:
    from finetune.hosts import processes

    processes.here().claim()
    again = shlex.join(["python", "-m", "finetune", *sys.argv[1:]])
    print(f"{stopped}; what is done is kept, and the same command goes on: {again}", file=sys.stderr, flush=True)


def main() -> int:
    """Runs the command line and returns its exit status."""
    output.guard()
    arguments = sys.argv[1:]
    try:
        if {"--help", "-h", "-help", "--helpfull"} & set(arguments):
            _print_help()
            return 0
        return _run(arguments)
    except (UserError, OSError) as error:
        return cli.refuse(error)
    except KeyboardInterrupt:
        print("interrupted; the same command continues the study", file=sys.stderr)
        return 128 + signal.SIGINT


if __name__ == "__main__":
    sys.exit(main())
