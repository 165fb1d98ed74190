/** The available tools: the server lists only tools that are configured and that the user's scopes allow. */
import { createContext } from "preact";
import { useContext } from "preact/hooks";

export type OfferedTools = Pick<ReadonlySet<string>, "has">;

export const Offered = createContext<OfferedTools>(new Set());

/** Whether a tool may be called. Controls for other tools are hidden. */
export function useOffered(): (tool: string) => boolean {
  const offered = useContext(Offered);
  return (tool) => offered.has(tool);
}
