"""finetune: how hyperparameters affect the fine-tuning of your model, which choice is best, and how sure that is."""

__version__ = "0.1.0"
