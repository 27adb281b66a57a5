"""
An app's data keys: its secrets are sealed under the newest of them, and they under the key-encryption key (KEK).

So a new KEK seals one short key an app instead of every secret, and an app's secrets can be erased by erasing its
keys. `AppConfig.data_keys` holds them wrapped: sealed for the app and the key's id. An erased one keeps its id and has
no bytes, so that "erased" can be told from "not here yet" for as long as the app has a record.

No I/O and no clock; randomness comes in, but for the nonces (`seal.py`).
"""

from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from services.vault.seal import (
    DATA_KEY_BYTES,
    UNDER_DATA_KEY,
    Context,
    DataKeyErased,
    DataKeyUnknown,
    Key,
    Keyring,
    Unsealable,
    sealed_under,
)
from streams.records import AppConfig, DataKey

#: What `wrapped` of an erased key is.
ERASED: Final = b""


def with_data_key(
    config: AppConfig, random: Callable[[int], bytes], keyring: Keyring, now_ms: int, *, who: str | None = None
) -> AppConfig:
    """
    The app with a data key that seals what is new: as it is where it has one, else its next version with one.

    Args:
        random: gives that many random bytes.
        who: name of the token that asked; None leaves version and writer to the caller, who writes the app anyway.
    """
    return config if newest(config.data_keys) else with_new_data_key(config, random, keyring, now_ms, who=who)


def with_new_data_key(
    config: AppConfig, random: Callable[[int], bytes], keyring: Keyring, now_ms: int, *, who: str | None = None
) -> AppConfig:
    """The app with one data key more, which seals what is new; see `with_data_key`."""
    plain = random(DATA_KEY_BYTES)
    if len(plain) != DATA_KEY_BYTES:
        raise ValueError(f"a data key takes {DATA_KEY_BYTES} random bytes, not {len(plain)}")
    data_key = id_of(Key(plain, UNDER_DATA_KEY).id)
    wrapped = keyring.seal(plain, Context.of_data_key(config.app, data_key))
    added = DataKey(id=data_key, wrapped=wrapped, created_at_ms=now_ms)
    return with_data_keys(config, [*config.data_keys, added], now_ms, who)


def with_data_keys(config: AppConfig, data_keys: list[DataKey], now_ms: int, who: str | None) -> AppConfig:
    """The app with these data keys, its next version where it is known who asked."""
    config = msgspec.structs.replace(config, data_keys=data_keys)
    if who is None:
        return config
    return msgspec.structs.replace(config, version=config.version + 1, updated_at_ms=now_ms, updated_by=who)


def id_of(key_id: bytes) -> str:
    """A data key's id as the app's record has it, from the bytes that stand in what it sealed: `dk_` and hex."""
    return f"dk_{key_id.hex()}"


def is_erased(data_key: DataKey) -> bool:
    """Whether what it sealed is unreadable for good."""
    return data_key.wrapped == ERASED


def newest(data_keys: Sequence[DataKey]) -> DataKey | None:
    """The data key that seals what is new; None where there is none, or none any more."""
    return next((each for each in reversed(data_keys) if not is_erased(each)), None)


class AppKeys:
    """What one record of an app can open, and seals with: its data keys, unwrapped when they are asked for."""

    def __init__(self, keyring: Keyring, app: str, data_keys: list[DataKey]) -> None:
        self.data_keys = data_keys
        self._keyring = keyring
        self._app = app
        self._by_id = {each.id: each for each in data_keys}
        self._unwrapped: dict[str, Key] = {}

    def __repr__(self) -> str:
        return f"AppKeys({self._app!r}, {list(self._by_id)})"

    def seal(self, plain: bytes, context: Context) -> bytes:
        """
        The plain value, sealed for this context under the app's newest data key; where it never had one, the KEK.

        Raises:
            DataKeyErased: the app's data keys were erased, by a release that made it no new one with it: make one
                before, or the value would survive them.
        """
        self._is_own(context)
        if not self.data_keys:
            return self._keyring.seal(plain, context)
        sealing = newest(self.data_keys)
        if sealing is None:
            raise DataKeyErased(
                f"the data keys of the app {self._app!r} were erased, and it has no new one: "
                "`tenterhook secrets rewrap --new-data-keys` makes one"
            )
        return self._key(sealing).seal(plain, context)

    def open(self, sealed: bytes, context: Context) -> bytes:
        """
        The plain value, whichever of the app's data keys or of our KEKs sealed it.

        Raises:
            DataKeyErased: it never opens again.
            DataKeyUnknown: its data key is not among the app's.
            SealedUnderOtherKey: it, or its data key, was sealed under a KEK that this process does not have.
            Unsealable: it was changed, cut short, or sealed for another context.
        """
        self._is_own(context)
        under = sealed_under(sealed)
        if under.format != UNDER_DATA_KEY:
            return self._keyring.open(sealed, context)
        data_key = self._by_id.get(id_of(under.key_id))
        if data_key is None:
            raise DataKeyUnknown(
                f"the value of {context.name!r} was sealed under {id_of(under.key_id)}, "
                f"and the app {self._app!r} has no data key of that id here"
            )
        return self._key(data_key).open(sealed, context)

    def _key(self, data_key: DataKey) -> Key:
        if is_erased(data_key):
            raise DataKeyErased(f"the data key {data_key.id} of the app {self._app!r} was erased: store the value anew")
        key = self._unwrapped.get(data_key.id)
        if key is None:
            # Without a name for the plain key, which a traceback with its variables would show.
            key = Key(self._keyring.open(data_key.wrapped, Context.of_data_key(self._app, data_key.id)), UNDER_DATA_KEY)
            if id_of(key.id) != data_key.id:
                raise Unsealable(f"the data key {data_key.id} of the app {self._app!r} is another than it says")
            self._unwrapped[data_key.id] = key
        return key

    def _is_own(self, context: Context) -> None:
        if context.app != self._app:
            raise ValueError(f"these are the keys of the app {self._app!r}, not of {context.app!r}")


class Vault:
    """
    Seals and opens for every app, by the records that are known of them now.

    Plain data keys stay in memory, as the KEK does, until the app's keys change.
    """

    def __init__(self, keyring: Keyring, app: Callable[[str], AppConfig | None]) -> None:
        """
        Args:
            app: an app's newest record, by name; None where there is none: `Apps.get`.
        """
        self._keyring = keyring
        self._app = app
        self._known: dict[str, AppKeys] = {}

    def __repr__(self) -> str:
        return f"Vault({self._keyring!r})"

    def of(self, config: AppConfig) -> AppKeys:
        """The keys of this record of an app, on the log or not yet."""
        return AppKeys(self._keyring, config.app, config.data_keys)

    def seal(self, plain: bytes, context: Context) -> bytes:
        """As `AppKeys.seal`, with the keys of the context's app."""
        return self._keys(context.app).seal(plain, context)

    def open(self, sealed: bytes, context: Context) -> bytes:
        """As `AppKeys.open`, with the keys of the context's app."""
        return self._keys(context.app).open(sealed, context)

    def _keys(self, app: str) -> AppKeys:
        config = self._app(app)
        data_keys = config.data_keys if config else []
        known = self._known.get(app)
        if known is None or (known.data_keys is not data_keys and known.data_keys != data_keys):
            # Whole, so that what was erased is forgotten too.
            known = self._known[app] = AppKeys(self._keyring, app, data_keys)
        return known
