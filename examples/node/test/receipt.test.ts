import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { after, before, describe, test } from "node:test";

import { createRemoteJWKSet, type JWTVerifyGetKey } from "jose";

import { Otp } from "../src/otp";
import { type Expected, verifyReceipt } from "../src/receipt";
import { Otpd } from "./server";

const RECIPIENT = "+79991234567";
const EXPECTED: Expected = {
  issuer: "https://otp.example",
  audience: "https://shop.example",
  caller: "crm",
  purpose: "login",
  nonce: "0123456789abcdef",
};

describe("a verifier of receipts", () => {
  let otpd: Otpd;
  let otp: Otp;
  let keys: JWTVerifyGetKey;
  let receipt: string;

  before(async () => {
    const key = (...options: string[]): string =>
      execFileSync(process.env.OTPD as string, ["keygen", ...options], { encoding: "utf8" });
    otpd = await Otpd.start({
      OTPD_KEYS: key() + key("--receipt", "1"),
      OTPD_RECEIPTS__ISSUER: EXPECTED.issuer,
      OTPD_RECEIPTS__LISTEN: "127.0.0.1:0",
      OTPD_CALLERS__CRM__TOKEN_SHA256: createHash("sha256").update("token").digest("hex"),
      OTPD_CALLERS__CRM__RECEIPT_AUDIENCES: EXPECTED.audience,
    });
    otp = new Otp({ address: otpd.address, token: "token", timeout: 60_000 });
    const [, address] = await otpd.line(/receipts="?(127\.0\.0\.1:\d+)/);
    keys = createRemoteJWKSet(new URL(`http://${address}/.well-known/jwks.json`));
    const { purpose, audience, nonce } = EXPECTED;
    const { challengeId } = await otp.send({ recipient: RECIPIENT, purpose });
    const code = await otpd.code(challengeId);
    const verdict = await otp.verify({
      recipient: RECIPIENT,
      purpose,
      code,
      receipt: { audience, nonce },
    });
    assert.equal(verdict.verified, true);
    receipt = verdict.receipt;
  });
  after(async () => {
    otp.close();
    await otpd.stop();
  });

  test("accepts what otpd issued", async () => {
    const claims = await verifyReceipt(receipt, keys, EXPECTED);
    assert.deepEqual(claims.amr, ["otp", "sms"]);
    assert.equal(claims.phone_number, undefined);
  });

  test("refuses what was issued for something else", async () => {
    for (const changed of [
      { issuer: "https://other.example" },
      { audience: "https://bank.example" },
      { caller: "app" },
      { purpose: "payment" },
      { nonce: "fedcba9876543210" },
    ]) {
      await assert.rejects(verifyReceipt(receipt, keys, { ...EXPECTED, ...changed }));
    }
  });

  test("refuses what was changed", async () => {
    const [header, claims, signature] = receipt.split(".") as [string, string, string];
    const none = Buffer.from('{"alg":"none","typ":"otp-receipt+jwt"}').toString("base64url");
    for (const forged of [
      `${header}.${claims}.${"A".repeat(signature.length)}`,
      `${none}.${claims}.`,
    ]) {
      await assert.rejects(verifyReceipt(forged, keys, EXPECTED));
    }
  });
});
