"""Processes on the loopback interface train a study together, with the results of one, and end together."""

import random
import re
import signal
import time
from pathlib import Path

import numpy as np
import pytest

import finetune
from tests.helpers.commands import Server, free_port
from tests.helpers.studies import rows_of

ROOT = Path(finetune.__file__).parent.parent
# Plain functions that compile at once.
STUDY = [f"--config={ROOT / 'tests' / 'own' / 'functions_config.py'}", "--config.checkpoint.interval_seconds=0"]
STUDY += ["--grid=learning_rate=1e-3,1e-2", "--seeds=3", "--config.hparams.epochs=12"]
VIT = [f"--config={ROOT / 'configs' / 'digits_vit.py'}"]
GONE = "error: process {} of 2 has gone: what is done is kept, start the same command on all of them again to continue"


@pytest.fixture(scope="module")
def server():
    started = Server(devices=2)
    yield started
    started.close()


def start(server, workdir, *flags, study=STUDY, second=(), directories=None, settings=({}, {})):
    """Starts two processes of a study.

    study: its first flags. second: more flags of the second one. directories: in which they run. settings: of JAX.
    """
    flags = [*study, *flags, f"--workdir={workdir}", f"--coordinator=127.0.0.1:{free_port()}", "--processes=2"]
    logs = [directory / f"{workdir.name}.{i}" for i, directory in enumerate(directories or [workdir.parent] * 2)]
    return [
        server.start(logs[0], *flags, "--process=0", settings=settings[0]),
        server.start(logs[1], *flags, *second, "--process=1", settings=settings[1]),
    ]


def finish(commands, seconds=300):
    """Waits for commands that end well."""
    assert [command.end(seconds) for command in commands] == [(0, [])] * len(commands)


def results(workdir):
    rows = rows_of(workdir)
    assert len(rows) == len({row["id"] for row in rows})
    return {row["id"]: row for row in rows}


def same(workdir, expected, tolerance):
    """Checks that two studies have the same trials with the same results."""
    found, expected = results(workdir), results(expected)
    assert found.keys() == expected.keys()
    for identity, row in expected.items():
        assert {name: found[identity][name] for name in ("hparams", "status", "steps")} == {
            name: row[name] for name in ("hparams", "status", "steps")
        }
        for name, value in row["metrics"].items():
            np.testing.assert_allclose(found[identity]["metrics"][name], value, rtol=tolerance)
    epochs = [(row["id"], row["epoch"]) for row in rows_of(workdir, "curves.jsonl")]
    assert len(epochs) == len(set(epochs))


@pytest.fixture(scope="module")
def undisturbed(server, tmp_path_factory):
    """The work directory of a study of two processes that was never disturbed, and the seconds that it took."""
    workdir, started = tmp_path_factory.mktemp("undisturbed") / "study", time.monotonic()
    finish(start(server, workdir))
    return workdir, time.monotonic() - started


def test_two_processes_give_the_results_of_one(server, tmp_path, undisturbed):
    finish([server.start(tmp_path / "log", *STUDY, f"--workdir={tmp_path / 'one'}")])
    same(undisturbed[0], tmp_path / "one", 1e-5)
    assert len(results(tmp_path / "one")) == 6
    assert (undisturbed[0] / "checkpoints" / "base").is_dir()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, pytest.param(range(1, 10), marks=pytest.mark.long)])
def test_either_process_is_killed_at_any_moment(server, tmp_path, undisturbed, seed):
    expected, seconds = undisturbed
    for number in seed if isinstance(seed, range) else [seed]:
        chance, workdir = random.Random(number), tmp_path / f"study{number}"
        for again in range(2):
            commands, victim = start(server, workdir), (number + again) % 2
            time.sleep(chance.uniform(0.1, 0.9) * seconds)
            commands[victim].kill()
            status, errors = commands[1 - victim].end(60)
            assert (status, errors) in ((1, [GONE.format(victim)]), (0, [])), errors  # it may have been done
        finish(start(server, workdir))
        same(workdir, expected, 1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_signal_to_either_process_stops_both(server, tmp_path, victim):
    workdir, long = tmp_path / "study", ["--config.hparams.epochs=100000", "--config.checkpoint.interval_seconds=3600"]
    curves = workdir / "curves.jsonl"
    reached = 0
    for _ in range(2):
        commands = start(server, workdir, *long)
        while not curves.exists() or max(row["epoch"] for row in rows_of(workdir, "curves.jsonl")) <= reached:
            assert [server.ask(command.number) for command in commands] == [None, None]
            time.sleep(0.05)
        commands[victim].kill(signal.SIGTERM)
        for status, errors in [command.end(10) for command in commands]:
            assert (status, len(errors)) == (143, 1)
            assert errors[0].startswith("stopped by SIGTERM; what is done is kept, and the same command goes on: ")
        assert list((workdir / "checkpoints" / "population").glob("*/manifest.json"))
        epochs = [row["epoch"] for row in rows_of(workdir, "curves.jsonl")]
        reached = max(epochs)
        assert sorted(epochs) == sorted([*range(1, reached + 1)] * 6)  # every epoch once, of every trial


def told(commands):
    """Returns the one line with which all of several commands have ended."""
    lines = set()
    for status, errors in [command.end(60) for command in commands]:
        assert status == 2, errors
        assert len(errors) == 1, errors
        lines.add(errors[0])
    assert len(lines) == 1, lines
    return lines.pop()


@pytest.mark.parametrize(
    "flag, difference",
    [
        ("--config.data.split_seed=5", "data.split_seed differs between processes: process 0 has 0, process 1 has 5"),
        ("--config.data.train_examples=50", "data.train_examples differs"),
        ("--grid=weight_decay=0,0.1", "grid differs between processes: process 0 has 1 trial (digest "),
        ("--config.model.width=16", "model.width differs between processes: process 0 has 48, process 1 has 16"),
        ("--config.optimizer.name=sgd", "optimizer.name differs between processes: process 0 has adamw, process 1 has"),
        ("--config.hparams.epochs=3", "hparams.epochs differs between processes: process 0 has 20, process 1 has 3"),
        ("--plan_only", "--plan_only differs"),
        ("--processes=3", "--processes is 2 for process 0 and 3 for process 1"),
    ],
)
def test_commands_that_differ(server, tmp_path, flag, difference):
    line = told(start(server, tmp_path / "study", study=VIT, second=[flag]))
    assert line.startswith(f"error: {difference}")
    assert line.endswith(("allowed: the same command and files everywhere", "allowed: the same everywhere"))
    assert not (tmp_path / "study").exists()


def test_settings_of_jax_that_differ(server, tmp_path):
    line = told(start(server, tmp_path / "study", settings=({}, {"jax_enable_x64": True})))
    assert line.startswith("error: jax_enable_x64 differs between processes: process 0 has False, process 1 has True")


def test_data_that_differ_in_files_of_one_name(server, tmp_path):
    directories = [tmp_path / "a", tmp_path / "b"]
    for directory, examples in zip(directories, (60, 50), strict=True):
        directory.mkdir()
        images = np.random.default_rng(0).normal(size=(examples, 8, 8, 1)).astype(np.float32)
        np.savez(directory / "data.npz", x_train=images, y_train=np.arange(examples) % 3)
    flags = ["--config.data.name=data.npz", "--config.data.train_examples=0", "--config.data.validation_examples=0"]
    line = told(start(server, tmp_path / "study", *flags, directories=directories))
    sizes = r"(\d+) training, (\d+) validation and (\d+) test examples \(digest [0-9a-f]{12}\)"
    found = re.match(f"error: data differs between processes: process 0 has {sizes}, process 1 has {sizes}, ", line)
    first, second = np.array(found.groups(), int).reshape(2, 3)
    assert (first.sum(), second.sum()) == (60, 50)


def test_what_one_process_is_refused_all_are_told(server, tmp_path):
    (tmp_path / "study").write_text("")
    line = told(start(server, tmp_path / "study"))
    assert line == f"error: process 0 of 2: --workdir is '{tmp_path}/study', which is a file, allowed: a directory"


FAILING = """
import runpy, sys
from finetune.hosts import processes
from finetune.study import training

processes._SAME_ERROR_SECONDS = 5.0
own = runpy.run_path({study!r})
get_config, task = own["get_config"], own["task"]

def fail(*arguments):
    raise RuntimeError({message!r})

if {where!r} in " ".join(sys.argv):
    training.start = fail
"""


@pytest.fixture
def failing(tmp_path):
    """Gives flags of a study that fails in processes with a flag."""

    def flags(where, message="it is broken"):
        own = str(ROOT / "tests" / "own" / "functions_config.py")
        text = FAILING.format(study=own, where=where, message=message)
        (tmp_path / "failing.py").write_text(text)
        return [f"--config={tmp_path / 'failing.py'}", *STUDY[1:]]

    return flags


def test_an_error_that_one_process_meets_alone_is_no_trials_fault(server, tmp_path, failing):
    commands = start(server, tmp_path / "study", study=failing("--process=1"))
    (status, errors), other = [command.end(60) for command in commands]
    assert other == (status, errors)
    assert status == 1
    assert len(errors) == 1
    met = "error: process 1 of 2 is at an error, RuntimeError, 'it is broken' and process 0 is "
    assert errors[0].startswith(met)
    assert not (tmp_path / "study" / "trials.jsonl").exists()


def test_an_error_that_all_meet_is_the_trials(server, tmp_path, failing):
    commands = start(server, tmp_path / "study", study=failing("--process="))
    assert [command.end(60) for command in commands] == [(1, [])] * 2
    rows = results(tmp_path / "study").values()
    assert [row["status"] for row in rows] == ["failed"] * 6
    assert {row["reason"] for row in rows} == {"RuntimeError: it is broken"}


def test_an_error_of_the_exchange_is_no_trials_fault(server, tmp_path, failing):
    message = "UNKNOWN: Gloo all-reduce failed: Connection timed out"
    commands = start(server, tmp_path / "study", study=failing("--process=", message))
    for status, errors in [command.end(60) for command in commands]:
        assert (status, len(errors)) == (1, 1)
        assert re.match(f"error: process [01] of 2: {message}: what is done is kept, ", errors[0])
    assert not (tmp_path / "study" / "trials.jsonl").exists()


@pytest.mark.slow
def test_a_chain_of_stages(server, tmp_path):
    flags = ["--grid=trainable=head,head>all", "--config.hparams.epochs=3"]
    finish(start(server, tmp_path / "two", *flags))
    finish([server.start(tmp_path / "log", *STUDY, *flags, f"--workdir={tmp_path / 'one'}")])
    same(tmp_path / "two", tmp_path / "one", 1e-5)
    assert sum("parent" in row for row in results(tmp_path / "two").values()) == 6


def test_process_out_of_range_is_one_line(server, tmp_path):
    command = server.start(
        tmp_path / "log", *STUDY, f"--workdir={tmp_path}", "--coordinator=127.0.0.1:1", "--processes=2", "--process=2"
    )
    assert told([command]) == "error: --process is 2, allowed: 0 to --processes - 1 = 1"
