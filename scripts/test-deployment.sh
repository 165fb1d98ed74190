#!/bin/sh
# Tests a server: test-deployment.sh [<url> <token>]. Without arguments, SANDBOX_MCP_URL and SANDBOX_MCP_TOKEN name it.
# Prints one JSON document, success first. Options are those of `npm run cli -- verify --help`.
here=$(cd "$(dirname "$0")/.." && pwd) || exit
PATH="$here/node_modules/.bin:$PATH" exec node "$here/cli/main.ts" verify --json "$@"
