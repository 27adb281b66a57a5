"""
Laws of the keys: a value opens where it belongs, with its app's data key, and nowhere else; a rewrap changes no plain
value; one flipped bit anywhere refuses.
"""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.vault.data_keys import AppKeys, with_data_key, with_new_data_key
from services.vault.keks import keks_in_use
from services.vault.opened import open_integration
from services.vault.places import sealed_values, with_sealed_values
from services.vault.rewrap import erased, rewrapped
from services.vault.seal import Context, DataKeyErased, Keyring, Unsealable
from tests.apps import make_app
from tests.sealing import BOTH, KEYRING, NEW_KEK, random, sealed_integration

NEW = Keyring(NEW_KEK)

apps = st.sampled_from(["demo", "shop"])
#: So few that they meet.
contexts = st.builds(
    Context,
    app=apps,
    integration=st.sampled_from(["int_1", "int_2"]),
    name=st.sampled_from(["secret:a", "secret:b", "header:a", "signing"]),
    version=st.integers(0, 2),
)
texts = st.text(st.characters(codec="utf-8"), max_size=40)
plains = st.fixed_dictionaries(
    {
        "headers": st.dictionaries(st.sampled_from(["A", "B", "C"]), texts, max_size=3),
        "secrets": st.dictionaries(st.sampled_from(["a", "b", "A"]), texts, max_size=3),
        "signing": st.lists(texts, max_size=2).map(tuple),
    }
)
#: How an app came to be as it is: what seals each of its integrations, one after the other.
histories = st.lists(st.tuples(st.sampled_from(["kek", "data key", "new data key"]), plains), max_size=4)
CHANGE = {"random": random, "now_ms": 5_000, "who": "ops"}


def app_of(name):
    return with_data_key(make_app(name), random, KEYRING, 0)


def lived(history):
    """An app and its integrations, as releases with and without data keys have left them."""
    app, configs = make_app(), []
    for number, (step, plain) in enumerate(history):
        if step == "kek":
            sealer = KEYRING
        else:
            make = with_data_key if step == "data key" else with_new_data_key
            app = make(app, random, KEYRING, 0)
            sealer = AppKeys(KEYRING, app.app, app.data_keys)
        configs.append(sealed_integration(sealer, f"int_{number}", **plain))
    return app, configs


def opened(app, configs, keyring):
    keys = AppKeys(keyring, app.app, app.data_keys)
    return [
        (each.headers, each.secrets, each.signing) for each in (open_integration(config, keys) for config in configs)
    ]


def newest(configs, written):
    changed = {config.id: config for config in written.integrations}
    return [changed.get(config.id, config) for config in configs]


@given(st.binary(max_size=40), contexts, contexts)
def test_a_value_opens_in_its_own_context_and_in_no_other(plain, here, there):
    mine, theirs = (AppKeys(KEYRING, each, app_of(each).data_keys) for each in (here.app, there.app))
    sealed = mine.seal(plain, here)

    assert mine.open(sealed, here) == plain
    if here != there:
        with pytest.raises(Unsealable):
            (mine if here.app == there.app else theirs).open(sealed, there)


@given(st.binary(max_size=40), contexts)
def test_a_value_opens_with_no_other_data_key_of_its_app(plain, here):
    app = app_of(here.app)
    sealed = AppKeys(KEYRING, here.app, app.data_keys).seal(plain, here)
    other = with_new_data_key(app, random, KEYRING, 0).data_keys[1]
    with pytest.raises(Unsealable):
        AppKeys(KEYRING, here.app, [other]).open(sealed, here)
    posing = msgspec.structs.replace(other, id=app.data_keys[0].id)
    with pytest.raises(Unsealable):
        AppKeys(KEYRING, here.app, [posing]).open(sealed, here)


@given(st.binary(max_size=40), contexts, st.data())
def test_one_flipped_bit_of_the_value_or_of_its_wrapped_key_refuses(plain, here, data):
    [key] = app_of(here.app).data_keys
    sealed = AppKeys(KEYRING, here.app, [key]).seal(plain, here)

    def flipped(content):
        at = data.draw(st.integers(0, 8 * len(content) - 1))
        return bytes(each ^ (1 << at % 8 if number == at // 8 else 0) for number, each in enumerate(content))

    with pytest.raises(Unsealable):
        AppKeys(KEYRING, here.app, [key]).open(flipped(sealed), here)
    with pytest.raises(Unsealable):
        AppKeys(KEYRING, here.app, [msgspec.structs.replace(key, wrapped=flipped(key.wrapped))]).open(sealed, here)


@given(st.binary(max_size=100), contexts)
def test_bytes_from_anywhere_never_open_and_never_crash(content, here):
    with pytest.raises(Unsealable):
        AppKeys(KEYRING, here.app, app_of(here.app).data_keys).open(content, here)


@given(histories)
def test_a_rewrap_changes_no_plain_value_and_needs_only_the_new_kek_afterwards(history):
    app, configs = lived(history)
    written = rewrapped(app, configs, keyring=BOTH, **CHANGE)
    after = newest(configs, written)

    assert written.left == []
    assert opened(written.app, after, NEW) == opened(app, configs, KEYRING)
    assert keks_in_use([written.app], after).keys() <= {NEW.key_id}
    again = rewrapped(written.app, after, keyring=NEW, **CHANGE)
    assert (again.app, again.integrations) == (written.app, [])


@given(histories)
def test_until_all_is_rewrapped_a_process_with_both_keks_opens_before_and_after(history):
    """Every service is started with both first; which records it has met then does not matter."""
    app, configs = lived(history)
    written = rewrapped(app, configs, keyring=BOTH, **CHANGE)

    assert opened(app, configs, BOTH) == opened(written.app, newest(configs, written), BOTH)
    # An app's record may be met before its integrations'.
    assert opened(written.app, configs, BOTH) == opened(app, configs, BOTH)


@given(histories)
def test_after_an_erasure_nothing_opens(history):
    app, configs = lived(history)
    written = erased(app, configs, keyring=KEYRING, **CHANGE)
    keys = AppKeys(KEYRING, app.app, written.app.data_keys)
    for config in newest(configs, written):
        for sealed, context in sealed_values(config):
            with pytest.raises(DataKeyErased):
                keys.open(sealed, context)
    assert keks_in_use([], newest(configs, written)) == {}
    if written.app.data_keys:
        context = Context.of_secret(app.app, "int_anew", "token", 1)
        assert keys.open(keys.seal(b"anew", context), context) == b"anew"


@given(histories)
def test_replacing_every_sealed_value_by_itself_changes_nothing(history):
    _, configs = lived(history)

    assert [with_sealed_values(config, lambda sealed, _: sealed) for config in configs] == configs
    assert all(
        [sealed for sealed, _ in sealed_values(with_sealed_values(config, lambda _, context: context.encoded()))]
        == [context.encoded() for _, context in sealed_values(config)]
        for config in configs
    )
