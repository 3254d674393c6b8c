"""Why Dialback is not like uvicorn, where it is not. Each entry must be needed, and each difference must have one."""

from __future__ import annotations

from dataclasses import dataclass

from tests.conformance.cases import Case

#: Response fields that differ everywhere.
EVERYWHERE = {
    "date": "the clock's",
    "server": "uvicorn names itself; the gateway does not say what it is",
    "x-request-id": "the gateway's, the same id as in its log, in the function's log and in problem documents",
    "connection": "the client's connection is the gateway's to keep or close: an app's word on it stays where it is",
    "content-length": "the gateway sends it after the app's other fields; `framing` says whether it is there",
    "transfer-encoding": "likewise",
}


@dataclass(frozen=True)
class Explanation:
    aspects: tuple[str, ...]
    cases: tuple[str, ...]
    """By name; empty: every case."""
    text: str

    def is_of(self, case: Case, aspect: str) -> bool:
        return aspect in self.aspects and (not self.cases or case.name in self.cases)


EXPLANATIONS = (
    Explanation(
        ("scope.server",),
        (),
        "uvicorn gives its socket's address. That would be the gateway's, of which a function knows nothing: it is the "
        "host and port that the client asked for (`test`).",
    ),
    Explanation(
        ("scope.extensions", "trailers", "interim"),
        (),
        "Dialback offers `http.response.trailers`, `http.response.early_hint` (103) and `http.response.pathsend`, and "
        "uvicorn offers none. An app uses them only where the scope has them.",
    ),
    Explanation(
        ("framing", "body", "pieces in time"),
        ("status 205",),
        "A 205 has no content (RFC 9110, section 15.3.6): what the app sends is dropped. uvicorn sends it.",
    ),
    Explanation(
        ("connection", "app"),
        ("a body where there is none",),
        "What is sent with a status that has no content is dropped. To uvicorn it is an error, at which it closes.",
    ),
    Explanation(
        ("connection",),
        ("its own connection: close",),
        "The client's connection is the gateway's, and serves other functions too. An app cannot close it.",
    ),
    Explanation(
        ("connection",),
        ("raises first", "raises with a body half read", "cancels itself", "returns without a response")
        + ("raises after the end", "returns a value after the end"),
        "uvicorn closes the connection of an app that has failed. Here the client has a whole response, and its "
        "connection is not the app's: it is kept.",
    ),
    Explanation(
        ("response",),
        ("returns a value", "a field of text", "a value with a line end", "a name with a space")
        + ("a status of text", "status 600"),
        "uvicorn takes the response for begun before it has looked at the head, and so closes the connection without "
        "an answer. Here nothing has left: it is the same 500 as for any other error before the response.",
    ),
    Explanation(
        ("app",),
        ("a value with a line end", "a name with a space", "a status of text", "status 600"),
        "The app is told with the exception that Python has for it; uvicorn raises what its lookup happens to raise.",
    ),
    Explanation(
        ("headers",),
        ("closed before it is accepted", "a refusal with status and body"),
        "uvicorn puts a Content-Type of its own into a refusal, also into one that the app has written.",
    ),
    Explanation(
        ("close", "app"),
        ("one too large", "text that is no UTF-8", "a close of one byte"),
        "The words of a close's reason are each server's own. After any end that was not the app's, `send` raises an "
        "OSError here, as the specification has it (2.4), and a second close does nothing; uvicorn raises a "
        "RuntimeError where the end was its own.",
    ),
    Explanation(
        ("app",),
        ("the client vanishes", "the client vanishes in a message"),
        "No close frame came, which is 1006 (RFC 6455, section 7.1.5); 1005 would be one without a code.",
    ),
    Explanation(
        ("app",),
        ("receives when the client has closed",),
        "What the app is told of the end is the same each time that it asks.",
    ),
    Explanation(
        ("close",),
        ("raises when it is open", "returns when it is open"),
        "An app that returns has closed with 1000, one that raises with 1011. uvicorn cuts the connection.",
    ),
    Explanation(
        ("app",),
        ("sends a number",),
        "The app is told what a message is; uvicorn raises what its own code happens to.",
    ),
)
