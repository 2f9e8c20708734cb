"""A config whose command lines tests spoil, and what must come of it."""

# A ViT on digits, small enough that a mistake found late is found fast.
VIT = """
from finetune.config import Config, DataConfig, ModelConfig

def get_config(arg=""):
    config = Config(trainable="head")
    config.model = ModelConfig(name="vit", pretrained="", width=8, depth=1, heads=2, mlp_width=8, patch_size=4)
    config.data = DataConfig(name="digits", train_examples=40, validation_examples=20)
    config.hparams.epochs = 1
    config.execution.devices = 1
    config.execution.mode = "vmap"
    return config
"""

# Flags of a BERT on a table of texts.
BERT = ("--config.model.name=bert", "--config.model.patch_size=0", "--config.data.tokenizer={inputs}/tokenizer.json")
BERT += ("--config.data.train_examples=0", "--config.data.validation_examples=0")


def check_error(status: int, stderr: str, words: list[str]) -> None:
    """Checks that a command failed with one line that holds `words`."""
    lines = [line for line in stderr.splitlines() if not line.startswith("fetching ")]
    assert status == 2
    assert len(lines) == 1, stderr
    assert lines[0].startswith("error: ")
    for word in words:
        assert word in lines[0]
