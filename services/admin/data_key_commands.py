"""
An app's data keys: moved under the present key-encryption key (rewrap), or erased for good.

All of an app may be more than one change can carry, so it is moved in lots. Each lot is a state in which everything
opens; done again, what is moved already stays.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from services.admin.changes import Change, Changes, Unchanged, integration_writes
from services.admin.config_log import ConfigLog
from services.admin.fields import Fields, Refusal, kind
from services.admin.rules import Refused
from services.admin.tokens import Caller
from services.runtime import kinds
from services.runtime.problems import Problem
from services.vault.data_keys import is_erased
from services.vault.rewrap import Rewritten, erased, rewrapped
from services.vault.seal import Keyring
from streams import codec
from streams.records import AppConfig, Write
from streams.topics import APP_CONFIG

T = TypeVar("T")

#: Integrations in one change: with 50 secrets and headers each, at their longest, below what a record may have.
AT_ONCE: Final = 4


@dataclass(slots=True)
class Moved:
    """What was written."""

    integrations: int = 0
    #: What does not open though it should, and stays as it is.
    left: tuple[str, ...] = ()


class DataKeyCommands:
    """Data keys of apps. Randomness and time come in. Whoever calls has let the log catch up before."""

    def __init__(
        self,
        log: ConfigLog,
        changes: Changes,
        keyring: Keyring,
        *,
        now_ms: Callable[[], int],
        random: Callable[[int], bytes],
    ) -> None:
        self._log = log
        self._changes = changes
        self._keyring = keyring
        self._now_ms = now_ms
        self._random = random

    async def rewrap(self, app: str, body: Any, caller: Caller) -> dict[str, Any]:
        """
        Have all of the app under the present key-encryption key: `{"newDataKeys"?: true}` makes it a new data key.

        Raises:
            Refused: the body says something else.
            Problem: 503 `broker_unavailable`; what was moved by then, stays.
        """
        moved = await self._move(app, caller, renew=_renew(body))
        return {"app": app, "integrations": moved.integrations, "left": list(moved.left)}

    async def erase(self, app: str, body: Any, caller: Caller) -> dict[str, Any]:
        """
        Erase the app's data keys, and with them every secret that it has stored: `{"confirm": "<app>"}`. It gets a new
        data key for what is stored from now on.

        Raises:
            Refused: the body does not confirm it.
            Problem: 503 `broker_unavailable`.
        """
        _confirmed(app, body)
        await self._move(app, caller, renew=False)

        def decide() -> Change[int] | Unchanged[int]:
            before = self._app(app)
            found = erased(before, self._log.integrations.of_app(app), **self._how(caller))
            if found.app == before:
                return Unchanged(0)
            gone = _erased_keys(found.app) - _erased_keys(before)
            details = {"dataKeys": " ".join(sorted(gone))}
            return Change("data_keys.erase", app, len(gone), details, [_write(found.app)])

        return {"app": app, "erased": await self._changes.make(app, caller, decide)}

    async def _move(self, app: str, caller: Caller, *, renew: bool) -> Moved:
        moved = Moved()
        is_first = True
        while True:

            def decide(*, renews: bool = renew and is_first) -> Change[Rewritten] | Unchanged[Rewritten]:
                before = self._app(app)
                found = rewrapped(before, self._log.integrations.of_app(app), **self._how(caller), renew=renews)
                lot = found.integrations[:AT_ONCE]
                writes = [] if found.app == before else [_write(found.app)]
                for each in lot:
                    writes += integration_writes(each)
                if not writes:
                    return Unchanged(found)
                details = {"integrations": str(len(lot)), "kek": self._keyring.key_id.hex()}
                return Change("data_keys.rewrap", app, found, details, writes)

            found: Rewritten = await self._changes.make(app, caller, decide)
            moved.integrations += min(len(found.integrations), AT_ONCE)
            moved.left = tuple(found.left)
            if len(found.integrations) <= AT_ONCE:
                return moved
            is_first = False

    def _app(self, app: str) -> AppConfig:
        found = self._log.app(app)
        if found is None:
            raise Problem(kinds.APP_UNKNOWN, f"There is no app {app[:64]!r}. Check its name.")
        return found

    def _how(self, caller: Caller) -> dict[str, Any]:
        return {"keyring": self._keyring, "random": self._random, "now_ms": self._now_ms(), "who": caller.name}


def _write(app: AppConfig) -> Write:
    return Write(topic=APP_CONFIG.name, key=app.app, value=codec.encode(app))


def _erased_keys(app: AppConfig) -> set[str]:
    return {each.id for each in app.data_keys if is_erased(each)}


def _renew(body: Any) -> bool:
    fields = _fields({} if body is None else body)
    renew = fields.flag("newDataKeys", default=False)
    return _whole(fields, renew)


def _confirmed(app: str, body: Any) -> None:
    fields = _fields(body)
    given = fields.text("confirm", most=200)
    if given and given != app:
        fields.refuse("confirm", "must be the app's name: every secret that it has stored is lost for good")
    _whole(fields, given)


def _fields(body: Any) -> Fields:
    if not isinstance(body, dict):
        raise Refused([Refusal("", f"the body must be an object, not {kind(body)}")])
    return Fields(body)


def _whole(fields: Fields, result: T) -> T:
    fields.nothing_else()
    if fields.refusals:
        raise Refused(fields.refusals)
    return result
