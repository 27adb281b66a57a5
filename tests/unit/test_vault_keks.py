"""Where the key comes from, and what the refusals say."""

import base64

import pytest
from pydantic import SecretStr

from services.runtime.settings import Settings
from services.vault.keks import KekMissing, KekUnusable, load_kek

KEK = bytes(range(200, 232))
TEXT = base64.b64encode(KEK).decode()


def settings(**given):
    return Settings(**{"kek": None, "kek_file": None} | given)


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
