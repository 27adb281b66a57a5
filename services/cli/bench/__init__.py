"""
`tenterhook bench`: what this machine delivers, and whether anything is lost, repeated or out of order on the way.

The way of a run: `command` (options) → `stack` (what is measured) → `run` → `parts` (the processes `load` and
`receiver`) → `findings` (pure) → `report`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from services.cli.bench.command import bench

__all__ = ["bench"]


def __getattr__(name: str) -> Any:
    # Late: the load and the receiver are processes of this package that need none of the command's imports.
    if name == "bench":
        from services.cli.bench.command import bench  # noqa: PLC0415

        return bench
    raise AttributeError(name)
