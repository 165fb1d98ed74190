#!/bin/bash
# entrypoint.sh SERVER [ARGUMENT...]: the image's program. Limits the number of processes, so that a fork bomb does not affect other
# sandboxes. Then executes init.pl, which keeps sandboxd and the SDK's server running. Both are within this limit.
#
# Most Linux kernels exempt root from `ulimit -u`, so the container's control group sets the limit. In a virtual machine, that group
# is the root group, and the root group cannot have a limit. So a new group below it gets the limit. The new group also gets a limit
# of memory: if programs used all memory of the machine, the platform would end the container. At the limit, Linux ends a program.
set -a
. "${BASH_SOURCE[0]%/*}/environment"
set +a

limit=${SANDBOX_MAX_PROCESSES:-2048}
group=${SANDBOX_CGROUP:-/sys/fs/cgroup}
read -r _ total _ </proc/meminfo

limit_group() {
  # With control groups of version 1, this is an ordinary directory, and the writes would make ordinary files.
  [ -e "$group/cgroup.controllers" ] || return
  if [ ! -e "$group/pids.max" ]; then
    for controller in memory pids; do echo "+$controller" >"$group/cgroup.subtree_control"; done
    group=$group/sandbox-mcp
    mkdir -p "$group"
    echo $$ >"$group/cgroup.procs" || return
    # The rest is for Linux and the programs of the platform.
    echo "${total:+$((total / 16 * 15 * 1024))}" >"$group/memory.max"
  fi
  echo "$limit" >"$group/pids.max"
}
limit_group 2>/dev/null
bounded=$?
ulimit -u "$limit" 2>/dev/null && [ "$EUID" -ne 0 ] && bounded=0
[ "$bounded" -eq 0 ] ||
  echo "sandbox-mcp: no limit of processes is set: $group is not a writable control group of version 2, and ulimit -u does not limit root" >&2
unset PERL5OPT PERL5LIB PERL5DB
own=${BASH_SOURCE[0]%/*}
exec /usr/bin/perl "$own/init.pl" node "$own/sandboxd/dist/sandboxd.cjs" +++ "$@"
