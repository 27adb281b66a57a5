"""
What `tenterhook secrets rewrap` and the erasure of an app's secrets write: records in, records out.

Pure but for nonces: the caller owns clock, randomness and log, and writes an app and its integrations together.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import msgspec

from services.vault.data_keys import (
    ERASED,
    AppKeys,
    id_of,
    is_erased,
    newest,
    with_data_key,
    with_data_keys,
    with_new_data_key,
)
from services.vault.places import sealed_values, with_sealed_values
from services.vault.seal import (
    UNDER_DATA_KEY,
    UNDER_KEK,
    Context,
    DataKeyErased,
    Keyring,
    SealedUnderOtherKey,
    Unsealable,
    sealed_under,
)
from streams.records import AppConfig, DataKey, IntegrationConfig


@dataclass(frozen=True, slots=True)
class Rewritten:
    """The next version of an app and of its integrations, as far as anything of them has changed."""

    #: As it was where nothing has changed.
    app: AppConfig
    #: Those that have changed.
    integrations: list[IntegrationConfig]
    #: What does not open though it should, and stays as it is: `int_1 header:Authorization`. Store it anew.
    left: list[str] = field(default_factory=list)


def rewrapped(
    app: AppConfig,
    integrations: Iterable[IntegrationConfig],
    *,
    keyring: Keyring,
    random: Callable[[int], bytes],
    now_ms: int,
    who: str,
    renew: bool = False,
) -> Rewritten:
    """
    The app with its data keys under the current KEK, and its secrets under its newest data key.

    No plain value changes. Done twice, the second time changes nothing; so when a run over all apps changes nothing,
    no record wants a previous KEK any more.

    Args:
        integrations: all of the app.
        keyring: with the KEK that everything is to be under, and every one that something is under.
        random: gives that many random bytes, for the first data key of an app that has secrets and none.
        who: name of the token that asked.
        renew: make the app a new data key if it has had one, and move everything under that: for a KEK that somebody
            else may have had, and with it the data keys. Not the same done twice.

    Raises:
        SealedUnderOtherKey: something was sealed under a KEK that is not in the keyring; nothing is to be written.
    """
    integrations = list(integrations)
    left: list[str] = []
    after = msgspec.structs.replace(app, data_keys=[_under_current(each, app, keyring, left) for each in app.data_keys])
    if renew and after.data_keys:
        after = with_new_data_key(after, random, keyring, now_ms)
    elif any(_form(sealed) == UNDER_KEK for each in integrations for sealed, _ in sealed_values(each)):
        after = with_data_key(after, random, keyring, now_ms)
    keys = AppKeys(keyring, after.app, after.data_keys)
    moved = [_under_newest(each, keys, left) for each in integrations]
    return Rewritten(
        app if after == app else with_data_keys(app, after.data_keys, now_ms, who),
        [_next(new, now_ms, who) for new, old in zip(moved, integrations, strict=True) if new != old],
        left,
    )


def erased(
    app: AppConfig,
    integrations: Iterable[IntegrationConfig],
    *,
    keyring: Keyring,
    random: Callable[[int], bytes],
    now_ms: int,
    who: str,
) -> Rewritten:
    """
    The app with its data keys erased, so that nothing that it has stored until now opens again; arguments as
    `rewrapped`.

    What no data key had sealed yet is sealed under one first, and goes with it. It is final when the log has compacted
    the records before away, and for their copies when the KEK of that time is gone. A new data key seals what is stored
    from now on; so done twice, that one is erased too. An app that never had any stays as it is.

    Raises:
        SealedUnderOtherKey: something was sealed under a KEK that is not in the keyring; nothing is to be written.
    """
    moved = rewrapped(app, integrations, keyring=keyring, random=random, now_ms=now_ms, who=who)
    if not moved.app.data_keys:
        return moved
    data_keys = [msgspec.structs.replace(each, wrapped=ERASED) for each in moved.app.data_keys]
    without = msgspec.structs.replace(app, data_keys=data_keys)
    return Rewritten(with_new_data_key(without, random, keyring, now_ms, who=who), moved.integrations, moved.left)


def _under_current(data_key: DataKey, app: AppConfig, keyring: Keyring, left: list[str]) -> DataKey:
    if is_erased(data_key):
        return data_key
    context = Context.of_data_key(app.app, data_key.id)
    try:
        if sealed_under(data_key.wrapped).key_id == keyring.key_id:
            return data_key
        wrapped = keyring.seal(keyring.open(data_key.wrapped, context), context)
    except SealedUnderOtherKey:
        raise
    except Unsealable:
        left.append(f"{app.app} {context.name}")
        return data_key
    return msgspec.structs.replace(data_key, wrapped=wrapped)


def _under_newest(config: IntegrationConfig, keys: AppKeys, left: list[str]) -> IntegrationConfig:
    sealing = newest(keys.data_keys)
    if sealing is None:
        return config

    def moved(sealed: bytes, context: Context) -> bytes:
        try:
            under = sealed_under(sealed)
            if under.format == UNDER_DATA_KEY and id_of(under.key_id) == sealing.id:
                return sealed
            return keys.seal(keys.open(sealed, context), context)
        except SealedUnderOtherKey:
            raise
        except DataKeyErased:
            return sealed
        except Unsealable:
            left.append(f"{config.id} {context.name}")
            return sealed

    return with_sealed_values(config, moved)


def _form(sealed: bytes) -> int | None:
    try:
        return sealed_under(sealed).format
    except Unsealable:
        return None


def _next(config: IntegrationConfig, now_ms: int, who: str) -> IntegrationConfig:
    return msgspec.structs.replace(config, version=config.version + 1, updated_at_ms=now_ms, updated_by=who)
