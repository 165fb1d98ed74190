/** The notice after a restart, if the actor is evicted too. */
import { expect, it } from "vitest";
import { withWorld } from "./world.ts";

it("says that unsaved changes are gone, even if the actor is evicted while the next container starts", () =>
  withWorld(async (world) => {
    await world.ready();
    world.write("a", "saved");
    await world.workspace.save();
    world.write("a", "not saved");
    world.kill();
    await new Promise<void>((resolve) => {
      world.onStep = ({ name, when }) => {
        if (name !== "start" || when !== "after") return;
        world.onStep = () => undefined;
        world.evict();
        resolve();
      };
      void world.ready();
    });
    await world.ready();
    expect(world.notice.takeNotice()).toContain("any later changes are gone");
  }));
