// Failures of otpd, with the details that its statuses bring along.

import { type ServiceError, status } from "@grpc/grpc-js";
import type { MessageTypeDefinition } from "@grpc/proto-loader";

import { definition } from "./definition";
import type { BadRequest__Output } from "./wire/google/rpc/BadRequest";
import type { ErrorInfo__Output } from "./wire/google/rpc/ErrorInfo";
import type { RetryInfo__Output } from "./wire/google/rpc/RetryInfo";
import type { Status__Output } from "./wire/google/rpc/Status";

/** A call that got no reply. A wrong code is no failure, but a verdict. */
export class OtpError extends Error {
  /** One of docs/errors.md, such as "SEND_LIMIT"; empty where otpd was not reached. */
  reason = "";
  /** In how many milliseconds to try again, where otpd says so. */
  retryAfter: number | undefined;
  /** Which fields of the request are at fault. */
  fieldViolations: { field: string; description: string }[] = [];
  /** Metadata of the reason. */
  metadata: Record<string, string> = {};

  constructor(
    readonly status: status,
    message: string,
    /** Idempotency key of the call; repeat the call with the same one. */
    readonly requestId: string,
  ) {
    super(message);
    this.name = "OtpError";
  }

  /** Whether the thing may have been done all the same. */
  get inDoubt(): boolean {
    return this.status === status.UNAVAILABLE || this.status === status.DEADLINE_EXCEEDED;
  }
}

/** Reads a failed call. */
export function read(error: ServiceError, requestId: string): OtpError {
  const failure = new OtpError(error.code, error.details, requestId);
  const [serialized] = error.metadata.get("grpc-status-details-bin");
  if (!(serialized instanceof Buffer)) {
    return failure;
  }
  const details = decode<Status__Output>("google.rpc.Status", serialized)?.details ?? [];
  // Each is an Any: the name of its type after the last "/", and its bytes.
  for (const { type_url: url, value } of details as { type_url: string; value: Buffer }[]) {
    switch (url.slice(url.lastIndexOf("/") + 1)) {
      case "google.rpc.ErrorInfo": {
        const info = decode<ErrorInfo__Output>("google.rpc.ErrorInfo", value);
        // Reasons of others, such as of a proxy, are not these.
        if (info?.domain === "otp.v1") {
          failure.reason = info.reason;
          failure.metadata = info.metadata;
        }
        break;
      }
      case "google.rpc.RetryInfo": {
        const delay = decode<RetryInfo__Output>("google.rpc.RetryInfo", value)?.retryDelay;
        if (delay) {
          failure.retryAfter = Number(delay.seconds) * 1_000 + delay.nanos / 1_000_000;
        }
        break;
      }
      case "google.rpc.BadRequest":
        failure.fieldViolations =
          decode<BadRequest__Output>("google.rpc.BadRequest", value)?.fieldViolations ?? [];
    }
  }
  return failure;
}

function decode<T>(name: string, serialized: Buffer): T | undefined {
  const type = definition[name] as MessageTypeDefinition<object, T>;
  try {
    return type.deserialize(serialized);
  } catch {
    // A proxy may send anything.
    return undefined;
  }
}
