"""Mount options and addresses, good and bad."""

from __future__ import annotations

import pytest

from dfsmount.config import MIB, MountConfig, metad_address, parse_options
from dfswire.errors import UsageError

PLAIN = MountConfig("localhost:1", "/mnt")


def test_options() -> None:
    config = parse_options(
        PLAIN, "rw,allow_other,ro,cache_mib=64,soft=30,_netdev,x-systemd.after=y"
    )
    assert config.allow_other and config.ro
    assert config.cache_bytes == 64 * MIB
    assert config.soft_s == 30


def test_times_of_reading() -> None:
    assert PLAIN.atime == parse_options(PLAIN, "noatime,relatime").atime == "relatime"
    assert parse_options(PLAIN, "strictatime").atime == "strictatime"


@pytest.mark.parametrize(
    "options", ["noatime=1", "alow_other", "cache_mib", "cache_mib=x", "soft=0", "ro=1"]
)
def test_a_wrong_option_is_named(options: str) -> None:
    with pytest.raises(UsageError, match=options.partition("=")[0]):
        parse_options(PLAIN, options)


def test_addresses() -> None:
    assert metad_address("http://host:9400/") == metad_address("host:9400") == "host:9400"
    with pytest.raises(UsageError, match="host"):
        metad_address("host")
