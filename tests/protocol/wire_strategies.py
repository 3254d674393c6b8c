"""Frames as hypothesis draws them: every type, every field over its whole range."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from protocol import frames as fr
from protocol.flow import MAX_FIRST_CREDIT

counts = st.integers(0, fr.MAX_OFFSET)
streams = st.integers(1, fr.MAX_STREAM)
texts = st.text(max_size=40)  # without surrogates, which UTF-8 cannot hold
blobs = st.binary(max_size=300)
headers = st.lists(st.tuples(blobs, blobs), max_size=8)


def options(**known: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Some of the known ones, and some that are not."""
    plain = st.one_of(st.none(), st.booleans(), st.integers(-(1 << 63), (1 << 64) - 1), texts, blobs)
    unknown = st.dictionaries(texts.filter(lambda key: key not in known), plain, max_size=2)
    return st.builds(lambda one, two: one | two, st.fixed_dictionaries({}, optional=known), unknown)


welcomes = st.builds(
    fr.Welcome,
    counts,
    counts,
    options(
        grace=counts, ping=counts, credit=counts, unacked=counts, frames=counts, features=st.lists(texts, max_size=3)
    ),
)
requests = st.builds(
    fr.Request,
    streams,
    st.binary(min_size=16, max_size=16),
    blobs,
    blobs,
    headers,
    options(
        end=st.booleans(),
        window=st.integers(0, MAX_FIRST_CREDIT),
        scheme=texts,
        client=st.tuples(texts, counts).map(list),
        version=texts,
        expect=st.booleans(),
        websocket=st.lists(texts, max_size=3),
        max_message=st.integers(1, fr.MAX_OFFSET),
        cancel_after=counts,
    ),
)
statuses = st.one_of(st.just(101), st.integers(200, 599))

frames: st.SearchStrategy[fr.Frame] = st.one_of(
    welcomes,
    requests,
    st.builds(fr.Ack, counts),
    st.builds(fr.Lease, counts, texts, counts, counts, counts, options()),
    st.builds(fr.Leased, counts, options(linger=counts)),
    st.builds(fr.Release, counts),
    st.builds(fr.Park, counts, counts, counts),
    st.builds(fr.Parked, counts, counts),
    st.builds(fr.Response, streams, statuses, headers, options(end=st.booleans(), body=blobs)),
    st.builds(fr.Informational, streams, st.integers(102, 199), headers),
    st.builds(fr.Trailers, streams, headers),
    st.builds(fr.Data, streams, blobs, st.booleans()),
    st.builds(fr.Message, streams, blobs, st.booleans(), st.booleans()),
    st.builds(fr.Close, streams, st.integers(1000, 4999), st.binary(max_size=fr.MAX_CLOSE_REASON)),
    st.builds(fr.Credit, streams, counts),
    st.builds(fr.Reset, streams, counts, options(reason=texts)),
    st.builds(fr.Stop, streams, counts),
)
