"""Bearer tokens and roles."""

import pytest

from services.admin.tokens import Caller, caller_of, hash_of, presented_token, require, require_installation
from services.runtime.problems import Problem
from streams.records import AppConfig, Token


def app(name, *tokens):
    return AppConfig(
        app=name,
        name=name,
        keys=[],
        tokens=[Token(name=who, role=role, hash=hash_of(token), created_at_ms=0) for who, role, token in tokens],
        origins=[],
        event_types=[],
        allow_http=False,
        max_active=3,
        version=1,
        created_at_ms=0,
        updated_at_ms=0,
        updated_by="test",
    )


def code_of(caught):
    return (caught.value.status, caught.value.code)


@pytest.mark.parametrize("header", ["Bearer tok_1", "bearer tok_1", "BEARER   tok_1 "])
def test_the_token_is_read_from_the_header(header):
    assert presented_token(header) == "tok_1"


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic dG9r", "tok_1"])
def test_without_a_bearer_token_it_is_asked_for(header):
    with pytest.raises(Problem) as caught:
        presented_token(header)
    assert code_of(caught) == (401, "token_missing")
    assert caught.value.headers == {"WWW-Authenticate": "Bearer"}


def test_a_token_of_the_app_or_of_the_installation_tells_who_asks():
    configs = [app("demo", ("mine", "viewer", "tok_1")), app("*", ("root", "admin", "tok_2"))]

    assert caller_of("tok_1", configs) == Caller("mine", "viewer", hash_of("tok_1"), "demo")
    assert caller_of("tok_2", configs) == Caller("root", "admin", hash_of("tok_2"), "*")


@pytest.mark.parametrize("configs", [[], [None, None], [app("demo", ("mine", "admin", "tok_1")), None]])
def test_any_other_token_is_unknown(configs):
    with pytest.raises(Problem) as caught:
        caller_of("tok_3", configs)
    assert code_of(caught) == (401, "token_unknown")
    assert "tok_3" not in caught.value.detail


ROLES = ["viewer", "operator", "admin"]


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("least", ROLES)
def test_a_role_may_do_what_lesser_roles_may(role, least):
    caller = Caller("ops", role, b"")
    if ROLES.index(role) >= ROLES.index(least):
        require(caller, least)
        return
    with pytest.raises(Problem) as caught:
        require(caller, least)
    assert code_of(caught) == (403, "role_insufficient")


def test_a_token_of_one_app_is_held_back_from_what_concerns_all():
    require_installation(Caller("root", "admin", b"", "*"), "Creating an app")
    for scope in ("demo", ""):
        with pytest.raises(Problem) as caught:
            require_installation(Caller("mine", "admin", b"", scope), "Creating an app")
        assert code_of(caught) == (403, "installation_token_required")
        assert caught.value.detail.startswith("Creating an app takes a token of the whole installation")
