#!/bin/sh
# Writes one file for a bug report.
# Prints one JSON document that begins with the field `success`. Options are those of `npm run cli -- diagnose --help`.
here=$(cd "$(dirname "$0")/.." && pwd) || exit
PATH="$here/node_modules/.bin:$PATH" exec node "$here/cli/main.ts" diagnose --json "$@"
