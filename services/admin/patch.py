"""
A merge patch (RFC 7396) of an integration: the JSON that a create would have had to get the result.

Pure. So that a patch meets the same rules as a create, it is merged into the integration as a create would have said
it, header values and secrets in plain: nothing of that is ever shown, logged or kept.
"""

from typing import Any, Final

from services.admin.fields import Refusal, kind
from services.admin.rules import Refused
from services.admin.shown import masked
from services.vault.opened import OpenedSecrets
from streams.records import IntegrationConfig

#: Fields whose default follows from another: where a patch gives only one of the two, the other one starts anew.
_FOLLOWS: Final = (("ordering", "maxInFlight"),)
_FOLLOWS_IN_RETRY: Final = (("maxAttempts", "delaysMs"), ("delaysMs", "maxAttempts"))


def as_created(config: IntegrationConfig, opened: OpenedSecrets) -> dict[str, Any]:
    """The body of a create that would make this integration, in plain."""
    return {
        "name": config.name,
        "url": config.url,
        "events": config.events,
        "headers": opened.headers,
        "secrets": opened.secrets,
        "timeoutMs": config.timeout_ms,
        "retry": {
            "policy": config.retry_policy,
            "maxAttempts": config.max_attempts,
            "delaysMs": config.delays_ms,
            "on429": config.retry_on_429,
        },
        "ordering": config.ordering,
        "maxInFlight": config.max_in_flight,
        "whilePaused": config.while_paused,
        "autoPause": config.auto_pause,
        "signing": config.signing,
        "template": config.template,
        "sendTraceparent": config.send_traceparent,
    }


def patched(config: IntegrationConfig, opened: OpenedSecrets, patch: Any) -> dict[str, Any]:
    """
    The body of a create that would make the integration as the patch wants it.

    A header that is given as it is shown, masked, stays as it is.

    Raises:
        Refused: the patch is no object, or takes away what has to be there.
    """
    if not isinstance(patch, dict):
        raise Refused([Refusal("", f"the body must be an object, not {kind(patch)}")])
    before = as_created(config, opened)
    retry = patch.get("retry")
    _forget(before, patch, _FOLLOWS)
    if isinstance(retry, dict):
        before["retry"] = dict(before["retry"])
        _forget(before["retry"], retry, _FOLLOWS_IN_RETRY)
    headers = patch.get("headers")
    if isinstance(headers, dict):
        patch = patch | {"headers": _unmasked(headers, opened.headers)}
    return dict(merged(before, patch))


def merged(target: Any, patch: Any) -> Any:
    """RFC 7396, section 2: objects are merged, null takes away, anything else replaces."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result


def _forget(before: dict[str, Any], patch: dict[str, Any], pairs: tuple[tuple[str, str], ...]) -> None:
    for given, follows in pairs:
        if given in patch and follows not in patch:
            before.pop(follows, None)


def _unmasked(headers: dict[str, Any], plain: dict[str, str]) -> dict[str, Any]:
    """The given headers, those as they are shown replaced by what they are; names are the same in any case."""
    known = {name.lower(): name for name in plain}
    found: dict[str, Any] = {}
    for name, value in headers.items():
        same = known.get(name.lower())
        if same is None:
            found[name] = value
        elif value is not None and value == masked(plain[same]):
            found[same] = plain[same]
        else:
            found[same] = value
    return found
