# What files.sh and task.sh share: sourced once into a shell of the sandbox. What a shell builtin can do starts no process.

# User code can put programs of its own first in the PATH, but not into these directories unless it is root.
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
sbx_runs=/var/lib/sandbox-mcp/runs
sbx_inline=32768
[[ -d $sbx_runs ]] || mkdir -p "$sbx_runs"

# Whether a process is there, and no zombie.
sbx_lives() {
  local stat=''
  { IFS= read -r -d '' stat <"/proc/$1/stat"; } 2>/dev/null
  [[ ${stat##*) } == [^ZX]* ]]
}

# Reads a file of text that fits into the named variable; fails when it is longer, holds a NUL or is no file any more:
# opening a pipe that a command put in its place would wait for ever.
sbx_slurp() {
  local -n sbx_text=$2
  [[ -f $1 ]] && ! IFS= read -r -d '' -n $((sbx_inline + 1)) sbx_text 2>/dev/null <"$1"
}
