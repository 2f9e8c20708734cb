"""What the smaller commands share: flags whose mistakes are one line, and exit statuses."""

import argparse
import runpy
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from finetune.errors import UserError
from finetune.hosts import output

_INTERRUPTED = 130


class Parser(argparse.ArgumentParser):
    """Flags of a command; a mistake in them raises UserError. No flag can be shortened."""

    def __init__(self, module: str, what: str):
        super().__init__(prog=f"python -m {module}", description=what, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; {' '.join(self.format_usage().split())}")


def defined(file: Path | str) -> Mapping[str, Any]:
    """Returns what a config file defines by name: get_config, maybe sweep and task; raises UserError if it fails."""
    try:
        return runpy.run_path(str(file))
    except (Exception, SystemExit) as error:  # whatever the user's file raises
        raise UserError(f"config file {file}: {type(error).__name__}: {error}") from error


def run(command: Callable[[], None]) -> int:
    """Returns the exit status of `command`: 0, 1 when its output was not read to the end, 2 when the input is wrong."""
    output.guard()
    try:
        command()
    except BrokenPipeError:  # the reader has gone, as in `| head`
        return 1
    except (UserError, OSError) as error:
        return refuse(error)
    except KeyboardInterrupt:
        print("interrupted; nothing was written", file=sys.stderr)
        return _INTERRUPTED
    lost = output.lost()
    if lost is not None and not isinstance(lost, BrokenPipeError):
        print(f"error: standard output cannot be written ({lost}), allowed: one that can", file=sys.stderr)
    return int(lost is not None)


def asks_help(arguments: Iterable[str]) -> bool:
    """Says whether a command is asked what it does."""
    return bool({"--help", "-h", "-help", "--helpfull"} & set(arguments))


def refuse(error: UserError | OSError) -> int:
    """Says in one line what the user can mend, and returns the exit status; raises an error that is of no file."""
    if isinstance(error, OSError):
        if error.filename is None:
            raise error
        error = UserError(f"{error.filename}: {error.strerror}, allowed: files that can be read and written")
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr)  # whatever a library said
    return 2
