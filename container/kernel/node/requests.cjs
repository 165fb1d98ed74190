"use strict";
/**
 * Serves the executor's requests in its place. The executor's own loop uses `process`, `console` and `JSON` of the realm in which
 * cells run. So a cell that declares such a name, for example `function process(data)`, would get no reply, and no later cell either.
 */
const readline = require("node:readline");
const { withBuiltins } = require("./builtins.cjs");
const { parse, stringify } = JSON;

/**
 * @param input the stream of the executor's requests
 * @param evaluate runs the code of a request, and returns the promise of the run's document, or nothing
 * @param reply writes a text to the executor's channel
 */
function serveRequests(input, evaluate, reply) {
  // The executor does not read on, but still notices the end of the input.
  input.removeAllListeners("data");
  readline.createInterface({ input, terminal: false }).on("line", async (line) => {
    const { code, executionId } = withBuiltins(() => parse(line));
    const done = { stdout: "", stderr: "", success: true, executionId, outputs: [] };
    try {
      done.stdout = (await evaluate(code)) ?? "";
    } catch (error) {
      done.stderr = `${error?.stack ?? error}`;
      done.success = false;
    }
    withBuiltins(() => reply(`${stringify(done)}\n`));
  });
}

module.exports = { serveRequests };
