"""An integration, as a request names it."""

from dataclasses import dataclass

from schemas.profiles import Profile


@dataclass(frozen=True, slots=True)
class Place:
    """An integration of an app, under the path of its profile."""

    app: str
    profile: Profile
    integration: str
