#!/bin/sh
# Hands a task to a coding agent and waits for its end: execute-task.sh [<url> <token>] "task" [options]
# Prints one JSON document that begins with the field `success`. Options are those of `npm run cli -- execute --help`.
case ${1-} in
http://* | https://*)
  # Other users of the machine can see a program's arguments, but not its environment.
  export SANDBOX_MCP_URL="$1" SANDBOX_MCP_TOKEN="${2-}"
  [ $# -lt 2 ] || shift
  shift
  ;;
esac
here=$(cd "$(dirname "$0")/.." && pwd) || exit
PATH="$here/node_modules/.bin:$PATH" exec node "$here/cli/main.ts" execute --json "$@"
