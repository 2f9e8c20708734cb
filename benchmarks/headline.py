"""1,000 fine-tunes against one: a head on MiniLM, with the frozen part computed once, and in every step.

    python benchmarks/headline.py --workdir=runs/headline

Both are whole studies in one process, from loading to the last record, on the same texts: 1,000 trials (20 learning
rates x 5 weight decays x 2 dropout rates x 5 seeds), and one trial of them, looped on the device, whose program runs
the frozen encoder in every step of every epoch. The bound is what remains if nothing but the encoder took time: the
texts of all splits once, against the training and validation texts in every epoch and the test texts once.
"""

import json
import shutil
from pathlib import Path

import minilm
import numpy as np
from absl import flags

from finetune import study, subject
from finetune.config import Config

_WORKDIR = flags.DEFINE_string("workdir", "runs/headline", "the directory of the two studies, which are removed first")
_TEXTS = flags.DEFINE_integer("texts", 1000, "training texts")


def _config() -> Config:
    config = minilm.get_config()
    config.data.train_examples, config.hparams.dropout = _TEXTS.value, 0.1
    return config


def _seconds(workdir: Path) -> dict[str, float]:
    return json.loads((workdir / "summary.json").read_text(encoding="utf-8"))["seconds"]


def _sentence(what: str, seconds: dict[str, float]) -> str:
    parts = ", ".join(f"{name} {value:.1f}" for name, value in seconds.items())
    return f"{what}: {sum(seconds.values()):.1f} s ({parts})"


def main() -> None:
    workdir = Path(_WORKDIR.value)
    shutil.rmtree(workdir, ignore_errors=True)
    axes = {
        "learning_rate": [float(f"{rate:.6g}") for rate in np.geomspace(1e-4, 1e-1, 20)],
        "weight_decay": [0.0, 1e-3, 1e-2, 3e-2, 1e-1],
        "dropout": [0.0, 0.1],
        "seed": list(range(5)),
    }
    study.run(_config(), workdir / "thousand", axes)
    usual = _config()
    usual.trunk.mode, usual.execution.mode, usual.execution.epochs_on_device = "none", "loop", "scan"
    study.run(usual, workdir / "one")
    thousand, one = _seconds(workdir / "thousand"), _seconds(workdir / "one")
    test = len(subject.load(usual).dataset.test["label"])
    each_epoch = usual.data.train_examples + usual.data.validation_examples
    bound = (each_epoch + test) / (usual.hparams.epochs * each_epoch + test)
    print(_sentence("1,000 trials, frozen part once", thousand))
    print(_sentence("one trial, frozen part in every step", one))
    print(f"1,000 trials / one trial: {sum(thousand.values()) / sum(one.values()):.2f} (bound {bound:.2f})")


if __name__ == "__main__":
    minilm.run(main)
