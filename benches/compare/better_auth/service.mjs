// better-auth's phone-number plugin behind Node's own HTTP server.
//
// Sending goes through the plugin's HTTP handler. Verifying calls the plugin's
// consumePhoneNumberOTP, which spends the code and nothing else: its public endpoint would
// also make a user and a session, which otpd does not do. Its limit of requests by client,
// which it would keep in memory, is off, because all load comes from one address here. For
// the comparison the code comes back in a header, since there is nobody to read a message.
import { AsyncLocalStorage } from "node:async_hooks";
import { createServer } from "node:http";
import { betterAuth } from "better-auth";
import { getMigrations } from "better-auth/db/migration";
import { toNodeHandler } from "better-auth/node";
import { phoneNumber } from "better-auth/plugins";
import pg from "pg";

const port = Number(process.env.COMPARE_PORT);
// Which response the code of a request belongs to.
const current = new AsyncLocalStorage();

const auth = betterAuth({
  baseURL: `http://127.0.0.1:${port}`,
  secret: "only for the comparison, whose database is thrown away",
  database: new pg.Pool({ connectionString: process.env.COMPARE_DATABASE_URL, max: 10 }),
  rateLimit: { enabled: false },
  telemetry: { enabled: false },
  plugins: [
    phoneNumber({
      sendOTP: ({ code }) => {
        current.getStore().setHeader("x-otp-code", code);
      },
    }),
  ],
});
await (await getMigrations(auth.options)).runMigrations();
const handle = toNodeHandler(auth);

async function verify(request, response) {
  let body = "";
  for await (const part of request) body += part;
  let status = 200;
  try {
    await auth.api.consumePhoneNumberOTP({ body: JSON.parse(body) });
  } catch (error) {
    status = typeof error.statusCode === "number" ? error.statusCode : 500;
  }
  const answer = JSON.stringify({ status: status === 200 });
  response.writeHead(status, {
    "content-type": "application/json",
    "content-length": Buffer.byteLength(answer),
  });
  response.end(answer);
}

createServer((request, response) => {
  current.run(response, () => {
    if (request.url === "/verify") {
      return verify(request, response);
    }
    return handle(request, response);
  });
}).listen(port, "127.0.0.1");
