"""TLS, tokens and addresses."""

from __future__ import annotations

import hashlib
import inspect
import itertools
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import grpc
import pytest
import trustme

import otpd
from otpd import AsyncClient, Client, RetryPolicy, Tls
from otpd.options import is_loopback, targets

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from support.database import Database
    from support.replica import Replica

PHONE = "+79991234567"
TOKEN = "let-me-in"


class Authority:
    """A certificate authority, with the files of a server and of a client."""

    def __init__(self, directory: Path) -> None:
        authority = trustme.CA()
        self.ca = directory / "ca.crt"
        authority.cert_pem.write_to_path(str(self.ca))
        self.server = self._issue(directory, authority, "otpd", "otpd.internal", "127.0.0.1")
        self.crm = self._issue(directory, authority, "crm", "crm.internal")
        self.other = self._issue(directory, authority, "other", "other.internal")

    def _issue(
        self, directory: Path, authority: trustme.CA, file: str, *names: str
    ) -> tuple[Path, Path]:
        made = authority.issue_cert(*names)
        certificate, key = directory / f"{file}.crt", directory / f"{file}.key"
        certificate.write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))
        made.private_key_pem.write_to_path(str(key))
        return certificate, key

    def environment(self) -> dict[str, str]:
        return {
            "OTPD_TLS__CERTIFICATE": str(self.server[0]),
            "OTPD_TLS__KEY": str(self.server[1]),
            "OTPD_TLS__CLIENT_CA": str(self.ca),
            "OTPD_CALLERS__CRM__CERTIFICATE_NAMES": "crm.internal",
            "OTPD_CALLERS__SHOP__TOKEN_SHA256": hashlib.sha256(TOKEN.encode()).hexdigest(),
        }

    def tls(self, pair: tuple[Path, Path] | None = None, server_name: str | None = None) -> Tls:
        certificate, key = pair or (None, None)
        return Tls(ca=self.ca, certificate=certificate, key=key, server_name=server_name)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def secured(authority: Authority, database: Database, start: Callable[..., Replica]) -> Replica:
    """A server with TLS and two callers."""
    return start(database, authority.environment(), tls=authority.tls(authority.crm))


def test_a_certificate_proves_who_calls(authority: Authority, secured: Replica) -> None:
    with Client(secured.address, tls=authority.tls(authority.crm)) as client:
        client.send(PHONE)
    assert secured.requests("caller=crm", 1) == 1


async def test_a_certificate_proves_who_calls_by_asyncio(
    authority: Authority, secured: Replica
) -> None:
    tls = authority.tls(authority.crm, "otpd.internal")
    async with AsyncClient(secured.address, tls=tls) as client:
        await client.send(PHONE)
    assert secured.requests("caller=crm", 1) == 1


@pytest.mark.parametrize("server_name", [None, "otpd.internal"])
def test_several_addresses_speak_tls(
    authority: Authority, secured: Replica, server_name: str | None
) -> None:
    tls = authority.tls(authority.crm, server_name)
    with Client([secured.address, secured.address], tls=tls) as client:
        client.status(PHONE)


def test_pem_files_may_be_given_by_content(authority: Authority, secured: Replica) -> None:
    tls = Tls(
        ca=authority.ca.read_bytes(),
        certificate=authority.crm[0].read_bytes(),
        key=authority.crm[1].read_bytes(),
    )
    with Client(secured.address, tls=tls) as client:
        client.status(PHONE)


def test_a_token_goes_over_tls(authority: Authority, secured: Replica) -> None:
    with Client(secured.address, tls=authority.tls(), token=TOKEN) as client:
        client.send(PHONE)
    assert secured.requests("caller=shop", 1) == 1


def test_a_certificate_of_nobody_is_told_so(authority: Authority, secured: Replica) -> None:
    with Client(secured.address, tls=authority.tls(authority.other)) as client:
        with pytest.raises(otpd.CallerUnknown):
            client.send(PHONE)


@pytest.mark.parametrize("flaw", ["another authority", "another name", "no TLS"])
def test_a_server_that_is_not_the_right_one_gets_nothing(
    authority: Authority, secured: Replica, tmp_path: Path, flaw: str
) -> None:
    others = tmp_path / "others"
    others.mkdir()
    tls = {
        "another authority": Tls(ca=Authority(others).ca),
        "another name": authority.tls(authority.crm, "other.example"),
        "no TLS": None,
    }[flaw]
    retry = RetryPolicy(max_attempts=1)
    with Client(secured.address, tls=tls, token=TOKEN, retry=retry) as client:
        with pytest.raises(otpd.Unavailable):
            client.send(PHONE)
    assert secured.requests("Request received") == 0


@pytest.mark.parametrize(
    "address",
    [
        "otpd:50051",
        "10.0.0.1:50051",
        ["127.0.0.1:50051", "10.0.0.1:50051"],
        "dns:///otpd:1",
        "dns://10.0.0.1/localhost:1",
        "localhost.example:1",
        "xds:///localhost",
    ],
)
def test_a_token_never_crosses_the_network_in_plain_text(address: str | list[str]) -> None:
    for kind in (Client, AsyncClient):
        with pytest.raises(ValueError, match="unencrypted"):
            kind(address, token=TOKEN)
        kind(address, token=TOKEN, tls=Tls())
        kind(address, token=TOKEN, allow_plaintext_token=True)
        kind(address)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1:50051",
        "[::1]:50051",
        "localhost:50051",
        "unix:/run/otpd.sock",
        "dns:///localhost:50051",
        "dns:localhost:50051",
        ["127.0.0.1:1", "127.0.0.2:2"],
        "ipv4:127.0.0.1:1,127.0.0.2:2",
    ],
)
def test_a_token_may_stay_on_this_machine(address: str | list[str]) -> None:
    Client(address, token=TOKEN)
    assert all(is_loopback(target) for target in targets(address))


async def test_each_attempt_carries_what_the_caller_adds() -> None:
    seen: list[dict[str, str | bytes]] = []

    class Listening(grpc.ServerInterceptor):
        def intercept_service(self, _goes_on: object, details: grpc.HandlerCallDetails) -> None:
            # The server does not have the method, so each call fails after it was received.
            seen.append(dict(details.invocation_metadata))

    server = grpc.server(ThreadPoolExecutor(1), interceptors=[Listening()])
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    turns = itertools.count()

    def added() -> dict[str, str]:
        return {"traceparent": f"turn-{next(turns)}"}

    once = RetryPolicy(max_attempts=1)
    try:
        with Client(address, token=TOKEN, metadata=added, retry=once) as client:
            with pytest.raises(otpd.OtpError):
                client.send(PHONE)
        async with AsyncClient(address, token=TOKEN, metadata=added, retry=once) as other:
            with pytest.raises(otpd.OtpError):
                await other.send(PHONE)
    finally:
        server.stop(None)
    calls = [one for one in seen if "traceparent" in one]
    assert [one["traceparent"] for one in calls] == ["turn-0", "turn-1"]
    assert {one["authorization"] for one in calls} == {f"Bearer {TOKEN}"}


def test_addresses_become_targets() -> None:
    assert targets("otpd:50051") == ("dns:///otpd:50051",)
    assert targets("dns:///otpd:50051") == ("dns:///otpd:50051",)
    assert targets(["10.0.0.1:1", "a:2", "10.0.0.2:1", "[fd00::1]:1", "b:3"]) == (
        "ipv4:10.0.0.1:1,10.0.0.2:1",
        "ipv6:[fd00::1]:1",
        "dns:///a:2",
        "dns:///b:3",
    )
    assert targets(["10.0.0.1:1", "10.0.0.2:1"], one_name=False) == (
        "ipv4:10.0.0.1:1",
        "ipv4:10.0.0.2:1",
    )


@pytest.mark.parametrize("address", ["", "otpd", "10.0.0.1", ":50051", [], [""], "fd00::1:50051"])
def test_what_is_no_address_is_refused(address: str | list[str]) -> None:
    with pytest.raises(ValueError, match="address"):
        Client(address)


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="key"):
        Tls(certificate="crm.crt")
    with pytest.raises(ValueError, match="max_attempts"):
        RetryPolicy(max_attempts=0)
    with pytest.raises(ValueError, match="backoff"):
        RetryPolicy(initial_backoff=-1)


def test_both_clients_take_the_same() -> None:
    for name in ("__init__", "send", "verify", "cancel", "status", "close"):
        signatures = [inspect.signature(getattr(kind, name)) for kind in (Client, AsyncClient)]
        assert signatures[0] == signatures[1], name
