"""Which function a request goes to."""

from __future__ import annotations

import pytest

from gateway.routes import HOSTS_KNOWN, Route, RouteFault, Routes


def table_of(*routes: Route) -> Routes[str]:
    """Leads to functions' names."""
    return Routes((route, route.function) for route in routes)


TABLE = table_of(
    Route("site"),
    Route("api", "/api"),
    Route("orders", "/api/orders/"),
    Route("shop", "/", "shop.example.com"),
    Route("cart", "/cart", "shop.example.com"),
    Route("tenants", "/", "*.tenants.example.com"),
    Route("spaced", "/a%20b"),
    Route("local", "/", "localhost"),
)


@pytest.mark.parametrize(
    ("host", "target", "function"),
    [
        ("x.example.com", b"/", "site"),
        ("x.example.com", b"/anything?api", "site"),
        ("x.example.com", b"/api", "api"),
        ("x.example.com", b"/api?x=/orders", "api"),
        ("x.example.com", b"/api/", "api"),
        ("x.example.com", b"/apix", "site"),
        ("x.example.com", b"/API", "site"),
        ("x.example.com", b"/api/orders", "orders"),
        ("x.example.com", b"/api/orders/7?q", "orders"),
        ("x.example.com", b"/api/ordersx", "api"),
        ("x.example.com", b"/%61pi", "site"),
        ("x.example.com", b"/a%20b/c", "spaced"),
        ("x.example.com", b"/\xff", "site"),
        ("shop.example.com", b"/", "shop"),
        ("SHOP.Example.COM:8080", b"/cart/1", "cart"),
        ("shop.example.com.", b"/cart", "cart"),
        ("a.tenants.example.com", b"/x", "tenants"),
        ("a.b.tenants.example.com", b"/x", "site"),
        ("tenants.example.com", b"/x", "site"),
        ("localhost:8080", b"/", "local"),
        ("", b"/api", "api"),
        ("[::1]:8080", b"/api", "api"),
    ],
)
def test_longest_path_on_the_nearest_host_wins(host: str, target: bytes, function: str) -> None:
    assert TABLE.find(host, target) == function


def test_a_host_without_a_matching_path_falls_back_to_routes_of_any_host() -> None:
    table = table_of(Route("cart", "/cart", "shop.example.com"), Route("rest"))
    assert table.find("shop.example.com", b"/other") == "rest"


def test_nothing_matches() -> None:
    table = table_of(Route("api", "/api"), Route("shop", "/", "shop.example.com"))
    assert table.find("example.com", b"/") is None
    assert table_of().find("example.com", b"/") is None


def test_options_for_the_whole_server_belongs_to_the_route_of_the_whole_host() -> None:
    table = table_of(Route("shop", "/", "shop.example.com"), Route("api", "/api"))
    assert table.find("shop.example.com", b"*") == "shop"
    assert table.find("example.com", b"*") is None


@pytest.mark.parametrize(
    "path", ["", "api", "/a b", "/ä", "/a?b", "/a#b", "/_dialback", "/_dialback/v1/connect", "/a\n"]
)
def test_paths_that_cannot_be_served_are_refused(path: str) -> None:
    with pytest.raises(RouteFault):
        Route("f", path)


@pytest.mark.parametrize("host", ["*", "*.", "a.*.com", "*.*.com", "a:80", "http://a", "a/b", "ä.de", "a b"])
def test_hosts_that_cannot_match_are_refused(host: str) -> None:
    with pytest.raises(RouteFault):
        Route("f", "/", host)


def test_a_path_that_only_begins_like_ours_is_free() -> None:
    assert table_of(Route("f", "/_dialbackup")).find("", b"/_dialbackup/x") == "f"


def test_two_routes_for_the_same_requests_are_refused() -> None:
    with pytest.raises(RouteFault, match="two routes have path '/a' and host 'h.de'"):
        table_of(Route("f", "/a", "H.de"), Route("g", "/a/", "h.de"))


def test_ever_new_hosts_find_their_way_and_are_forgotten() -> None:
    for number in range(2 * HOSTS_KNOWN):
        assert TABLE.find(f"h{number}.tenants.example.com", b"/") == "tenants"
        assert TABLE.find(f"h{number}.example.com", b"/api") == "api"
    assert TABLE._paths_of.cache_info().currsize == HOSTS_KNOWN
    assert TABLE.find("shop.example.com", b"/cart") == "cart"
