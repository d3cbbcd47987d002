// Sends a code to a person and asks for it: node build/src/main.js RECIPIENT

import { createInterface } from "node:readline/promises";

import { Otp, OtpError } from "./otp";

async function main(recipient: string): Promise<void> {
  const otp = new Otp({
    address: process.env.OTPD_ADDRESS ?? "127.0.0.1:50051",
    ...(process.env.OTPD_TOKEN && { token: process.env.OTPD_TOKEN }),
  });
  const terminal = createInterface({ input: process.stdin, output: process.stdout });
  try {
    const sent = await otp.send({ recipient });
    console.log(`sent to ${sent.recipient}`);
    for await (const code of terminal) {
      const verdict = await otp.verify({ recipient, code });
      console.log(verdict.outcome);
      if (verdict.verified || verdict.attemptsRemaining === 0) {
        process.exitCode = verdict.verified ? 0 : 1;
        return;
      }
    }
  } catch (error) {
    if (!(error instanceof OtpError)) {
      throw error;
    }
    console.error(explain(error));
    process.exitCode = 1;
  } finally {
    terminal.close();
    otp.close();
  }
}

/** Message for the user. */
function explain(error: OtpError): string {
  switch (error.reason) {
    case "RECIPIENT_INVALID":
    case "CODE_MALFORMED":
      return error.fieldViolations.map(({ description }) => description).join("; ");
    case "RESEND_TOO_SOON":
    case "SEND_LIMIT":
    case "VERIFY_LIMIT":
    case "VERIFY_DELAYED":
    case "VERIFY_LOCKED":
      return `too often; again in ${Math.ceil((error.retryAfter ?? 0) / 1_000)} s`;
    default:
      // The rest is for the log: the back end's own fault, or otpd's.
      return `not now (${error.reason || error.message}, request ${error.requestId})`;
  }
}

const [recipient] = process.argv.slice(2);
if (recipient === undefined) {
  console.error("usage: node build/src/main.js RECIPIENT");
  process.exitCode = 64;
} else {
  void main(recipient);
}
