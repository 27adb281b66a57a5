"""Python reads this file first in every process that a test starts, since tests/conftest.py names its folder."""

import overheard

overheard.listen_as_told()
