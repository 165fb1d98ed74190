#!/bin/sh
# Checks the configuration of a deployment for common mistakes.
# Prints one JSON document that begins with the field `success`. Options are those of `npm run cli -- validate --help`.
here=$(cd "$(dirname "$0")/.." && pwd) || exit
PATH="$here/node_modules/.bin:$PATH" exec node "$here/cli/main.ts" validate --json "$@"
