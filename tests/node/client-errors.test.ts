import { expect, it } from "vitest";
import { refusal } from "../../client/connection.ts";

it("the error of a refused request has the notice of its sandbox", () => {
  const body = JSON.stringify({ error: "Too many runs.", notice: "The sandbox was restarted." });
  expect(refusal("http://localhost", 429, body).message).toBe("The sandbox was restarted. Too many runs.");
});
