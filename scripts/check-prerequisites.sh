#!/bin/sh
# Checks what this machine needs to run a server.
# Prints one JSON document, success first. Options are those of `npm run cli -- doctor --help`.
here=$(cd "$(dirname "$0")/.." && pwd) || exit
PATH="$here/node_modules/.bin:$PATH" exec node "$here/cli/main.ts" doctor --json "$@"
