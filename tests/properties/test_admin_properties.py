"""Laws of the admin's rules: any JSON is taken within the limits or refused by name, and nothing secret is shown."""

from hypothesis import given
from hypothesis import strategies as st

from schemas.profiles import BOOKING, INTEGRATION
from services.admin.compose import new_integration
from services.admin.rules import Refused, wanted
from services.admin.shown import masked
from services.admin.urls import url_fault
from services.vault.references import names, parts
from services.vault.seal import Keyring
from streams import codec
from streams.records import AppConfig, IntegrationConfig

APP = AppConfig(
    app="demo",
    name="Demo",
    keys=[],
    tokens=[],
    origins=[],
    event_types=["order_paid"],
    allow_http=True,
    max_active=3,
    version=1,
    created_at_ms=0,
    updated_at_ms=0,
    updated_by="test",
)
FIELDS = [
    "name", "url", "events", "headers", "secrets", "signing", "timeoutMs", "retry", "ordering", "maxInFlight",
    "whilePaused", "autoPause", "profile", "id", "maxAttempts", "delaysMs", "policy", "on429", "*", "strict", "none",
    "sendTraceparent", "traceparent",
    "call_ended", "order_paid", "https://a.example/{secret.name}", "Bearer {secret.name}", "any_failure", "booking",
]  # fmt: skip
texts = st.one_of(st.sampled_from(FIELDS), st.text(max_size=20))
numbers = st.one_of(st.integers(-2, 20), st.integers(), st.floats(allow_nan=False))
json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, texts),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(texts, inner, max_size=6)),
    max_leaves=20,
)
likely = st.fixed_dictionaries(
    {"name": st.just("x"), "url": st.sampled_from(["https://a.example", "http://a.example/{secret.name}"])},
    optional={
        "events": st.lists(texts, max_size=3),
        "headers": st.dictionaries(texts, texts, max_size=3),
        "secrets": st.dictionaries(texts, texts, max_size=3),
        "timeoutMs": numbers,
        "maxInFlight": numbers,
        "ordering": texts,
        "retry": st.fixed_dictionaries(
            {}, optional={"maxAttempts": numbers, "delaysMs": st.lists(numbers, max_size=4), "policy": texts}
        ),
        "signing": st.booleans(),
        "template": st.one_of(st.text(), st.sampled_from(['{"a": {{ event }}}', "{{ payload.x }}", "{{ nope }}"])),
    },
)
profiles = st.sampled_from([INTEGRATION, BOOKING])


def plan_or_refusals(body, profile):
    try:
        return wanted(body, APP, profile)
    except Refused as refused:
        return refused.refusals


@given(st.one_of(json_values, likely), profiles)
def test_any_json_is_refused_by_field_or_becomes_a_record_within_the_limits(body, profile):
    plan = plan_or_refusals(body, profile)
    if isinstance(plan, tuple):
        assert plan
        assert all(refusal.detail for refusal in plan)
        return
    config = new_integration(
        plan,
        integration="int_1",
        app="demo",
        profile=profile,
        signing=None,
        keyring=Keyring(bytes(32)),
        now_ms=0,
        who="test",
    )

    assert codec.decode_as(IntegrationConfig, codec.encode(config)) == config
    assert 1 <= config.timeout_ms <= 10_000
    assert 1 <= config.max_in_flight <= 100
    assert len(config.delays_ms) == config.max_attempts - 1
    assert names(config.url) <= plan.secrets.keys()
    assert all(names(value) <= plan.secrets.keys() for value in plan.headers.values())


@given(st.text(), st.booleans())
def test_any_text_is_a_url_or_has_a_fault(text, allow_http):
    assert isinstance(url_fault(text, allow_http=allow_http), str | None)


@given(st.text("/?#@:[]{}.\\%a0sec-ü ", max_size=30))
def test_what_counts_as_a_url_has_no_user_no_fragment_and_no_secret_in_its_host(rest):
    if url_fault("https://" + rest, allow_http=False) is None:
        authority = rest.partition("/")[0].partition("?")[0]
        assert authority
        assert not set("@{}#\\ ") & set(authority)


@given(st.lists(st.one_of(st.text("abc XYZ123"), st.sampled_from(["{secret.a}", "Bearer "]))).map("".join))
def test_a_masked_header_shows_only_references_and_words_of_schemes(template):
    shown = "".join(text for text, is_reference in parts(masked(template)) if not is_reference)

    assert set(shown.replace("***", " ").split()) <= {"Bearer"}
