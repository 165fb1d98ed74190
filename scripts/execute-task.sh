#!/bin/sh
# Hands a task to a coding agent and waits for its end.
# Prints one JSON document, success first. Options are those of `npm run cli -- execute --help`.
here=$(cd "$(dirname "$0")/.." && pwd) || exit
PATH="$here/node_modules/.bin:$PATH" exec node "$here/cli/main.ts" execute --json "$@"
