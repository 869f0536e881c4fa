import io
from pathlib import Path

import pytest

from services.gateway import key_hash
from services.gateway.tenants import Known, Tenants, hash_of, read_tenants
from services.gateway.tenants_file import TenantsFile
from shared.errors import ConfigError

KNOWN = Known(classes=("chat", "batch"), models=("small",))
ACME, OTHER = hash_of(b"acme-key"), hash_of(b"other-key")


def written(folder: Path, text: str) -> Path:
    file = folder / "tenants.yaml"
    file.write_text(text)
    return file


def acme(weight: float = 1.0) -> str:
    return f"acme: {{keys: [{ACME}], weight: {weight}}}\n"


def test_a_key_is_found_by_its_hash(tmp_path: Path) -> None:
    file = written(tmp_path, acme(3) + f"other: {{keys: [{OTHER}], classes: [batch]}}\n")
    tenants = Tenants(own_keys=["own-key"])

    tenants.take(read_tenants(file, KNOWN))

    found = {key: tenants.of_key(key.encode()) for key in ("acme-key", "other-key", "own-key")}
    assert [one and one.tenant.name for one in found.values()] == ["acme", "other", "default"]
    assert found["acme-key"] is not None
    assert found["acme-key"].tenant.weight == 3
    assert tenants.of_key(b"stranger") is None
    assert tenants.of_key(ACME.encode()) is None
    assert not tenants.is_open


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "allowed is a mapping"),
        ("{}", "names 0 tenants"),
        ("acme: {keys: []}", "acme: has no keys; `slos-serve key-hash`"),
        ("acme: {keys: [plain-key]}", "acme, keys, 0"),
        (f"'a/b': {{keys: [{ACME}]}}", "a/b: a name is"),
        (f"acme: {{keys: [{ACME}], clases: [chat]}}", "unknown key clases; did you mean classes"),
        (f"acme: {{keys: [{ACME}], classes: [chatt]}}", "no chatt; did you mean chat"),
        (f"acme: {{keys: [{ACME}], models: []}}", "models: is empty; leave it out"),
        (f"acme: {{keys: [{ACME}], weight: 0}}", "weight: read 0"),
        (f"acme: {{keys: [{ACME}], requests_per_minute: 0}}", "requests_per_minute: read 0"),
        (f"a: {{keys: [{ACME}]}}\nb: {{keys: [{ACME}]}}", "b: has a key of a"),
        ("acme: {keys: [", "not YAML"),
    ],
)
def test_a_file_that_cannot_be_used_says_where_and_why(
    tmp_path: Path, text: str, words: str
) -> None:
    with pytest.raises(ConfigError, match="tenants_file") as found:
        read_tenants(written(tmp_path, text), KNOWN)

    assert words in str(found.value)


async def test_a_changed_file_holds_and_a_broken_one_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = TenantsFile(path=written(tmp_path, acme()), known=KNOWN, tenants=Tenants())
    file.read()
    account = file.tenants.of_key(b"acme-key")
    assert account is not None

    written(tmp_path, acme(2.5))
    await file.look()
    assert account.tenant.weight == 2.5

    written(tmp_path, "acme: {keys: []}")
    for _ in range(3):
        await file.look()
    assert file.tenants.of_key(b"acme-key") is account
    broken = [one for one in caplog.records if one.levelname == "ERROR"]
    assert len(broken) == 1
    assert "acme: has no keys" in broken[0].getMessage()

    written(tmp_path, f"other: {{keys: [{OTHER}]}}")
    await file.look()
    assert file.tenants.of_key(b"acme-key") is None
    assert file.tenants.names == ("default", "other")

    file.path.unlink()
    await file.look()
    assert file.tenants.of_key(b"other-key") is not None


def test_only_where_tenants_are_configured_their_prefixes_are_set_apart() -> None:
    alone, named = Tenants(), Tenants()
    named.take({})

    assert alone.default.tenant.salted(None) is None
    assert named.default.tenant.salted(None) == "default/"


def test_the_hash_of_a_key_comes_from_standard_input(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("acme-key\n"))
    assert key_hash.main([]) == 0
    assert capsys.readouterr().out == ACME + "\n"

    assert key_hash.main(["--new"]) == 0
    key, hashed = (line.split()[1] for line in capsys.readouterr().out.splitlines())
    assert hash_of(key.encode()) == hashed

    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    for argv in ([], ["acme-key"]):
        with pytest.raises(ConfigError, match="standard input"):
            key_hash.main(argv)
