"""
Makes Kafka start faster: `python -m services.cli.brokers.archive`, once after the jars were fetched.

Half of a node's start is loading its classes. Java can keep them, checked and laid out, in an archive (class data
sharing): measured on two idle cores 1.4 s and 1.7 s of CPU a start, instead of 2.2 s and 2.8 s. Java itself checks
that the archive fits the jars and its own version, and does without it where it does not.
"""

import asyncio
import os
import sys
import tempfile
from pathlib import Path
from typing import Final

from services.cli.brokers import BrokerFailed
from services.cli.brokers.kafka import ARCHIVE, JARS, KafkaBroker

#: Writing the archive is the last thing that a node does: 2 s on an idle machine.
_WRITE_S: Final = 120.0


async def make(jars: Path = JARS) -> Path:
    """
    Start a node, stop it, and keep its classes beside the jars. Takes 8 s on an idle machine.

    Raises:
        BrokerFailed: the node does not start.
    """
    archive, made = jars / ARCHIVE, jars / f"{ARCHIVE}.{os.getpid()}"
    archive.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix="kafka-archive-") as folder:
        broker = KafkaBroker(Path(folder), jars=jars, jvm=(f"-XX:ArchiveClassesAtExit={made}",))
        await broker.start()
        await broker.stop(grace_s=_WRITE_S)
    return made.rename(archive)


if __name__ == "__main__":
    try:
        print(f"{asyncio.run(make())}: Kafka starts faster with it")
    except (BrokerFailed, OSError) as error:
        sys.exit(f"no archive was made, Kafka starts without: {error}")
