#!/bin/sh
# Tests a server: test-deployment.sh [<url> <token>]. Without arguments, SANDBOX_MCP_URL and SANDBOX_MCP_TOKEN are used.
# Prints one JSON document that begins with the field `success`. `npm run cli -- verify --help` lists the options.
here=$(cd "$(dirname "$0")/.." && pwd) || exit
PATH="$here/node_modules/.bin:$PATH" exec node "$here/cli/main.ts" verify --json "$@"
