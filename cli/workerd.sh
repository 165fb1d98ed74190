#!/bin/sh
# miniflare starts this script in place of workerd. The script makes the kernel kill workerd when workerd's parent ends for any
# reason. With setsid, only the parent gets the terminal's Ctrl-C, and ends everything in order.
PATH=$PATH:/usr/bin:/bin
# workerd ends when it has no free descriptor for a connection. With this limit, no program of the machine should be able to use
# up the descriptors by idle connections, which workerd closes after 15 seconds. Without the right to raise the limit, the old one
# stays.
ulimit -n "$SANDBOX_MCP_OPEN_FILES" 2>/dev/null || true
# miniflare's own port obeys headers that choose the host, and its page about errors shows any file that a preview names. Instead
# of the port, workerd gets a socket that only this user can open.
umask 077
cd "$SANDBOX_MCP_STATE" && rm -f entry.sock || exit
# The configuration lets workerd accept remote calls (Cap'n Proto) from everybody who sends CONNECT with a certain host. They need no
# token and have no limit of memory. No request can name the same host with spaces.
LC_ALL=C sed 's/miniflare-unsafe-internal-capnp-connect/miniflare unsafe internal capnp connect/g' >workerd.conf || exit
exec <workerd.conf
rm workerd.conf
for word; do
  shift
  case $word in --socket-addr=entry=*) word=--socket-addr=entry=unix:entry.sock ;; esac
  set -- "$@" "$word"
done
if command -v setpriv >/dev/null 2>&1 && command -v setsid >/dev/null 2>&1; then
  exec setsid setpriv --pdeathsig KILL "$SANDBOX_MCP_WORKERD" "$@"
fi
exec "$SANDBOX_MCP_WORKERD" "$@"
