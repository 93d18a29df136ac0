"""docs/reference/messages.md explains messages that the runtime really writes."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_every_explained_message_is_one_that_the_runtime_writes() -> None:
    runtime = ROOT / "runtime"
    files = [*(runtime / "src" / "safekit").rglob("*.py"), *(runtime / "native" / "src").glob("*.c")]
    # A message may be written over two lines of source; what stands for … differs between the languages.
    sources = re.sub(r'"\n\s*f?"', "", "\n".join(file.read_text() for file in files))
    page = (ROOT / "docs" / "reference" / "messages.md").read_text()
    messages = [
        message for row in re.findall(r"^\| (`.*?) \|", page, re.MULTILINE) for message in re.findall(r"`([^`]+)`", row)
    ]
    assert len(messages) > 25
    gone = []
    for message in messages:
        fragments = [fragment.strip(" ()") for fragment in message.split("…")]
        if not all(fragment in sources for fragment in fragments):
            gone.append(message)
    assert not gone
