import { type McpServer, ResourceTemplate } from "@modelcontextprotocol/server";
import type { CallerContext } from "../shared/request-context.ts";
import { FILE_TEMPLATE, RUN_TEMPLATE } from "../shared/resource-uri.ts";
import { completeName, completePath, completeRun, completeSandbox } from "./complete.ts";
import { convertErrors } from "./context.ts";
import { listResources } from "./list.ts";
import { readResource } from "./read.ts";
import { skillsExtension } from "./skills.ts";
import { ABOUT_FILES, ABOUT_RUNS } from "./texts.ts";

/** @param sandbox the sandbox whose paths are completed if the client has not chosen one yet */
export function registerResources(server: McpServer, caller: CallerContext, sandbox: string): void {
  const { scopes } = caller.principal;
  const read = (uri: URL) => readResource(caller, uri.href);
  const completer = (complete: (value: string, given: Record<string, string>) => Promise<string[]>) => {
    return (value: string, context?: { arguments?: Record<string, string> }) =>
      convertErrors(caller, "completion/complete", () => complete(value, context?.arguments ?? {}));
  };
  const files = new ResourceTemplate(FILE_TEMPLATE, {
    list: undefined,
    complete: {
      sandbox: completer((value) => completeSandbox(caller, value)),
      path: completer((value, given) => completePath(caller, given.sandbox ?? sandbox, value)),
    },
  });
  const runs = new ResourceTemplate(RUN_TEMPLATE, {
    list: undefined,
    complete: {
      id: completer((value) => completeRun(caller, value)),
      name: completer((value, given) => completeName(caller, given.id, value)),
    },
  });
  const readers = scopes.filter((scope) => scope === "sandbox:read" || scope === "tasks:run");
  const registered = [
    server.registerResource("runs", runs, ABOUT_RUNS, read),
    server.registerResource("files", files, ABOUT_FILES, read),
  ];
  // A disabled template would still be listed.
  if (readers.length === 0) registered[0]?.remove();
  if (!scopes.includes("sandbox:read")) registered[1]?.remove();
  skillsExtension.attach(server);
  // The SDK's own handlers support neither pagination nor addresses without a path.
  server.server.setRequestHandler("resources/list", ({ params }) =>
    convertErrors(caller, "resources/list", () => listResources(caller, params?.cursor)),
  );
  server.server.setRequestHandler("resources/read", ({ params }) => readResource(caller, params.uri));
}
