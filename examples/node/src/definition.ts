// The contract, read at the start; `npm run generate` makes the types of the same files.

import path from "node:path";

import { loadSync } from "@grpc/proto-loader";

// As seen from build/src, where this runs.
const here = path.resolve(__dirname, "../..");

export const definition = loadSync(["otp/v1/otp.proto", "google/rpc/details.proto"], {
  includeDirs: [path.resolve(here, "../../proto"), path.join(here, "proto")],
  enums: String,
  longs: String,
  defaults: true,
});
