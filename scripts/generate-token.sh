#!/bin/sh
# Makes a token and its hash.
# Prints one JSON document that begins with the field `success`. Options are those of `npm run cli -- token new --help`.
here=$(cd "$(dirname "$0")/.." && pwd) || exit
PATH="$here/node_modules/.bin:$PATH" exec node "$here/cli/main.ts" token new --json "$@"
