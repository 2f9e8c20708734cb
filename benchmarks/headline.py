"""1,000 fine-tunes against one: a head on MiniLM, with the frozen part computed once, and in every step.

    python benchmarks/headline.py --workdir=runs/headline

Both are whole studies, from loading to the last record, on the same texts: 1,000 trials (20 learning rates x 5 weight
decays x 2 dropout rates x 5 seeds), and one trial of them, looped on the device, whose program runs the frozen encoder
in every step of every epoch. Each has a process of its own, so that neither finds libraries imported or programs
compiled by the other, and what is compared is the time of the whole process. The bound is what remains if nothing but
the encoder took time: the texts of all splits once, against the training and validation texts in every epoch and the
test texts once.
"""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import minilm
import numpy as np
from absl import flags

from finetune.config import Config
from finetune.study import problem, run

_WORKDIR = flags.DEFINE_string("workdir", "runs/headline", "the directory of the two studies, which are removed first")
_TEXTS = flags.DEFINE_integer("texts", 1000, "training texts")
_CHUNK = flags.DEFINE_integer("chunk", 0, "trials that train at once, 0 = as many as fit")
_ONLY = flags.DEFINE_enum("only", None, ["thousand", "one"], "trains this study alone, in this process")


def _config() -> Config:
    config = minilm.get_config()
    config.data.train_examples, config.hparams.dropout = _TEXTS.value, 0.1
    config.execution.chunk = _CHUNK.value
    return config


def _usual() -> Config:
    config = _config()
    config.trunk.mode, config.execution.mode, config.execution.epochs_on_device = "none", "loop", "scan"
    return config


def _train(name: str) -> None:
    axes = {
        "learning_rate": [float(f"{rate:.6g}") for rate in np.geomspace(1e-4, 1e-1, 20)],
        "weight_decay": [0.0, 1e-3, 1e-2, 3e-2, 1e-1],
        "dropout": [0.0, 0.1],
        "seed": list(range(5)),
    }
    directory = Path(_WORKDIR.value) / name
    shutil.rmtree(directory, ignore_errors=True)
    run.run(_config(), directory, axes) if name == "thousand" else run.run(_usual(), directory)


def _seconds(name: str, what: str) -> float:
    """Returns how long the process of a study takes, and prints what it takes it for."""
    started = time.monotonic()
    subprocess.run([sys.executable, *sys.argv, f"--only={name}"], check=True)
    total = time.monotonic() - started
    summary = json.loads((Path(_WORKDIR.value) / name / "summary.json").read_text(encoding="utf-8"))
    parts = summary["seconds"] | {"start and rest": total - sum(summary["seconds"].values())}
    print(f"{what}: {total:.1f} s ({', '.join(f'{part} {value:.1f}' for part, value in parts.items())})", flush=True)
    return total


def main() -> None:
    if _ONLY.value:
        _train(_ONLY.value)
        return
    test = len(problem.load(_usual()).dataset.test["label"])  # first, so that both processes find the files in memory
    config = _config()
    each_epoch = config.data.train_examples + config.data.validation_examples
    bound = (each_epoch + test) / (config.hparams.epochs * each_epoch + test)
    thousand = _seconds("thousand", "1,000 trials, frozen part once")
    one = _seconds("one", "one trial, frozen part in every step")
    print(f"1,000 trials / one trial: {thousand / one:.2f} (bound {bound:.2f})")


if __name__ == "__main__":
    minilm.run(main)
