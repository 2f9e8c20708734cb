"""Settings of all tests: eight CPU devices, no silent rank promotion, and quick compilation."""

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator

import pytest

# Level 0 compiles four times as fast, and these models are too small for its slower code to matter.
_FLAGS = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_FLAGS}".strip()
os.environ.setdefault("JAX_PLATFORMS", "cpu")

# Many tests have the same few programs: each is compiled once. Workers of pytest-xdist and processes that tests start
# inherit the directory.
if "PYTEST_XDIST_WORKER" not in os.environ:
    _programs = tempfile.mkdtemp(prefix="finetune-tests-")
    atexit.register(shutil.rmtree, _programs, ignore_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _programs
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

import jax  # noqa: E402  # reads the environment when it is imported

jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_configure(config: pytest.Config) -> None:
    # One worker may read what another is still writing; the program is then compiled again.
    config.addinivalue_line("filterwarnings", "ignore:Error reading persistent compilation cache entry:UserWarning")


@pytest.fixture
def float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield
