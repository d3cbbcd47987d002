// A login by otpd, with the generated client of Connect, over each of its transports.

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";

import {
  Code,
  ConnectError,
  createClient,
  type Interceptor,
  type Transport,
} from "@connectrpc/connect";
import {
  createConnectTransport,
  createGrpcTransport,
  createGrpcWebTransport,
} from "@connectrpc/connect-node";

import {
  BadRequestSchema,
  ErrorInfoSchema,
  RetryInfoSchema,
} from "./generated/google/rpc/details_pb.js";
import { Channel, OtpService, VerifyOutcome } from "./generated/otp/v1/otp_pb.js";

const MAX_ATTEMPTS = 5;

/** Sends the token with each call. */
const authorize: Interceptor = (next) => (request) => {
  request.header.set("authorization", `Bearer ${process.env.OTPD_TOKEN}`);
  return next(request);
};

/** Repeats a call after UNAVAILABLE alone, with the same message and so the same request id. */
const retry: Interceptor = (next) => async (request) => {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await next(request);
    } catch (error) {
      const failure = ConnectError.from(error);
      if (failure.code !== Code.Unavailable || request.stream || attempt === MAX_ATTEMPTS) {
        throw error;
      }
      const wait = Number(failure.metadata.get("retry-after") ?? 0.2);
      await new Promise((resolve) => setTimeout(resolve, Math.min(wait, 2) * 1_000));
    }
  }
};

/** Details of an error of otpd. */
function read(error: unknown) {
  const failure = ConnectError.from(error);
  return {
    code: failure.code,
    reason: failure.findDetails(ErrorInfoSchema)[0]?.reason,
    field: failure.findDetails(BadRequestSchema)[0]?.fieldViolations[0]?.field,
    waitSeconds: failure.findDetails(RetryInfoSchema)[0]?.retryDelay?.seconds,
  };
}

async function refused(call: Promise<unknown>) {
  const error = await call.then(
    () => assert.fail("it was answered"),
    (reason: unknown) => reason,
  );
  return read(error);
}

async function login(transport: Transport, recipient: string, code: string): Promise<void> {
  const otp = createClient(OtpService, transport);
  // A request id for each action of a person, made by the back end.
  const send = (to: string) => otp.sendOtp({ recipient: to, requestId: randomUUID() });
  const sent = await send(recipient);
  assert.equal(sent.channel, Channel.SMS);
  const { challengeId } = sent;
  const verify = (submitted: string) =>
    otp.verifyOtp({
      recipient: sent.recipient,
      code: submitted,
      challengeId,
      requestId: randomUUID(),
    });

  const wrong = await verify("000000");
  assert.deepEqual([wrong.verified, wrong.outcome], [false, VerifyOutcome.WRONG_CODE]);

  const tooSoon = await refused(send(recipient));
  assert.deepEqual([tooSoon.code, tooSoon.reason], [Code.ResourceExhausted, "RESEND_TOO_SOON"]);
  assert(tooSoon.waitSeconds !== undefined && tooSoon.waitSeconds > 0n);

  const right = await verify(code);
  assert.equal(right.verified, true);

  const invalid = await refused(send("nobody"));
  assert.deepEqual([invalid.reason, invalid.field], ["RECIPIENT_INVALID", "recipient"]);

  const status = await otp.getOtpStatus({ recipient });
  assert.equal(status.live, false);
  const cancelled = await otp.cancelOtp({ recipient, requestId: randomUUID() });
  assert.equal(cancelled.cancelled, false);
}

const options = {
  baseUrl: `http://${process.env.OTPD_ADDRESS}`,
  interceptors: [authorize, retry],
  defaultTimeoutMs: 5_000,
};
const recipients = (process.env.RECIPIENTS ?? "").split(",");
const transports: [string, Transport][] = [
  ["Connect, JSON, HTTP/1.1", createConnectTransport({ ...options, httpVersion: "1.1" })],
  [
    "Connect, protobuf, HTTP/1.1",
    createConnectTransport({ ...options, httpVersion: "1.1", useBinaryFormat: true }),
  ],
  ["Connect, JSON, HTTP/2", createConnectTransport({ ...options, httpVersion: "2" })],
  ["gRPC-Web, HTTP/1.1", createGrpcWebTransport({ ...options, httpVersion: "1.1" })],
  ["gRPC", createGrpcTransport(options)],
];
for (const [index, [name, transport]] of transports.entries()) {
  await login(transport, recipients[index] as string, process.env.CODE as string);
  console.log(`${name}: ok`);
}
process.exit(0);
