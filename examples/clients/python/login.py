"""A login by otpd, as JSON over HTTP, with nothing but the standard library."""

import json
import os
import time
import urllib.error
import urllib.request
import uuid
from typing import Any

BASE = f"http://{os.environ['OTPD_ADDRESS']}/otp.v1.OtpService"
TIMEOUT_SECONDS = 5.0
MAX_ATTEMPTS = 5


class Failure(Exception):
    """An error of otpd, taken apart."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(error["message"])
        self.code: str = error["code"]
        # `debug` is each detail in JSON, for clients without protobuf.
        details = {it["type"]: it["debug"] for it in error.get("details", [])}
        self.reason: str = details.get("google.rpc.ErrorInfo", {}).get("reason", "")
        violations = details.get("google.rpc.BadRequest", {}).get("fieldViolations", [])
        self.field: str = violations[0]["field"] if violations else ""
        delay = details.get("google.rpc.RetryInfo", {}).get("retryDelay", "0s")
        self.wait_seconds = float(delay.rstrip("s"))


def call(method: str, **request: Any) -> dict[str, Any]:
    """Makes a call, and repeats it after UNAVAILABLE alone, with the same request id."""
    until = time.monotonic() + TIMEOUT_SECONDS
    body = json.dumps(request).encode()
    for attempt in range(1, MAX_ATTEMPTS + 1):
        left = max(until - time.monotonic(), 0.001)
        headers = {
            "content-type": "application/json",
            "authorization": f"Bearer {os.environ['OTPD_TOKEN']}",
            "connect-timeout-ms": str(int(left * 1_000)),
        }
        message = urllib.request.Request(f"{BASE}/{method}", body, headers)
        try:
            with urllib.request.urlopen(message, timeout=left) as reply:
                return json.load(reply)
        except urllib.error.HTTPError as error:
            failure = Failure(json.load(error))
            if failure.code != "unavailable" or attempt == MAX_ATTEMPTS:
                raise failure from None
            time.sleep(min(max(failure.wait_seconds, 0.2), 2))
    raise AssertionError("the last attempt returns or raises")


def request_id() -> str:
    """An idempotency key: one for each action of a person, kept by its retries."""
    return str(uuid.uuid4())


def refused(recipient: str) -> Failure:
    """The failure of a send that must fail."""
    try:
        call("SendOtp", recipient=recipient, request_id=request_id())
    except Failure as failure:
        return failure
    raise AssertionError("it was sent")


def expect(what: str, found: object, wanted: object) -> None:
    """Compares a result with the one that is expected."""
    if found != wanted:
        raise AssertionError(f"{what}: {found} instead of {wanted}")
    print(f"{what}: {found}")


def main() -> None:
    """Makes the calls of a login."""
    recipient = os.environ["RECIPIENT"]
    sent = call("SendOtp", recipient=recipient, request_id=request_id())
    expect("channel", sent["channel"], "CHANNEL_SMS")

    # The code is a text: a number would lose its leading zeros.
    wrong = call("VerifyOtp", recipient=recipient, code="000000", request_id=request_id())
    expect("wrong code", wrong["outcome"], "VERIFY_OUTCOME_WRONG_CODE")
    expect("verified", wrong["verified"], False)

    failure = refused(recipient)
    expect("second send", failure.reason, "RESEND_TOO_SOON")
    expect("has a wait", failure.wait_seconds > 0, True)

    right = call(
        "VerifyOtp",
        recipient=recipient,
        code=os.environ["CODE"],
        challenge_id=sent["challengeId"],
        request_id=request_id(),
    )
    expect("verified", right["verified"], True)

    failure = refused("nobody")
    expect("invalid recipient", failure.reason, "RECIPIENT_INVALID")
    expect("field", failure.field, "recipient")
    cancelled = call("CancelOtp", recipient=recipient, request_id=request_id())
    expect("cancelled", cancelled["cancelled"], False)


if __name__ == "__main__":
    main()
