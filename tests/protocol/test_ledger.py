"""Counting, keeping, replaying and acknowledging."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import ProtocolError
from protocol.flow import Budget
from protocol.ledger import (
    ACK_BYTES,
    ACK_DELAY,
    FRAME_COST,
    MIN_UNACKED_BYTES,
    MIN_UNACKED_FRAMES,
    ReceiveLedger,
    SendLedger,
)


def kept(*frames: bytes) -> SendLedger:
    ledger = SendLedger()
    for frame in frames:
        ledger.keep(frame, 0.0)
    return ledger


def test_frames_are_numbered_from_zero_and_kept_until_they_are_acknowledged() -> None:
    ledger = kept(b"a", b"bb", b"ccc")
    assert (ledger.sent, ledger.released, ledger.frames, ledger.bytes) == (3, 0, 3, 6 + 3 * FRAME_COST)
    ledger.release(2)
    assert (ledger.sent, ledger.released, ledger.frames, ledger.bytes) == (3, 2, 1, 3 + FRAME_COST)
    ledger.release(2)
    ledger.release(3)
    assert (ledger.frames, ledger.bytes) == (0, 0)


@pytest.mark.parametrize("received", [0, 4, 1 << 62])
def test_an_impossible_count_is_refused_and_changes_nothing(received: int) -> None:
    ledger = kept(b"a", b"b", b"c")
    ledger.release(1)
    with pytest.raises(ProtocolError):
        ledger.release(received)
    assert (ledger.released, ledger.frames) == (1, 2)
    with pytest.raises(ProtocolError):
        ledger.rewind(received)
    assert not ledger.has_replay


def test_a_replayed_count_may_be_old_but_not_ahead() -> None:
    ledger = kept(b"a", b"b", b"c")
    ledger.release(2)
    ledger.release(1, may_be_old=True)
    assert ledger.released == 2
    ledger.release(3, may_be_old=True)
    assert ledger.released == 3
    with pytest.raises(ProtocolError):
        ledger.release(4, may_be_old=True)


def test_a_new_socket_gets_what_the_peer_has_not_in_the_same_bytes() -> None:
    ledger = kept(b"a", b"b", b"c", b"d")
    assert not ledger.has_replay
    ledger.rewind(1)
    assert ledger.has_replay
    assert ledger.replay(1) == [b"b"], "at least one"
    assert ledger.replay(2) == [b"c", b"d"]
    assert not ledger.has_replay and ledger.replay(100) == []
    ledger.rewind(1)
    assert ledger.replay(100) == [b"b", b"c", b"d"], "as often as it takes"


def test_what_is_acknowledged_during_a_replay_is_not_replayed() -> None:
    ledger = kept(b"a", b"b", b"c", b"d")
    ledger.rewind(0)
    assert ledger.replay(2) == [b"a", b"b"]
    ledger.release(3)
    assert ledger.replay(100) == [b"d"]


def test_an_eighth_is_left_for_control_frames() -> None:
    ledger = SendLedger(MIN_UNACKED_BYTES, MIN_UNACKED_FRAMES)
    for _ in range(56):
        assert ledger.has_room(10)
        ledger.keep(bytes(10), 0.0)
    assert not ledger.has_room(10) and ledger.has_control_room(10)
    for _ in range(8):
        assert ledger.has_control_room(10)
        ledger.keep(bytes(10), 0.0)
    assert not ledger.has_control_room(10), "the whole bound holds for all"
    ledger.release(9)
    assert ledger.has_room(10)


def test_bytes_are_bounded_too() -> None:
    ledger = SendLedger(MIN_UNACKED_BYTES, 8192)
    hold = MIN_UNACKED_BYTES * 7 // 8
    assert ledger.has_room(hold - FRAME_COST) and not ledger.has_room(hold - FRAME_COST + 1)
    assert ledger.has_control_room(MIN_UNACKED_BYTES - FRAME_COST)
    assert not ledger.has_control_room(MIN_UNACKED_BYTES - FRAME_COST + 1)


class TestTheBudgetOfAProcess:
    SIZE = 10_000 - FRAME_COST

    def filled(self, budget: Budget) -> SendLedger:
        """With as many frames of 10 000 bytes of cost as there is room for."""
        ledger = SendLedger(MIN_UNACKED_BYTES, 8192, budget)
        while ledger.has_room(self.SIZE):
            ledger.keep(bytes(self.SIZE), 0.0)
        return ledger

    def test_an_eighth_is_a_sessions_own_and_what_is_kept_beyond_is_lent(self) -> None:
        budget = Budget(100_000)
        one = self.filled(budget)
        assert one.bytes == 130_000 and budget.lent == 130_000 - MIN_UNACKED_BYTES // 8 <= budget.total
        other = self.filled(budget)
        assert other.bytes == 40_000, "its own, up to the frame that is the first beyond"
        one.release(9)
        assert budget.lent == (130_000 - 90_000 - 32_768) + (40_000 - 32_768)
        assert other.has_room(self.SIZE)

    def test_what_was_lent_is_given_back_at_the_end(self) -> None:
        budget = Budget(100_000)
        one, other = self.filled(budget), self.filled(budget)
        one.rewind(0)
        other.release(4)
        assert budget.lent == one.bytes - MIN_UNACKED_BYTES // 8
        one.close()
        one.close()
        assert budget.lent == 0 and not one.has_replay

    def test_control_frames_do_not_wait_for_it(self) -> None:
        ledger = self.filled(Budget(0))
        assert not ledger.has_room(0) and ledger.has_control_room(100)

    def test_without_one_the_limit_alone_counts(self) -> None:
        ledger = SendLedger(MIN_UNACKED_BYTES, 8192)
        assert ledger.has_room(MIN_UNACKED_BYTES * 7 // 8 - FRAME_COST)


def test_the_least_round_trip_of_a_socket_is_kept() -> None:
    ledger = SendLedger()
    for at in (1.0, 2.0, 3.0):
        ledger.keep(b"x", at)
    assert ledger.round_trip is None
    ledger.release(1, 1.5)
    assert ledger.round_trip == 0.5
    ledger.release(1, 9.0)
    assert ledger.round_trip == 0.5, "nothing was acknowledged"
    ledger.release(3, 3.25)
    assert ledger.round_trip == 0.25, "of the newest"
    ledger.rewind(3)
    assert ledger.round_trip is None


def test_an_acknowledgement_is_due_50_ms_after_the_first_frame() -> None:
    ledger = ReceiveLedger()
    ledger.receive(10, 1.0)
    ledger.receive(10, 1.04)
    assert ledger.due_at == 1.0 + ACK_DELAY == pytest.approx(1.05)
    ledger.pass_time(1.049)
    assert not ledger.is_due
    ledger.pass_time(1.05)
    assert ledger.is_due and ledger.due_at is None, "it is not asked for twice"
    ledger.receive(10, 1.06)
    assert ledger.due_at is None
    assert ledger.state() == 3
    assert not ledger.is_due and ledger.due_at is None


@pytest.mark.parametrize(
    ("limits", "size", "frames"),
    [
        ((1 << 20, 64), 0, 16),
        ((4 * (100 + FRAME_COST) * 5, 8192), 100, 5),
        ((4 * (100 + FRAME_COST) * 5, 8192), 101, 5),
    ],
)
def test_an_acknowledgement_is_due_at_a_quarter_of_either_limit(
    limits: tuple[int, int], size: int, frames: int
) -> None:
    ledger = ReceiveLedger()
    ledger.expect(*limits)
    for _ in range(frames - 1):
        ledger.receive(size, 0.0)
    assert not ledger.is_due
    ledger.receive(size, 0.0)
    assert ledger.is_due
    ledger.state()
    ledger.receive(size, 0.0)
    assert not ledger.is_due, "it is counted from the last"


@given(
    st.lists(
        st.one_of(
            st.integers(1, 2000).map(lambda size: ("send", size)),
            st.sampled_from(["ack", "cut"]).flatmap(lambda kind: st.floats(0, 1).map(lambda share: (kind, share))),
        ),
        max_size=80,
    )
)
def test_a_receiver_gets_each_frame_once_and_in_order(steps: list[tuple[str, float]]) -> None:
    ledger = SendLedger(MIN_UNACKED_BYTES, MIN_UNACKED_FRAMES)
    sent: list[bytes] = []
    received: list[bytes] = []
    on_the_way: list[bytes] = []
    for kind, value in steps:
        if kind == "send" and ledger.has_control_room(int(value)):
            frame = len(sent).to_bytes(4, "big") + bytes(int(value))
            if ledger.has_control_room(len(frame)):
                sent.append(frame)
                ledger.keep(frame, 0.0)
                on_the_way.append(frame)
        elif kind == "ack":  # some of what is on its way arrives, and is acknowledged
            share = round(value * len(on_the_way))
            received += on_the_way[:share]
            del on_the_way[:share]
            ledger.release(len(received))
        elif kind == "cut":  # some arrives unacknowledged, the rest is lost, and replayed to its middle
            received += on_the_way[: round(value * len(on_the_way))]
            ledger.rewind(len(received))
            on_the_way = ledger.replay(1 << 30)
        assert received == sent[: len(received)]
        assert ledger.frames == len(sent) - ledger.released <= MIN_UNACKED_FRAMES
        assert ledger.bytes <= MIN_UNACKED_BYTES
    assert received + on_the_way == sent


def test_an_acknowledgement_during_a_replay_skips_nothing() -> None:
    ledger = kept(b"a", b"b", b"c", b"d", b"e")
    ledger.rewind(1)
    assert ledger.replay(2) == [b"b", b"c"]
    ledger.release(2)
    assert ledger.replay(1) == [b"d"]
    ledger.release(5)  # the peer had them all: its count came late
    assert not ledger.has_replay
    ledger.keep(b"f", 0.0)
    assert not ledger.has_replay


def test_an_acknowledgement_is_due_at_1_mib_whatever_the_limit() -> None:
    ledger = ReceiveLedger()
    ledger.expect(1 << 40, 8192)
    ledger.receive(ACK_BYTES - FRAME_COST - 1, 0.0)
    assert not ledger.is_due
    ledger.receive(0, 0.0)
    assert ledger.is_due


def test_what_is_due_by_its_amount_needs_no_timer() -> None:
    ledger = ReceiveLedger()
    ledger.expect(1 << 20, 64)
    for _ in range(16):
        ledger.receive(0, 1.0)
    assert (ledger.is_due, ledger.due_at) == (True, None)
