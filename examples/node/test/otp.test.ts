import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { after, before, describe, test } from "node:test";

import { status } from "@grpc/grpc-js";

import { Otp, OtpError } from "../src/otp";
import { Otpd, Proxy } from "./server";

const TIMEOUT = 60_000;
let number = 0;

/** A recipient of no other test, because all tests share one server. */
function stranger(): string {
  number += 1;
  return `+7999${String(number).padStart(7, "0")}`;
}

/** Error of a call that must fail. */
async function failure(call: Promise<unknown>): Promise<OtpError> {
  const error = await call.then(
    () => assert.fail("it did not fail"),
    (reason: unknown) => reason,
  );
  assert(error instanceof OtpError);
  return error;
}

describe("a client of otpd", () => {
  let otpd: Otpd;
  let otp: Otp;

  before(async () => {
    otpd = await Otpd.start();
    otp = new Otp({ address: otpd.address, timeout: TIMEOUT });
  });
  after(async () => {
    otp.close();
    await otpd.stop();
  });

  test("has a code verified once, however the number is written", async () => {
    const recipient = stranger();
    const sent = await otp.send({ recipient: `8 ${recipient.slice(2)}`, region: "RU" });
    assert.equal(sent.recipient, recipient);
    assert.equal(sent.channel, "CHANNEL_SMS");
    const code = await otpd.code(sent.challengeId);
    const verdict = await otp.verify({ recipient, code });
    assert.equal(verdict.verified, true);
    assert.equal(verdict.outcome, "VERIFY_OUTCOME_VERIFIED");
    const again = await otp.verify({ recipient, code });
    assert.equal(again.outcome, "VERIFY_OUTCOME_NOT_FOUND");
  });

  test("takes a wrong code as a reply", async () => {
    const recipient = stranger();
    const { challengeId } = await otp.send({ recipient });
    const code = await otpd.code(challengeId);
    const wrong = String((Number(code) + 1) % 1_000_000).padStart(6, "0");
    const verdict = await otp.verify({ recipient, code: wrong });
    assert.equal(verdict.verified, false);
    assert.equal(verdict.outcome, "VERIFY_OUTCOME_WRONG_CODE");
    assert.equal(verdict.attemptsRemaining, 4);
  });

  test("is told how long to wait", async () => {
    const recipient = stranger();
    const { challengeId } = await otp.send({ recipient });
    const error = await failure(otp.send({ recipient }));
    assert.equal(error.status, status.RESOURCE_EXHAUSTED);
    assert.equal(error.reason, "RESEND_TOO_SOON");
    assert.equal(error.metadata.challenge_id, challengeId);
    assert(error.retryAfter !== undefined && error.retryAfter > 50_000);
    assert(error.retryAfter <= 60_000);
    assert.equal(error.inDoubt, false);
  });

  test("is told which field is at fault", async () => {
    const error = await failure(otp.send({ recipient: "nobody" }));
    assert.equal(error.status, status.INVALID_ARGUMENT);
    assert.equal(error.reason, "RECIPIENT_INVALID");
    assert.deepEqual(
      error.fieldViolations.map(({ field }) => field),
      ["recipient"],
    );
  });

  test("gets the first answer again for a request id", async () => {
    const recipient = stranger();
    const requestId = "one";
    const first = await otp.send({ recipient, requestId });
    assert.deepEqual(await otp.send({ recipient, requestId }), first);
    const error = await failure(otp.send({ recipient, requestId, locale: "ru" }));
    assert.equal(error.reason, "REQUEST_INVALID");
    assert.equal(error.requestId, requestId);
  });

  test("asks again for a reply that was lost, and sends one message", async () => {
    const recipient = stranger();
    const proxy = await Proxy.start(otpd.address);
    const far = new Otp({ address: proxy.address, timeout: TIMEOUT });
    await far.verify({ recipient, code: "123456" });
    proxy.holdReplies();
    const sending = far.send({ recipient });
    const masked = `${recipient.slice(0, 5)}\\*\\*\\*${recipient.slice(-4)}`;
    await otpd.line(new RegExp(`OTP queued recipient=\\${masked}`));
    proxy.cut();
    const sent = await sending;
    assert.equal(sent.resent, false);
    await otpd.code(sent.challengeId);
    assert.equal(otpd.count(`challenge_id=${sent.challengeId} recipient=`), 1);
    far.close();
    proxy.close();
  });

  test("does not wait beyond its deadline", async () => {
    const recipient = stranger();
    const proxy = await Proxy.start(otpd.address);
    const far = new Otp({ address: proxy.address, timeout: 500 });
    await far.verify({ recipient, code: "123456" });
    proxy.holdReplies();
    const error = await failure(far.send({ recipient }));
    assert.equal(error.status, status.DEADLINE_EXCEEDED);
    assert.equal(error.inDoubt, true);
    // The request was executed: a repetition with its id returns the recorded outcome.
    const sent = await otp.send({ recipient, requestId: error.requestId });
    assert.equal(sent.resent, false);
    far.close();
    proxy.close();
  });

  test("outlives the replica", async () => {
    const recipient = stranger();
    const { challengeId } = await otp.send({ recipient });
    const code = await otpd.code(challengeId);
    await otpd.kill();
    const verifying = otp.verify({ recipient, code });
    await otpd.startAgain();
    assert.equal((await verifying).verified, true);
  });
});

test("a token proves who calls, and stays on this machine", async () => {
  const token = "let-me-in";
  const digest = createHash("sha256").update(token).digest("hex");
  const otpd = await Otpd.start({ OTPD_CALLERS__CRM__TOKEN_SHA256: digest });
  const known = new Otp({ address: otpd.address, token });
  const stranger_ = new Otp({ address: otpd.address, token: "somebody's" });
  await known.send({ recipient: stranger() });
  const error = await failure(stranger_.send({ recipient: stranger() }));
  assert.equal(error.reason, "CALLER_UNKNOWN");
  assert.throws(() => new Otp({ address: "dns:///otpd:50051", token }), /plain text/);
  known.close();
  stranger_.close();
  await otpd.stop();
});

test("where nobody listens a call is in doubt, and says no more", async () => {
  const otp = new Otp({ address: "127.0.0.1:1" });
  const error = await failure(otp.send({ recipient: stranger() }));
  assert.equal(error.status, status.UNAVAILABLE);
  assert.equal(error.reason, "");
  otp.close();
});
