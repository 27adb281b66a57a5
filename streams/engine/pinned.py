"""
Start-up check: Faust is the one that our consumer was written against.

What is overridden is private to Faust, so a release may change it without notice. Versions are pinned,
and the source of each piece we override or rely on is compared by hash; a new release wants a
review of those pieces before its hashes are put here.
"""

from collections.abc import Callable
from importlib.metadata import version
from typing import Any, Final

from aiokafka.consumer.group_coordinator import GroupCoordinator
from faust.app.base import App
from faust.sensors.monitor import Monitor
from faust.streams import Stream
from faust.tables.manager import TableManager
from faust.tables.recovery import Recovery
from faust.transport.conductor import ConductorCompiler
from faust.transport.consumer import Consumer, Fetcher

from streams.closed_connections import AiokafkaChanged, digest

VERSIONS: Final = {"faust-streaming": "0.15.3", "aiokafka": "0.14.0", "mode-streaming": "0.7.1"}

#: Overridden by `consumer.py`, or called by Faust in an order it relies on.
RELIED_ON: Final[tuple[Callable[..., Any], ...]] = (
    Consumer.__init__,
    Consumer.ack,
    Consumer.commit,
    Consumer.force_commit,
    Consumer._commit_tps,
    Consumer._commit_offsets,
    Consumer._commit_handler.fun,
    Consumer._commit_livelock_detector.fun,
    Consumer._drain_messages,
    Consumer.on_partitions_assigned,
    Consumer.on_partitions_revoked,
    Consumer.on_stop,
    Consumer.perform_seek,
    Fetcher._fetcher.fun,
    App._create_directories,
    App._on_partitions_assigned,
    App._on_partitions_revoked,
    App._stop_consumer,
    ConductorCompiler.build,
    TableManager.on_start,
    Recovery._resume_streams,
    Recovery._restart_recovery.fun,
    Recovery.on_recovery_completed,
    Monitor._sampler.fun,
    Stream._py_aiter,
    GroupCoordinator._GroupCoordinator__coordination_routine,
    GroupCoordinator._push_error_to_user,
    GroupCoordinator._heartbeat_routine,
    GroupCoordinator._do_heartbeat,
    GroupCoordinator._do_rejoin_group,
    GroupCoordinator._maybe_leave_group,
    GroupCoordinator.commit_offsets,
    GroupCoordinator._do_commit_offsets,
)
HASHES: Final[dict[str, str]] = {
    "Consumer.__init__": "302410d59e6972d1",
    "Consumer.ack": "5fcf41cf45153475",
    "Consumer.commit": "a354437baaa08bf8",
    "Consumer.force_commit": "cc094614d22c70fb",
    "Consumer._commit_tps": "a20e230b05ae8b15",
    "Consumer._commit_offsets": "1a69799041188441",
    "Consumer._commit_handler": "4e5da5df073082d6",
    "Consumer._commit_livelock_detector": "af196ff46fd42a14",
    "Consumer._drain_messages": "44a2500309e83c63",
    "Consumer.on_partitions_assigned": "29ce96596f05a18c",
    "Consumer.on_partitions_revoked": "d04b7ae72c6fc206",
    "Consumer.on_stop": "45b1d2210ce2b526",
    "Consumer.perform_seek": "0e8c130ff4b0afd8",
    "Fetcher._fetcher": "68f894f0b577d810",
    "App._create_directories": "a9f571c3b04abec3",
    "App._on_partitions_assigned": "de932b7927db85b3",
    "App._on_partitions_revoked": "d5c895bbe57dc73a",
    "App._stop_consumer": "55854a5de12c3f52",
    "ConductorCompiler.build": "837cf521368c1ee4",
    "TableManager.on_start": "365dd25fbc0e0684",
    "Recovery._resume_streams": "d986a6710c1aca98",
    "Recovery._restart_recovery": "6bd8a8558a2dffe4",
    "Recovery.on_recovery_completed": "6ef567acf072e46d",
    "Monitor._sampler": "e963a929bb77c3d0",
    "Stream._py_aiter": "3a48ee257a65435b",
    "GroupCoordinator.__coordination_routine": "f814463c6b44a195",
    "GroupCoordinator._push_error_to_user": "743ff515bd7e2e38",
    "GroupCoordinator._heartbeat_routine": "61d01028952239d0",
    "GroupCoordinator._do_heartbeat": "dc1d6632aaa68e96",
    "GroupCoordinator._do_rejoin_group": "3cb016c98a087a71",
    "GroupCoordinator._maybe_leave_group": "016cd88a16e6c4b5",
    "GroupCoordinator.commit_offsets": "5cbe31af28d6cc06",
    "GroupCoordinator._do_commit_offsets": "c3a3ea5613f39cac",
}


class FaustChanged(AiokafkaChanged):
    """Faust or aiokafka is not the one that tenterhook was tested with. The message says what to do."""


def check() -> None:
    """
    Refuse to run on another Faust.

    Raises:
        FaustChanged: a version or a piece of source differs.
    """
    for name, pinned in VERSIONS.items():
        found = version(name)
        if found != pinned:
            raise FaustChanged(
                f"{name} is {found}, tenterhook is tested with {pinned} and overrides parts of it that a release"
                " may change. Install the versions of requirements/main.txt."
            )
    changed = [f.__qualname__ for f in RELIED_ON if HASHES.get(f.__qualname__) != digest(f)]
    if changed:
        raise FaustChanged(
            f"faust-streaming {VERSIONS['faust-streaming']} has other source than the one tenterhook was tested with,"
            f" in {', '.join(changed)}. Reinstall it from requirements/main.txt."
        )
