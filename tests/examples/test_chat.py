"""The chat's Stop reaches the function: as its page stops it, on three environments, and by the function's own word."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator

import pytest

from tests.e2e.lag import Lag
from tests.e2e.stack import Stack
from tests.e2e.wire import Chunk
from tests.examples.test_examples import EXAMPLES

ENVIRONMENTS = 3
PLACES = 20
CHATS = 2 * (PLACES // 2) + 5
"""Two environments are not enough: beside each chat's place one is kept for the next word on it, up to half of all."""
SOON = 0.1
"""Seconds from the client's leaving to the end of the function's code."""
UNSEEN = 4
"""Tokens, each 40 ms: made while the client was leaving."""


class Chat:
    """One chat whose answer comes. Begins with the constructor, ends with `stop`."""

    def __init__(self, stack: Stack, name: str) -> None:
        self.name = name
        self._connection = stack.connect()
        body = json.dumps({"messages": [{"role": "user", "content": f"I am {name}"}]}).encode()
        self._connection.request("POST", "/chat", f"chat-id: {name}", body=body)
        self.response = self._connection.head()
        assert self.response.value(b"content-type") == b"text/event-stream"
        self.request_id = self.response.values(b"x-request-id")[0].decode()
        self.pieces: Iterator[Chunk] = self._connection.pieces(self.response)

    def take(self, count: int) -> str:
        """The text of so many further tokens."""
        taken = (next(self.pieces).data.decode() for _ in range(count))
        return "".join(token.removeprefix("data: ").removesuffix("\n\n") for token in taken)

    def stop(self) -> None:
        self._connection.socket.close()


@pytest.fixture
def stack(shared_stack: Callable[..., Stack]) -> Stack:
    serve = {"affinity": "header:chat-id"}
    return shared_stack("chat.py:handler", root=EXAMPLES, environments=ENVIRONMENTS, serve=serve)


@pytest.fixture
def ask(stack: Stack) -> Iterator[Callable[[str], Chat]]:
    """`ask("name")`: a chat whose answer comes; none is left open."""
    chats: list[Chat] = []

    def begin(name: str) -> Chat:
        chats.append(Chat(stack, name))
        return chats[-1]

    yield begin
    for chat in chats:
        chat.stop()


def end_of(stack: Stack, chat: Chat) -> tuple[str, str, int]:
    """What the function writes to its log when its code has ended: environment, state, tokens."""
    found = stack.function.line(rf"(\w+) {chat.request_id} {{'state': '(\w+)', 'tokens': (\d+)}}")
    return found[1], found[2], int(found[3])


def word_on(stack: Stack, chat: Chat) -> dict[str, object]:
    found: dict[str, object] = json.loads(stack.get("/chat", f"chat-id: {chat.name}"))
    return found


def test_stopped_chats_end_at_once_in_each_of_three_environments(
    stack: Stack, ask: Callable[[str], Chat], lag: Lag
) -> None:
    chats = [ask(f"crowd {number}") for number in range(CHATS)]
    for chat in chats:
        assert chat.take(5) == "Question 1: “I am crowd "
    assert len(stack.environments) == ENVIRONMENTS
    ends = []
    for chat in chats:
        left_at = time.monotonic()
        chat.stop()
        ends.append(end_of(stack, chat))
        assert time.monotonic() - left_at < lag.allow(SOON)
    assert len({environment for environment, _, _ in ends}) == ENVIRONMENTS
    for chat, (_, state, tokens) in zip(chats, ends, strict=True):
        assert state == "stopped" and word_on(stack, chat) == {"state": state, "tokens": tokens}


def test_a_stopped_answer_makes_no_further_token(stack: Stack, ask: Callable[[str], Chat], lag: Lag) -> None:
    chat = ask("alone")
    chat.take(10)
    assert word_on(stack, chat)["state"] == "answering"
    seen = 10 + UNSEEN + int(lag.worst / 0.04)
    chat.stop()
    _, state, tokens = end_of(stack, chat)
    assert state == "stopped" and 10 <= tokens <= seen
    for _ in range(5):
        assert word_on(stack, chat) == {"state": "stopped", "tokens": tokens}
        time.sleep(0.1)


def test_an_answer_that_is_let_come_is_whole(stack: Stack, ask: Callable[[str], Chat]) -> None:
    chat = ask("patient")
    for _ in chat.pieces:
        pass
    _, state, tokens = end_of(stack, chat)
    assert state == "ended" and tokens == len(chat.response.chunks)
    assert chat.response.body.endswith(b"data: word \n\ndata: by \n\ndata: word. \n\n")


def test_the_page_comes_with_the_function(stack: Stack) -> None:
    assert stack.get("/") == (EXAMPLES / "chat.html").read_bytes()


def test_an_unknown_chat_is_said_to_be_unknown(stack: Stack) -> None:
    assert json.loads(stack.get("/chat", "chat-id: nobody")) == {"state": "unknown", "tokens": 0}


def test_a_request_without_messages_is_an_error(stack: Stack) -> None:
    with stack.connect() as connection:
        connection.request("POST", "/chat", body=b"{}")
        assert connection.response().status == 502
