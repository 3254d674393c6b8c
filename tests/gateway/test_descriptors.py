"""How many clients fit into the open-file limit, and what a gateway says when they are fewer than it should have."""

from __future__ import annotations

import resource

import pytest
from structlog.testing import capture_logs

from gateway import server
from gateway.descriptors import RESERVE, open_files, room_for_clients
from tests.gateway.environment_fake import FunctionUrl
from tests.gateway.whole_gateway import gateway_for


@pytest.mark.parametrize(
    ("wanted", "invocations", "limit", "room"),
    [
        (100, 10, None, 100),
        (100, 10, 100 + RESERVE + 20, 100),
        (100, 10, 99 + RESERVE + 20, 99),
        (100, 10, 1, 1),
    ],
)
def test_room(wanted: int, invocations: int, limit: int | None, room: int) -> None:
    assert room_for_clients(wanted, invocations, limit) == room


def test_the_soft_limit_is_raised_as_far_as_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = (256, 4096)

    def setrlimit(which: int, new: tuple[int, int]) -> None:
        nonlocal limits
        limits = new

    monkeypatch.setattr(resource, "getrlimit", lambda which: limits)
    monkeypatch.setattr(resource, "setrlimit", setrlimit)
    assert (open_files(100), limits) == (256, (256, 4096))
    assert (open_files(1000), limits) == (1000, (1000, 4096))
    assert (open_files(9000), limits) == (4096, (4096, 4096))


def test_a_limit_that_can_not_be_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(which: int, new: tuple[int, int]) -> None:
        raise OSError

    monkeypatch.setattr(resource, "getrlimit", lambda which: (256, resource.RLIM_INFINITY))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    assert open_files(1000) == 256


@pytest.mark.parametrize(("limit", "said"), [(1024, 1), (None, 0)])
async def test_a_low_limit_is_told_at_the_start(limit: int | None, said: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "open_files", lambda wanted: limit)
    with capture_logs() as lines:
        async with FunctionUrl().serving() as url, gateway_for(url) as gateway:
            assert gateway._ingress.limits.max_connections == (10_000 if limit is None else 1024 - RESERVE - 200)
    warnings = [line for line in lines if line["log_level"] == "warning"]
    assert len(warnings) == said
    assert all(line["limit"] == 1024 and line["connections"] == 1024 - RESERVE - 200 for line in warnings)


async def test_a_gateway_does_not_start_with_the_parser_in_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("aiohttp.http_parser.HttpRequestParserC")
    with pytest.raises(RuntimeError, match="C parser"):
        async with FunctionUrl().serving() as url, gateway_for(url):
            raise AssertionError("it started")
