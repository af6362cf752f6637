"""The settings of chunkd: mistakes are told in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from chunkd.config import ChunkdConfig
from dfswire.daemon import load_config
from dfswire.errors import UsageError


def load(tmp_path: Path, text: str) -> ChunkdConfig:
    path = tmp_path / "chunkd.toml"
    path.write_text(text)
    return load_config(ChunkdConfig, path)


def test_the_least(tmp_path: Path) -> None:
    config = load(tmp_path, 'metad = "http://meta.example:9400"\ndata = ["/srv/dfs"]\n')
    assert config.metad_address == "meta.example:9400"
    assert (config.listen, config.scrub, config.sync_interval_s) == ("127.0.0.1:9500", True, 5.0)


def test_ipv6(tmp_path: Path) -> None:
    assert load(tmp_path, 'metad = "[::1]:1"\ndata = ["/a"]\n').metad_address == "[::1]:1"


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ('metad = "nowhere"', "metad"),
        ('metad = ""', "metad"),
        ('listen = "host"', "listen"),
        ('listen = "0.0.0.0:9500"\nplaintext = true', "advertise"),
        ('listen = "0.0.0.0:9500"\ntls = "/a"', "advertise"),
        ('listen = "10.0.0.1:9500"', "plaintext = true"),
        ('listen = "[::]:9500"', "plaintext = true"),
        ('advertise = "x:y"', "advertise"),
        ("data = []", "data"),
        ('data = ["relative"]', "absolute"),
        ('data = ["/a", "/b/../a"]', "twice"),
        ("sync_interval_s = 0", "sync_interval_s"),
        ("scrub_period_s = -1", "scrub_period_s"),
        ("receive_buffers = 0", "receive_buffers"),
        ('scrub = "yes"', "scrub"),
        ("scrubb = true", "scrub"),
    ],
)
def test_mistakes(tmp_path: Path, change: str, complaint: str) -> None:
    settings = {"metad": 'metad = "m:1"', "data": 'data = ["/a"]'}
    settings[change.partition(" ")[0]] = change
    with pytest.raises(UsageError, match=rf"chunkd\.toml.*{complaint}"):
        load(tmp_path, "\n".join(settings.values()))


@pytest.mark.parametrize(
    "settings",
    ['listen = "localhost:9500"', 'listen = "[::1]:9500"', 'listen = "127.0.0.9:9500"']
    + [f'listen = "10.0.0.1:9500"\n{how}' for how in ("plaintext = true", 'tls = "/a"')],
)
def test_other_hosts_are_served_with_tls_or_on_purpose(tmp_path: Path, settings: str) -> None:
    load(tmp_path, f'metad = "m:1"\ndata = ["/a"]\n{settings}\n')
