// The real binary, and proxies in front of it.

import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { createConnection, createServer, type Server, type Socket } from "node:net";
import { once } from "node:events";
import { tmpdir } from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";

/** A running otpd. */
export class Otpd {
  address = "";
  readonly lines: string[] = [];
  readonly #directory = mkdtempSync(path.join(tmpdir(), "otpd-example-"));
  #process: ChildProcess | undefined;
  #wake: () => void = () => undefined;

  static async start(environment: Record<string, string> = {}): Promise<Otpd> {
    const otpd = new Otpd();
    await otpd.#spawn({ OTPD_LISTEN: "127.0.0.1:0", ...environment });
    return otpd;
  }

  /** Starts it again in the same place, after it was killed. */
  async startAgain(): Promise<void> {
    await this.#spawn({ OTPD_LISTEN: this.address });
  }

  async kill(): Promise<void> {
    const ended = once(this.#process as ChildProcess, "exit");
    this.#process?.kill("SIGKILL");
    await ended;
  }

  async stop(): Promise<void> {
    await this.kill();
    rmSync(this.#directory, { recursive: true });
  }

  /** The first line of the log, past or future, that is wanted. */
  async line(wanted: RegExp): Promise<RegExpExecArray> {
    for (;;) {
      for (const line of this.lines) {
        const found = wanted.exec(line);
        if (found) {
          return found;
        }
      }
      await new Promise<void>((resolve) => (this.#wake = resolve));
    }
  }

  /** The code of a challenge. */
  async code(challengeId: string): Promise<string> {
    const pattern = new RegExp(`Generated OTP: (\\d+) challenge_id=${challengeId} `);
    return (await this.line(pattern))[1] as string;
  }

  count(text: string): number {
    return this.lines.filter((line) => line.includes(text)).length;
  }

  async #spawn(environment: Record<string, string>): Promise<void> {
    const listening = this.count("address=");
    const child = spawn(process.env.OTPD as string, ["serve"], {
      cwd: this.#directory,
      env: environment,
      stdio: ["ignore", "pipe", "inherit"],
    });
    this.#process = child;
    createInterface({ input: child.stdout }).on("line", (line) => {
      this.lines.push(line);
      this.#wake();
    });
    while (this.count("address=") === listening) {
      await new Promise<void>((resolve) => (this.#wake = resolve));
    }
    this.address = (await this.line(/address="?(127\.0\.0\.1:\d+)/))[1] as string;
  }
}

/** TCP proxy that can delay or drop responses. */
export class Proxy {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  readonly #upstreams = new Set<Socket>();

  private constructor(upstream: string) {
    const [host, port] = upstream.split(":") as [string, string];
    this.#server = createServer((client) => {
      const server = createConnection(Number(port), host);
      for (const [source, sink] of [
        [client, server],
        [server, client],
      ] as const) {
        this.#sockets.add(source);
        source.on("error", () => sink.destroy()).on("close", () => sink.destroy());
        source.pipe(sink);
      }
      this.#upstreams.add(server);
    });
  }

  static async start(upstream: string): Promise<Proxy> {
    const proxy = new Proxy(upstream);
    proxy.#server.listen(0, "127.0.0.1");
    await once(proxy.#server, "listening");
    return proxy;
  }

  get address(): string {
    const address = this.#server.address();
    return typeof address === "object" && address ? `127.0.0.1:${address.port}` : "";
  }

  /** Lets requests pass, and no reply. */
  holdReplies(): void {
    for (const server of this.#upstreams) {
      server.unpipe();
      server.pause();
    }
  }

  /** Closes all connections, with the replies that were held. */
  cut(): void {
    for (const socket of this.#sockets) {
      socket.destroy();
    }
    this.#sockets.clear();
    this.#upstreams.clear();
  }

  close(): void {
    this.#server.close();
    this.cut();
  }
}
