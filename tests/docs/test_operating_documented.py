"""docs/operating.md: what the loss of each topic means."""

import re
from pathlib import Path

from streams.topics import RETRIES, TOPICS

PAGE = (Path(__file__).parents[2] / "docs" / "operating.md").read_text(encoding="utf-8")
#: Topics that Kafka makes for itself.
OF_KAFKA = ["__consumer_offsets", "__transaction_state"]


def test_the_table_of_losses_has_every_topic_once():
    table = PAGE.partition("\n| topic | what is lost | what happens |\n")[2].partition("\n\n")[0]
    named = [name for row in re.findall(r"^\| (.+?) \|", table, re.MULTILINE) for name in re.findall(r"`(.+?)`", row)]
    ours = ["retry.*", *(each.name for each in TOPICS if each not in RETRIES)]

    assert sorted(named) == sorted([*ours, *OF_KAFKA])
