"""Commands of finetune run in forks of a server that imports everything once, so that many start in little time.

The server reads lines {"arguments", "output", "errors"} and answers each with the number of the process that runs the
command, its streams in those files; a number of a process is answered with its exit status once it has ended.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple


class Command(NamedTuple):
    """A command that runs, or has run."""

    server: "Server"
    number: int  # of its process
    output: Path
    errors: Path

    def kill(self, number=signal.SIGKILL):
        os.kill(self.number, number)

    def end(self, seconds):
        """Returns (exit status, lines of its errors), the status negative for a signal; it has to end in time."""
        deadline = time.monotonic() + seconds
        while (status := self.server.ask(self.number)) is None:
            if time.monotonic() > deadline:
                self.kill()
                raise AssertionError(f"no end within {seconds} s: {self.output.read_text()}{self.errors.read_text()}")
            time.sleep(0.02)
        return status, self.errors.read_text().splitlines()


class Server:
    """Starts commands, each with so many devices."""

    def __init__(self, devices):
        flags = os.environ["XLA_FLAGS"].replace("device_count=8", f"device_count={devices}")
        self._process = subprocess.Popen(
            [sys.executable, __file__], env=os.environ | {"XLA_FLAGS": flags}, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def ask(self, question):
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def start(self, log, *arguments, settings=None):
        """Starts a command in the directory of `log`, which is what its streams' files are called.

        settings: of JAX, for this command alone.
        """
        files = {"output": f"{log}.out", "errors": f"{log}.err"}
        number = self.ask({"arguments": arguments, "settings": settings or {}, **files})
        return Command(self, number, *map(Path, files.values()))

    def close(self):
        self._process.communicate(timeout=30)


def _run(arguments, settings, output, errors):
    for number, file in ((1, output), (2, errors)):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND), number)
    os.chdir(Path(output).parent)
    sys.argv = ["finetune", *arguments]
    import jax

    from finetune import __main__

    for name, value in settings.items():
        jax.config.update(name, value)
    status = __main__.main()
    sys.stdout.flush()
    os._exit(status)


def _ended(number):
    found, status = os.waitpid(number, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


def free_port() -> int:
    """Returns a port of the loopback interface on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def main():
    import sklearn.datasets  # noqa: F401  # what the digits are read with

    from finetune import __main__  # noqa: F401
    from finetune.study import run  # noqa: F401

    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        question = json.loads(line)
        answer = _ended(question) if isinstance(question, int) else os.fork()
        if answer == 0 and not isinstance(question, int):
            _run(**question)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
