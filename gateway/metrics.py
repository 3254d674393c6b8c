"""What Prometheus may ask (text exposition format 0.0.4): counted where it happens, or read from the pools when asked.

Knows ended exchanges and the pools' numbers. Counts in plain numbers, since all happens in one thread:
prometheus_client's own counters, which lock, cost a request seven times as much.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from itertools import accumulate

from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway.breaker import Circuit
from gateway.exchange import Exchange
from gateway.open_websockets import OpenWebSockets
from gateway.pool import Pool

#: Seconds; from a link on the same machine to a cold start.
FIRST_BYTE_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
BUCKET_NAMES = (*map(str, FIRST_BYTE_BUCKETS), "+Inf")


class Tally:
    """What one function's ended exchanges come to."""

    __slots__ = ("by_state", "first_bytes", "received", "sent", "waited")

    def __init__(self) -> None:
        self.by_state: defaultdict[str, int] = defaultdict(int)
        self.received = 0  # bytes
        self.sent = 0  # bytes
        self.waited = 0.0  # seconds, until responses began
        self.first_bytes = [0] * len(BUCKET_NAMES)  # responses, each in the one bucket of its wait


class Metrics(Collector):
    """One gateway's; begins and ends with it."""

    def __init__(self, pools: Mapping[str, Pool], websockets: OpenWebSockets) -> None:
        """`websockets`: the clients'."""
        self._pools = pools
        self._websockets = websockets
        self._began = time.time()
        self._tallies: defaultdict[str, Tally] = defaultdict(Tally)  # by function
        self._dials: defaultdict[str, int] = defaultdict(int)  # by outcome

    def ended(self, exchange: Exchange) -> None:
        """Count an exchange that has ended. Those without a route have the function ""."""
        tally = self._tallies[exchange.function]
        tally.by_state[exchange.state] += 1
        tally.received += exchange.bytes_in
        tally.sent += exchange.bytes_out - exchange.bytes_saved
        if exchange.head_at is not None:
            wait = exchange.head_at - exchange.began
            tally.waited += wait
            tally.first_bytes[bisect_left(FIRST_BYTE_BUCKETS, wait)] += 1

    def dialled(self, outcome: str) -> None:
        """Count a dial: `first`, `resumed`, or the reason of its refusal."""
        self._dials[outcome] += 1

    def collect(self) -> Iterator[Metric]:
        """All that is known; prometheus_client calls it."""
        yield from self._of_pools()
        yield from self._counted()

    def exposition(self) -> bytes:
        """The whole text."""
        return generate_latest(self)

    # inside

    def _of_pools(self) -> Iterator[Metric]:
        invocations = counter("invocations", "Ended invocations.", "outcome")
        running = gauge("running_invocations", "Invocations that were not answered yet.")
        leased = gauge("leased_links", "Environments that are awake.")
        streams = gauge("open_streams", "Streams that are open.")
        websockets = gauge("open_websockets", "Clients' WebSockets whose connection is open.")
        waiting = gauge("waiting_requests", "Requests that wait for a place.")
        text = "Retries that a request was granted, or its function's budget denied."
        retries = counter("retries", text, "verdict")
        circuit = gauge("circuit", "1 for the state that the circuit breaker is in.", "state")
        openings = counter("circuit_openings", "How often the circuit breaker has opened.")
        bound = gauge("affinity_values", "Values that are bound to an environment.")
        affinity = counter(
            "affinity",
            "Values that were bound (new), lost with their environment or evicted; requests that were kept to theirs.",
            "outcome",
        )
        opened = counter("streams", "Streams that were opened.")
        text = "Of ended invocations, as the function measured it, or else the gateway."
        billed = counter("billed_seconds", text)
        leased_for = counter("leased_seconds", "In which environments were awake for streams.")
        text = "In which they had no stream: what lingering and pre-warming cost."
        idle = counter("idle_seconds", text)
        for name, pool in self._pools.items():
            bill = pool.settle()
            opened.add_metric((name,), bill.streams)
            billed.add_metric((name,), bill.billed)
            leased_for.add_metric((name,), bill.leased)
            idle.add_metric((name,), bill.idle)
            starts, breaker = pool.starts, pool.starts.breaker
            for outcome, count in starts.outcomes.items():
                invocations.add_metric((name, outcome.value), count)
            retries.add_metric((name, "granted"), pool.retries.granted)
            retries.add_metric((name, "denied"), pool.retries.denied)
            for state in Circuit:
                circuit.add_metric((name, state.value), state is breaker.circuit)
            openings.add_metric((name,), breaker.openings)
            bound.add_metric((name,), len(pool.bonds))
            for what, count in asdict(pool.bonds.counts).items():
                affinity.add_metric((name, what), count)
            running.add_metric((name,), starts.running)
            leased.add_metric((name,), pool.leased_links)
            streams.add_metric((name,), pool.open_streams)
            websockets.add_metric((name,), self._websockets.of(name))
            waiting.add_metric((name,), pool.waiting)
        yield from (invocations, opened, billed, leased_for, idle)
        yield from (retries, circuit, openings, running, leased, streams, websockets, waiting, bound, affinity)

    def _counted(self) -> Iterator[Metric]:
        began = self._began
        ends = counter("exchanges", "Ended requests.", "state")
        received = counter("request_bytes", "Request bodies.")
        sent = counter("response_bytes", "Response bodies, as clients got them.")
        text = "Dials of functions: first ones, those that resumed a session, and the refused by their reason."
        dials = CounterMetricFamily("dialback_dials", text, labels=("outcome",))
        name, text = "dialback_first_byte_seconds", "From a request's head to its response's."
        first_byte = HistogramMetricFamily(name, text, labels=("function",))
        for function, tally in self._tallies.items():
            for state, count in tally.by_state.items():
                ends.add_metric((function, state), count, began)
            received.add_metric((function,), tally.received, began)
            sent.add_metric((function,), tally.sent, began)
            buckets = list(zip(BUCKET_NAMES, accumulate(tally.first_bytes), strict=True))
            first_byte.add_metric((function,), buckets, tally.waited)
            first_byte.add_sample(f"{name}_created", {"function": function}, began)
        for outcome, count in self._dials.items():
            dials.add_metric((outcome,), count, began)
        yield from (ends, received, sent, dials, first_byte)


def counter(name: str, text: str, *labels: str) -> CounterMetricFamily:
    return CounterMetricFamily(f"dialback_{name}", text, labels=("function", *labels))


def gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"dialback_{name}", text, labels=("function", *labels))
