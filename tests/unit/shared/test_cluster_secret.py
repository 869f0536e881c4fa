from pathlib import Path

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from hypothesis import given
from hypothesis import strategies as st

from services.node.cluster_secret import main
from shared.cluster_secret import ClusterSecret, read_secret
from shared.errors import ConfigError


def made(tmp_path: Path, text: str = "x" * 64, mode: int = 0o600) -> Path:
    file = tmp_path / "secret"
    file.write_text(text)
    file.chmod(mode)
    return file


def test_the_command_makes_a_file_that_only_its_owner_can_read(tmp_path: Path) -> None:
    file = tmp_path / "secret"

    assert main([str(file)]) == 0

    assert file.stat().st_mode & 0o777 == 0o600
    assert read_secret(str(file)) is not None


def test_the_command_never_replaces_a_secret(tmp_path: Path) -> None:
    file = made(tmp_path)

    with pytest.raises(ConfigError, match="File exists"):
        main([str(file)])
    assert main(["--keep", str(file)]) == 0

    assert file.read_text() == "x" * 64


def test_the_command_never_prints_the_secret(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "secret"

    main([str(file)])

    shown = capsys.readouterr()
    assert file.read_text().strip() not in shown.out + shown.err
    assert file.read_text().strip() not in repr(read_secret(str(file)))


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o644, 0o666])
def test_a_file_that_all_users_may_open_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(ConfigError, match="chmod 600"):
        read_secret(str(made(tmp_path, mode=mode)))


def test_a_file_of_a_group_is_taken_as_kubernetes_mounts_it(tmp_path: Path) -> None:
    assert read_secret(str(made(tmp_path, mode=0o440))) is not None


@pytest.mark.parametrize("text", ["", "x" * 31, "\n" * 40])
def test_a_secret_that_could_be_guessed_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="needed are 32"):
        read_secret(str(made(tmp_path, text)))


def test_no_path_is_no_secret_and_a_missing_file_says_what_to_do(tmp_path: Path) -> None:
    assert read_secret("") is None
    with pytest.raises(ConfigError, match="slos-serve cluster-secret FILE"):
        read_secret(str(tmp_path / "missing"))


def test_white_space_around_a_secret_does_not_count(tmp_path: Path) -> None:
    plain = read_secret(str(made(tmp_path)))
    assert read_secret(str(made(tmp_path, "x" * 64 + "\n"))) == plain


SECRETS = st.binary(min_size=32, max_size=64)


@given(SECRETS, SECRETS)
def test_processes_with_the_same_secret_accept_each_other_and_no_other(
    one: bytes, other: bytes
) -> None:
    shown = x509.load_pem_x509_certificate(ClusterSecret(one).certificates().certificate)
    same = x509.load_pem_x509_certificate(ClusterSecret(one).certificates().authority)
    shown.verify_directly_issued_by(same)

    if other != one:
        stranger = x509.load_pem_x509_certificate(ClusterSecret(other).certificates().authority)
        with pytest.raises(InvalidSignature):
            shown.verify_directly_issued_by(stranger)


@given(SECRETS)
def test_keys_for_different_purposes_differ(value: bytes) -> None:
    secret = ClusterSecret(value)
    assert secret.derive("a", 32) == secret.derive("a", 32) != secret.derive("b", 32)
    assert value not in repr(secret.certificates()).encode()
    assert b"PRIVATE" not in repr(secret.certificates()).encode()
