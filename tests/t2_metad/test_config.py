"""The settings of metad: good defaults, and refusals that name the setting."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dfswire.daemon import load_config
from dfswire.errors import UsageError
from metad.config import MetadConfig


def test_a_url_is_enough() -> None:
    config = MetadConfig(url="sqlite:////var/lib/dfs/metad.db")
    assert (config.replicas, config.lease_s, config.fence_s) == (2, 20.0, 30.0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("replicas", 0),
        ("replicas", 9),
        ("chunk_size_bytes", 100_000),
        ("chunk_size_bytes", 32 << 20),
        ("inline_max_bytes", 1 << 20),
        ("renew_s", 25.0),
        ("lease_s", 40.0),
        ("suspect_s", 0.5),
        ("down_s", 2.0),
        ("heartbeat_s", 0.0),
        ("transfers_per_disk", 0),
        ("repair_after_s", -1.0),
        ("reclaim_grace_s", -1.0),
        ("restore_window_s", -1.0),
        ("reclaim_early_percent", 100.0),
        ("authority", "/a"),
        ("certificate_s", 0.0),
    ],
)
def test_what_cannot_work_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(UsageError, match="setting"):
        MetadConfig(url="sqlite://", **{name: value})


def test_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "metad.toml"
    path.write_text('url = "sqlite:////tmp/x.db"\nreplicas = 3\n')
    assert load_config(MetadConfig, path).replicas == 3
    path.write_text('url = "sqlite:////tmp/x.db"\nreplicas = 30\n')
    with pytest.raises(UsageError, match="replicas"):
        load_config(MetadConfig, path)
    path.write_text('url = "sqlite:////tmp/x.db"\nreplica = 3\n')
    with pytest.raises(UsageError, match="replica"):
        load_config(MetadConfig, path)


@pytest.mark.parametrize("listen", ["0.0.0.0:9400", "[::]:9400", "10.0.0.1:9400", "meta1:9400"])
def test_other_hosts_are_served_with_tls_or_on_purpose(listen: str) -> None:
    with pytest.raises(UsageError, match="plaintext = true"):
        MetadConfig(url="sqlite://", listen=listen)
    assert MetadConfig(url="sqlite://", listen=listen, plaintext=True).listen == listen
    assert MetadConfig(url="sqlite://", listen=listen, tls="/a").listen == listen
