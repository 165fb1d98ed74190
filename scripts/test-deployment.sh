#!/bin/sh
# Tests a server. Its URL and token are the arguments; without them, those of the environment.
# Prints one JSON document, success first. Options are those of `npm run cli -- verify --help`.
here=$(cd "$(dirname "$0")/.." && pwd) || exit
PATH="$here/node_modules/.bin:$PATH" exec node "$here/cli/main.ts" verify --json "$@"
