"""What Prometheus may ask (text exposition format 0.0.4): counted where it happens, or read from the pools when asked.

Knows ended exchanges and the pools' numbers. Counts in plain numbers, since all happens in one thread:
prometheus_client's own counters, which lock, cost a request seven times as much.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from itertools import accumulate

from prometheus_client import CollectorRegistry, generate_latest
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
        self._registry = CollectorRegistry()
        self._registry.register(self)
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
        yield from self._of_exchanges_and_dials()

    def describe(self) -> Iterable[Metric]:
        """Nothing is known before it is asked for."""
        return ()

    def exposition(self) -> bytes:
        """The whole text."""
        return generate_latest(self._registry)

    # inside

    def _of_pools(self) -> Iterator[Metric]:
        invocations = CounterMetricFamily("dialback_invocations", "Ended invocations.", labels=("function", "outcome"))
        running = self._gauge("dialback_running_invocations", "Invocations that were not answered yet.")
        leased = self._gauge("dialback_leased_links", "Environments that are awake.")
        streams = self._gauge("dialback_open_streams", "Streams that are open.")
        websockets = self._gauge("dialback_open_websockets", "Clients' WebSockets whose connection is open.")
        waiting = self._gauge("dialback_waiting_requests", "Requests that wait for a place.")
        retries = CounterMetricFamily(
            "dialback_retries",
            "Retries that a request was granted, or its function's budget denied.",
            labels=("function", "verdict"),
        )
        circuit = GaugeMetricFamily(
            "dialback_circuit", "1 for the state that the circuit breaker is in.", labels=("function", "state")
        )
        openings = CounterMetricFamily(
            "dialback_circuit_openings", "How often the circuit breaker has opened.", labels=("function",)
        )
        bound = self._gauge("dialback_affinity_values", "Values that are bound to an environment.")
        affinity = CounterMetricFamily(
            "dialback_affinity",
            "Values that were bound (new), lost with their environment or evicted; requests that were kept to theirs.",
            labels=("function", "outcome"),
        )
        streams_opened = CounterMetricFamily("dialback_streams", "Streams that were opened.", labels=("function",))
        billed = self._seconds("billed", "Of ended invocations, as the function measured it, or else the gateway.")
        leased_for = self._seconds("leased", "In which environments were awake for streams; of ended leases.")
        idle = self._seconds("idle", "In which they were, and had no stream: what lingering and pre-warming cost.")
        for name, pool in self._pools.items():
            bill = pool.bill
            streams_opened.add_metric((name,), bill.streams)
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
        yield from (invocations, streams_opened, billed, leased_for, idle)
        yield from (retries, circuit, openings, running, leased, streams, websockets, waiting, bound, affinity)

    def _of_exchanges_and_dials(self) -> Iterator[Metric]:
        of_function, began = ("function",), self._began
        ends = CounterMetricFamily("dialback_exchanges", "Ended requests.", labels=("function", "state"))
        received = CounterMetricFamily("dialback_request_bytes", "Request bodies.", labels=of_function)
        text = "Response bodies, as clients got them."
        sent = CounterMetricFamily("dialback_response_bytes", text, labels=of_function)
        dials = CounterMetricFamily(
            "dialback_dials",
            "Dials of functions: first ones, those that resumed a session, and the refused by their reason.",
            labels=("outcome",),
        )
        name, text = "dialback_first_byte_seconds", "From a request's head to its response's."
        first_byte = HistogramMetricFamily(name, text, labels=of_function)
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

    @staticmethod
    def _seconds(name: str, text: str) -> CounterMetricFamily:
        return CounterMetricFamily(f"dialback_{name}_seconds", text, labels=("function",))

    @staticmethod
    def _gauge(name: str, text: str) -> GaugeMetricFamily:
        return GaugeMetricFamily(name, text, labels=("function",))
