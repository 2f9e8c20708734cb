"""Studies that are killed: a server that imports everything once and forks a process for each study.

Reads lines {"workdir", "phase", "call", "seconds", "searched"} and answers each with the exit status, negative for a
signal. The process sends itself SIGKILL so many seconds after the call with that number of the phase's function began.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import sklearn.datasets  # noqa: F401  # what the digits are read with

from finetune import report
from finetune.population import measure, train
from finetune.search import search, space
from finetune.search.halving import Halving
from finetune.storage import checkpoint, records
from finetune.study import exploring
from finetune.study import run as study
from finetune.trunk import feature_pass
from tests import conftest  # noqa: F401  # as in the tests: fake devices, a cache of programs
from tests.helpers import studies

AXES = {
    "optimizer.name": ["adamw", "sgd"],
    "learning_rate": [0.003, 0.01, 0.03, 0.1, 0.3],
    "epochs": [1, 2, 4],
    "seed": [0, 1],
}
# The function whose call starts a phase, and how long a kill may wait after it.
PHASES = {
    "load": (study, "load", 0.3),
    "wave": (study.Study, "train", 0.3),
    "compile": (measure, "choose", 0.5),
    "trunk": (feature_pass.Pass, "run", 0.2),
    "train": (train, "_train_epoch", 0.02),
    "checkpoint": (checkpoint, "save", 0.1),
    "record": (records, "append", 0.01),
    "summary": (study._Work, "summarise", 0.02),
    "report": (report, "write", 0.2),
}


def config():
    """Returns a study in which the way of computing is fixed, so that it is the same computation whenever it starts."""
    config = studies.digits("head", chunk=4, epochs_on_device="scan")
    config.trunk.mode = "cached"
    config.checkpoint.interval_seconds = 0.0
    return config


def searched_config():
    """Returns a study that is cheap to search."""
    found = studies.digits("head", chunk=4, epochs_on_device="scan")
    found.hparams.epochs = 2
    found.trunk.mode = "cached"
    return found


def tpe(**changes):
    """Returns a search of two waves of that study."""
    dimensions = space.parse(["learning_rate=log:1e-4:1e-1", "batch_size=10,20"], searched_config())
    found = search.Search(dimensions, "tpe", trials=8, waves=2, finalists=2, finalist_seeds=3)
    return found._replace(**changes)


def halved(mode="vmap"):
    """Returns a study that a search halves twice, after 2 and 4 epochs of 6, and that search."""
    found = studies.digits("head", mode=mode, epochs_on_device="scan")
    found.hparams.epochs = 6
    dimensions = space.parse(["learning_rate=log:1e-4:1e-1"], found)
    return found, search.Search(dimensions, "sobol", trials=16, halving=Halving(2, 0.3, 0.25))


SEARCHES = {
    "tpe": lambda: {"config": searched_config(), "search": tpe()},
    "halved": lambda: dict(zip(("config", "search"), halved("loop"), strict=True)),
}


@contextlib.contextmanager
def served():
    """Gives what runs a study in a process of its own, killed where it is said, and returns its exit status."""
    environment = {**os.environ, "PYTHONWARNINGS": "ignore", "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-m", "tests.helpers.killed"]
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:

        def run(workdir, phase="", call=0, seconds=0.0, searched=""):
            request = {"workdir": str(workdir), "phase": phase, "call": call, "seconds": seconds, "searched": searched}
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
            return int(process.stdout.readline())

        yield run
        process.stdin.close()


def kill_at(phase, call, seconds):
    """Arranges that this process is killed in a phase."""
    owner, name, _ = PHASES[phase]
    function, calls = getattr(owner, name), iter(range(1, 1_000_000))

    def kill():
        time.sleep(seconds)
        os.kill(os.getpid(), signal.SIGKILL)

    def counted(*arguments, **options):
        if next(calls) == call:
            threading.Thread(target=kill, daemon=True).start()
        return function(*arguments, **options)

    setattr(owner, name, counted)


def run(workdir, phase, call, seconds, searched):
    if phase:
        kill_at(phase, call, seconds)
    sys.stdout = sys.stderr = open(f"{workdir}.log", "a")  # noqa: SIM115
    if searched:
        return exploring.explore(workdir=Path(workdir), **SEARCHES[searched]()).exit_status
    return study.run(config(), Path(workdir), AXES).exit_status


def main():
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            os._exit(run(**json.loads(line)))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
