"""What leaves in a turn of the loop: ends of responses together, but for the first, in order, and nothing is left."""

from __future__ import annotations

import asyncio

from gateway.outgoing import SMALL, Outgoing, Turn
from tests.gateway.function_fake import FakePool, listening
from tests.gateway.test_ingress_malformed import get


class Taken(asyncio.Transport):
    """A transport whose writes go to a list that it shares with others."""

    def __init__(self, name: str, writes: list[tuple[str, bytes]]) -> None:
        super().__init__()
        self.name = name
        self.writes = writes
        self.has_closed = False

    def write(self, data: object) -> None:
        assert isinstance(data, bytes), "a view of a reused buffer could change before it leaves"
        self.writes.append((self.name, data))

    def is_closing(self) -> bool:
        return self.has_closed

    def get_write_buffer_size(self) -> int:
        return 5


async def test_the_first_leaves_at_once_and_the_others_at_the_end_of_the_turn() -> None:
    writes: list[tuple[str, bytes]] = []
    turn = Turn()
    a, b, c = (Outgoing(Taken(name, writes), turn) for name in "abc")
    for _ in range(2):
        a.write_last(b"1", b"2")
        b.write_last(b"3")
        c.hold(b"4")
        buffer = bytearray(b"5")
        b.write_last(memoryview(buffer))
        buffer[:] = b"x"
        c.write_last(b"6")
        a.write_last(b"7")
        assert writes == [("a", b"12")]
        assert (a.unsent, b.unsent, c.unsent) == (6, 7, 7)
        await asyncio.sleep(0)
        assert writes == [("a", b"12"), ("b", b"35"), ("c", b"46"), ("a", b"7")]
        assert b.unsent == 5
        writes.clear()


async def test_a_head_waits_for_what_follows_it_even_if_it_is_the_first() -> None:
    writes: list[tuple[str, bytes]] = []
    outgoing = Outgoing(Taken("a", writes), Turn())
    outgoing.hold(b"head ")
    assert not writes
    outgoing.write_last(b"body")
    assert writes == [("a", b"head body")]
    await asyncio.sleep(0)
    outgoing.hold(b"alone")
    await asyncio.sleep(0)
    assert writes == [("a", b"head body"), ("a", b"alone")]


async def test_what_is_large_or_has_become_so_does_not_wait() -> None:
    writes: list[tuple[str, bytes]] = []
    turn = Turn()
    first, outgoing = Outgoing(Taken("a", writes), turn), Outgoing(Taken("b", writes), turn)
    first.write_last(b"1")
    outgoing.write_last(b"2" * SMALL)
    assert len(writes) == 1
    outgoing.write_last(b"3")
    assert writes[1:] == [("b", b"2" * SMALL + b"3")]
    await asyncio.sleep(0)
    assert len(writes) == 2


async def test_pieces_do_not_wait() -> None:
    writes: list[tuple[str, bytes]] = []
    turn = Turn()
    first, outgoing = Outgoing(Taken("a", writes), turn), Outgoing(Taken("b", writes), turn)
    first.write_last(b"1")
    outgoing.hold(b"2")
    outgoing.write(b"3")
    outgoing.write(b"4")
    outgoing.write_last(b"5")
    outgoing.write(b"6")
    assert writes[1:] == [("b", b"23"), ("b", b"4"), ("b", b"56")]
    await asyncio.sleep(0)
    assert len(writes) == 4


async def test_nothing_is_written_to_who_has_left() -> None:
    writes: list[tuple[str, bytes]] = []
    turn = Turn()
    first, other = Taken("a", writes), Taken("b", writes)
    Outgoing(first, turn).write_last(b"1")
    Outgoing(other, turn).write_last(b"2")
    other.has_closed = True
    await asyncio.sleep(0)
    assert writes == [("a", b"1")]


async def test_a_gateway_that_closes_its_connections_in_the_turn_of_their_responses_loses_none() -> None:
    async with listening(FakePool()) as front:
        clients = [await front.connect() for _ in range(3)]
        for client in clients:
            client.send(get())
        streams = [await front.pool.opened.get() for _ in clients]
        for stream in streams:
            stream.exchange.response(200, (), True, b"hello")
        front.server.close_idle()
        for client in clients:
            assert (await client.rest()).endswith(b"\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
