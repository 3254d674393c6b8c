"""Random and damaged handshakes and frames where functions dial: documented refusals and close codes alone.

Over real sockets, beside an honest link whose stream must arrive whole; no task, no file and no link is left.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgpack
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode

from protocol import errors
from protocol.codec import encode
from protocol.dial import FINAL_CLOSES, Dial, Limits
from protocol.frames import DATA_SIZE, Ack, Lease, Park
from protocol.invitation import read, resume_proof, session_key
from tests.gateway.environment_fake import KEYRING, first_dial
from tests.gateway.raw_link import UPGRADE, Raw
from tests.gateway.test_endpoint import Scene, scene

PATIENCE = 5.0  # seconds for an answer or an end
REFUSED = {status for status in errors.REFUSALS.values()} | {400, 404, 408, 414, 431, 501}
"""Of a dial (docs/protocol.md §3.4), and of a request that is none (docs/security.md)."""
CLOSES = FINAL_CLOSES | {4001}
QUICK, THOROUGH = 60, 2000

# Handshakes

junk = st.one_of(
    st.sampled_from(
        [b"", b" ", b",", b"\t", b"0", b"-1", b"1", b"1" * 19, b"9" * 19, b"9" * 30, b"1e3", b"0x1", b"\xff"]
    ),
    st.sampled_from(
        [b"\x00", b"\r", b"\n", b"\r\n", b"\r\n x", b"credit=1", b"Dialback-Resume ", b"Dialback-Invitation "]
    ),
    st.binary(max_size=40),
    st.integers(0, 1 << 70).map(lambda number: b"%d" % number),
    st.binary(max_size=20).map(lambda some: some.hex().encode()),
)
names = st.one_of(
    st.sampled_from(
        [
            b"Dialback-Version",
            b"Dialback-Session",
            b"Dialback-Epoch",
            b"Dialback-Received",
            b"Dialback-Limits",
            b"Dialback-Remaining",
            b"Dialback-Features",
            b"Authorization",
            b"Sec-WebSocket-Key",
            b"Sec-WebSocket-Version",
            b"Sec-WebSocket-Extensions",
            b"Sec-WebSocket-Protocol",
            b"Upgrade",
            b"Connection",
            b"Content-Length",
            b"Transfer-Encoding",
            b"Host",
        ]
    ),
    st.binary(min_size=1, max_size=12),
)
Change = Callable[[list[tuple[bytes, bytes]]], list[tuple[bytes, bytes]]]


def _replaced(name: bytes, value: bytes) -> Change:
    return lambda fields: [(name, value) if known.lower() == name.lower() else (known, said) for known, said in fields]


def _spliced(at: int, some: bytes) -> Change:
    def change(fields: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        name, value = fields[at % len(fields)]
        cut = at % (len(value) + 1)
        return [
            *fields[: at % len(fields)],
            (name, value[:cut] + some + value[cut + 1 :]),
            *fields[at % len(fields) + 1 :],
        ]

    return change


changes = st.one_of(
    st.builds(_replaced, names, junk),
    st.builds(_spliced, st.integers(0, 1 << 16), junk),
    st.builds(lambda name: lambda fields: [pair for pair in fields if pair[0].lower() != name.lower()], names),
    st.builds(lambda name, value: lambda fields: [*fields, (name, value)], names, junk),
    st.builds(lambda at: lambda fields: fields * (1 + at % 3), st.integers(0, 2)),
    st.builds(
        lambda name, value, many: lambda fields: [*fields, *[(name, value)] * many], names, junk, st.integers(0, 400)
    ),
)
damage = st.lists(changes, min_size=1, max_size=4)


def handshake(fields: list[tuple[bytes, bytes]]) -> bytes:
    start = UPGRADE.encode().partition(b"\r\n")[0]
    return start + b"\r\n" + b"".join(b"%b: %b\r\n" % pair for pair in fields) + b"\r\n"


def honest_fields(dial: Dial) -> list[tuple[bytes, bytes]]:
    lines = UPGRADE.encode().split(b"\r\n")[1:-1]
    common = [(name, value) for name, _, value in (line.partition(b": ") for line in lines)]
    return [*common, *((name.encode(), value.encode()) for name, value in dial.to_headers())]


# Frames

whole = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(1 << 63), (1 << 64) - 1),
        st.floats(),
        st.binary(max_size=60),
        st.text(max_size=20),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=6), st.dictionaries(st.text(max_size=5), inner, max_size=4)),
    max_leaves=20,
)
kinds = st.sampled_from([*range(0x20), *range(0x20, 0x24), 0x60, 0x7F])
fields_of = st.lists(
    st.one_of(st.integers(0, 5), st.sampled_from([1 << 31, 1 << 32, 1 << 62, 1 << 63, -1]), whole), max_size=7
)
messages = st.one_of(
    st.binary(max_size=200),
    whole.map(msgpack.packb),
    st.builds(lambda kind, rest: msgpack.packb([kind, *rest]), kinds, fields_of),
    st.builds(
        lambda kind, stream, length, payload: (
            b"\x93"
            + bytes((kind,))
            + b"\xce%b\xc6%b" % (stream.to_bytes(4, "big"), length.to_bytes(4, "big"))
            + payload
        ),
        st.sampled_from([0x14, 0x15, 0x18, 0x19, 0x1A, 0x1B]),
        st.integers(0, 3),
        st.integers(0, 1 << 21),
        st.binary(max_size=100),
    ),
    st.sampled_from([encode(Ack(0)), encode(Ack(1 << 40)), encode(Park(1, 0, 0)), encode(Park(9, 1 << 31, 1 << 62))]),
    st.integers(1, 4).map(lambda size: bytes(size * DATA_SIZE)),
)
opcodes = st.sampled_from([Opcode.BINARY] * 8 + list(Opcode))


def _framed(opcode: Opcode, message: bytes, fin: bool, mask: bool) -> bytes:
    try:
        return Frame(opcode, message, fin=fin).serialize(mask=mask)
    except Exception:  # a control frame that websockets itself would not send
        message = message[:0xFFFF]
        return bytes((0x80 | opcode, 0xFE)) + len(message).to_bytes(2, "big") + b"\0\0\0\0" + message


wires = st.one_of(
    st.builds(_framed, opcodes, messages, st.sampled_from([True] * 6 + [False]), st.sampled_from([True] * 9 + [False])),
    st.binary(max_size=60),
)


# What happens


async def refused_or_accepted(it: Scene, data: bytes, cut: int) -> None:
    """An answer that the documents know; an accepted one begins with WELCOME."""
    raw = await Raw.connect(it.gateway)
    try:
        raw.writer.write(data[: cut % len(data)])
        await asyncio.sleep(0)
        raw.writer.write(data[cut % len(data) :])
        raw.writer.write_eof()  # some of it has no end
        answer = await asyncio.wait_for(raw.reader.read(), PATIENCE)
    except ConnectionError:
        return  # it was cut while it still sent
    finally:
        await raw.close()
    assert b"Traceback" not in answer
    if answer:
        status = int(answer[9:12])
        assert answer.startswith(b"HTTP/1.1 ") and status in REFUSED | {101}, (data, answer)


async def closed_as_documented(it: Scene, dial: Dial, is_leased: bool, said: list[bytes]) -> bool:
    """After an honest handshake, and perhaps an honest LEASE; whether that has brought a stream."""
    raw = await Raw.connect(it.gateway)
    code: int | None = None
    opened = False
    try:
        assert (await raw.dial(dial)).startswith(b"HTTP/1.1 101 ")
        if is_leased:
            raw.send(encode(Lease(1, dial.invitation, 4, 60_000, 0)))
            while (kind := (await raw.message())[0]) != 4:  # LEASED
                opened |= kind == 0x10
        raw.writer.write(b"".join(said))
        raw.writer.write_eof()
        async with asyncio.timeout(PATIENCE):
            while True:
                opcode, payload = await raw.frame()
                if opcode == Opcode.CLOSE:
                    code = int.from_bytes(payload[:2], "big")
                    assert b"Traceback" not in payload
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        await raw.close()
    assert code is None or code in CLOSES, (code, said)
    return opened


@asynccontextmanager
async def nothing_left(caplog: pytest.LogCaptureFixture) -> AsyncIterator[None]:
    """No task, no socket, no error in the log."""

    def sockets() -> int:
        gc.collect()
        links = [os.path.join("/proc/self/fd", name) for name in os.listdir("/proc/self/fd")]
        return sum(
            os.readlink(link).startswith("socket:") for link in links if os.path.exists(link) or os.path.islink(link)
        )

    tasks, before = asyncio.all_tasks(), sockets()
    yield
    async with asyncio.timeout(PATIENCE):
        while asyncio.all_tasks() - tasks or sockets() > before:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.05)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def drawn(strategy: st.SearchStrategy[Any], number: int, seed: int) -> list[Any]:
    """Examples of a strategy: hypothesis draws them, a test of a running gateway tries them all in one go."""
    found: list[Any] = []

    @seeded(seed)
    @settings(
        max_examples=number,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def collect(example: Any) -> None:
        found.append(example)

    collect()
    return found


async def handshakes(
    number: int, seed: int, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    examples = drawn(st.tuples(st.booleans(), damage, st.integers(0, 1 << 12)), number, seed)
    async with nothing_left(caplog):
        async with scene() as it:
            token = await it.token()
            live = first_dial(token)
            key = session_key(KEYRING.signing, read(token)[0].nonce, live.session)
            resume = Dial(live.session, 2, 0, Limits(), proof=resume_proof(key, live.session, 2, 0))
            links = it.endpoint.links
            for is_resume, parts, cut in examples:
                fields = honest_fields(resume if is_resume else first_dial("A" * 200))
                for change in parts:
                    fields = change(fields) or fields
                await refused_or_accepted(it, handshake(fields), cut)
            assert it.endpoint.links == links
            assert token not in capsys.readouterr().out
    assert len(examples) >= number // 2


async def frames(number: int, seed: int, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> None:
    examples = drawn(st.tuples(st.booleans(), st.lists(wires, min_size=1, max_size=6)), number, seed)
    streams = 0
    async with nothing_left(caplog):
        async with scene() as it:
            await it.token()
            (genuine,) = it.endpoint._invitations._out.values()
            pool = it.gateway._pools["trap"]
            for index, (is_leased, said) in enumerate(examples):
                while is_leased and not pool.waiting:  # a request, for the lease to bring a stream
                    it._asking.add(asyncio.create_task(it._ask()))
                    await asyncio.sleep(0.005)
                # One that no invocation carries: each of these needs one, and dials at once.
                start = type(genuine.start)(-1 - index, genuine.start.began)
                token, issued = it.endpoint._invitations.issue("trap", KEYRING, start)
                dial = first_dial(token)
                streams += await closed_as_documented(it, dial, is_leased, said)
                it.endpoint._invitations.withdraw(issued)
                if (link := it.link(dial.session)) is not None:
                    link.end("the example is over")
    said_by_gateway = capsys.readouterr().out
    assert "link.mistake" not in said_by_gateway and "Traceback" not in said_by_gateway
    assert len(examples) >= number // 2 and streams > number // 10


async def test_some_damaged_handshakes(caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> None:
    await handshakes(QUICK, 1, caplog, capsys)


async def test_some_damaged_frames(caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> None:
    await frames(QUICK, 1, caplog, capsys)


@pytest.mark.fuzz
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(2, 6))
async def test_thousands_of_damaged_handshakes(
    seed: int, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    await handshakes(THOROUGH, seed, caplog, capsys)


@pytest.mark.fuzz
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(2, 6))
async def test_thousands_of_damaged_frames(
    seed: int, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    await frames(THOROUGH, seed, caplog, capsys)
