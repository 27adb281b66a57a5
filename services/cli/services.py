"""
`tenterhook ingest`, `dispatcher`, `breaker`, `admin`: one service each, for real deployments.

Settings come from `TENTERHOOK_...` variables and `tenterhook.toml`; `tenterhook settings` prints them.
"""

from importlib import import_module

from services.runtime.process import run_service


def ingest() -> int:
    """Run the ingest service: events over HTTP onto the log."""
    return _run("ingest")


def dispatcher() -> int:
    """Run a dispatcher: it delivers events to integrations."""
    return _run("dispatcher")


def breaker() -> int:
    """Run the breaker service: it counts failed attempts and pauses integrations that keep failing."""
    return _run("breaker")


def admin() -> int:
    """Run the admin service: the API that configures integrations."""
    return _run("admin")


def _run(service: str) -> int:
    # By name: starting one service must not pay for the imports of the others.
    return run_service(import_module(f"services.{service}.app").main)
