"""`tenterhook integrations`, over the admin API."""

from services.cli.integrations import versions
from services.cli.integrations.existing import app

versions.add_to(app)

__all__ = ["app"]
