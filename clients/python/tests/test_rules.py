"""Rules that callers rely on, tested on the fake and on the real server."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

import otpd
from otpd import Channel, DeliveryState, Outcome

if TYPE_CHECKING:
    from support.world import World

MINUTE = 60
HOUR = 60 * MINUTE


def wrong(code: str) -> str:
    """Another code of the same length."""
    return f"{(int(code) + 1) % 10 ** len(code):0{len(code)}}"


def test_a_code_verifies_once(world: World) -> None:
    phone = world.strangers.phone()
    sent = world.client.send(phone, purpose="login")
    assert sent.recipient == phone
    assert sent.channel is Channel.SMS
    assert sent.code_length == 6
    assert sent.code is None
    assert not sent.resent
    assert sent.expires_at - sent.resend_at == timedelta(minutes=4)
    (code,) = world.codes(sent)
    result = world.client.verify(phone, code, purpose="login")
    assert result.verified
    assert result
    assert result.outcome is Outcome.VERIFIED
    assert result.challenge_id == sent.challenge_id
    assert result.verified_at is not None
    assert sent.expires_at > result.verified_at
    again = world.client.verify(phone, code, purpose="login")
    assert again.outcome is Outcome.NOT_FOUND
    assert not again
    assert again.verified_at is None


@pytest.mark.parametrize(
    "form", ["8 (999) {}-{}-{}", "+7 999 {} {} {}", "999{}{}{}", " 8\u202f999\u202f{}{}{} "]
)
def test_a_number_is_one_recipient_however_it_is_written(world: World, form: str) -> None:
    phone = world.strangers.phone()
    sent = world.client.send(phone)
    (code,) = world.codes(sent)
    written = form.format(phone[5:8], phone[8:10], phone[10:])
    assert world.client.verify(written, code, region="RU")


def test_an_address_is_one_recipient_however_it_is_written(world: World) -> None:
    sent = world.client.send("Ann@Bücher.example")
    assert sent.recipient == "ann@xn--bcher-kva.example"
    assert sent.channel is Channel.EMAIL
    (code,) = world.codes(sent)
    assert world.client.verify("ANN@xn--bcher-kva.EXAMPLE", f"{code[:3]} - {code[3:]}")


def test_a_code_is_for_its_purpose_alone(world: World) -> None:
    phone = world.strangers.phone()
    (code,) = world.codes(world.client.send(phone, purpose="login"))
    result = world.client.verify(phone, code, purpose="payment")
    assert result.outcome is Outcome.NOT_FOUND
    assert world.client.verify(phone, code, purpose="login")


def test_a_wrong_code_is_a_result(world: World) -> None:
    phone = world.strangers.phone()
    (code,) = world.codes(world.client.send(phone))
    for left in (4, 3, 2, 1):
        result = world.client.verify(phone, wrong(code))
        assert (result.outcome, result.attempts_remaining) == (Outcome.WRONG_CODE, left)
        assert not result
    assert world.client.verify(phone, code)


def test_after_five_wrong_answers_the_next_one_waits(world: World) -> None:
    phone = world.strangers.phone()
    (code,) = world.codes(world.client.send(phone))
    for _ in range(5):
        result = world.client.verify(phone, wrong(code))
    assert result.attempts_remaining == 0
    with pytest.raises(otpd.VerifyDelayed) as refused:
        world.client.verify(phone, code)
    assert refused.value.retry_after == pytest.approx(30, abs=5)
    blocked_until = world.client.status(phone).blocked_until
    assert blocked_until is not None
    world.advance(31)
    assert world.client.verify(phone, code).outcome is Outcome.ATTEMPTS_EXHAUSTED
    assert world.client.status(phone).blocked_until is None


def test_after_a_hundred_wrong_answers_a_recipient_is_shut(world: World) -> None:
    phone = world.strangers.phone()
    for answer in range(100):
        if answer % 5 == 0:
            world.advance(6 * HOUR)
            (code,) = world.codes(world.client.send(phone))
        assert world.client.verify(phone, wrong(code)).outcome is Outcome.WRONG_CODE
    world.advance(24 * HOUR)
    with pytest.raises(otpd.VerifyLocked) as shut:
        world.client.verify(phone, code)
    assert shut.value.retry_after == pytest.approx(29 * 24 * HOUR, abs=5)
    with pytest.raises(otpd.VerifyLocked):
        world.client.send(phone)


def test_sending_again_has_to_wait_and_keeps_the_code(world: World) -> None:
    phone = world.strangers.phone()
    first = world.client.send(phone)
    with pytest.raises(otpd.ResendTooSoon) as soon:
        world.client.send(phone)
    assert isinstance(soon.value, otpd.RateLimited)
    assert soon.value.retry_after == pytest.approx(60, abs=5)
    assert soon.value.metadata["challenge_id"] == first.challenge_id
    expires_at = first.expires_at.isoformat(timespec="milliseconds")
    assert soon.value.metadata["expires_at"] == expires_at.replace("+00:00", "Z")
    world.advance(61)
    second = world.client.send(phone)
    assert second.resent
    assert second.challenge_id == first.challenge_id
    assert second.expires_at == first.expires_at
    one, two = world.codes(second, 2)
    assert one == two
    world.advance(3 * MINUTE)
    # At most a minute of its validity is left: too short to send it again.
    third = world.client.send(phone)
    assert not third.resent
    assert third.challenge_id != first.challenge_id


def test_after_a_success_the_next_code_may_go_out_at_once(world: World) -> None:
    phone = world.strangers.phone()
    (code,) = world.codes(world.client.send(phone))
    assert world.client.verify(phone, code)
    assert not world.client.send(phone).resent


def test_a_code_expires_and_is_forgotten(world: World) -> None:
    phone = world.strangers.phone()
    (code,) = world.codes(world.client.send(phone))
    world.advance(5 * MINUTE)
    assert world.client.verify(phone, code).outcome is Outcome.EXPIRED
    world.advance(1 * HOUR)
    assert world.client.verify(phone, code).outcome is Outcome.NOT_FOUND


def test_sends_are_limited_for_each_recipient(world: World) -> None:
    phone = world.strangers.phone()
    for _ in range(5):
        world.client.send(phone)
        world.advance(61)
    with pytest.raises(otpd.SendLimit) as limited:
        world.client.send(phone)
    assert limited.value.metadata["limit"] == "sends_per_hour"
    # With five an hour, one is available after twelve minutes; five have passed.
    assert limited.value.retry_after == pytest.approx(12 * MINUTE - 5 * 61, abs=10)
    world.client.send(world.strangers.phone())


def test_clients_are_limited_by_their_addresses(world: World) -> None:
    phone = world.strangers.phone()
    for _ in range(60):
        world.client.send(world.strangers.phone(), client_ip="2001:db8::1")
    with pytest.raises(otpd.SendLimit) as limited:
        world.client.send(phone, client_ip="2001:db8::ffff")
    assert limited.value.metadata["limit"] == "ip_sends_per_hour"
    world.client.send(phone, client_ip="2001:db8:0:1::1")
    world.client.send(world.strangers.phone())


def test_wrong_answers_are_limited_by_address(world: World) -> None:
    phone = world.strangers.phone()
    address = world.strangers.address()
    for _ in range(15):
        other = world.strangers.phone()
        (code,) = world.codes(world.client.send(other))
        for _ in range(4):
            world.client.verify(other, wrong(code), client_ip=address)
    (code,) = world.codes(world.client.send(phone))
    with pytest.raises(otpd.VerifyLimit) as limited:
        world.client.verify(phone, code, client_ip=f"::ffff:{address}")
    assert limited.value.metadata["limit"] == "ip_failures_per_hour"
    assert world.client.verify(phone, code, client_ip=world.strangers.address())


def test_a_request_that_is_made_again_gets_its_first_answer_again(world: World) -> None:
    phone = world.strangers.phone()
    sent = world.client.send(phone, request_id="one")
    assert world.client.send(phone, request_id="one") == sent
    (code,) = world.codes(sent)
    verified = world.client.verify(phone, code, request_id="one")
    assert verified
    assert world.client.verify(f"8 {phone[2:]}", code, region="RU", request_id="one") == verified
    with pytest.raises(otpd.InvalidRequest) as reused:
        world.client.verify(phone, wrong(code), request_id="one")
    assert reused.value.reason == "REQUEST_INVALID"
    (violation,) = reused.value.field_violations
    assert violation.field == "request_id"
    world.advance(10 * MINUTE)
    again = world.client.verify(phone, code, request_id="one")
    assert again.outcome is Outcome.NOT_FOUND


def test_each_call_has_a_request_id_of_its_own(world: World) -> None:
    phone = world.strangers.phone()
    first = world.client.send(phone)
    with pytest.raises(otpd.ResendTooSoon) as soon:
        world.client.send(phone)
    assert first.request_id
    assert soon.value.request_id
    assert first.request_id != soon.value.request_id
    assert soon.value.attempts == 1


def test_cancelling_ends_a_code(world: World) -> None:
    phone = world.strangers.phone()
    sent = world.client.send(phone)
    (code,) = world.codes(sent)
    assert world.client.cancel(phone).cancelled
    assert world.client.verify(phone, code).outcome is Outcome.NOT_FOUND
    assert not world.client.cancel(phone).cancelled
    # The cooldown continues, without a live code.
    with pytest.raises(otpd.ResendTooSoon) as soon:
        world.client.send(phone)
    assert soon.value.metadata == {}
    assert not world.client.cancel(world.strangers.phone()).cancelled


def test_a_challenge_alone_finds_its_code(world: World) -> None:
    phone = world.strangers.phone()
    old = world.client.send(phone)
    status = world.client.status(challenge_id=old.challenge_id)
    assert status.live
    assert status.recipient == phone
    world.advance(5 * MINUTE)
    new = world.client.send(phone)
    assert not world.client.status(challenge_id=old.challenge_id).live
    assert not world.client.cancel(challenge_id=old.challenge_id).cancelled
    (code,) = world.codes(new)
    by_old = world.client.verify(phone, code, challenge_id=old.challenge_id)
    assert by_old.outcome is Outcome.NOT_FOUND
    assert world.client.verify(phone, code, challenge_id=new.challenge_id)
    nothing = world.client.status(challenge_id="no-such-challenge")
    assert not nothing.live
    assert nothing.recipient == ""


def test_the_status_tells_what_is_known_and_costs_nothing(world: World) -> None:
    phone = world.strangers.phone()
    before = world.client.status(phone)
    assert not before.live
    assert before.deliveries == ()
    assert before.resend_at is None
    sent = world.client.send(phone)
    (code,) = world.codes(sent)
    world.client.verify(phone, wrong(code))
    for _ in range(10):
        status = world.client.status(f"8 {phone[2:]}", region="RU")
    assert status.live
    assert status.challenge_id == sent.challenge_id
    assert status.recipient == phone
    assert status.expires_at == sent.expires_at
    assert status.resend_at == sent.resend_at
    assert status.attempts_remaining == 4
    (delivery,) = status.deliveries
    assert delivery.channel is Channel.SMS
    assert delivery.state in {DeliveryState.SENT, DeliveryState.SENDING}


@pytest.mark.parametrize(
    "recipient",
    [
        "",
        "   ",
        "12",
        "9991234567",
        "+7 999 123 45 67 ext. 5",
        "+70001234567",
        "nobody",
        "a@b",
        "@example.com",
        "a b@example.com",
        "a..b@example.com",
        "a@exa mple.com",
        "a@example.1",
        "+7999\n1234567",
        "1" * 321,
    ],
)
def test_what_is_no_recipient_is_told(world: World, recipient: str) -> None:
    with pytest.raises(otpd.RecipientInvalid) as invalid:
        world.client.send(recipient)
    assert isinstance(invalid.value, otpd.InvalidRequest)
    (violation,) = invalid.value.field_violations
    assert violation.field == "recipient"
    assert violation.description


@pytest.mark.parametrize("code", ["", "  -", "12345", "1234567", "12345a", "1" * 129, "12\x003456"])
def test_what_is_no_code_costs_no_attempt(world: World, code: str) -> None:
    phone = world.strangers.phone()
    world.client.send(phone)
    with pytest.raises(otpd.CodeMalformed) as malformed:
        world.client.verify(phone, code)
    (violation,) = malformed.value.field_violations
    assert violation.field == "code"
    assert world.client.status(phone).attempts_remaining == 5


def test_code_pasted_with_line_ends_and_invisible_marks_is_read(world: World) -> None:
    phone = world.strangers.phone()
    (code,) = world.codes(world.client.send(phone))
    assert world.client.verify(phone, f"\u200e{code[:3]}\r\n{code[3:]}\ufeff\n").verified


def test_digits_of_every_script_are_read(world: World) -> None:
    phone = world.strangers.phone()
    (code,) = world.codes(world.client.send(phone))
    assert world.client.verify(phone, "".join(chr(0x0660 + int(digit)) for digit in code))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("channel", Channel.EMAIL),
        ("client_ip", "localhost"),
        ("client_ip", "203.0.113.7:80"),
        ("locale", "r"),
        ("locale", "ru_RU"),
        ("region", "RUS"),
        ("region", "ZZ"),
        ("request_id", "with blanks"),
        ("request_id", "x" * 129),
        ("variables", {"name": "Ann"}),
        ("variables", {"Name": "Ann"}),
    ],
)
def test_a_field_that_is_not_as_it_must_be_is_named(
    world: World, field: str, value: str | Channel | dict[str, str]
) -> None:
    phone = world.strangers.phone()
    with pytest.raises(otpd.InvalidRequest) as invalid:
        world.client.send(phone, **{field: value})  # type: ignore[arg-type]
    assert invalid.value.reason == "REQUEST_INVALID"
    assert invalid.value.status == "INVALID_ARGUMENT"
    (violation,) = invalid.value.field_violations
    assert violation.field == field


def test_a_purpose_that_is_none_is_told(world: World) -> None:
    phone = world.strangers.phone()
    with pytest.raises(otpd.InvalidRequest) as invalid:
        world.client.send(phone, purpose="Log in")
    assert invalid.value.reason == "PURPOSE_INVALID"
