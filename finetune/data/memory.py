"""Whether what a file claims to hold fits into memory, asked before it is unpacked."""

import psutil

from finetune.errors import UserError


def check_fits(size_bytes: int, what: str) -> None:
    """Raises UserError if `what`, which takes so many bytes, is more than the memory that is free."""
    free = psutil.virtual_memory().available
    if size_bytes > free:
        raise UserError(
            f"{what} take {size_bytes / 1e9:.1f} GB, allowed: the {free / 1e9:.1f} GB of memory that are free"
        )
