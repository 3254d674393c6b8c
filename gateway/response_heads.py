"""Heads of responses that are held back until the end of the read that brought them: the whole of a short body may be
in it, and then head and body are told in one.

Knows events; not what becomes of them.
"""

from __future__ import annotations

from protocol import events as ev
from protocol.events import Event


class ResponseHeads:
    """Of one link; begins and ends with it."""

    __slots__ = ("waiting",)

    def __init__(self) -> None:
        self.waiting: dict[int, ev.ResponseReceived] = {}
        """By their streams' numbers, in the order in which they came."""

    def join(self, events: list[Event]) -> list[Event]:
        """What is to be told now, of what one message brought."""
        event = events[0]
        if type(event) is ev.ResponseReceived and not event.end:
            self.waiting[event.stream] = event
            return []
        if type(event) is not ev.DataReceived:
            return self.before(events)
        if (head := self.waiting.pop(event.stream, None)) is not None:
            if event.end and event.data:
                events[0] = ev.ResponseReceived(event.stream, head.response, True, event.data)
            else:
                events.insert(0, head)
        return events

    def before(self, events: list[Event]) -> list[Event]:
        """The events with all that wait before them."""
        if not self.waiting:
            return events
        heads, self.waiting = self.waiting, {}
        return [*heads.values(), *events]
