/** The checkpoint that a restore makes of the state before it. */
import { expect, it } from "vitest";
import { withWorld } from "./world.ts";

const SETTINGS = { forCheckpoint: undefined };

it("has what earlier calls and runs change while the server saves it", () =>
  withWorld(async (world) => {
    await world.ready();
    world.write("kept", "first");
    const { id } = await world.workspace.checkpoint("", SETTINGS);
    world.write("kept", "second");
    let late = 2;
    world.onStep = ({ name, when }) => {
      if (name === "bucket put" && when === "after" && late > 0) world.write(`late ${late--}`, "x");
    };
    const { before } = await world.lifecycle.restoreCheckpoint(id, SETTINGS);
    await world.ready();
    expect(Object.fromEntries(world.files)).toEqual({ kept: "first" });
    const fork = world.createSibling("fork", true);
    world.registry.fork("fork", before?.id ?? "");
    await fork.ready();
    expect(Object.fromEntries(fork.files)).toEqual({ kept: "second", "late 2": "x", "late 1": "x" });
  }));
