"""Requests that come when they come, whether those before were answered or not: what a pool and its bill depend on."""

from __future__ import annotations

import random
import select
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.client import BUFFER, LAST_CHUNK, TIMEOUT, Broken, connect, request


@dataclass(slots=True)
class Answer:
    """What the client of one request saw, in seconds from the moment at which its request was due."""

    due: float
    head: float = 0.0
    """Until the first byte."""
    whole: float = 0.0
    """Until the end of the response, which is chunked."""
    lag: float = 0.0
    """Until this client had sent it: its own fault, and within the others."""
    tail: bytes = b""


def poisson(rate: float, seconds: float, seed: int) -> list[float]:
    """Arrivals that know nothing of each other, `rate` a second on average; the same for the same seed."""
    chance, due, at = random.Random(seed), [], 0.0
    while (at := at + chance.expovariate(rate)) < seconds:
        due.append(at)
    return due


def arrive(port: int, target: str, due: Sequence[float]) -> list[Answer]:
    """One request for `target` at each of these seconds from now, on a connection that is idle or new. Returns when all
    were answered. Raises `Broken`."""
    answers: list[Answer] = []
    idle: list[socket.socket] = []
    open_: dict[int, tuple[socket.socket, Answer]] = {}
    to_come = sorted(due, reverse=True)
    message, began = request(target), time.perf_counter()
    with select.epoll() as epoll:
        try:
            while to_come or open_:
                now = time.perf_counter() - began
                while to_come and to_come[-1] <= now:
                    answer = Answer(to_come.pop())
                    connection = idle.pop() if idle else _opened(port, epoll)
                    connection.sendall(message)
                    answer.lag = time.perf_counter() - began - answer.due
                    open_[connection.fileno()] = connection, answer
                ready = epoll.poll(min(TIMEOUT, to_come[-1] - now) if to_come else TIMEOUT)
                if not ready and not to_come:
                    raise Broken(f"{len(open_)} of {len(due)} responses did not end")
                for number, _ in ready:
                    connection, answer = open_[number]
                    if _take(connection, answer, began):
                        del open_[number]
                        idle.append(connection)
                        answers.append(answer)
        finally:
            for connection in [*idle, *(connection for connection, _ in open_.values())]:
                connection.close()
    return answers


def _opened(port: int, epoll: select.epoll) -> socket.socket:
    connection = connect(port)
    epoll.register(connection, select.EPOLLIN)
    return connection


def _take(connection: socket.socket, answer: Answer, began: float) -> bool:
    """Read what is there; whether that was the end."""
    data = connection.recv(BUFFER)
    now = time.perf_counter() - began - answer.due
    if not answer.tail:
        if not data.startswith(b"HTTP/1.1 200"):
            raise Broken(data[:300].decode(errors="replace"))
        answer.head = now
    elif not data:
        raise Broken("a response was cut")
    answer.tail = (answer.tail + data)[-len(LAST_CHUNK) :]
    answer.whole = now
    return answer.tail == LAST_CHUNK
