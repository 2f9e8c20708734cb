"""What the experiments fine-tune, a ViT of handwritten digits and a linear head on MiniLM, and their common flags."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags, logging

from finetune.analysis.table import trials as table
from finetune.analysis.table.trials import Trials
from finetune.config import Config
from finetune.study import run

_WORKDIR = flags.DEFINE_string(
    "workdir", None, "the directory of the studies; runs/NAME of the experiment if not given"
)
SEEDS = flags.DEFINE_integer("seeds", 5, "trials of each setting", lower_bound=2)
SUBJECTS = flags.DEFINE_multi_enum("subject", ["digits", "text"], ["digits", "text"], "what is fine-tuned; repeatable")
EPOCHS = flags.DEFINE_integer("epochs", 30, "epochs, where the experiment does not vary them", lower_bound=2)
_WIDTH = flags.DEFINE_integer("width", 32, "of the ViT's residual stream, a multiple of 4", lower_bound=4)
_DEPTH = flags.DEFINE_integer("depth", 3, "blocks of the ViT", lower_bound=1)

DIGITS, TEXTS = 100, 1000  # labelled examples
Axes = Mapping[str, Sequence[Any]]


def workdir(experiment: str) -> Path:
    """Returns the directory of the studies of an experiment; from here on studies print warnings only."""
    logging.set_verbosity(logging.WARNING)
    return Path(_WORKDIR.value or f"runs/{experiment}")


def configs(directory: Path) -> dict[str, Config]:
    """Returns the study of each --subject, called as it is written; what it needs is trained in `directory`."""
    made = {}
    if "digits" in SUBJECTS.value:
        made["digits, ViT"] = digits(directory)
    if "text" in SUBJECTS.value:
        made["20 Newsgroups, head on MiniLM"] = text()
    return made


def digits(directory: Path) -> Config:
    """Returns the study of digits 5 to 9 with 100 labels, all parameters, from a ViT that knows 0 to 4."""
    first = _vit("01234")
    first.hparams.learning_rate, first.hparams.epochs = 3e-3, EPOCHS.value
    run.run(first, directory / "vit")
    config = _vit("56789")
    config.model.pretrained = str(directory / "vit")
    config.data.train_examples, config.data.validation_examples = DIGITS, 300
    config.hparams.batch_size = 10
    config.evaluation.batch_size = 300
    return config


def text() -> Config:
    """Returns the study of a linear head on MiniLM: 1,000 labelled texts of 20 Newsgroups, of up to 32 tokens."""
    config = _fixed(Config(trainable="head"))
    config.model.dropout_at = "head"
    config.data.name, config.data.max_length = "20newsgroups", 32
    config.data.train_examples, config.data.validation_examples = TEXTS, 1000
    config.evaluation.batch_size = 250
    return config


def _vit(digits: str) -> Config:
    config = _fixed(Config(trainable="all"))
    config.model.name, config.model.pretrained, config.model.patch_size = "vit", "", 4
    config.model.width, config.model.mlp_width = _WIDTH.value, 2 * _WIDTH.value
    config.model.depth, config.model.heads = _DEPTH.value, 4
    config.data.name, config.data.classes = "digits", tuple(digits)
    return config


def _fixed(config: Config) -> Config:
    """Returns a config that measures no alternatives, which takes longer than these small studies themselves."""
    config.execution.mode, config.execution.epochs_on_device = "vmap", "scan"
    config.checkpoint.keep, config.hparams.epochs = 1, EPOCHS.value
    return config


def train(config: Config, directory: Path, axes: Axes, sweep: Iterable[Mapping[str, Any]] = ({},)) -> Trials:
    """Returns the trials of a grid with --seeds seeds, trained where `directory` does not hold them yet."""
    run.run(config, directory, {**axes, "seed": list(range(SEEDS.value))}, sweep)
    return table.read_study(directory)


def at_the_end(trials: Trials) -> Trials:
    """Returns the trials with the metric after their last epoch in place of that of their best one."""
    last = trials.curves.sort_values("epoch").groupby("id")[trials.metric].last()
    value = trials.frame["id"].map(last).where(trials.frame["value"].notna())
    utility = value if trials.maximize else -value
    return trials._replace(frame=trials.frame.assign(value=value, utility=utility))
