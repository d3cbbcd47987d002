// Verifies a receipt of otpd: proof for this service that another back end verified a code.

import { createRemoteJWKSet, type JWTPayload, type JWTVerifyGetKey, jwtVerify } from "jose";

/** What the receipt must be about. */
export interface Expected {
  issuer: string;
  /** Name of this service, as the receipts have it. */
  audience: string;
  /** Caller of otpd that this service trusts. */
  caller: string;
  purpose: string;
  /** Value that this service drew for the session; used once. */
  nonce: string;
}

/** Public keys of an issuer. Make one for a process: it keeps the keys. */
export function publicKeys(issuer: string): JWTVerifyGetKey {
  return createRemoteJWKSet(new URL("/.well-known/jwks.json", issuer), {
    cacheMaxAge: 600_000,
    // An unknown key causes another look, but not more often.
    cooldownDuration: 10_000,
  });
}

/** Returns the claims of a receipt. Fails if the receipt must not be accepted. */
export async function verifyReceipt(
  receipt: string,
  keys: JWTVerifyGetKey,
  { issuer, audience, caller, purpose, nonce }: Expected,
): Promise<JWTPayload> {
  const { payload } = await jwtVerify(receipt, keys, {
    algorithms: ["ES256"],
    typ: "otp-receipt+jwt",
    issuer,
    audience,
    clockTolerance: 30,
    requiredClaims: ["sub", "iat", "exp", "jti", "amr"],
  });
  const expected = { azp: caller, purpose, nonce };
  for (const [claim, value] of Object.entries(expected)) {
    if (payload[claim] !== value) {
      throw new Error(`the receipt has another ${claim}`);
    }
  }
  return payload;
}
