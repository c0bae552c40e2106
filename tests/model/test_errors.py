from __future__ import annotations

import pytest

from gateways import (
    GatewayError,
    IncompleteBody,
    LimitExceeded,
    LocalProtocolError,
    ProtocolError,
    Reject,
    RemoteProtocolError,
)


def test_protocol_error_is_abstract() -> None:
    with pytest.raises(TypeError, match="raise LocalProtocolError or RemoteProtocolError"):
        ProtocolError("whose fault?")


@pytest.mark.parametrize(
    ("error", "status", "family"),
    [
        (LocalProtocolError("ours"), 500, ProtocolError),
        (RemoteProtocolError("theirs"), 400, ProtocolError),
        (LimitExceeded("too much"), 413, RemoteProtocolError),
        (IncompleteBody("too little"), 400, RemoteProtocolError),
        (RemoteProtocolError("no length", status=411), 411, GatewayError),
        (LimitExceeded("too many", status=431), 431, GatewayError),
    ],
)
def test_every_error_carries_the_status_that_answers_it(
    error: ProtocolError, status: int, family: type[Exception]
) -> None:
    assert error.status == status
    assert isinstance(error, family)


def test_reject_carries_an_answer_and_is_no_error_of_the_package() -> None:
    rejection = Reject(401, "who?", [("WWW-Authenticate", "Basic")])
    assert (rejection.status, rejection.detail, rejection.headers) == (401, "who?", [("WWW-Authenticate", "Basic")])
    assert not isinstance(rejection, GatewayError)


def test_reject_needs_no_more_than_a_status() -> None:
    assert (Reject(404).detail, tuple(Reject(404).headers)) == (None, ())


@pytest.mark.parametrize("status", [200, 304, 399, 600, 0])
def test_reject_takes_no_status_that_means_success(status: int) -> None:
    with pytest.raises(ValueError, match="400 to 599"):
        Reject(status)
