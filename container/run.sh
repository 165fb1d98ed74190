# The output of code, which its kernel spills to files: sourced once into a shell of the sandbox.
# Files of a run, in $sbx_runs: <id>.out <id>.err. What a shell builtin can do starts no process.

# User code can put programs of its own first in the PATH, but not into these directories unless it is root.
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
sbx_runs=/var/lib/sandbox-mcp/runs
sbx_inline=32768
[[ -d $sbx_runs ]] || mkdir -p "$sbx_runs"

# sbx_output ID OUT_OFFSET ERR_OFFSET OUT_MAX ERR_MAX
# "OUT_SIZE OUT_START ERR_SIZE ERR_START" and two lines of base64: of each output at most MAX bytes from its offset on.
# With MAX 0 nobody wants what is in between: then its last 16 KiB.
sbx_output() {
  local run=$sbx_runs/$1 sizes=(0 0) starts=("$2" "$3") maxima=("$4" "$5") index
  [[ -f $run.out ]] && sizes[0]=$(stat -c %s "$run.out")
  [[ -f $run.err ]] && sizes[1]=$(stat -c %s "$run.err")
  for index in 0 1; do
    ((maxima[index] == 0)) || continue
    maxima[index]=16384
    ((sizes[index] - starts[index] <= 16384)) || starts[index]=$((sizes[index] - 16384))
  done
  printf '%s ' "${sizes[0]}" "${starts[0]}" "${sizes[1]}" "${starts[1]}"
  printf '\n'
  ((sizes[0] > starts[0])) && sbx_range "$run.out" "${starts[0]}" "${sizes[0]}" "${maxima[0]}"
  printf '\n'
  ((sizes[1] > starts[1])) && sbx_range "$run.err" "${starts[1]}" "${sizes[1]}" "${maxima[1]}"
  printf '\n'
}

# sbx_range FILE START END MAX
sbx_range() {
  tail -c "+$(($2 + 1))" "$1" | head -c "$(($3 - $2 < $4 ? $3 - $2 : $4))" | base64 -w 0
}

# sbx_free ID out|err BYTES: gives the disk back what lies before that offset; offsets stay as they are.
sbx_free() {
  fallocate --punch-hole --offset 0 --length "$3" "$sbx_runs/$1.$2" 2>/dev/null
}

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
