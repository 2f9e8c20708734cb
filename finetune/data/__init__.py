"""Data sets of any source, split, tokenised and held as arrays."""

from finetune.data.dataset import Dataset, Split, load

__all__ = ["Dataset", "Split", "load"]
