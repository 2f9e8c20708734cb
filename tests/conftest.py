"""Settings of all tests: eight CPU devices, no silent rank promotion, and quick compilation."""

import os

# Level 0 compiles four times as fast, and these models are too small for its slower code to matter.
_FLAGS = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_FLAGS}".strip()
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax

jax.config.update("jax_numpy_rank_promotion", "raise")
