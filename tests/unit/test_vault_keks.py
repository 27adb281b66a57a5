"""Where the keys come from, whether they are those that stored secrets want, and what the refusals say."""

import base64

import pytest
from pydantic import SecretStr

from services.runtime.settings import Settings
from services.vault.data_keys import with_data_key
from services.vault.keks import KekMissing, KekUnknown, KekUnusable, check_keks, keks_in_use, load_kek, load_keyring
from services.vault.rewrap import erased
from services.vault.seal import Keyring
from tests.apps import make_app
from tests.sealing import app_with_key, keys_of, random, sealed_integration

KEK = bytes(range(200, 232))
TEXT = base64.b64encode(KEK).decode()


def settings(**given):
    return Settings(**{"kek": None, "kek_file": None, "kek_previous": None, "kek_previous_file": None} | given)


def test_the_key_is_read_from_the_variable():
    assert load_kek(settings(kek=SecretStr(TEXT))) == KEK


def test_the_key_is_read_from_a_file_with_a_line_end(tmp_path):
    file = tmp_path / "kek"
    file.write_text(TEXT + "\n")
    assert load_kek(settings(kek_file=file)) == KEK


def test_without_a_key_the_refusal_says_how_to_make_one():
    with pytest.raises(KekMissing, match=r"TENTERHOOK_KEK_FILE.*openssl rand -base64 32"):
        load_kek(settings())


def test_two_keys_are_refused_rather_than_one_chosen(tmp_path):
    with pytest.raises(KekUnusable, match="keep one of them"):
        load_kek(settings(kek=SecretStr(TEXT), kek_file=tmp_path / "kek"))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "holds 0 bytes"),
        ("not base64!", "is not base64"),
        ("ünicode", "is not base64"),
        (TEXT[:-4], "holds 30 bytes"),
        (base64.b64encode(bytes(33)).decode(), "holds 33 bytes"),
        (KEK.hex(), "holds 48 bytes"),
    ],
)
def test_what_is_no_key_is_refused_without_showing_it(text, why):
    with pytest.raises(KekUnusable, match=why) as caught:
        load_kek(settings(kek=SecretStr(text)))
    assert not text or text not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(KekUnusable, match=r"nowhere \(TENTERHOOK_KEK_FILE\) cannot be read: No such file"):
        load_kek(settings(kek_file=tmp_path / "nowhere"))


def test_a_file_of_raw_bytes_is_refused_with_what_it_should_hold(tmp_path):
    file = tmp_path / "kek"
    file.write_bytes(KEK)
    with pytest.raises(KekUnusable, match="must hold base64 of 32 bytes"):
        load_kek(settings(kek_file=file))


class TestPreviousKeks:
    OTHERS = (bytes(range(1, 33)), bytes(range(2, 34)))
    TEXTS = tuple(base64.b64encode(each).decode() for each in OTHERS)
    IDS = tuple(Keyring(each).key_id for each in (KEK, *OTHERS))

    def test_without_any_the_keyring_has_the_current_one(self):
        assert load_keyring(settings(kek=SecretStr(TEXT))).key_ids == self.IDS[:1]

    @pytest.mark.parametrize("between", [",", ", ", " ", "\n"])
    def test_they_stand_in_a_variable(self, between):
        given = settings(kek=SecretStr(TEXT), kek_previous=SecretStr(between.join(self.TEXTS)))
        assert load_keyring(given).key_ids == self.IDS

    def test_or_in_a_file_one_a_line(self, tmp_path):
        file = tmp_path / "previous"
        file.write_text("\n".join(self.TEXTS) + "\n")
        assert load_keyring(settings(kek=SecretStr(TEXT), kek_previous_file=file)).key_ids == self.IDS

    def test_an_empty_variable_is_none(self):
        assert load_keyring(settings(kek=SecretStr(TEXT), kek_previous=SecretStr(" "))).key_ids == self.IDS[:1]

    def test_both_are_refused(self, tmp_path):
        given = settings(kek=SecretStr(TEXT), kek_previous=SecretStr(TEXT), kek_previous_file=tmp_path)
        with pytest.raises(KekUnusable, match="TENTERHOOK_KEK_PREVIOUS_FILE are set"):
            load_keyring(given)

    def test_one_that_is_none_is_refused_without_showing_it(self):
        given = settings(kek=SecretStr(TEXT), kek_previous=SecretStr(f"{self.TEXTS[0]},c2hvcnQ="))
        with pytest.raises(KekUnusable, match="TENTERHOOK_KEK_PREVIOUS holds 5 bytes") as caught:
            load_keyring(given)
        assert "c2hvcnQ" not in str(caught.value)

    def test_a_file_that_is_not_there_is_named(self, tmp_path):
        with pytest.raises(KekUnusable, match=r"nowhere \(TENTERHOOK_KEK_PREVIOUS_FILE\)"):
            load_keyring(settings(kek=SecretStr(TEXT), kek_previous_file=tmp_path / "nowhere"))

    def test_previous_ones_alone_are_none(self):
        with pytest.raises(KekMissing):
            load_keyring(settings(kek_previous=SecretStr(TEXT)))


class TestCheck:
    OURS, OTHER = Keyring(KEK), Keyring(bytes(32))
    PLAIN = {"secrets": {"token": "t-1"}}  # noqa: RUF012

    def test_with_every_kek_that_is_wanted_nothing_is_said(self):
        app = app_with_key(keyring=self.OURS)
        configs = [sealed_integration(keys_of(app, self.OURS), **self.PLAIN), sealed_integration(self.OURS, "int_2")]
        check_keks(self.OURS, [app, make_app("empty")], configs)
        check_keks(Keyring(bytes(32), KEK), [app], configs)

    def test_a_data_key_under_another_kek_is_refused_with_both_ids(self):
        with pytest.raises(KekUnknown, match=f"{self.OTHER.key_id.hex()}.*{self.OURS.key_id.hex()}.*KEK_PREVIOUS"):
            check_keks(self.OURS, [app_with_key(keyring=self.OTHER)], [])

    def test_a_value_under_another_kek_is_refused_with_both_ids(self):
        config = sealed_integration(self.OTHER, headers={"X": "y"})
        with pytest.raises(KekUnknown, match=f"{self.OTHER.key_id.hex()} \\(1\\).*{self.OURS.key_id.hex()}"):
            check_keks(self.OURS, [make_app()], [config])

    def test_an_erased_data_key_wants_none(self):
        app = app_with_key(keyring=self.OTHER)
        gone = erased(app, [], keyring=Keyring(KEK, bytes(32)), random=random, now_ms=0, who="ops").app
        check_keks(self.OURS, [gone], [])

    def test_what_is_no_sealed_value_at_all_keeps_no_service_from_starting(self):
        config = sealed_integration(self.OURS, **self.PLAIN)
        config.headers["X-Broken"] = b"?"
        check_keks(self.OURS, [], [config])

    def test_each_kek_is_counted(self):
        app = with_data_key(make_app(), random, self.OTHER, 0)
        config = sealed_integration(self.OURS, secrets={"a": "1", "b": "2"}, signing=("whsec_eA==",))

        assert keks_in_use([app], [config]) == {self.OTHER.key_id: 1, self.OURS.key_id: 3}
