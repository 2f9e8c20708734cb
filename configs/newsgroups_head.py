"""A linear head on MiniLM, 200 labelled texts of 20 Newsgroups.

    python -m finetune --config=configs/newsgroups_head.py --workdir=runs/newsgroups --seeds=3
"""

from finetune.config import Config


def get_config(arg: str = "") -> Config:
    """Returns the study; `arg` is not used."""
    del arg
    config = Config(trainable="head")
    config.model.pretrained = "minilm"
    config.model.dropout_at = "head"
    config.data.name = "20newsgroups"
    config.data.train_examples = 200
    config.data.validation_examples = 500
    config.hparams.learning_rate = 3e-2
    config.hparams.epochs = 40
    return config
