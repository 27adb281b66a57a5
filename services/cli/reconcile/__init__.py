"""`tenterhook reconcile`: proves from the log that nothing vanished, or lists what did."""

from services.cli.reconcile.command import reconcile

__all__ = ["reconcile"]
