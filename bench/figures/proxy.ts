import { fork } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { runFile } from "../../local/engine/host-programs.ts";
import { CONFIGS, serve, startEngine } from "../bed.ts";
import type { Figure } from "../figure.ts";
import { type Row, row } from "../measure.ts";
import { backgroundCommand, peaks, processesOfSandbox } from "../process-memory.ts";

const CLIENT = fileURLToPath(new URL("../proxied-client.ts", import.meta.url));
const CONNECTIONS = 200;
const MB = 1e6;

/** The kinds of connections: the client's argument, the port for which the proxy uses this kind, and the label in the table. */
const CONNECTION_KINDS = [
  ["plain", 80, "HTTP"],
  ["tunnel", 443, "tunnels"],
] as const;

/** The speed of two hundred connections at once from a sandbox to a server, and the memory of the programs between them. */
export const proxy: Figure = {
  name: "proxy",
  baseline: "the same client on the host",
  async measure(bed, { quick, count }) {
    const server = fork(fileURLToPath(new URL("../proxied-server.ts", import.meta.url)));
    const [port] = await once(server, "message");
    const directory = join(bed.directory, "proxy");
    mkdirSync(directory);
    const ports = [80, 443].map((known) => `origin.test:${known}=${port}`);
    const engine = await startEngine(directory, { network: "internet", allowAddresses: ports });
    const served = await serve(CONFIGS.ours, engine, join(directory, "ours"));
    try {
      const ours = served.client;
      const sandbox = "bench-proxy";
      await ours.tool("write_file", { sandbox, path: "client.ts", content: readFileSync(CLIENT, "utf8") });
      await ours.tool("run_command", { sandbox, command: backgroundCommand(sandbox) });
      const processes = {
        engine: engine.pid,
        "control server": processesOfSandbox(sandbox, engine.pid).control,
      };
      const pids = Object.values(processes);
      const transferInSandbox = async (kind: string, known: number, bytes: number) => {
        const args = [CONNECTIONS, bytes, `origin.test:${known}`, kind, "127.0.0.1:3128"].join(" ");
        return secondsIn(await ours.tool("run_command", { sandbox, command: `node client.ts ${args}` }));
      };
      const bytes = (quick ? 1 : 5) * MB;
      const peaksWhile = (each: number) =>
        peaks(pids, async () => {
          for (const [kind, known] of CONNECTION_KINDS) await transferInSandbox(kind, known, each);
        });
      const rows: Row[] = [];
      for (const [kind, known, label] of CONNECTION_KINDS) {
        const seconds: { ours: number[]; direct: number[] } = { ours: [], direct: [] };
        for (let round = 0; round < Math.max(3, count(10)); round++) {
          const args = [CLIENT, CONNECTIONS, bytes, `127.0.0.1:${port}`, kind].map(String);
          seconds.direct.push(Number((await runFile(process.execPath, args)).stdout));
          seconds.ours.push(await transferInSandbox(kind, known, bytes));
        }
        // Compares the fastest rounds, because other work on the machine slows our four programs more than the baseline's two.
        const speed = (times: number[]) => (CONNECTIONS * bytes) / MB / Math.min(...times);
        const name = `${CONNECTIONS} connections of ${bytes / MB} MB, ${label}`;
        rows.push(row(name, "MB/s", speed(seconds.ours), speed(seconds.direct)));
      }
      // During the first gigabytes, V8 enlarges its space for young objects. The rounds above have caused this, so the peaks
      // below can be compared.
      const [before, after] = [await peaksWhile(bytes), await peaksWhile(4 * bytes)];
      for (const [index, name] of Object.keys(processes).entries()) {
        const label = `peak memory of the ${name}, ${(4 * bytes) / MB} MB each`;
        rows.push(row(label, "MiB", after[index] ?? NaN, before[index] ?? NaN));
      }
      return rows;
    } finally {
      await served.close();
      await engine.close();
      server.disconnect();
    }
  },
};

/** The seconds that the client printed. @throws Error with the answer if the client failed */
function secondsIn(answer: string): number {
  const seconds = /^(?:stdout: )?(\d+\.\d+)$/m.exec(answer)?.[1];
  if (seconds === undefined) throw new Error(answer);
  return Number(seconds);
}
