"""Counting, keeping, acknowledging and replaying: at each bound, and against a plain list of everything ever sent."""

from __future__ import annotations

from random import Random

import pytest

from protocol.errors import ProtocolError
from protocol.ledger import (
    ACK_DELAY,
    FRAME_COST,
    MAX_UNACKED_BYTES,
    MAX_UNACKED_FRAMES,
    ReceiveLedger,
    SendLedger,
)


def kept(*frames: bytes, max_bytes: int = 1 << 20, max_frames: int = 100) -> SendLedger:
    ledger = SendLedger(max_bytes, max_frames)
    for frame in frames:
        ledger.keep(frame, 0.0)
    return ledger


class TestRoom:
    def test_the_defaults_are_those_of_the_specification(self) -> None:
        assert (MAX_UNACKED_BYTES, MAX_UNACKED_FRAMES, FRAME_COST) == (8 << 20, 8192, 64)

    def test_bytes_are_held_back_at_seven_eighths(self) -> None:
        ledger = SendLedger(8000, 1000)
        assert ledger.has_room(7000 - FRAME_COST)
        assert not ledger.has_room(7000 - FRAME_COST + 1)
        assert ledger.has_control_room(8000 - FRAME_COST)
        assert not ledger.has_control_room(8000 - FRAME_COST + 1)
        ledger.keep(bytes(6000 - FRAME_COST), 0.0)
        assert ledger.bytes == 6000
        assert ledger.has_room(1000 - FRAME_COST) and not ledger.has_room(1001 - FRAME_COST)
        assert ledger.has_control_room(2000 - FRAME_COST) and not ledger.has_control_room(2001 - FRAME_COST)

    def test_frames_are_held_back_at_seven_eighths(self) -> None:
        ledger = SendLedger(1 << 20, 64)
        for count in range(64):
            assert ledger.frames == count
            assert ledger.has_room(0) is (count < 56)
            assert ledger.has_control_room(0)
            ledger.keep(b"", 0.0)
        assert not ledger.has_control_room(0)
        ledger.release(9)
        assert ledger.has_room(0)

    def test_what_is_acknowledged_costs_nothing(self) -> None:
        ledger = kept(b"abc", b"de")
        assert (ledger.bytes, ledger.frames, ledger.sent) == (5 + 2 * FRAME_COST, 2, 2)
        ledger.release(1)
        assert (ledger.bytes, ledger.frames, ledger.sent, ledger.released) == (2 + FRAME_COST, 1, 2, 1)
        ledger.release(2)
        assert (ledger.bytes, ledger.frames, ledger.sent, ledger.released) == (0, 0, 2, 2)


class TestRelease:
    @pytest.mark.parametrize("count", [-1, 0, 1, 4, 1 << 62])
    def test_an_impossible_count_is_refused(self, count: int) -> None:
        ledger = kept(b"a", b"b", b"c")
        ledger.release(2)
        with pytest.raises(ProtocolError):
            ledger.release(count)
        assert (ledger.released, ledger.frames) == (2, 1), "nothing has changed"

    def test_the_same_count_twice_is_no_error(self) -> None:
        ledger = kept(b"a")
        for _ in range(2):
            ledger.release(1)
        assert ledger.released == 1

    def test_an_old_count_in_a_replay_is_ignored_but_one_to_come_is_not(self) -> None:
        ledger = kept(b"a", b"b", b"c")
        ledger.release(2)
        ledger.release(0, may_be_old=True)
        assert ledger.released == 2
        with pytest.raises(ProtocolError):
            ledger.release(4, may_be_old=True)
        ledger.release(3, may_be_old=True)
        assert ledger.released == 3

    def test_the_round_trip_is_the_least_of_the_newest_acknowledged(self) -> None:
        ledger = SendLedger()
        for at in (1.0, 2.0, 3.0, 3.5):
            ledger.keep(b"", at)
        assert ledger.round_trip is None
        ledger.release(2, 2.5)
        assert ledger.round_trip == 0.5, "of the frame sent at 2"
        ledger.release(3, 5.0)
        assert ledger.round_trip == 0.5, "2 s is no better"
        ledger.release(3, 5.0)
        ledger.release(4, 3.75)
        assert ledger.round_trip == 0.25
        ledger.rewind(4)
        assert ledger.round_trip is None, "another socket, another way"

    def test_a_count_without_a_time_measures_nothing(self) -> None:
        ledger = kept(b"a")
        ledger.release(1)
        assert ledger.round_trip is None


class TestReplay:
    def test_what_was_handed_to_the_present_socket_is_not_replayed(self) -> None:
        ledger = kept(b"a", b"b")
        assert not ledger.has_replay
        assert ledger.replay(1000) == []

    def test_all_that_the_peer_lacks_is_replayed_byte_for_byte_and_in_order(self) -> None:
        frames = [bytes([n]) * n for n in range(10)]
        ledger = kept(*frames)
        ledger.rewind(3)
        assert ledger.has_replay
        assert ledger.replay(1 << 20) == frames[3:]
        assert not ledger.has_replay
        ledger.rewind(3)
        assert ledger.replay(1 << 20) == frames[3:], "again, on every socket, until it is acknowledged"

    def test_a_replay_goes_on_where_the_budget_ended(self) -> None:
        ledger = kept(*[bytes(100)] * 4)
        ledger.rewind(0)
        assert len(ledger.replay(1)) == 1, "at least one"
        assert len(ledger.replay(101)) == 2
        assert ledger.replay(0) == []
        assert len(ledger.replay(1000)) == 1

    def test_an_acknowledgement_during_the_replay_skips_nothing(self) -> None:
        frames = [b"a", b"b", b"c", b"d", b"e"]
        ledger = kept(*frames)
        ledger.rewind(1)
        assert ledger.replay(2) == [b"b", b"c"]
        ledger.release(2)
        assert ledger.replay(1) == [b"d"]
        ledger.release(5)  # the peer may have had them all: its count came late
        assert not ledger.has_replay
        ledger.keep(b"f", 0.0)
        assert not ledger.has_replay

    @pytest.mark.parametrize("count", [0, 4])
    def test_an_impossible_count_of_a_dial_is_refused(self, count: int) -> None:
        ledger = kept(b"a", b"b", b"c")
        ledger.release(1)
        with pytest.raises(ProtocolError):
            ledger.rewind(count)

    def test_against_a_list_of_everything_that_was_ever_sent(self) -> None:
        chance = Random(0)
        for _ in range(300):
            ledger, sent, handed = SendLedger(1 << 20, 1000), [], []  # handed: to the present socket, as numbers
            released = 0
            for number in range(chance.randrange(60)):
                match chance.randrange(4):
                    case 0 if not ledger.has_replay:
                        sent.append(b"%d" % number * chance.randrange(9))
                        handed.append(len(sent) - 1)
                        ledger.keep(sent[-1], 0.0)
                    case 1:
                        released = chance.randint(released, max(released, *(n + 1 for n in handed), 0))
                        ledger.release(released)
                    case 2:
                        released = chance.randint(released, len(sent))
                        ledger.rewind(released)
                        handed = []
                    case _:
                        start = max(released, handed[-1] + 1 if handed else 0)
                        frames = ledger.replay(chance.randrange(30))
                        assert frames == sent[start : start + len(frames)]
                        handed += range(start, start + len(frames))
                assert (ledger.released, ledger.sent) == (released, len(sent))
                assert ledger.bytes == sum(len(frame) + FRAME_COST for frame in sent[released:])
                assert ledger.has_replay == (max([released, *(n + 1 for n in handed)]) < len(sent))


class TestReceiving:
    def test_50_ms_after_the_first_unacknowledged_frame(self) -> None:
        ledger = ReceiveLedger()
        assert (ledger.is_due, ledger.due_at) == (False, None)
        ledger.receive(10, 1.0)
        ledger.receive(10, 1.04)
        assert (ledger.count, ledger.is_due, ledger.due_at) == (2, False, 1.0 + ACK_DELAY)
        ledger.pass_time(1.0 + ACK_DELAY - 0.001)
        assert not ledger.is_due
        ledger.pass_time(1.0 + ACK_DELAY)
        assert (ledger.is_due, ledger.due_at) == (True, None), "due until it leaves, and no timer fires again"
        ledger.receive(10, 2.0)
        assert (ledger.is_due, ledger.due_at) == (True, None)
        assert ledger.state() == 3
        assert (ledger.is_due, ledger.due_at) == (False, None)
        assert ACK_DELAY == 0.05

    def test_at_a_quarter_of_the_peers_frames(self) -> None:
        ledger = ReceiveLedger()
        ledger.expect(1 << 20, 100)
        for number in range(75):
            assert ledger.is_due is (number % 25 == 0 and number > 0)
            if ledger.is_due:
                assert ledger.state() == number
            ledger.receive(0, 0.0)

    def test_at_a_quarter_of_the_peers_bytes(self) -> None:
        ledger = ReceiveLedger()
        ledger.expect(4000, 1000)
        ledger.receive(1000 - 2 * FRAME_COST - 1, 0.0)
        assert not ledger.is_due
        ledger.receive(0, 0.0)
        assert not ledger.is_due
        ledger.receive(0, 0.0)
        assert ledger.is_due
        ledger.state()
        ledger.receive(1000 - FRAME_COST, 0.0)
        assert ledger.is_due

    def test_the_defaults_hold_until_the_peer_has_spoken(self) -> None:
        ledger = ReceiveLedger()
        for _ in range(MAX_UNACKED_FRAMES // 4 - 1):
            ledger.receive(0, 0.0)
        assert not ledger.is_due
        ledger.receive(0, 0.0)
        assert ledger.is_due
