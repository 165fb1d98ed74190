import type { Stream } from "../../../container/sandboxd/protocol.ts";
import type { RunSink } from "../../../src/runs/run-types.ts";

/** A stub of a run that records its reports. */
export class Recorder implements RunSink {
  readonly id = "run";
  readonly isEnded = false;
  readonly hasRoom = () => true;
  readonly markStarted = () => undefined;
  readonly keepState = () => undefined;
  hasFiles = true;
  readonly received: Record<Stream, string> = { stdout: "", stderr: "" };

  async take(output: () => void): Promise<void> {
    output();
  }

  output(stream: Stream, bytes: Uint8Array): void {
    this.received[stream] += new TextDecoder().decode(bytes);
  }

  recordSkipped(): void {
    throw new Error("nothing is skipped here");
  }

  position(stream: Stream): number {
    return this.received[stream].length;
  }

  storedBytes(stream: Stream): number {
    return this.received[stream].length;
  }

  readonly settled = new Promise<void>(() => undefined);

  async waitUntilEnded(): Promise<void> {}
}
