#!/bin/bash
# end.sh RUN [PID STARTED]: ends what the code of a run started, as far as it still carries the run's mark in its
# environment. With a kernel's pid and its start in clock ticks it ends the kernel first, and the forks of the kernel: they
# have its environment from before any run, and so no mark, and are nothing without it.
run=$1 pid=${2-} started=${3-} forks=()

# Succeeds while the process is the one that was meant.
same() {
  local stat
  { IFS= read -r -d '' stat <"/proc/$pid/stat"; } 2>/dev/null
  set -- ${stat##*) }
  [[ ${20-} == "$started" ]]
}

if [[ -n $pid ]] && same; then
  kill -STOP "$pid"
  for child in $(cat "/proc/$pid/task/"*/children 2>/dev/null); do
    grep -qz '^SANDBOX_MCP_RUN=' "/proc/$child/environ" 2>/dev/null || forks+=("$child")
  done
  kill -KILL "$pid" "${forks[@]}" 2>/dev/null
fi

# Again, for what was started by one that had not been ended yet.
for round in 1 2 3 4 5; do
  marked=$(grep -lzx "SANDBOX_MCP_RUN=$run" /proc/[0-9]*/environ 2>/dev/null)
  [[ -n $marked ]] || break
  for process in $marked; do
    process=${process#/proc/}
    kill -KILL "${process%/environ}" 2>/dev/null
  done
done
exit 0
