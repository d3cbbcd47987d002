// A client of otpd: balanced, retried, with deadlines and request ids.

import { randomUUID } from "node:crypto";
import { isIP } from "node:net";

import {
  type ChannelCredentials,
  credentials,
  loadPackageDefinition,
  Metadata,
  type ServiceError,
} from "@grpc/grpc-js";

import { definition } from "./definition";
import { read } from "./errors";
import type { SendOtpRequest } from "./wire/otp/v1/SendOtpRequest";
import type { SendOtpResponse__Output } from "./wire/otp/v1/SendOtpResponse";
import type { VerifyOtpRequest } from "./wire/otp/v1/VerifyOtpRequest";
import type { VerifyOtpResponse__Output } from "./wire/otp/v1/VerifyOtpResponse";
import type { OtpServiceClient } from "./wire/otp/v1/OtpService";
import type { ProtoGrpcType } from "./wire/otp";

export { OtpError } from "./errors";

const SERVICE_CONFIG = JSON.stringify({
  // Every replica answers for every other.
  loadBalancingConfig: [{ round_robin: {} }],
  methodConfig: [
    {
      name: [{ service: "otp.v1.OtpService" }],
      // UNAVAILABLE alone. The same message goes out again, so with the same request id;
      // where otpd says when, by grpc-retry-pushback-ms, gRPC obeys.
      retryPolicy: {
        maxAttempts: 5,
        initialBackoff: "0.2s",
        maxBackoff: "2s",
        backoffMultiplier: 2,
        retryableStatusCodes: ["UNAVAILABLE"],
      },
    },
  ],
});

export interface Options {
  /** `dns:///NAME:PORT` goes round all addresses of the name. */
  address: string;
  /** The caller's bearer token. */
  token?: string;
  /** TLS; none: plain text, for loopback or behind a mesh. */
  tls?: ChannelCredentials;
  /** Milliseconds that a call may take, its retries included. */
  timeout?: number;
}

/** Calls otpd. Make one for a process. */
export class Otp {
  readonly #client: OtpServiceClient;
  readonly #metadata = new Metadata();
  readonly #timeout: number;

  constructor({ address, token, tls, timeout = 5_000 }: Options) {
    if (token !== undefined) {
      if (tls === undefined && !isLoopback(address)) {
        throw new Error(`the token would go to ${address} in plain text`);
      }
      this.#metadata.set("authorization", `Bearer ${token}`);
    }
    this.#timeout = timeout;
    const { otp } = loadPackageDefinition(definition) as unknown as ProtoGrpcType;
    this.#client = new otp.v1.OtpService(address, tls ?? credentials.createInsecure(), {
      "grpc.service_config": SERVICE_CONFIG,
      "grpc.service_config_disable_resolution": 1,
      "grpc.keepalive_time_ms": 30_000,
      "grpc.keepalive_timeout_ms": 5_000,
      // A replica that restarts is back in seconds.
      "grpc.initial_reconnect_backoff_ms": 200,
      "grpc.max_reconnect_backoff_ms": 2_000,
    });
  }

  /** Sends a code. Fails with an `OtpError`. */
  send(request: SendOtpRequest): Promise<SendOtpResponse__Output> {
    return this.#call(request, (named, ...rest) => this.#client.sendOtp(named, ...rest));
  }

  /** Verifies a submitted code; for a wrong code, `verified` of the response is false. */
  verify(request: VerifyOtpRequest): Promise<VerifyOtpResponse__Output> {
    return this.#call(request, (named, ...rest) => this.#client.verifyOtp(named, ...rest));
  }

  close(): void {
    this.#client.close();
  }

  #call<Request extends { requestId?: string }, Reply>(
    request: Request,
    method: (
      named: Request,
      metadata: Metadata,
      options: { deadline: number },
      done: (error: ServiceError | null, reply?: Reply) => void,
    ) => unknown,
  ): Promise<Reply> {
    // Made by the back end, never taken from an end user.
    const requestId = request.requestId ?? randomUUID();
    const deadline = Date.now() + this.#timeout;
    return new Promise((resolve, reject) => {
      method({ ...request, requestId }, this.#metadata, { deadline }, (error, reply) => {
        if (error) {
          reject(read(error, requestId));
        } else {
          resolve(reply as Reply);
        }
      });
    });
  }
}

function isLoopback(address: string): boolean {
  const host = address.replace(/^dns:(\/\/\/)?/, "").replace(/:\d+$/, "");
  return (
    host === "localhost" || host === "[::1]" || (isIP(host) === 4 && host.startsWith("127."))
  );
}
