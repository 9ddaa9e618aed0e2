"""Parses server-sent events, line by line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from netlathe.errors import Unreadable
from netlathe.results import Event, Json


def parse_events(lines: Iterator[str]) -> Iterator[Event]:
    """Parse server-sent events (WHATWG HTML, section 9.2). A blank line ends each event; an event without data is a
    ping.

    The first event of a stream has a number, so that the stream can resume even if it breaks before the first real
    event.
    """
    number: int | None = None
    kind, data, told = "message", list[str](), False
    for line in lines:
        name, _, text = line.partition(":")
        text = text.removeprefix(" ")
        if not line:
            if data:
                yield Event(number, kind, _event_data("\n".join(data)))
            elif told:
                yield Event(number, "ping")
            number, kind, data, told = None, "message", [], False
            continue
        told = True
        if name == "data":
            data.append(text)
        elif name == "event":
            kind = text
        elif name == "id" and text.isdigit():
            number = int(text)


def _event_data(text: str) -> Json:
    try:
        data = json.loads(text)
    except ValueError as error:
        raise Unreadable(f"an event's data is not JSON: {text[:80]!r}") from error
    return data if isinstance(data, Mapping) else {"value": data}
