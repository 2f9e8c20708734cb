"""Features on disk, for the next study with the same weights and texts: one file each, the oldest dropped first.

A file's name is a hash of all that the feature depends on, so that what is found is what would be computed. Beside it
lies the checksum of what was computed, which is not read from the file. It is mapped into memory, not read: the
operating system keeps of it what fits. Several studies, on several machines too, may use one directory.
"""

import contextlib
import hashlib
import os
import shutil
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from finetune import assets
from finetune.config import TrunkConfig
from finetune.errors import UserError
from finetune.storage import files


class FeatureStore:
    """The files in `directory`, of at most `limit_bytes` together; 0 keeps none."""

    def __init__(self, directory: Path, limit_bytes: int):
        self._directory, self._limit_bytes = directory, limit_bytes
        self._used: set[str] = set()

    def find(self, name: str, shape: tuple[int, ...], dtype: Any) -> np.ndarray | None:
        """Returns the array kept as `name`, read-only; None if there is none, or if it has been damaged."""
        file, size = self._file(name), int(np.prod(shape)) * np.dtype(dtype).itemsize
        if self._limit_bytes == 0:
            return None
        with contextlib.suppress(OSError, UnicodeError):  # there is none, or another study drops it just now
            array = np.memmap(file, dtype, "r", shape=shape) if file.stat().st_size == size else None
            if array is not None and self._file(name, ".sha256").read_text() == checksum_of(array):
                os.utime(file)  # used now: the last to be dropped
                self._used.add(file.name)
                return array
            self._remove(file)
        return None

    def create(self, name: str, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """Returns an array to fill: mapped to a file if it may be kept, else in memory."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        if not 0 < size <= self._limit_bytes:
            return np.empty(shape, dtype)
        unfinished = self._directory / f"{name}.{uuid.uuid4().hex}.new"  # one process id may be on two machines
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            if not self._make_room(size):
                return np.empty(shape, dtype)
            with unfinished.open("xb") as file:
                files.allocate(file, size)
            return np.memmap(unfinished, dtype, "r+", shape=shape)
        except OSError:  # no directory, no right to write, no space: a store is a convenience
            with contextlib.suppress(OSError):
                unfinished.unlink()
            return np.empty(shape, dtype)

    def keep(self, name: str, array: np.ndarray, checksum: str) -> None:
        """Keeps an array that `create` returned, once it is filled; `checksum` is of what it was filled with.

        Raises UserError if it holds something else: another program has written to its file.
        """
        if not isinstance(array, np.memmap):
            return
        array.flush()
        unfinished = Path(str(array.filename))
        if checksum_of(array) != checksum:
            self._remove(unfinished)
            raise UserError(f"{unfinished} has changed while it was filled, allowed: a directory for features that no "
                            "other program writes to; the same command then continues the study")  # fmt: skip
        with contextlib.suppress(OSError):  # the array stays, whatever becomes of its name
            files.replace(self._file(name, ".sha256"), checksum)
            os.replace(unfinished, self._file(name))
            self._used.add(self._file(name).name)

    @property
    def room_bytes(self) -> int:
        """The bytes that may be kept if older files are dropped: of the limit, what the disk has."""
        existing = next(each for each in (self._directory, *self._directory.absolute().parents) if os.path.isdir(each))
        if not os.access(existing, os.W_OK):
            return 0
        return min(self._limit_bytes, shutil.disk_usage(existing).free + sum(self._sizes("*.features").values()))

    def _make_room(self, size: int) -> bool:
        """Drops the oldest files until there is room for `size` bytes; what this process reads is left alone."""
        sizes = self._sizes("*.features") | self._sizes("*.new")
        total = sum(sizes.values())
        for file in sorted(sizes, key=lambda file: file.lstat().st_mtime):
            if total + size > self._limit_bytes and file.name not in self._used:
                total -= sizes[file]
                self._remove(file)
        return total + size <= self._limit_bytes

    def _sizes(self, pattern: str) -> dict[Path, int]:
        """Returns the bytes of what is kept; those of a link, whose end may be gone, are its own."""
        return {file: file.lstat().st_size for file in self._directory.glob(pattern)}

    def _remove(self, file: Path) -> None:
        file.unlink(missing_ok=True)
        file.with_suffix(".sha256").unlink(missing_ok=True)

    def _file(self, name: str, suffix: str = ".features") -> Path:
        return self._directory / f"{name}{suffix}"


def feature_store(config: TrunkConfig) -> FeatureStore:
    """Returns the store that the settings name."""
    directory = files.expanded(config.store) if config.store else assets.cache() / "features"
    return FeatureStore(directory, int(config.store_gigabytes * 1e9))


def array_hash(array: np.ndarray) -> str:
    """Returns a hash (hex) of an array: shape, dtype, values."""
    digest = hashlib.sha256(f"{array.dtype} {array.shape}".encode())
    digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


class Checksum:
    """The checksum of an array [N, ...] whose rows become known in any order."""

    def __init__(self, shape: tuple[int, ...], dtype: Any):
        self._digests = np.zeros((shape[0], hashlib.sha256().digest_size), np.uint8)
        self._kind = f"{np.dtype(dtype)} {shape}"

    def add(self, index: Iterable[int], rows: np.ndarray) -> None:
        """Takes rows [n, ...] and their places [n] in the array."""
        for place, row in zip(index, rows, strict=True):
            self._digests[place] = np.frombuffer(hashlib.sha256(row.tobytes()).digest(), np.uint8)

    def hex(self) -> str:
        """Returns 64 hex digits."""
        return hashlib.sha256(self._kind.encode() + self._digests.tobytes()).hexdigest()


def checksum_of(array: np.ndarray) -> str:
    """Returns the checksum of an array [N, ...] as it stands."""
    checksum = Checksum(array.shape, array.dtype)
    checksum.add(range(len(array)), array)
    return checksum.hex()
