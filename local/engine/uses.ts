/** How much of a resource each sandbox uses, and each principal with its sandboxes. */
import type { EngineSandbox } from "./engine-sandbox.ts";
import { sum } from "./sum.ts";

export interface Use {
  sandbox: EngineSandbox;
  use: number;
}

export async function measureUses(
  sandboxes: EngineSandbox[],
  usedBy: (sandbox: EngineSandbox) => Promise<number>,
): Promise<Use[]> {
  return await Promise.all(sandboxes.map(async (sandbox) => ({ sandbox, use: await usedBy(sandbox) })));
}

export const sumOf = (uses: Use[]) => sum(uses.map(({ use }) => use));

/** A sandbox without a known principal counts alone. */
const principalOf = (sandbox: EngineSandbox) => sandbox.principal ?? sandbox;
export const isOfPrincipal = (sandbox: EngineSandbox, other: EngineSandbox) =>
  principalOf(sandbox) === principalOf(other);

/** The sandboxes of each principal, the largest first. */
export function byPrincipal(uses: Use[]): Use[][] {
  const groups = Map.groupBy(uses, ({ sandbox }) => principalOf(sandbox));
  return [...groups.values()].map((group) => group.toSorted((a, b) => b.use - a.use));
}

/** The sandboxes of the principal that uses most, the largest first. */
export function largestPrincipal(uses: Use[]): Use[] {
  const [largest = []] = byPrincipal(uses).toSorted((a, b) => sumOf(b) - sumOf(a));
  return largest;
}
