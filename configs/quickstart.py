"""How learning rate and weight decay affect a head on MiniLM, on 1,500 Reuters R8 texts."""

from finetune.config import Config


def get_config(arg: str = "") -> Config:
    del arg
    config = Config(trainable="head")
    config.model.pretrained = "minilm"
    config.model.dropout_at = "head"
    config.data.name = "r8"
    config.data.train_examples = 1500
    config.data.validation_examples = 500
    config.data.max_length = 128
    config.hparams.learning_rate = 1e-2
    config.hparams.epochs = 10
    return config
