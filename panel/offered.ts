/** Which tools there are for whoever signed in: the server lists none that it, its operator or their scopes do not allow. */
import { createContext } from "preact";
import { useContext } from "preact/hooks";

export const Offered = createContext<ReadonlySet<string>>(new Set());

/** Whether a tool may be called. What would call another is not shown. */
export function useOffered(): (tool: string) => boolean {
  const offered = useContext(Offered);
  return (tool) => offered.has(tool);
}
