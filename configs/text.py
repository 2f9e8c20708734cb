"""Your own texts: a linear head on MiniLM, 5 learning rates x 3 seeds.

    finetune run --config=text --config.data.name=reviews.csv --workdir=runs/mine
        [--config.data.text_column=review] [--config.data.label_column=stars] [--grid=trainable=head,last:1]

A .csv, .tsv or .jsonl file with a column of texts and one of labels, or a directory of train, validation and test.
To expect, of 1,500 short texts: one minute on 2 CPU cores.
"""

from collections.abc import Iterator

from finetune.config import Config


def get_config(arg: str = "") -> Config:
    """Returns the study; `arg` is not used."""
    del arg
    config = Config(trainable="head")
    config.model.pretrained = "minilm"
    config.model.dropout_at = "head"
    config.data.name = ""  # yours
    config.hparams.epochs = 20
    return config


def sweep() -> Iterator[dict[str, float]]:
    """Yields 5 learning rates x 3 seeds."""
    for learning_rate in (3e-4, 1e-3, 3e-3, 1e-2, 3e-2):
        for seed in range(3):
            yield {"learning_rate": learning_rate, "seed": seed}
