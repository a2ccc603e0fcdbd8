"""Which trace context goes on: what is well-formed, to the byte; nothing else."""

import pytest

from hyperion.policy.trace import select_trace

PARENT = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize(
    "parent",
    [PARENT, PARENT[:-2] + b"00", b"cc" + PARENT[2:], b"cc" + PARENT[2:] + b"-what-the-future-will-be-like"],
)
def test_a_traceparent_goes_on_as_it_came(parent: bytes) -> None:
    assert select_trace({b"traceparent": parent, b"x": b"y"}) == ((b"traceparent", parent),)


@pytest.mark.parametrize(
    "parent",
    [
        b"",
        b"ff" + PARENT[2:],
        PARENT.upper(),
        PARENT + b"-more",
        PARENT + b".",
        PARENT[:-1],
        b" " + PARENT,
        PARENT + b", " + PARENT,
        PARENT.replace(b"0af7651916cd43dd8448eb211c80319c", b"0" * 32),
        PARENT.replace(b"b7ad6b7169203331", b"0" * 16),
        PARENT.replace(b"-", b"_"),
        b"cc" + PARENT[2:] + b"more",
        b"cc" + PARENT[2:] + b"-a\r\nx-evil: 1",
        b"cc" + PARENT[2:] + b"-\xff",
        PARENT + b"\n",
    ],
)
def test_a_traceparent_that_is_none_goes_nowhere_and_takes_its_state_along(parent: bytes) -> None:
    assert select_trace({b"traceparent": parent, b"tracestate": b"a=1"}) == ()


@pytest.mark.parametrize(
    "state",
    [
        b"a=1",
        b"rojo=00f067aa0ba902b7,congo=t61rcWkgMzE",
        b"a=1 , \tfw529a3039@dt=FfUFDDHoI",
        b"a=1,,b=2",
        b"",
        b"0a/b*c-d_e=" + b"~" * 256,
        b",".join([b"k%d=v" % n for n in range(32)]),
    ],
)
def test_a_tracestate_goes_on_as_it_came(state: bytes) -> None:
    assert select_trace({b"traceparent": PARENT, b"tracestate": state})[1:] == ((b"tracestate", state),)


@pytest.mark.parametrize(
    "state",
    [
        b"a",
        b"A=1",
        b"=1",
        b"a=",
        b"a=b=c",
        b"a=\x7f",
        b"a=1\r\nx: y",
        b"a=\xc3\xa4",
        b"a=" + b"x" * 257,
        b"a" * 257 + b"=1",
        b",".join([b"k%d=v" % n for n in range(33)]),
    ],
)
def test_a_tracestate_that_is_none_stays_and_its_traceparent_goes_on(state: bytes) -> None:
    assert select_trace({b"traceparent": PARENT, b"tracestate": state}) == ((b"traceparent", PARENT),)


def test_without_a_traceparent_nothing_goes_on() -> None:
    assert select_trace({b"tracestate": b"a=1"}) == ()
