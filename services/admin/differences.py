"""What changed between two versions of an integration, as people ask for it. Pure; no value of a header or secret."""

from typing import Any

from services.admin.shown import integration_json
from services.vault.seal import Opener
from streams.records import IntegrationConfig

#: What differs between any two versions, and says nothing.
_ALWAYS = frozenset({"version", "updatedAt", "updatedBy", "createdAt"})
#: What is not of the configuration.
_OF_NOW = frozenset({"consecutiveFailures", "successRate", "queueAgeMs", "lastDelivery"})


def version_json(config: IntegrationConfig, keyring: Opener) -> dict[str, Any]:
    """One version, as it was configured: `integration_json` without what the integration is doing now."""
    shown = {name: value for name, value in integration_json(config, keyring).items() if name not in _OF_NOW}
    return shown | {"updatedBy": config.updated_by}


def differences(before: IntegrationConfig, after: IntegrationConfig, keyring: Opener) -> list[dict[str, Any]]:
    """
    The fields that differ: `{"field", "from", "to"}`, nested ones with dots.

    Headers and secrets are shown masked, so that one whose value changed may look the same on both sides.
    """
    found = _between(_flat(version_json(before, keyring)), _flat(version_json(after, keyring)))
    found += _sealed("headers", before.headers, after.headers, {each["field"] for each in found})
    found += _sealed(
        "secrets",
        {name: each.version for name, each in before.secrets.items()},
        {name: each.version for name, each in after.secrets.items()},
        set(),
    )
    if [each.version for each in before.signing_secrets] != [each.version for each in after.signing_secrets]:
        found.append({"field": "signingSecret", "from": "***", "to": "***"})
    return found


def _between(before: dict[str, Any], after: dict[str, Any]) -> list[dict[str, Any]]:
    names = [*before, *(name for name in after if name not in before)]
    return [
        {"field": name, "from": before.get(name), "to": after.get(name)}
        for name in names
        if name not in _ALWAYS and before.get(name) != after.get(name)
    ]


def _sealed(kind: str, before: dict[str, Any], after: dict[str, Any], told: set[str]) -> list[dict[str, Any]]:
    """Values that are never shown: whether they are there, and whether they are another."""
    names = [*before, *(name for name in after if name not in before)]
    return [
        {
            "field": f"{kind}.{name}",
            "from": "***" if name in before else None,
            "to": "***" if name in after else None,
        }
        for name in names
        if before.get(name) != after.get(name) and f"{kind}.{name}" not in told
    ]


def _flat(shown: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in shown.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value
    return found
