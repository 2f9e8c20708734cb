"""What the smaller commands share: flags whose mistakes are one line, and exit statuses."""

import argparse
import os
import runpy
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from finetune.errors import UserError

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
    """Returns the exit status of `command`: 0, or 2 when the user's input is wrong, which takes one line to say."""
    try:
        command()
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)  # one line, whatever a library said
        return 2
    except KeyboardInterrupt:
        print("interrupted; nothing was written", file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError:  # the reader has gone, as in `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0
