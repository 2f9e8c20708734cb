"""One process at a time in a work directory: a lock that the system drops with the process that holds it."""

import datetime
import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from finetune.errors import UserError
from finetune.storage import files, records

_NAME = "lock"


@contextmanager
def held(workdir: Path) -> Iterator[None]:
    """Holds the lock of a work directory; raises UserError with the process that holds it, if another one does."""
    path = workdir / _NAME
    try:
        file = files.open_to_append(path)
    except OSError as error:
        raise records.unwritable(path, error) from None
    with file:  # closing drops the lock
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"--workdir is {str(workdir)!r}, in use by {_holder(path)}, allowed: one process at a time"
            ) from None
        except OSError as error:
            raise UserError(f"--workdir is {str(workdir)!r}, which cannot be locked ({error.strerror}), "
                            "allowed: a directory on a file system with locks") from None  # fmt: skip
        started = datetime.datetime.now().astimezone().isoformat(" ", "seconds")
        file.truncate(0)
        file.write(json.dumps({"process": os.getpid(), "started": started}).encode())
        yield


def _holder(path: Path) -> str:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return f"process {found['process']} since {found['started']}"
    except (OSError, ValueError, KeyError, TypeError):  # it has the lock, and has not written yet
        return "another process"
