"""Which lines and partitions have to stop, since too many attempts fail for faults of ours. Pure, but for the log."""

from collections.abc import Iterable

import structlog

from services.dispatcher.line import Line
from streams.engine.alarm import Alarm

log = structlog.get_logger("dispatcher.lanes")


class Alarms:
    """
    One a partition, beside that of each line.

    One integration's faults stop only its line; those of several stop the partition, until the process ends.
    """

    def __init__(self) -> None:
        self._of: dict[int, Alarm] = {}

    def raised(self, line: Line, error: Exception) -> bool:
        """An attempt of the line failed for a fault of ours; whether it has to stop."""
        alarm = self._of.setdefault(line.partition, Alarm(keys=2))
        was_ringing = alarm.rings or line.alarm.rings
        line.alarm.raised()
        alarm.raised(line.integration)
        if not self.stop(line):
            return False
        if not was_ringing:
            log.critical(
                "partition.stopped" if alarm.rings else "line.stopped",
                partition=line.partition,
                integration=line.integration,
                raised=type(error).__name__,
                hint="too many attempts raise to be at fault themselves: nothing more is sent or put aside here until"
                " this process is started again, with a release that can",
            )
        return True

    def passed(self, line: Line) -> None:
        """One did not."""
        line.alarm.passed()
        if line.partition in self._of:
            self._of[line.partition].passed()

    def stop(self, line: Line) -> bool:
        """Whether nothing of the line is sent."""
        return line.alarm.rings or self.stop_all_of(line.partition)

    def stop_all_of(self, partition: int) -> bool:
        """Whether nothing of the partition is sent."""
        return partition in self._of and self._of[partition].rings

    def said(self, lines: Iterable[Line]) -> str | None:
        """Why nothing is sent on some partitions, or of some of these lines; None where all is well."""
        partitions = sorted(filter(self.stop_all_of, self._of))
        named = sorted(line.integration for line in lines if line.alarm.rings)
        if not partitions and not named:
            return None
        return f"too many attempts raise, so nothing is sent on partitions {partitions}, for integrations {named}"
