"""`cancel_after` of a route: what ends an ASGI app that ignores its client's leaving."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.e2e.lag import Lag
from tests.e2e.patience import wait_for
from tests.e2e.stack import Stack


def config(url: str) -> str:
    return (
        f'[functions.app]\nurl = "{url}"\n[[routes]]\nfunction = "app"\n'
        '[[routes]]\npath = "/soon"\nfunction = "app"\ncancel_after = 0.5\n'
        '[[routes]]\npath = "/grace"\nfunction = "app"\ncancel_after = 0.5\n'
        'on_disconnect = "grace"\ndisconnect_grace = 0.5\n'
    )


@pytest.fixture
def stubborn(shared_stack: Callable[..., Stack]) -> Stack:
    return shared_stack("stubborn.py:handler", environments=2, config=config)


@pytest.mark.parametrize(
    ("path", "how", "seconds"),
    [("/soon/soon", "cancelled", 0.5), ("/usual", "by itself", 3.0), ("/grace/grace", "cancelled", 0.5)],
)
def test_an_app_that_goes_on_is_cancelled_when_its_route_says(
    stubborn: Stack, lag: Lag, path: str, how: str, seconds: float
) -> None:
    with stubborn.connect() as connection:
        connection.request("GET", path)
        assert connection.head().status == 200
    notes = path.rpartition("/")[2]
    wait_for(lambda: len(stubborn.executions(notes)) == 2)
    (heard, at), (ended, then) = (line.rsplit(" ", 1) for line in stubborn.executions(notes))
    assert (heard, ended) == ("http.disconnect", how)
    assert seconds - 0.1 < float(then) - float(at) < lag.allow(seconds + 0.5)
