"""The versions that a study's results depend on."""

import importlib.metadata

from finetune import __version__

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "tensorflow-datasets", "numpy")


def versions() -> dict[str, str]:
    """Returns the version of finetune, and of each package on which results depend."""
    return {"finetune": __version__} | {name: importlib.metadata.version(name) for name in _PACKAGES}
