"""Debian's Prometheus for tests, where it is installed."""

import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ALERTS = ROOT / "deploy" / "prometheus" / "alerts.yml"

needs_prometheus = pytest.mark.skipif(
    shutil.which("promtool") is None or shutil.which("prometheus") is None,
    reason="no Prometheus here: make prometheus installs it where it can",
)
