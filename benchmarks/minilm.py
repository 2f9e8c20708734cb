"""What the benchmarks train unless told otherwise: a head on MiniLM, 1,000 texts of Reuters R8 cut at 64 tokens.

    python benchmarks/sweep.py --config=benchmarks/minilm.py

A config file as a study takes it. No dropout, so that a step costs what the bounds say.
"""

import sys
from collections.abc import Callable
from pathlib import Path

from absl import app, flags, logging
from ml_collections import config_flags

from finetune.config import Config
from finetune.errors import UserError


def get_config(arg: str = "") -> Config:
    """Returns the study; `arg` is not used."""
    del arg
    config = Config(trainable="head")
    config.model.pretrained = "minilm"
    config.model.dropout_at = "head"
    config.data.name = "r8"
    config.data.train_examples, config.data.validation_examples = 1000, 250
    config.data.max_length = 64
    config.hparams.epochs = 10
    config.evaluation.batch_size = 32
    config.trunk.store_gigabytes = 0.0  # nothing is taken from an earlier run
    return config


def define_config_flag() -> flags.FlagHolder[Config]:
    """Returns the flag --config of a benchmark, this file unless given; --config.GROUP.NAME=VALUE overrides."""
    what = "a config file; --config.GROUP.NAME=VALUE overrides a setting"
    return config_flags.DEFINE_config_file("config", str(Path(__file__)), what, sys_argv=sys.argv)


def run(main: Callable[[], None]) -> None:
    """Runs the `main` of a benchmark; what a user has set wrong is one line, as in a study."""

    def quiet(_: list[str]) -> None:
        logging.set_verbosity(logging.WARNING)
        try:
            main()
        except UserError as error:
            sys.exit(f"error: {error}")

    app.run(quiet)
