# Sourced once into the shell of tasks, before task.sh is called in it.

# User code can put programs of its own first in the PATH, but not into these directories unless it is root.
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
sbx_runs=/var/lib/sandbox-mcp/runs
[[ -d $sbx_runs ]] || mkdir -p "$sbx_runs"
