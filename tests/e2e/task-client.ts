/** A client that hands over tasks, for the tests of tasks. */
import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";
import { TOKEN } from "../setup/server.ts";

export interface Answer {
  text: string;
  isError: boolean;
  /** The structured content; empty where there is none. */
  fields: TaskFields;
  /** What came as progress meanwhile. */
  progress: string[];
  content: { type: string; text?: string; data?: string }[];
}

export interface TaskFields {
  id: string;
  state: string;
  success: boolean;
  answer?: string;
  note?: string;
  files?: { path: string; change: string; size: number }[];
  diff?: string;
  artifacts: { path: string; size: number }[];
  turns?: number;
  tokens?: { input: number; output: number };
  cost_usd?: number;
  session_id?: string;
  [key: string]: unknown;
}

export interface TaskClient {
  call(name: string, args: Record<string, unknown>): Promise<Answer>;
  /** Runs a command and answers its stdout. @throws Error unless it succeeds */
  sh(sandbox: string, command: string): Promise<string>;
  close(): Promise<void>;
}

export async function connectTaskClient(url: string): Promise<TaskClient> {
  const client = new Client({ name: "tasks", version: "1" });
  const endpoint = new URL(url);
  endpoint.searchParams.set("results", "structured");
  const requestInit = { headers: { authorization: `Bearer ${TOKEN}` } };
  await client.connect(new StreamableHTTPClientTransport(endpoint, { requestInit }));
  const call = async (name: string, args: Record<string, unknown>): Promise<Answer> => {
    const progress: string[] = [];
    const onprogress = ({ message }: { message?: string }) => void progress.push(message ?? "");
    const result = await client.callTool({ name, arguments: args }, { onprogress, timeout: 170_000 });
    const content = result.content as Answer["content"];
    const text = content.map((block) => block.text ?? "").join("\n");
    const fields = (result.structuredContent ?? {}) as TaskFields;
    return { text, isError: result.isError === true, fields, progress, content };
  };
  return {
    call,
    sh: async (sandbox, command) => {
      const { fields, text } = await call("run_command", { sandbox, command });
      if (fields.state !== "succeeded") throw new Error(`${command}: ${text}`);
      return String(fields.stdout);
    },
    close: () => client.close(),
  };
}
