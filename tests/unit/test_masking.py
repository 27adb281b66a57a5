"""Secrets out of what is kept of an answer, in every form a receiver may give them back."""

import base64
import gzip
import html
import json
import time
import zlib
from urllib.parse import quote, quote_plus

import pytest

from schemas.profiles import MAX_RESPONSE_BYTES
from services.dispatcher.masking import mask, mask_body, mask_headers

PLAIN = "sk_live_0123456789abcdef"
#: All that some encoding or other spells differently.
AWKWARD = "p@ss/w0rd+&<\"'= \\%é€;~"
TOKEN = "3q2+7/A=xyz"
SECRETS = (PLAIN, AWKWARD, TOKEN)

PACKED_BY = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "Deflate": lambda data: zlib.compress(data, wbits=-15),
}


def forms_of(secret):
    raw = secret.encode()
    packed = base64.b64encode(raw).decode()
    yield from {
        "plain": secret,
        "json": json.dumps(secret)[1:-1],
        "json in utf-8": json.dumps(secret, ensure_ascii=False)[1:-1],
        "json with escaped slashes, as PHP": json.dumps(secret)[1:-1].replace("/", "\\/"),
        "json with escaped markup, as Go": json.dumps(secret)[1:-1].replace("<", "\\u003c").replace("&", "\\u0026"),
        "json with numbers in capitals, as .NET": json.dumps(secret)[1:-1]
        .replace("+", "\\u002B")
        .replace("'", "\\u0027"),
        "url, everything": quote(secret, safe=""),
        "url, as a path": quote(secret),
        "url, as encodeURIComponent": quote(secret, safe="!~*'()"),
        "url, as a form": quote_plus(secret),
        "url in lower case": "".join(f"%{b:02x}" if not chr(b).isalnum() or b > 127 else chr(b) for b in raw),
        "url in a url": quote(quote(secret, safe=""), safe=""),
        "html": html.escape(secret),
        "html by numbers": "".join(c if c.isascii() and c.isalnum() else f"&#{ord(c)};" for c in secret),
        "html in hex": "".join(c if c.isascii() and c.isalnum() else f"&#x{ord(c):X};" for c in secret),
        "base64": packed,
        "base64 without padding": packed.rstrip("="),
        "base64url": base64.urlsafe_b64encode(raw).decode(),
        "base64url without padding": base64.urlsafe_b64encode(raw).decode().rstrip("="),
        "base64 in a url": quote(packed, safe=""),
        "base64 in json with escaped slashes": packed.replace("/", "\\/"),
    }.items()
    for lead in ("u", "us", "use", "user:"):
        for tail in ("", "x", "xy"):
            both = base64.b64encode(f"{lead}{secret}{tail}".encode()).decode()
            yield f"base64 between {lead!r} and {tail!r}", both


EVERY_FORM = [(secret, name, form) for secret in SECRETS for name, form in forms_of(secret)]


@pytest.mark.parametrize(("secret", "name", "form"), EVERY_FORM, ids=[f"{s[:3]}: {n}" for s, n, _ in EVERY_FORM])
@pytest.mark.parametrize("around", ["{}", '{{"token": "{}"}}', "bad token {} given", "<b>{}</b>"])
def test_every_form_of_a_secret_is_masked(secret, name, form, around):
    text = around.format(form)
    masked = mask(text, SECRETS)
    if name.startswith("base64 between"):
        # Some of the neighbours' characters hold bits of the secret, and go with it.
        assert "***" in masked
        assert len(masked) <= len(text) - len(secret) + 8
        decoded = base64.b64decode(form)
        assert secret.encode() in decoded
    else:
        assert masked == around.format("***")
    assert mask(text.encode(), SECRETS) == masked.encode()


def test_what_holds_no_secret_is_left_as_it_is():
    body = b'{"ok": true, "id": "evt_0123456789abcde", "bytes": "\xff\x00"}'
    assert mask(body, SECRETS) is body
    assert mask("sk_live_0123456789abcde", SECRETS) == "sk_live_0123456789abcde"


def test_without_secrets_or_data_nothing_happens():
    assert (mask(b"abc", ()), mask(b"", SECRETS), mask("abc", ("",))) == (b"abc", b"", "abc")


@pytest.mark.parametrize(
    "spell", [str, lambda text: quote(text, safe=""), lambda text: base64.b64encode(text.encode()).decode()]
)
def test_a_long_secret_is_masked_as_one(spell):
    long = "".join(f"{n:x}/ü" for n in range(0x100, 0x400))
    assert mask(f"a {spell(long)} b", (long,)) == "a *** b"
    assert "***" in mask(f"a {spell(long)[:1_000]}", (long,), cut=True)


def test_a_secret_within_another_leaves_nothing_of_either():
    assert mask("a longer-secret-value b secret c", ("secret", "longer-secret-value")) == "a *** b *** c"


def test_secrets_that_overlap_leave_nothing_of_either():
    assert mask("xabcdefghix", ("abcdef", "defghi")) == "x***x"
    assert mask("xababababx", ("abab",)) == "x***x"


def test_latin_1_is_masked_in_bodies_and_headers():
    assert mask("ein pässwört!".encode("latin-1"), ("pässwört",)) == b"ein ***!"
    assert mask("ein pässwört!", ("pässwört",)) == "ein ***!"


class TestShortSecrets:
    @pytest.mark.parametrize("text", ["eu", "the eu!", '{"region":"eu"}', "a=eu&b", "a/eu", "=eu="])
    def test_one_is_masked_where_it_stands_alone(self, text):
        assert mask(text, ("eu",)) == text.replace("eu", "***")

    @pytest.mark.parametrize("text", ["neutral", "eux", "1eu", "EU", "beu"])
    def test_within_words_it_is_a_coincidence(self, text):
        assert mask(text, ("eu",)) == text

    @pytest.mark.parametrize("secret", ["a", "ab", "abc", "/", "++", "é"])
    def test_it_is_masked_in_urls_and_base64_where_it_stands_alone(self, secret):
        packed = base64.b64encode(secret.encode()).decode()
        assert mask(f"t={quote(secret, safe='')}&u={packed} v={packed.rstrip('=')}", (secret,)) == "t=***&u=*** v=***"


class TestCutBodies:
    @pytest.mark.parametrize(("secret", "name", "form"), EVERY_FORM, ids=[f"{s[:3]}: {n}" for s, n, _ in EVERY_FORM])
    def test_a_secret_cut_off_at_the_end_leaves_fewer_than_four_characters(self, secret, name, form):
        raw = form.encode()
        for length in range(1, len(raw)):
            body = b"x" * 50 + b" " + raw[:length]
            kept = mask(body, (secret,), cut=True).removeprefix(b"x" * 50 + b" ")
            if not name.startswith("base64 between"):
                # Three characters, or what spells them: `%25E2%2582%25AC` is one.
                assert kept.endswith(b"***") or length <= 3 * 15
                assert secret.encode()[:4] not in kept

    def test_the_longest_piece_is_taken(self):
        assert mask(b"see aaaaaaaaaaaaaaa", ("aaaaaaaaaaaaaaaaaaaaa",), cut=True) == b"see ***"

    def test_where_nothing_was_cut_a_beginning_is_a_coincidence(self):
        assert mask(b"see sk_live_", SECRETS) == b"see sk_live_"

    def test_three_characters_are_a_coincidence(self):
        assert mask(b"ask_", ("k_live_abc",), cut=True) == b"ask_"
        assert mask(b"ask_l", ("k_live_abc",), cut=True) == b"ask_l"
        assert mask(b"ask_li", ("k_live_abc",), cut=True) == b"as***"

    @pytest.mark.parametrize("secret", ["é" * 30, "/" * 30, "€uro" * 5])
    def test_a_character_cut_in_two_goes_with_the_rest(self, secret):
        for form in (secret.encode(), quote(secret, safe="").encode(), json.dumps(secret)[1:-1].encode()):
            for length in range(len(form) // 2, len(form)):
                assert mask(b"see " + form[:length], (secret,), cut=True) == b"see ***"


class TestCompressedBodies:
    @pytest.mark.parametrize("encoding", PACKED_BY)
    def test_one_that_holds_a_secret_is_dropped(self, encoding):
        packed = PACKED_BY[encoding](f"your token is {PLAIN}".encode())
        assert mask_body(packed, encoding, SECRETS) == b"***"

    @pytest.mark.parametrize("encoding", PACKED_BY)
    def test_one_that_holds_none_is_kept_as_it_is(self, encoding):
        packed = PACKED_BY[encoding](b"all is well")
        assert mask_body(packed, encoding, SECRETS) == packed

    def test_one_that_was_cut_off_is_looked_into_as_far_as_it_goes(self):
        noise = bytes(range(256)) * 8
        packed = gzip.compress(PLAIN.encode() + noise)
        assert mask_body(packed[:-20], "gzip", SECRETS, cut=True) == b"***"
        clean = gzip.compress(noise)[:-20]
        assert mask_body(clean, "gzip", SECRETS, cut=True) == clean

    @pytest.mark.parametrize(
        ("body", "encoding"),
        [
            (b"\x1b\x03", "br"),
            (b"no gzip", "gzip"),
            (gzip.compress(gzip.compress(b"", mtime=0), mtime=0), "gzip, gzip"),
            (b"x", "unknown"),
        ],
    )
    def test_one_that_cannot_be_looked_into_is_dropped_where_there_is_a_secret_to_lose(self, body, encoding):
        assert mask_body(body, encoding, SECRETS) == b"***"
        assert mask_body(body, encoding, ()) == body

    def test_a_bomb_is_dropped_at_once(self):
        packed = gzip.compress(bytes(20_000_000))[:MAX_RESPONSE_BYTES]
        started = time.process_time()
        assert mask_body(packed, "gzip", SECRETS, cut=True) == b"***"
        assert time.process_time() - started < 0.2

    @pytest.mark.parametrize("encoding", ["", "identity", " Identity "])
    def test_a_plain_one_is_masked(self, encoding):
        assert mask_body(f"<{PLAIN}>".encode(), encoding, SECRETS) == b"<***>"


class TestHeaders:
    def test_values_are_masked_and_repeated_names_joined(self):
        headers = [("Set-Cookie", "a=1"), ("Echo", f"Bearer {PLAIN}"), ("Set-Cookie", "b=2")]
        assert mask_headers(headers, SECRETS) == {"Set-Cookie": "a=1, b=2", "Echo": "Bearer ***"}

    def test_without_a_secret_in_them_they_are_kept(self):
        assert mask_headers([("A", "1"), ("B", "")], SECRETS) == {"A": "1", "B": ""}


class TestTime:
    """No answer keeps a worker busy: an endpoint's owner knows the secrets, and may have chosen both."""

    @pytest.mark.parametrize(
        ("secret", "body"),
        [
            ("a" * 4_000, b"a" * MAX_RESPONSE_BYTES),
            ("ab" * 2_000 + "c", b"ab" * (MAX_RESPONSE_BYTES // 2)),
            ("/" * 4_000, b"/" * MAX_RESPONSE_BYTES),
            ("/" * 4_000 + "x", b"/" * MAX_RESPONSE_BYTES),
            ("\\" * 2_000, b"\\" * MAX_RESPONSE_BYTES),
            ("\\" * 2_000 + "x", b"\\" * MAX_RESPONSE_BYTES),
            ("%" * 2_000 + "x", b"%25" * (MAX_RESPONSE_BYTES // 3)),
            ("%25" * 1_000 + "x", b"%25" * (MAX_RESPONSE_BYTES // 3)),
            ("&amp;" * 500 + "x", b"&amp;" * (MAX_RESPONSE_BYTES // 5)),
            (" " * 2_000 + "x", b"+" * MAX_RESPONSE_BYTES),
            ("é" * 2_000 + "x", "é".encode() * (MAX_RESPONSE_BYTES // 2)),
            ("a" * 4, b"a" * MAX_RESPONSE_BYTES),
            ("a", b"a " * (MAX_RESPONSE_BYTES // 2)),
        ],
    )
    def test_masking_is_quick_whatever_comes(self, secret, body):
        started = time.process_time()
        mask(body, (secret,), cut=True)
        assert time.process_time() - started < 0.3
