"""From settings to where the log is."""

from services.runtime.settings import Settings
from streams.connection import Connection


def connection_of(settings: Settings) -> Connection:
    """The connection that the settings describe."""
    return Connection(settings.broker, settings.topic_prefix, settings.idempotence)
