#!/bin/bash
# end.sh RUN [PID STARTED]: ends what the code of a run started, as far as it still carries the run's mark in its
# environment. With a kernel's pid and its start in clock ticks it ends the kernel first, and the forks of the kernel: they
# have its environment from before any run, and so no mark, and are nothing without it.
#
# Builtins only: code that has used up the processes there may be is ended, too.
run=$1 pid=${2-} started=${3-}

# Whether the kernel's pid still means the kernel.
same() {
  local stat
  { IFS= read -r -d '' stat <"/proc/$pid/stat"; } 2>/dev/null
  set -- ${stat##*) }
  [[ ${20-} == "$started" ]]
}

# Sets `mark` to the run whose mark a process carries, or to nothing.
mark_of() {
  local entry entries=()
  mark=''
  { mapfile -d '' entries <"/proc/$1/environ"; } 2>/dev/null
  for entry in "${entries[@]}"; do
    if [[ $entry == SANDBOX_MCP_RUN=* ]]; then
      mark=${entry#*=}
      return
    fi
  done
}

if [[ -n $pid ]] && same; then
  family=("$pid")
  # Each is stopped before its children are read, so that it makes no more.
  for ((index = 0; index < ${#family[@]}; index++)); do
    kill -STOP "${family[index]}" 2>/dev/null
    for file in "/proc/${family[index]}/task/"*/children; do
      children=()
      { read -r -a children <"$file"; } 2>/dev/null
      for child in "${children[@]}"; do
        mark_of "$child"
        [[ -n $mark ]] || family+=("$child")
      done
    done
  done
  kill -KILL "${family[@]}" 2>/dev/null
fi

# Again, for what was started by one that had not been ended yet.
for round in 1 2 3 4 5; do
  found=()
  for place in /proc/[0-9]*; do
    mark_of "${place#/proc/}"
    [[ $mark != "$run" ]] || found+=("${place#/proc/}")
  done
  ((${#found[@]} > 0)) || break
  kill -KILL "${found[@]}" 2>/dev/null
done
exit 0
