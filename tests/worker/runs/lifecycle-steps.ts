/** The steps of the lifecycle test, and sequences of them that random steps seldom make. */
import * as fc from "../../setup/chance.ts";
import { FAULTS, type Fault } from "./lifecycle-world.ts";

const CALLS = ["write", "read", "set up", "checkpoint", "configure"] as const;
const OTHERS = [
  "read only",
  "read if known",
  "append",
  "hurried read",
  "run",
  "cancelled run",
  "own work",
  "idle",
  "room",
  "reap",
  "destroy",
  "roll back",
  "narrow",
  "die",
  "disconnect",
  "evict",
  "evict and kill",
  "wait",
  "is it in use?",
  "is it running?",
  "is it alive?",
] as const;
export type Step = (typeof CALLS)[number] | (typeof OTHERS)[number] | Fault;

/** Random steps let no upload hang, because a rollback and a destruction would wait for it. */
const RANDOM_FAULTS = FAULTS.filter((fault) => fault !== "upload hangs");

export const steps: fc.Arbitrary<Step> = fc.oneof(
  { weight: 4, arbitrary: fc.constantFrom(...CALLS) },
  { weight: 6, arbitrary: fc.constantFrom(...OTHERS) },
  { weight: 2, arbitrary: fc.constantFrom(...RANDOM_FAULTS) },
);

/** The first steps of sequences. Random steps seldom make them. */
export const BEGINNINGS: Step[][] = [
  [],
  ["write"],
  ["write", "evict"],
  ["write", "roll back", "evict"],
  ["write", "roll back", "evict and kill"],
  ["hurried read", "idle"],
];

type Sequence = [Step[], [Step, number[]][], string];

const NEXT = [0, 0, 0];

/** Sequences that found defects. Random steps seldom make them. */
export const EXAMPLES: Sequence[] = [
  // The platform fails to end a container that has started halfway, while a checkpoint is to be restored.
  [
    [],
    [
      ["end fails", []],
      ["starts halfway", []],
      ["write", []],
      ["read only", [0, 0]],
      ["roll back", [0, 3]],
    ],
    "idle",
  ],
  // The container dies immediately before the result of a set-up is restored to it.
  [
    ["hurried read", "idle"],
    [
      ["start fails", [...NEXT, ...NEXT]],
      ["read only", []],
      ["die", []],
      ["set up", [5]],
      ["write", []],
      ["read only", [4]],
      ["read only", []],
    ],
    "idle",
  ],
  // An actor is evicted after the account has restored a checkpoint, and the next restore fails.
  [
    ["write", "roll back", "evict"],
    [
      ["read only", [0]],
      ["read only", [0, 3, 0]],
      ["read only", []],
      ["rollback fails", []],
      ["roll back", []],
      ["write", []],
      ["read only", []],
    ],
    "idle",
  ],
  // While a new policy waits for a save, the container is destroyed, and the next container starts with the policy.
  [
    [],
    [
      ["write", [...NEXT, ...NEXT, ...NEXT, 0]],
      ["upload hangs", []],
      ["idle", []],
      ["write", []],
      ["destroy", [0]],
      ["narrow", [1, ...NEXT, ...NEXT, ...NEXT, ...NEXT]],
    ],
    "idle",
  ],
  // The container dies during the registrations of two calls.
  [
    [],
    [
      ["write", NEXT],
      ["evict", [0]],
      ["hurried read", []],
      ["run", []],
      ["die", [1]],
    ],
    "idle",
  ],
  // The platform fails to end a container that a checkpoint replaces.
  [
    [],
    [
      ["write", NEXT],
      ["end fails", NEXT],
      ["roll back", [...NEXT, ...NEXT]],
      ["write", NEXT],
    ],
    "idle",
  ],
  // The platform fails to end a container for a new policy. Then the container dies, and a call in it fails.
  [
    [],
    [
      ["write", [0, 0]],
      ["end fails", NEXT],
      ["append", []],
      ["write", [0, 0]],
      ["narrow", [1, 5, 5, 2]],
      ["die", []],
      ["disconnect", []],
    ],
    "idle",
  ],
  // The platform fails to end a container that has died during its destruction.
  [
    [],
    [
      ["write", []],
      ["configure", [...NEXT, 0]],
      ["destroy", []],
      ["die", []],
      ["end fails", []],
      ["read only", []],
      ["read only", [0, 1]],
      ["read only", []],
    ],
    "idle",
  ],
  // A call finds three containers ended in turn. The fourth one runs.
  [
    [],
    [
      ["write", NEXT],
      ["die", NEXT],
      ["write", NEXT],
      ["roll back", [0, 0, ...NEXT, ...NEXT]],
      ["hurried read", []],
      ["roll back", NEXT],
      ["read only", [1, 1]],
      ["write", [1, 1, 1, 1]],
      ["write", []],
    ],
    "idle",
  ],
];
