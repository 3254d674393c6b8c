"""Sources, keys and the reference: what a configuration may say, and what is said of one that is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway import keys
from gateway.config import Config, ConfigError, FunctionConfig
from gateway.keys import Address, Key, Secret
from gateway.routes import Route
from gateway.sources import load
from scripts.reference import reference

ROOT = Path(__file__).resolve().parents[2]
SECRET = "s" * 32
URL = "https://abc.lambda-url.eu-central-1.on.aws/"
MINIMUM = {"function_url": URL}
ALL_KEYS: tuple[Key[object], ...] = (*keys.GATEWAY_KEYS, *keys.FUNCTION_KEYS)


def problems(*, file: Path | None = None, flags: dict[str, str] | None = None, **environ: str) -> list[str]:
    """What is said of a configuration that must not be accepted."""
    with pytest.raises(ConfigError) as caught:
        load(flags=flags, environ=environ, file=file)
    return [str(problem) for problem in caught.value.problems]


def written(folder: Path, text: str) -> Path:
    file = folder / "dialback.toml"
    file.write_text(text, encoding="utf-8")
    return file


def test_one_function_needs_no_file() -> None:
    config = load(flags=MINIMUM, environ={"DIALBACK_SECRET": SECRET})
    (function,) = config.functions.values()
    assert function.url == URL
    assert function.secret.reveal() == SECRET
    assert config.listen == Address("127.0.0.1", 8080)
    assert config.dial_address_at(8080) == "ws://127.0.0.1:8080"
    assert config.route_table().find("any.host", b"/any/path") == Route(function.name)


def test_flags_win_over_variables_over_the_file(tmp_path: Path) -> None:
    file = written(tmp_path, f'function_url = "{URL}"\nlinger = 1\nstop_grace = 1\nsession.grace = 1\n')
    environ = {"DIALBACK_SECRET": SECRET, "DIALBACK_LINGER": "2", "DIALBACK_STOP_GRACE": "2"}
    config = load(flags={"linger": "3"}, environ=environ, file=file)
    assert config.functions["function"].linger == 3
    assert config.stop_grace == 2
    assert config.session.grace == 1


def test_several_functions_with_defaults_of_their_own_and_for_all(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        f"""
        linger = 1
        timeouts.dial_back = 5
        [functions.a]
        url = "{URL}"
        secret = "{"a" * 32}"
        linger = 0
        lease_share = 80
        limits.max_queue = 7
        [functions.b]
        url = "{URL}"
        secret_env = "B_SECRET"
        [functions.b.timeouts]
        queue_wait = 7
        [functions.c]
        url = "{URL}"
        [[routes]]
        path = "/a"
        function = "a"
        [[routes]]
        host = "b.example.com"
        function = "b"
        [[routes]]
        function = "c"
        """,
    )
    environ = {"DIALBACK_SECRET": SECRET, "B_SECRET": "b" * 32, "DIALBACK_LINGER": "2"}
    a, b, c = load(environ=environ, file=file).functions.values()
    assert [function.secret.reveal()[0] for function in (a, b, c)] == ["a", "b", "s"]
    # The function's own value is nearer than any default, wherever the default comes from.
    assert [function.linger for function in (a, b, c)] == [0, 2, 2]
    assert [function.lease_share for function in (a, b, c)] == [80, 50, 50]
    assert [function.limits.max_queue for function in (a, b, c)] == [7, 1000, 1000]
    assert [function.timeouts.dial_back for function in (a, b, c)] == [5, 5, 5]
    assert [function.timeouts.queue_wait for function in (a, b, c)] == [30, 7, 30]


def test_everything_that_is_missing_is_said_at_once_with_the_line_to_add() -> None:
    said = problems(flags={"listen": "0.0.0.0:8080"})
    assert len(said) == 3
    assert 'type: export DIALBACK_SECRET="$(dialback secret)"' in said[0]
    assert "add: --function-url https://YOUR-FUNCTION-URL/" in said[1]
    assert "add: --dial-address wss://gateway.example.com" in said[2]


def test_with_a_file_the_line_to_add_is_one_of_the_file(tmp_path: Path) -> None:
    file = written(tmp_path, 'listen = "[::]:80"')
    said = problems(file=file, DIALBACK_SECRET=SECRET)
    assert f'add at the top of {file}: function_url = "https://YOUR-FUNCTION-URL/"' in said[0]
    assert f'add at the top of {file}: dial_address = "wss://gateway.example.com"' in said[1]


@pytest.mark.parametrize("key", [key for key in ALL_KEYS if key.example])
def test_every_proposed_line_is_accepted(key: Key[object]) -> None:
    key.kind.read(key.example)


@pytest.mark.parametrize(
    ("text", "nearest"),
    [
        ("lingr = 1", "linger"),
        ("timeout.dial_back = 1", "timeouts.dial_back"),
        ("[session]\ngrase = 1", "session.grace"),
        ("[function.a]\nurl = 'x'", "functions"),
        (f"[functions.a]\nurl = '{URL}'\nsecret_enf = 'X'", "secret_env"),
        (f"[functions.a]\nurl = '{URL}'\ntimeouts = {{dial = 3}}", "timeouts.dial_back"),
        ("[[routes]]\nfunctoin = 'a'", "function"),
    ],
)
def test_an_unknown_key_is_an_error_that_names_the_nearest(tmp_path: Path, text: str, nearest: str) -> None:
    said = problems(file=written(tmp_path, text), DIALBACK_SECRET=SECRET)
    assert any(f"did you mean {nearest}?" in line for line in said), said


def test_an_unknown_variable_is_an_error_that_names_the_nearest() -> None:
    (said,) = problems(flags=MINIMUM, DIALBACK_SECRET=SECRET, DIALBACK_LINGR="1")
    assert said == "DIALBACK_LINGR is no variable of the configuration; did you mean DIALBACK_LINGER?"


def test_what_is_near_to_nothing_is_told_without_a_guess() -> None:
    (said,) = problems(flags=MINIMUM, DIALBACK_SECRET=SECRET, DIALBACK_FOO="1")
    assert said == "DIALBACK_FOO is no variable of the configuration; docs/configuration.md has all of them"


def test_all_that_is_wrong_with_routes_is_said_at_once(tmp_path: Path) -> None:
    """Whatever else is: a route to an unknown function was told when its path, and every other route's, was right."""
    text = f"""
        lingr = 1
        [functions.a]
        url = "{URL}"
        [functions.b]
        url = "{URL}"
        [[routes]]
        path = "a"
        function = "a"
        [[routes]]
        path = "c"
        function = "c"
        [[routes]]
        path = "/d"
        function = "d"
        [[routes]]
        path = "/d"
        function = "d"
        """
    said = "\n".join(problems(file=written(tmp_path, text), DIALBACK_SECRET=SECRET))
    for expected in (
        "did you mean linger?",
        "routes[0]: path 'a' must begin with /",
        "routes[1]: path 'c' must begin with /",
        "routes[1] names the function 'c'; the functions are: a, b",
        "a route for /d names the function 'd'",
        "two routes have path '/d'",
        "no route leads to: b",
    ):
        assert said.count(expected) == 1, said
    assert "no route leads to: a" not in said, "one does, once its path is right"


def test_variables_of_others_are_let_be() -> None:
    environ = {
        "DIALBACK_SECRET": SECRET,
        "DIALBACK_CONFIG": "x",
        "DIALBACK_GATEWAY": "ws://localhost",
        "DIALBACK_ONLY": "1",
        "DIALBACK_ALLOW_INSECURE": "1",
        # Kubernetes sets these beside a Service that is called dialback.
        "DIALBACK_SERVICE_HOST": "10.0.0.1",
        "DIALBACK_SERVICE_PORT_HTTP": "80",
        "DIALBACK_PORT": "tcp://10.0.0.1:80",
        "DIALBACK_PORT_80_TCP_ADDR": "10.0.0.1",
        "DIALBACK_ADMIN_SERVICE_HOST": "10.0.0.2",
    }
    load(flags=MINIMUM, environ=environ)


def test_a_secret_may_come_from_a_variable_of_any_name(tmp_path: Path) -> None:
    file = written(tmp_path, f'[functions.a]\nurl = "{URL}"\nsecret_env = "DIALBACK_SHOP"\n')
    assert load(file=file, environ={"DIALBACK_SHOP": SECRET}).functions["a"].secret == Secret(SECRET)
    (said,) = problems(file=file)
    assert 'type: export DIALBACK_SHOP="$(dialback secret)"' in said


def test_an_empty_variable_is_not_set() -> None:
    assert only_function({"DIALBACK_LEASE_SHARE": ""}).lease_share == 50


def test_one_place_does_not_linger_unless_it_is_told_to() -> None:
    function, told, never = (
        only_function({}),
        only_function({"DIALBACK_LINGER": "2"}),
        only_function({"DIALBACK_LINGER": "0"}),
    )
    assert (function.lingers(1), function.lingers(2)) == (0.0, 0.1)
    assert (told.lingers(1), told.lingers(2)) == (2.0, 2.0)
    assert (never.lingers(1), never.lingers(2)) == (0.0, 0.0)


def only_function(variables: dict[str, str]) -> FunctionConfig:
    return load(flags=MINIMUM, environ={"DIALBACK_SECRET": SECRET, **variables}).functions["function"]


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("listen", "8080", "HOST:PORT, for example 127.0.0.1:8080"),
        ("listen", ":8080", "HOST:PORT"),
        ("listen", "::1:8080", "[::1]:8080"),
        ("listen", "localhost:99999", "0 to 65535"),
        ("listen", "localhost:http", "0 to 65535"),
        ("admin", "none", "HOST:PORT"),
        ("dial_address", "https://gateway.example.com", "ws:// or wss://"),
        ("dial_address", "wss://gateway.example.com/x", "no path"),
        ("dial_address", "wss://user@gateway.example.com", "no user"),
        ("dial_address", "wss://", "name a host"),
        ("function_url", "abc.lambda-url.on.aws", "https:// or http://"),
        ("function_url", "https://a b/", "ASCII, without spaces"),
        ("function_url", "https://a:b/", "not a URL"),
        ("function_url", "https://a/?x", "no user, query or fragment"),
        ("linger", "-1", "from 0 to 900"),
        ("linger", "nan", "from 0 to 900"),
        ("linger", "soon", "a number"),
        ("body.window", "1.5", "a whole number"),
        ("body.window", "1", "from 16384 to 4194304"),
        ("log.level", "verbose", "debug, info, warning, error"),
        ("limits.max_invocations", "0", "from 1 to 10000"),
        ("lease_share", "0", "from 1 to 100"),
    ],
)
def test_a_wrong_value_is_refused_with_what_would_be_right(key: str, value: str, said: str) -> None:
    name = next(known for known in ALL_KEYS if known.name == key)
    for source in ({"flags": {**MINIMUM, key: value}}, {"flags": MINIMUM, name.variable: value}):
        if key == "function_url" and name.variable in source:
            source["flags"] = {}
        (problem,) = problems(**source, DIALBACK_SECRET=SECRET)  # type: ignore[arg-type]
        assert problem.startswith(name.variable if name.variable in source else name.flag)
        assert said in problem


@pytest.mark.parametrize(
    "text", ["linger = true", 'linger = "1"', "listen = 8080", "body.window = 1e5", "tls.cert = 1"]
)
def test_a_value_of_the_wrong_type_is_refused(tmp_path: Path, text: str) -> None:
    said = problems(file=written(tmp_path, text), flags=MINIMUM, DIALBACK_SECRET=SECRET)
    assert text.partition(" ")[0] in said[0]
    assert "must be" in said[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("listen = ", "is not TOML"),
        ("functions = 3", "functions must be tables"),
        ("routes = 3", "routes must be tables"),
        (f"function_url = '{URL}'\n[functions.a]\nurl = '{URL}'", "both given"),
        (f"[functions.'a b']\nurl = '{URL}'", "letters, digits"),
        ("[functions.a]", "has no url"),
        (f"[functions.a]\nurl = '{URL}'\nsecret = '{SECRET}'\nsecret_env = 'X'", "keep one"),
        (f"[functions.a]\nurl = '{URL}'\n[[routes]]\nfunction = 'b'", "the functions are: a"),
        (f"[functions.a]\nurl = '{URL}'\n[functions.b]\nurl = '{URL}'", "no route leads to: b"),
        (f"[functions.a]\nurl = '{URL}'\n[[routes]]\npath = '/_dialback'\nfunction = 'a'", "belongs to the gateway"),
        (f"[functions.a]\nurl = '{URL}'\n[[routes]]\npath = '/x'", "routes[0].function is missing"),
        (f"function_url = '{URL}'\ntls.cert = 'a.pem'", 'tls.key = "key.pem"'),
        (f"function_url = '{URL}'\ntls.cert = 'a.pem'\ntls.key = 'b.pem'", "cannot be used"),
        (f"function_url = '{URL}'\ntls.client_ca = 'a.pem'", 'tls.cert = "cert.pem"'),
        (f"function_url = '{URL}'\ninvoke.cert = 'a.pem'", 'invoke.key = "gateway-key.pem"'),
        (f"function_url = '{URL}'\ninvoke.key = 'a.pem'", 'invoke.cert = "gateway.pem"'),
        (f"function_url = '{URL}'\ninvoke.ca = 'a.pem'", "a.pem cannot be used"),
        (f"[functions.a]\nurl = '{URL}'\ninvoke = {{ca = 'a.pem'}}", "a.pem cannot be used"),
        (f"function_url = '{URL}'\nlisten = '127.0.0.1:80'\nadmin = '127.0.0.1:80'", "an address of their own"),
    ],
)
def test_parts_that_do_not_fit_together_are_refused(tmp_path: Path, text: str, said: str) -> None:
    found = problems(file=written(tmp_path, text), DIALBACK_SECRET=SECRET)
    assert any(said in line for line in found), found


def test_a_missing_file_is_one_problem(tmp_path: Path) -> None:
    assert problems(file=tmp_path / "none.toml") == [f"{tmp_path}/none.toml cannot be read: No such file or directory"]
    (tmp_path / "latin.toml").write_bytes(b'listen = "\xe4"')
    assert "is not UTF-8" in problems(file=tmp_path / "latin.toml")[0]


def test_a_short_secret_is_refused_and_never_repeated() -> None:
    for secret in ("hush-hush", f"{SECRET},hush-hush"):
        (said,) = problems(flags=MINIMUM, DIALBACK_SECRET=secret)
        assert "32 bytes or more" in said
        assert "hush" not in said


def test_a_secret_is_in_no_printed_form() -> None:
    config = load(flags=MINIMUM, environ={"DIALBACK_SECRET": f"{SECRET}, {'t' * 32}"})
    assert SECRET not in f"{config!r}{config}{config.functions!r}{config.functions['function'].secret}"
    assert config.functions["function"].secret.reveal() == f"{SECRET},{'t' * 32}"


def test_paths_in_a_file_start_at_the_file(tmp_path: Path) -> None:
    said = problems(
        file=written(tmp_path, "tls.cert = 'c.pem'\ntls.key = 'k.pem'"), flags=MINIMUM, DIALBACK_SECRET=SECRET
    )
    assert f"tls.cert = {tmp_path}/c.pem" in said[0]


def test_dial_address_follows_listen_only_on_loopback() -> None:
    functions = {"f": FunctionConfig(name="f", url=URL, secret=Secret(SECRET))}
    for host, shown in (("localhost", "localhost"), ("127.1.2.3", "127.1.2.3"), ("::1", "[::1]")):
        assert Config(functions=functions, listen=Address(host, 0)).dial_address_at(99) == f"ws://{shown}:99"
    for host in ("0.0.0.0", "::", "10.0.0.1", "gateway.example.com"):
        with pytest.raises(ConfigError, match="dial-address"):
            Config(functions=functions, listen=Address(host, 8080))
        config = Config(functions=functions, listen=Address(host, 8080), dial_address="ws://inside:1")
        assert config.dial_address_at(99) == "ws://inside:1"
        assert "DIALBACK_ALLOW_INSECURE" in config.notes()[0]


def test_an_invocation_that_others_can_read_is_worth_a_note() -> None:
    said = {}
    for url in ("http://10.0.0.1/", "http://127.0.0.1:9000/", URL):
        said[url] = load(flags={"function_url": url}, environ={"DIALBACK_SECRET": SECRET}).notes()
    assert [len(notes) for notes in said.values()] == [1, 0, 0]
    assert "unencrypted" in said["http://10.0.0.1/"][0]


def test_a_config_checks_itself_however_it_is_built() -> None:
    functions = {"f": FunctionConfig(name="f", url=URL, secret=Secret(SECRET))}
    with pytest.raises(ConfigError, match="no function"):
        Config(functions={})
    with pytest.raises(ConfigError, match="'g'"):
        Config(functions=functions, routes=(Route("g"), Route("f", "/f")))
    with pytest.raises(ConfigError, match="two routes"):
        Config(functions=functions, routes=(Route("f"), Route("f")))


@pytest.mark.parametrize("key", ALL_KEYS)
def test_every_default_is_a_value_that_the_key_takes(key: Key[object]) -> None:
    assert key.default is None or key.kind.read(str(key.default)) == key.default
    assert key.default is not None or key.default_text
    assert key.text.endswith(".") and key.text.count(". ") == 0, "one sentence"


def test_no_two_keys_share_a_flag_or_a_variable() -> None:
    for names in ([key.flag for key in ALL_KEYS], [key.variable for key in ALL_KEYS]):
        assert len(set(names)) == len(names)


def test_the_reference_is_what_the_program_reads() -> None:
    document = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert document == reference(), "type: python -m scripts.reference > docs/configuration.md"


def test_the_files_in_the_reference_are_accepted(tmp_path: Path) -> None:
    example = reference().partition("```toml\n")[2].partition("```")[0]
    config = load(file=written(tmp_path, example), environ={"SHOP_SECRET": SECRET, "REPORTS_SECRET": SECRET})
    assert config.route_table().find("", b"/reports/1") == Route("reports", "/reports")
    assert config.functions["reports"].limits.max_invocations == 5


def test_the_keys_of_websockets_are_limits_of_the_http_side(tmp_path: Path) -> None:
    table = "[websocket]\nmax_message = 1000\nping_interval = 0\nping_timeout = 2\nclose_timeout = 3\n"
    (file := tmp_path / "x.toml").write_text(f'function_url = "http://127.0.0.1:1/"\n{table}')
    config = load(file=file, environ={"DIALBACK_SECRET": "x" * 32})
    limits = config.websocket.added_to(config.client.limits())
    assert (limits.websocket_message, limits.websocket_ping_interval) == (1000, 0)
    assert (limits.websocket_ping_timeout, limits.websocket_close) == (2, 3)
    assert limits.keep_alive == config.client.keep_alive
