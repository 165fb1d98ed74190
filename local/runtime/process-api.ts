import { Domain } from "./domain.ts";
import { messageOf } from "./errors.ts";
import { type ProcessRecord } from "./processes.ts";
import { SESSIONLESS, sessionOrDefault, type ExecuteOptions } from "./sessions.ts";
import { eventStream, type StreamEvent } from "./sse.ts";
import { now } from "./text.ts";

/** `commands` of the control API. */
export class CommandsAPI extends Domain {
  /** Runs a command in the session's shell to its end. Errors: SESSION_TERMINATED, COMMAND_EXECUTION_ERROR. */
  async execute(command: string, sessionId?: string, options: ExecuteOptions = {}) {
    const session = sessionOrDefault(sessionId);
    const { exitCode, stdout, stderr } = await (session === SESSIONLESS
      ? this.services.processes.runAlone(command, options)
      : this.services.sessions.execute(command, session, options));
    return { success: exitCode === 0, exitCode, stdout, stderr, command, timestamp: now() };
  }

  /**
   * Runs a command in the background, with the session's state but without blocking it, and streams its output:
   * `start`, `stdout`, `stderr`, `complete`. A command that cannot be started is an `error` event.
   */
  async executeStream(command: string, sessionId?: string, options: ExecuteOptions = {}) {
    const session = sessionOrDefault(sessionId);
    let record: ProcessRecord;
    try {
      record = await this.services.processes.start(command, session, options);
    } catch (error) {
      return eventStream(failed(messageOf(error)), { named: true });
    }
    const follower = followed(record);
    const events = (async function* (): AsyncGenerator<StreamEvent> {
      yield { type: "start", command, sessionId: session, pid: record.pid, timestamp: now() };
      for await (const { stream, text } of follower.entries) {
        yield { type: stream, data: text, timestamp: now() };
      }
      yield { type: "complete", exitCode: record.exitCode, timestamp: now() };
    })();
    return eventStream(events, { named: true, onCancel: follower.stop });
  }
}

/** `processes` of the control API. */
export class ProcessesAPI extends Domain {
  /** Errors: INVALID_COMMAND, SESSION_TERMINATED, STREAM_START_ERROR. */
  async startProcess(
    command: string,
    sessionId?: string,
    { processId, ...options }: ExecuteOptions & { processId?: string } = {},
  ) {
    const record = await this.services.processes.start(command, sessionOrDefault(sessionId), {
      ...options,
      processID: processId,
    });
    return {
      success: true,
      processId: record.id,
      pid: record.pid,
      command,
      timestamp: record.startTime.toISOString(),
    };
  }

  listProcesses() {
    return { success: true, processes: this.services.processes.list().map(describe), timestamp: now() };
  }

  /** Error: PROCESS_NOT_FOUND. */
  async getProcess(id: string) {
    return { success: true, process: describe(await this.services.processes.get(id)), timestamp: now() };
  }

  /** Returns when the process and all it started are gone. Errors: PROCESS_NOT_FOUND, COMMAND_NOT_FOUND. */
  async killProcess(id: string) {
    await this.services.processes.kill(id);
    return { success: true, processId: id, timestamp: now() };
  }

  async killAllProcesses() {
    return { success: true, cleanedCount: await this.services.processes.killAll(), timestamp: now() };
  }

  /** Error: PROCESS_NOT_FOUND. */
  async getProcessLogs(id: string) {
    const { log } = await this.services.processes.get(id);
    return {
      success: true,
      processId: id,
      stdout: log.text("stdout"),
      stderr: log.text("stderr"),
      timestamp: now(),
    };
  }

  /** What there is as one event per stream, then what comes, then `exit`. Error: PROCESS_NOT_FOUND. */
  async streamProcessLogs(id: string) {
    const record = await this.services.processes.get(id);
    const follower = followed(record);
    const replay = (["stdout", "stderr"] as const).map((stream) => ({
      stream,
      text: record.log.text(stream),
    }));
    const events = (async function* (): AsyncGenerator<StreamEvent> {
      for (const { stream, text } of replay) {
        if (text !== "") yield { type: stream, data: text, processId: id, timestamp: now() };
      }
      for await (const { stream, text } of follower.entries) {
        yield { type: stream, data: text, processId: id, timestamp: now() };
      }
      yield { type: "exit", exitCode: record.exitCode, processId: id, timestamp: now() };
    })();
    return eventStream(events, { onCancel: follower.stop });
  }
}

/** Follows a process's log until the process has ended too, so that its exit code is there. */
function followed({ log, finished }: ProcessRecord): ReturnType<ProcessRecord["log"]["follow"]> {
  const { entries, stop } = log.follow();
  let stopped = false;
  const untilExit = async function* (): AsyncGenerator<{ stream: "stdout" | "stderr"; text: string }> {
    yield* entries;
    if (!stopped) await finished;
  };
  return {
    entries: untilExit(),
    stop: () => {
      stopped = true;
      stop();
    },
  };
}

async function* failed(error: string): AsyncGenerator<StreamEvent> {
  yield { type: "error", error, timestamp: now() };
}

function describe(record: ProcessRecord) {
  const { id, pid, command, status, exitCode } = record;
  return { id, pid, command, status, startTime: record.startTime.toISOString(), exitCode };
}
