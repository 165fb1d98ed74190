#!/bin/sh
# Checks what this machine has: check-prerequisites.sh [--deploy]. Works before `npm ci`, too.
# Prints one JSON document: `success`, `installed` (whether node_modules exists), `checks` by name, and `issues`.
# Programs that only deployments need count as issues only with --deploy.
here=$(cd "$(dirname "$0")/.." && pwd) || exit
PATH="$here/node_modules/.bin:$PATH"
checks=
issues=

text() {
  printf %s "$1" | tr -d '\000-\037"\\'
}

# check NAME start|deploy VERSION-COMMAND ADVICE [WHAT-IS-WRONG]
check() {
  found=$(sh -c "$3" 2>/dev/null | head -n 1)
  ok=true
  if [ -z "$found" ]; then
    ok=false
    if [ "$2" = start ] || [ "$deploy" = yes ]; then issues="$issues${issues:+,}\"$(text "$1 is ${5:-missing}: $4")\""; fi
  fi
  checks="$checks${checks:+,}\"$1\":{\"ok\":$ok,\"found\":\"$(text "$found")\",\"needed_for\":\"$2\"}"
}

deploy=no
[ "${1-}" != --deploy ] || deploy=yes

check node start 'node -e "process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)" && node --version' 'install Node 22 (22.15 or newer) or Node 24 or newer, from https://nodejs.org. In a clone, Node 20 is enough, because npm ci installs a newer Node' 'missing or older than 20'
check npm start 'npm --version' 'it comes with Node'
check linux start '[ "$(uname -s)" = Linux ] && uname -sr' 'use npm run dev:docker, or WSL 2 on Windows'
check bubblewrap start 'bwrap --version' 'apt-get install bubblewrap; npm start as root installs it'
check perl start 'perl -e "print \$^V"' 'apt-get install perl-base'
check python3 start 'python3 --version' 'apt-get install python3; sandboxes run JavaScript and commands without it'
check wrangler deploy 'wrangler --version' 'npm ci installs it'
check docker deploy 'docker info --format "{{.ServerVersion}}"' 'install Docker and start it: https://docs.docker.com/get-docker/'
if [ -d "$here/node_modules" ]; then installed=true; else installed=false; fi

success=true
[ -z "$issues" ] || success=false
printf '{"success":%s,"installed":%s,"checks":{%s},"issues":[%s]}\n' "$success" "$installed" "$checks" "$issues"
[ "$success" = true ]
