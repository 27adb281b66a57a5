"""What `tenterhook doctor --sample` finds in a request whose signatures do not fit, and in one whose do."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.cli import doctor as command
from services.cli.doctor import doctor
from services.cli.errors import WrongUsage
from services.cli.signatures import Sample, Unreadable, examined, sample_of
from services.dispatcher.sign import brand_signature, standard_signature

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
OTHER = "whsec_" + base64.b64encode(bytes(32)).decode()
SENT_S = 1_767_323_045
BODY = '{"event":"call_ended","payload":{"name":"Zoë","n":1}}'.encode()
BRAND = "X-ApifyCloud"


def signed(body=BODY, **changes):
    headers = {
        "content-length": str(len(body)),
        "x-apifycloud-signature": brand_signature(SECRET, body),
        "webhook-id": "evt_1",
        "webhook-timestamp": str(SENT_S),
        "webhook-signature": standard_signature([SECRET], "evt_1", SENT_S, body),
    }
    return {name: value for name, value in (headers | changes).items() if value is not None}


def found(headers, body=BODY, secret=SECRET, after_s=1, **sample):
    seen = examined(Sample(headers, body, **sample), secret, brand=BRAND, now_s=SENT_S + after_s)
    assert all(each.remedy for each in seen if each.verdict != "ok")
    assert not any(secret in f"{each.said}{each.remedy}" for each in seen if secret)
    return {each.check: (each.verdict, each.said) for each in seen}


@given(st.binary(max_size=200), st.integers(-300, 300))
def test_a_request_as_it_was_sent_is_well(body, after_s):
    seen = found(signed(body), body, after_s=after_s)

    assert {verdict for verdict, _ in seen.values()} == {"ok"}
    assert set(seen) == {"time", "sha256 signature", "webhook-signature"}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (json.dumps(json.loads(BODY)).encode(), "parsed and written again"),
        (json.dumps(json.loads(BODY), indent=2).encode(), "parsed and written again"),
        (json.dumps(json.loads(BODY), separators=(",", ":")).encode(), "parsed and written again"),
        (BODY + b"\n", "around the body"),
        (b"\xef\xbb\xbf" + BODY, "around the body"),
        (BODY.replace(b'"n":1', b'"n":12'), "54 bytes, and content-length says"),
        (BODY[:-5], "content-length says"),
        (BODY.replace(b'"n":1', b'"n":2'), "a value in the body was changed"),
        (b"x" * len(BODY), "not the JSON that was sent"),
    ],
)
def test_a_body_that_was_changed_is_said_with_how(body, said):
    seen = found(signed(), body)

    for name in ("sha256 signature", "webhook-signature"):
        verdict, told = seen[name]
        assert verdict == "wrong"
        assert said.removeprefix("54 bytes, and ") in told


@pytest.mark.parametrize("secret", [f" {SECRET}\n", f'"{SECRET}"', SECRET.removeprefix("whsec_")])
def test_a_secret_with_characters_too_many_or_too_few_is_the_right_one(secret):
    assert "lost or gained characters" in found(signed(), secret=secret)["sha256 signature"][1]


def test_another_secret_is_said_to_be_one():
    verdict, said = found(signed(), secret=OTHER)["sha256 signature"]

    assert (verdict, "the secret is another one" in said) == ("wrong", True)
    assert found(signed(), secret="hunter2")["secret"][0] == "warning"


@pytest.mark.parametrize(
    ("changes", "check", "verdict", "said"),
    [
        ({"x-apifycloud-signature": None, "webhook-signature": None}, "signature headers", "wrong", "neither"),
        ({"x-apifycloud-signature": None}, "signature headers", "warning", "X-ApifyCloud-Signature did not come"),
        ({"webhook-id": None}, "signature headers", "wrong", "webhook-id did not come"),
        ({"webhook-timestamp": "2026-01-02"}, "time", "wrong", "no number of seconds"),
        ({"webhook-timestamp": str(SENT_S + 1)}, "webhook-signature", "wrong", "this header was changed"),
        ({"x-apifycloud-signature": "sha256=00"}, "sha256 signature", "wrong", "this header was changed"),
    ],
)
def test_headers_that_are_missing_or_changed_are_named(changes, check, verdict, said):
    told = found(signed(**changes))[check]

    assert (told[0], said in told[1]) == (verdict, True)


@pytest.mark.parametrize(("after_s", "verdict"), [(301, "warning"), (-301, "wrong"), (300, "ok")])
def test_a_time_that_receivers_refuse_is_said_and_the_signature_is_judged_by_itself(after_s, verdict):
    seen = found(signed(), after_s=after_s)

    assert (seen["time"][0], seen["webhook-signature"][0]) == (verdict, "ok")


def test_a_sample_is_a_line_of_the_sink_json_or_the_request_as_it_went_over_the_wire():
    headers = signed()
    shown = {name.title(): value for name, value in headers.items()}
    wire = "".join(f"{name}: {value}\r\n" for name, value in shown.items()).encode()
    for captured in (
        json.dumps({"headers": shown, "body": json.loads(BODY), "text": BODY.decode()}).encode(),
        json.dumps({"headers": shown, "body": None, "text": None, "base64": base64.b64encode(BODY).decode()}).encode(),
        json.dumps({"headers": shown, "body": BODY.decode()}).encode(),
        b"POST /hook?a=b:c HTTP/1.1\r\n" + wire + b"\r\n" + BODY,
        wire.replace(b"\r\n", b"\n") + b"\n" + BODY,
    ):
        assert sample_of(captured) == Sample(headers, BODY)
    assert sample_of(wire, BODY) == Sample(headers, BODY)
    parsed = sample_of(json.dumps({"headers": shown, "body": json.loads(BODY)}).encode())
    assert (parsed.is_parsed, parsed.body) == (True, BODY)
    for captured in (b"[]", b"nothing", b'{"headers": {}}'):
        with pytest.raises(Unreadable):
            sample_of(captured)


def test_the_command_says_what_is_wrong_and_exits_with_1(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command.time, "time", lambda: SENT_S + 1)
    sample, body = tmp_path / "sample.json", tmp_path / "body"
    sample.write_text(json.dumps({"headers": signed(), "body": json.loads(BODY)}, indent=1))
    body.write_bytes(BODY + b" ")

    assert doctor(sample=sample, secret=SECRET) == 0
    assert doctor(sample=sample, body=body, secret=SECRET) == 1
    assert "raw body, byte for byte" in " ".join(capsys.readouterr().out.split())
    for options, said in (({"sample": sample}, "--secret"), ({"body": body}, "--sample")):
        with pytest.raises(WrongUsage, match=said):
            doctor(**options)
    with pytest.raises(WrongUsage, match="cannot be read"):
        doctor(sample=tmp_path / "none", secret=SECRET)
