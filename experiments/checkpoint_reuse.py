"""Does a study's checkpoint help the next one? Digits 5 to 9 with 50 labels, from a ViT that knows 0 to 4, and anew.

python experiments/checkpoint_reuse.py --workdir=runs/checkpoint_reuse
"""

from pathlib import Path

from absl import app, flags, logging

from finetune.config import Config
from finetune.study import run

_WORKDIR = flags.DEFINE_string("workdir", "runs/checkpoint_reuse", "the directory of the three studies")
_LABELS = flags.DEFINE_integer("labels", 50, "training examples of the digits 5 to 9")
_SEEDS = flags.DEFINE_integer("seeds", 5, "trials of each setting")

_RATES = [3e-4, 1e-3, 3e-3]


def _config(digits: str) -> Config:
    config = Config(trainable="all")
    config.model.name, config.model.pretrained = "vit", ""
    config.model.width, config.model.depth, config.model.heads, config.model.mlp_width = 48, 3, 4, 96
    config.model.patch_size = 2
    config.data.name, config.data.classes = "digits", tuple(digits)
    config.hparams.learning_rate, config.hparams.epochs = 3e-3, 30
    return config


def _accuracy(config: Config, workdir: Path, axes: dict[str, list[float | int | str]]) -> tuple[float, float, float]:
    """Returns (rate, mean test accuracy, half its range over seeds) of the rate with the best validation accuracy."""
    table = run.run(config, workdir, axes).table()
    rate = table.groupby("learning_rate")["val_accuracy"].mean().idxmax()
    found = table[table["learning_rate"] == rate]["test_accuracy"]
    return float(rate), float(found.mean()), float(found.max() - found.min()) / 2


def main(_: list[str]) -> None:
    logging.set_verbosity(logging.WARNING)
    workdir = Path(_WORKDIR.value)
    first = run.run(_config("01234"), workdir / "first").table()
    axes: dict[str, list[float | int | str]] = {"learning_rate": list(_RATES), "seed": list(range(_SEEDS.value))}
    answers = {}
    for name, pretrained in {"anew": "", "from the checkpoint": str(workdir / "first")}.items():
        config = _config("56789")
        config.model.pretrained = pretrained
        config.data.train_examples = _LABELS.value
        config.hparams.batch_size = 10
        answers[name] = _accuracy(config, workdir / name.replace(" ", "_"), axes)
    print(f"digits 0 to 4, all labels: test accuracy {first['test_accuracy'][0]:.3f}")
    for name, (rate, mean, half_range) in answers.items():
        print(
            f"digits 5 to 9, {_LABELS.value} labels, {name}: test accuracy {mean:.3f} ± {half_range:.3f} "
            f"(half the range over {_SEEDS.value} seeds) at learning rate {rate:g}, the best of {_RATES}"
        )


if __name__ == "__main__":
    app.run(main)
