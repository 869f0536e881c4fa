import pytest

from shared.errors import ConfigError
from shared.listening import is_loopback, require_protection


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "localhost", "::1"])
def test_loopback_needs_no_protection(host: str) -> None:
    assert is_loopback(host)
    require_protection({"host": host}, insecure=False)


@pytest.mark.parametrize(
    "host", ["", "0.0.0.0", "::", "10.0.0.7", "2001:db8::1", "no.such.host.invalid"]
)
def test_any_other_address_is_refused_in_one_line_unless_insecure(host: str) -> None:
    with pytest.raises(ConfigError, match=r"kv_host: .*--cluster-secret-file.*--insecure") as told:
        require_protection({"host": "127.0.0.1", "kv_host": host}, insecure=False)
    assert "\n" not in str(told.value)
    require_protection({"kv_host": host}, insecure=True)
