"""Two processes on the loopback interface train a study together, with the results of one."""

import json
import os
import socket
import subprocess
import sys

import numpy as np

_SIZES = ["width=16", "depth=1", "heads=2", "mlp_width=32", "patch_size=4"]
_STUDY = [
    "--config=configs/digits_vit.py",
    *(f"--config.model.{size}" for size in _SIZES),
    "--config.data.train_examples=40",
    "--config.hparams.epochs=2",
    "--grid=learning_rate=1e-3,1e-2",
    "--seeds=3",
]


def start(workdir, *flags):
    flags_of_xla = os.environ["XLA_FLAGS"].replace("device_count=8", "device_count=2")
    environment = os.environ | {"XLA_FLAGS": flags_of_xla, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "finetune", *_STUDY, f"--workdir={workdir}", *flags]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def results(workdir):
    rows = [json.loads(line) for line in (workdir / "trials.jsonl").read_text().splitlines()]
    assert len(rows) == len({row["id"] for row in rows}) == 6
    return {row["id"]: row for row in rows}


def test_two_processes_give_the_results_of_one(tmp_path):
    together = [f"--coordinator=127.0.0.1:{free_port()}", "--processes=2"]
    processes = [start(tmp_path / "two", *together, f"--process={number}") for number in range(2)]
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    alone = start(tmp_path / "one")
    output = alone.communicate(timeout=300)[0]
    assert alone.returncode == 0, output

    one, two = results(tmp_path / "one"), results(tmp_path / "two")
    assert one.keys() == two.keys()
    for identity, row in one.items():
        assert two[identity]["hparams"] == row["hparams"]
        assert two[identity]["status"] == row["status"]
        for name, value in row["metrics"].items():
            np.testing.assert_allclose(two[identity]["metrics"][name], value, rtol=1e-5)
    assert (tmp_path / "two" / "checkpoints" / "base").is_dir()


def test_process_out_of_range_is_one_line(tmp_path):
    process = start(tmp_path, "--coordinator=127.0.0.1:1", "--processes=2", "--process=2")
    assert process.communicate(timeout=100)[0].splitlines()[-1] == (
        "error: --process is 2, allowed: 0 to --processes - 1 = 1"
    )
    assert process.returncode == 2
