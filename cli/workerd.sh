#!/bin/sh
# What miniflare starts in place of workerd: the same, but the kernel kills it when its parent dies, however that ends.
# setsid keeps a Ctrl-C in the terminal for the parent, which ends everything in order.
PATH=$PATH:/usr/bin:/bin
if command -v setpriv >/dev/null 2>&1 && command -v setsid >/dev/null 2>&1; then
  exec setsid setpriv --pdeathsig KILL "$SANDBOX_MCP_WORKERD" "$@"
fi
exec "$SANDBOX_MCP_WORKERD" "$@"
