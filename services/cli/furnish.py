"""
What a broker needs before the first event: the topics, an app, its keys and a token.

Apart from the rest of `up`, because its imports take as long as a broker does to start: `life` loads it meanwhile.
"""

import asyncio
import secrets
import time
from collections.abc import Callable
from dataclasses import asdict

from services.admin.bootstrap import Bootstrapped, ConfigUnreadable, bootstrap
from services.cli.data_dir import DataDir
from services.cli.errors import Failed
from services.runtime.clock import now_ms
from services.runtime.connection import connection_of
from services.runtime.logs import configure_command_logs
from services.runtime.registry import use_schema_registry
from services.runtime.serving import StartupError
from services.runtime.settings import Settings
from services.vault.keks import load_keyring
from streams.topics import Partitions, TopicMismatch, ensure


async def furnish(settings: Settings, folder: DataDir, say: Callable[[str], None]) -> dict[str, str]:
    """
    `app`, `public_key`, `secret_key` and `token`: those that the folder keeps, else new ones, which it keeps then.

    Whatever of them the log does not know is written to it, so that they fit a broker that forgot as well.

    Raises:
        Failed: the broker has other topics than these services want, the folder's keys or the app's record cannot be
            read, or the schema registry does not answer.
    """
    started_at = time.monotonic()
    configure_command_logs()
    connection = connection_of(settings)
    try:
        await asyncio.to_thread(use_schema_registry, settings)
    except StartupError as error:
        raise Failed(str(error)) from None
    partitions = Partitions(settings.partitions.by_app, settings.partitions.by_integration)
    try:
        await ensure(connection, partitions, replication=settings.replication)
    except TopicMismatch as error:
        raise Failed(str(error)) from None
    kept = folder.keys()
    known = Bootstrapped(**kept) if kept else None
    # `planning` has seen to it that there is a KEK.
    keyring = load_keyring(settings) if settings.kek or settings.kek_file else None
    try:
        made = await bootstrap(connection, now_ms=now_ms(), random=secrets.token_bytes, known=known, keyring=keyring)
    except ConfigUnreadable as error:
        raise Failed(str(error)) from None
    keys = asdict(made)
    if keys != kept:
        folder.keep_keys(keys)
    say(f"topics and the app {keys['app']!r} are there ({time.monotonic() - started_at:.1f} s)")
    return keys
