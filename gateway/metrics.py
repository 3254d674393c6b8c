"""What Prometheus may ask (text exposition format 0.0.4): counted where it happens, or read from the pools when asked.

Knows ended exchanges and the pools' numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway.breaker import Circuit
from gateway.exchange import Exchange
from gateway.open_websockets import OpenWebSockets
from gateway.pool import Pool

#: Seconds; from a link on the same machine to a cold start.
FIRST_BYTE_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics(Collector):
    """One gateway's; begins and ends with it."""

    def __init__(self, pools: Mapping[str, Pool], websockets: OpenWebSockets) -> None:
        """`websockets`: the clients'."""
        self._pools = pools
        self._websockets = websockets
        self._registry = CollectorRegistry()
        self._registry.register(self)
        labels = ("function", "state")
        self._exchanges = Counter("dialback_exchanges", "Ended requests.", labels, registry=self._registry)
        self._received = Counter("dialback_request_bytes", "Request bodies.", ("function",), registry=self._registry)
        text = "Response bodies, as clients got them."
        self._sent = Counter("dialback_response_bytes", text, ("function",), registry=self._registry)
        self._dials = Counter(
            "dialback_dials",
            "Dials of functions: first ones, those that resumed a session, and the refused by their reason.",
            ("outcome",),
            registry=self._registry,
        )
        self._first_byte = Histogram(
            "dialback_first_byte_seconds",
            "From a request's head to its response's.",
            ("function",),
            buckets=FIRST_BYTE_BUCKETS,
            registry=self._registry,
        )

        self._counters: dict[str, tuple[Counter, Counter, Histogram]] = {}  # looked up once for each function
        self._ends: dict[tuple[str, str], Counter] = {}

    def ended(self, exchange: Exchange) -> None:
        """Count an exchange that has ended. Those without a route have the function ""."""
        name = exchange.function
        counters = self._counters.get(name)
        if counters is None:
            by_name = (self._received.labels(name), self._sent.labels(name), self._first_byte.labels(name))
            counters = self._counters[name] = by_name
        received, sent, first_byte = counters
        key = name, exchange.state
        ends = self._ends.get(key)
        if ends is None:
            ends = self._ends[key] = self._exchanges.labels(*key)
        ends.inc()
        received.inc(exchange.bytes_in)
        sent.inc(exchange.bytes_out - exchange.bytes_saved)
        if exchange.head_at is not None:
            first_byte.observe(exchange.head_at - exchange.began)

    def dialled(self, outcome: str) -> None:
        """Count a dial: `first`, `resumed`, or the reason of its refusal."""
        self._dials.labels(outcome).inc()

    def collect(self) -> Iterator[Metric]:
        """Read the pools; prometheus_client calls it."""
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

    def describe(self) -> Iterable[Metric]:
        """Nothing is known before it is asked for."""
        return ()

    def exposition(self) -> bytes:
        """The whole text."""
        return generate_latest(self._registry)

    @staticmethod
    def _seconds(name: str, text: str) -> CounterMetricFamily:
        return CounterMetricFamily(f"dialback_{name}_seconds", text, labels=("function",))

    @staticmethod
    def _gauge(name: str, text: str) -> GaugeMetricFamily:
        return GaugeMetricFamily(name, text, labels=("function",))
