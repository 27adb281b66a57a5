"""
Configuration as followers fold it into memory: the newest record of each key, looked up by every request and event.

Folding is pure. An unreadable record leaves what was there before it: delivering by yesterday's configuration is
better than not at all. Compaction takes that one day, and who starts then has nothing before it: that is no deletion,
so what needs the configuration waits until somebody has written it again (`is_broken`).
"""

from collections.abc import Callable

import structlog

from streams import codec
from streams.records import AppConfig, IntegrationConfig

log = structlog.get_logger(__name__)


class Integrations:
    """Every integration's configuration, from topic `integration-config`."""

    def __init__(self) -> None:
        #: Records that could not be read.
        self.unreadable = 0
        #: Those whose newest record is one.
        self.unread: set[str] = set()
        self._by_id: dict[str, IntegrationConfig] = {}
        self._by_app: dict[str, dict[str, IntegrationConfig]] = {}
        self._sorted: dict[str, tuple[IntegrationConfig, ...]] = {}
        self._changed_at: dict[str, int] = {}

    def apply(self, key: bytes | None, value: bytes | None, offset: int) -> None:
        """Fold one record in: key is the integration's id, a value of None deletes it."""
        try:
            integration = _text(key)
            config = None if value is None else codec.decode_as(IntegrationConfig, value)
            _same(integration, integration if config is None else config.id)
        except codec.Unreadable as error:
            self.unreadable += 1
            _met_unreadable("integration-config", key, offset, error, self.unread, self.is_broken)
            return
        self.unread.discard(integration)
        self._changed_at[integration] = offset
        self._replace(integration, config)

    def _replace(self, integration: str, config: IntegrationConfig | None) -> None:
        before = self._by_id.pop(integration, None)
        if before is not None:
            del self._by_app[before.app][integration]
            self._sorted.pop(before.app, None)
        if config is not None:
            self._by_id[integration] = config
            self._by_app.setdefault(config.app, {})[integration] = config
            self._sorted.pop(config.app, None)

    def clear(self) -> None:
        """Forget everything; see `Follower`."""
        for fold in (self._by_id, self._by_app, self._sorted, self._changed_at, self.unread):
            fold.clear()

    def get(self, integration: str) -> IntegrationConfig | None:
        """The integration's configuration; None where there is none, none any more, or a broken one."""
        return self._by_id.get(integration)

    def is_broken(self, integration: str) -> bool:
        """Whether its newest record cannot be read, and nothing is known from before: it may be there all the same."""
        return integration in self.unread and integration not in self._by_id

    def of_app(self, app: str) -> tuple[IntegrationConfig, ...]:
        """All of an app, by id; an id is a UUIDv7, so the oldest comes first. Asked for each event: kept sorted."""
        found = self._sorted.get(app)
        if found is None:
            configs = self._by_app.get(app)
            if not configs:
                return ()
            found = self._sorted[app] = tuple(configs[key] for key in sorted(configs))
        return found

    def all(self) -> tuple[IntegrationConfig, ...]:
        """All of all apps, by id."""
        return tuple(self._by_id[key] for key in sorted(self._by_id))

    def changed_at(self, integration: str) -> int:
        """Offset of its newest readable record, a deletion included; -1 where none was seen."""
        return self._changed_at.get(integration, -1)


class Apps:
    """Every app's configuration, from topic `app-config`; `*` holds the tokens of the whole installation."""

    def __init__(self) -> None:
        #: Records that could not be read.
        self.unreadable = 0
        #: Those whose newest record is one.
        self.unread: set[str] = set()
        self._by_app: dict[str, AppConfig] = {}

    def apply(self, key: bytes | None, value: bytes | None, offset: int) -> None:
        """Fold one record in: key is the app, a value of None deletes it."""
        try:
            app = _text(key)
            config = None if value is None else codec.decode_as(AppConfig, value)
            _same(app, app if config is None else config.app)
        except codec.Unreadable as error:
            self.unreadable += 1
            _met_unreadable("app-config", key, offset, error, self.unread, self.is_broken)
            return
        self.unread.discard(app)
        if config is None:
            self._by_app.pop(app, None)
        else:
            self._by_app[app] = config

    def clear(self) -> None:
        """Forget everything; see `Follower`."""
        self._by_app.clear()
        self.unread.clear()

    def get(self, app: str) -> AppConfig | None:
        """The app's configuration; None where there is none, or a broken one."""
        return self._by_app.get(app)

    def is_broken(self, app: str) -> bool:
        """Whether its newest record cannot be read, and nothing is known from before: it may be there all the same."""
        return app in self.unread and app not in self._by_app

    def all(self) -> tuple[AppConfig, ...]:
        """All apps, by name."""
        return tuple(self._by_app[key] for key in sorted(self._by_app))


def _text(key: bytes | None) -> str:
    if key is None:
        raise codec.Unreadable("it has no key")
    try:
        return key.decode()
    except UnicodeDecodeError:
        raise codec.Unreadable("its key is no text") from None


def _same(key: str, named: str) -> None:
    if key != named:
        raise codec.Unreadable("its key is another than the one in it")


def _met_unreadable(
    topic: str,
    key: bytes | None,
    offset: int,
    error: codec.Unreadable,
    unread: set[str],
    is_broken: Callable[[str], bool],
) -> None:
    """Note whose record it is, where its key tells, and say it."""
    try:
        whose = _text(key)
    except codec.Unreadable:
        whose = None
    hint = "kept what was there before it"
    if whose is not None:
        unread.add(whose)
        if is_broken(whose):
            hint = (
                "nothing was there before it: what needs it waits. Write it again: docs/operating.md,"
                " 'Configuration that cannot be read'"
            )
    log.error("config.unreadable", topic=topic, key=whose, offset=offset, reason=str(error), hint=hint)
