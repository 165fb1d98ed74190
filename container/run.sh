# The command wrapper: sourced once into each shell of a sandbox, it starts, awaits, reads and kills commands.
# Every function is on the path of a tool call, so what a shell builtin can do starts no process.
#
# Files of a run, in $sbx_runs:          <id>.cmd  the command    <id>.out <id>.err  its output, opened for append
#                                        <id>.pid  leader of its process group      <id>.exit  its exit status
#                                        <id>.kill  there while what it started is being killed
#                                        <id>.held  there while it is held still: who does that
#                                        <id>.ends  sizes of its output at its end, where others go on writing to it
# Files of a session, in $sbx_sessions:  <name>.0 <name>.1  two slots for the state that the next command starts
# from, written in turn so that a killed command leaves the older one whole; <name> says which one is current.
#
# Every answer starts with a line of words. Output that fits follows it as it is (standard error on standard
# error), ended by one "." so that trailing line breaks survive the SDK's line-wise log.

# User code can put programs of its own first in the PATH, but not into these directories unless it is root.
[[ -v sbx_path ]] || sbx_path=$PATH
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
sbx_runs=/var/lib/sandbox-mcp/runs
sbx_sessions=/var/lib/sandbox-mcp/sessions
sbx_inline=32768
sbx_backlog=$((64 * 1024 * 1024))
# What a command's bash reads, as a script without a name. One line, read as a whole: `set -v` would show what follows the
# command. A return that is no function's ends the command: such a one is sourced, by a file that errors may name, which is
# only looked for where the shell is when the PATH is left out.
sbx_script='{ exec </dev/null; if SOURCED; then builtin cd /opt/sandbox-mcp/sourced; shopt -u sourcepath; . bash; else IFS= read -r -d "" sbx_state <"$3"; eval "$sbx_state"; . /opt/sandbox-mcp/command.sh; eval "$sbx_text"; fi; { sbx_status=$? sbx_options=$-; set +vx; ! declare -F sbx_leave || sbx_leave "$sbx_options" || :; } &>/dev/null; builtin exit "$sbx_status"; }'
# A return where a command stands.
sbx_return=$'(^|[;&|(){!\n]|(^|[[:space:];&|(])(then|do|else|elif|if|while|until|builtin|command)[[:space:]])[[:space:]]*return([[:space:];&|)}]|$)'
[[ -d $sbx_runs && -d $sbx_sessions ]] || mkdir -p "$sbx_runs" "$sbx_sessions"

# sbx_start ID SESSION WAIT_SECONDS [CWD [NAME=VALUE ...]] <<< COMMAND
# Starts a command and waits for it; answers as sbx_wait does, "unable" when its files cannot be written, or "damaged" when
# a file of ours is missing or empty.
sbx_start() {
  local id=$1 session=$2 seconds=$3 run=$sbx_runs/$1 state=$sbx_sessions/$2 slot=0 text
  shift 3
  [[ -s /opt/sandbox-mcp/command.sh && -s /opt/sandbox-mcp/state.sh ]] || { printf 'damaged\n' && return; }
  IFS= read -r -d '' text
  if ! printf '%s' "$text" 2>/dev/null >"$run.cmd"; then
    mkdir -p "$sbx_runs" "$sbx_sessions"
    printf '%s' "$text" >"$run.cmd" || { printf 'unable\n' && return; }
  fi
  if [[ -f $state ]]; then
    read -r slot <"$state"
    [[ $slot == 1 ]] || slot=0
  else
    (cd /workspace 2>/dev/null || cd /; unset OLDPWD; PATH=$sbx_path; . /opt/sandbox-mcp/state.sh) >"$state.0"
  fi
  [[ -z $sbx_pipe ]] || exec {sbx_pipe}<&-
  exec {sbx_pipe}< <(sbx_supervise "$run" "$id" "$state" "$slot" "$@" 2>/dev/null)
  sbx_piped=$id
  # A command that ends at once, as most do, needs nobody to hold it still.
  sbx_heard 0.1
  (($? <= 128)) || sbx_govern "$run" </dev/null &>/dev/null &
  sbx_wait "$id" "$seconds"
}

# Runs the command in a session and process group of its own, then records how it ended and the state it left.
sbx_supervise() {
  local run=$1 id=$2 state=$3 from=$3.$4 next=$((1 - $4)) pid status out err sourced=false
  shift 4
  [[ $text == *"()"* || $text == *function* || ! $text =~ $sbx_return ]] || sourced=true
  : >"$state.$next"
  # Held open here too, at one position with whatever inherits them: where that is tells how much was written.
  exec {out}>>"$run.out" {err}>>"$run.err"
  {
    sbx_number "$id"
    ulimit -x "$number" 2>/dev/null
    exec -c /usr/bin/setsid bash --noprofile --norc -s -- "$run.cmd" "$id" "$from" "$state.$next" "$@" <<<"${sbx_script/SOURCED/$sourced}"
  } </dev/null >&"$out" 2>&"$err" {out}>&- {err}>&- &
  pid=$!
  printf '%s' "$pid" >"$run.pid"
  wait "$pid"
  status=$?
  [[ -s $state.$next ]] && printf '%s' "$next" >"$state"
  if kill -0 -- "-$pid"; then
    # Where what is left has taken all processes, bash gives up on what follows.
    trap "printf '%s' $status >'$run.exit'; trap - EXIT" EXIT
    sbx_mark "$run"
    trap - EXIT
    [[ ! -f $run.held ]] || sbx_resume "$run"
  fi
  printf '%s' "$status" >"$run.exit"
  # One byte, which a reader whose time is up has or has not: of more it could take a part.
  printf '\n'
  exec >/dev/null
  ! sbx_written "$out" "$err" '[12]' || sbx_tend "$run" "$out" "$err"
}

# Notes where the output of a run ends: what the processes that it leaves behind print after that is not its own. Not by
# sbx_position, which knows nothing of what was written by way of /dev/stdout.
sbx_mark() {
  local sizes
  [[ ! -f $1.ends ]] || return 0
  sizes=$(stat -c %s "$1.out" "$1.err") && printf '%s\n' "${sizes/$'\n'/ }" >"$1.ends"
}

# Sets position to where an open file is.
sbx_position() {
  read -r _ position <"/proc/self/fdinfo/$1"
}

# sbx_written OUT ERR PATTERN: whether another process has one of these files open, under a number like the pattern.
sbx_written() {
  local file
  for file in /proc/[0-9]*/fd/$3; do
    [[ $file -ef /proc/self/fd/$1 || $file -ef /proc/self/fd/$2 ]] && [[ $file != /proc/$BASHPID/* ]] && return
  done
  return 1
}

# Gives the disk back that holds what processes left behind by a run print, as long as there are any, and whether or not
# the files still have their names. Nobody reads that; the output of the run itself stays for sbx_output.
sbx_tend() {
  local run=$1 fds=("$2" "$3") ends=() freed index position pause looks=0
  sbx_mark "$run"
  read -ra ends <"$run.ends"
  freed=("${ends[@]}")
  while ((looks++ % 16)) || sbx_written "${fds[@]}" '*'; do
    pause=1
    for index in 0 1; do
      sbx_position "${fds[index]}"
      ((position - freed[index] > sbx_inline)) || continue
      [[ -f $run.cmd ]] || ends[index]=0
      : "${ends[index]:=$position}"
      fallocate --punch-hole --offset "${ends[index]}" --length "$((position - ends[index]))" "/proc/$BASHPID/fd/${fds[index]}"
      freed[index]=$position pause=0.1
    done
    sbx_sleep "$pause"
  done
}

# Waits for the supervisor's word that the command has ended: 0 when it came, above 128 when the time is up, else the
# supervisor is gone. What there is to know is in the files then.
sbx_heard() {
  local line
  read -r -t "$1" -u "$sbx_pipe" line
  local heard=$?
  ((heard == 0 || heard > 128)) || sbx_gone=$sbx_piped
  ((heard > 128)) || sbx_piped=
  return "$heard"
}

# Holds a run still while nobody takes its output: the disk keeps at most about sbx_backlog bytes of it, plus what
# comes between two looks. What sbx_free gave back does not count.
sbx_govern() {
  local run=$1 pid blocks block total held=
  while [[ ! -f $run.exit ]] && sbx_alive "$run"; do
    [[ -f $run.pid ]] && read -r pid <"$run.pid"
    blocks=$(stat -c %b "$run.out" "$run.err" 2>/dev/null)
    total=0
    for block in $blocks; do
      total=$((total + block * 512))
    done
    if [[ -z $held ]] && ((total > sbx_backlog)); then
      printf '%s' "$BASHPID" >"$run.held"
      kill -STOP -- "-$pid" && held=1
    elif [[ -n $held ]] && ((total < sbx_backlog / 2)); then
      sbx_resume "$run"
      held=
    fi
    sbx_sleep 0.1
  done
  # What the command leaves behind goes on without it.
  [[ -z $held ]] || sbx_resume "$run"
}

# sbx_resume RUN_FILES: lets a run go on that is held still.
sbx_resume() {
  local pid=''
  # No line break ends the number, so the status of read says nothing.
  [[ -f $1.pid ]] && read -r pid <"$1.pid"
  [[ -z $pid ]] || kill -CONT -- "-$pid" 2>/dev/null
  rm -f "$1.held"
}

# sbx_wait ID WAIT_SECONDS
# Waits for the end of a run. Answers "running"; or "exited STATUS OUT_BYTES ERR_BYTES" followed by both outputs; or
# "exited STATUS" alone when they do not fit or are not text, for sbx_poll to get at; or "unknown" for a run that has
# no files.
sbx_wait() {
  local run=$sbx_runs/$1 status='' out='' err='' LC_ALL=C
  sbx_status "$1" "$2"
  if [[ $status != [0-9]* ]]; then
    printf '%s\n' "$status"
  elif sbx_slurp "$run.out" out && sbx_slurp "$run.err" err; then
    printf 'exited %s %s %s\n%s.' "$status" "${#out}" "${#err}" "$out"
    printf '%s.' "$err" >&2
  else
    printf 'exited %s\n' "$status"
  fi
}

# sbx_poll ID WAIT_SECONDS OUT_OFFSET ERR_OFFSET OUT_MAX ERR_MAX
# Waits for the end of a run, then answers "running|exited|unknown STATUS|- ..." and the rest of sbx_output's answer.
sbx_poll() {
  local status=''
  sbx_status "$1" "$2"
  [[ $status == [0-9]* ]] && printf 'exited %s ' "$status" || printf '%s - ' "$status"
  sbx_output "$1" "${@:3}"
}

# sbx_output ID OUT_OFFSET ERR_OFFSET OUT_MAX ERR_MAX
# "OUT_SIZE OUT_START ERR_SIZE ERR_START" and two lines of base64: of each output at most MAX bytes from its offset on.
# With MAX 0 nobody wants what is in between: then its last 16 KiB.
sbx_output() {
  local run=$sbx_runs/$1 sizes=(0 0) starts=("$2" "$3") maxima=("$4" "$5") ends=() index
  [[ -f $run.out ]] && sizes[0]=$(stat -c %s "$run.out")
  [[ -f $run.err ]] && sizes[1]=$(stat -c %s "$run.err")
  [[ ! -f $run.ends ]] || read -ra ends <"$run.ends"
  for index in 0 1; do
    [[ -z ${ends[index]-} ]] || ((sizes[index] <= ends[index])) || sizes[index]=${ends[index]}
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
  if [[ -f $run.held ]]; then
    index=
    read -r index <"$run.held"
    # What holds the run still was killed itself.
    sbx_lives "$index" || sbx_resume "$run"
  fi
}

# sbx_range FILE START END MAX
sbx_range() {
  tail -c "+$(($2 + 1))" "$1" | head -c "$(($3 - $2 < $4 ? $3 - $2 : $4))" | base64 -w 0
}

# sbx_free ID out|err BYTES: gives the disk back what lies before that offset; offsets stay as they are.
sbx_free() {
  fallocate --punch-hole --offset 0 --length "$3" "$sbx_runs/$1.$2" 2>/dev/null
}

# Sets status to that of the ended run, or to "running" or "unknown", after waiting at most so long.
sbx_status() {
  local run=$sbx_runs/$1
  if [[ $sbx_piped == "$1" ]]; then
    sbx_heard "$2"
  elif [[ ! -f $run.cmd ]]; then
    status=unknown
    return
  else
    sbx_await "$run" "$2"
  fi
  # A supervisor that ended without a word may not have come to start anything.
  if [[ $sbx_gone == "$1" && ! -f $run.pid && ! -f $run.exit ]]; then
    printf 'The command could not be started: the sandbox is out of processes or memory. %s\n' \
      'Where list_runs names a run under way that has taken them, stop it with cancel_run; else destroy_sandbox and start afresh.' >>"$run.err"
    printf 126 >"$run.exit"
  fi
  if [[ ! -f $run.exit ]]; then
    if sbx_alive "$run"; then
      status=running
      return
    fi
    sbx_sleep 0.1
    [[ -f $run.exit ]] || printf 137 >"$run.exit"
    [[ ! -f $run.held ]] || sbx_resume "$run"
  fi
  # Empty for the moment between its making and its writing.
  read -r status <"$run.exit"
  if [[ -z $status ]] || sbx_lingers "$1"; then
    status=running
    sbx_sleep 0.1
  fi
}

# Whether processes of a run that is being killed are still there, its leader gone or not. Zombies are not: the first
# process of a container need not ask for those that fall to it.
sbx_lingers() {
  local pid='' marked
  [[ -f $sbx_runs/$1.kill ]] || return
  [[ -f $sbx_runs/$1.pid ]] && read -r pid <"$sbx_runs/$1.pid"
  # A look at a process that is just going may fail: then it is looked at again.
  if [[ -n $pid ]] && kill -0 -- "-$pid" 2>/dev/null; then
    grep -qsE "\\) [^ZX] [0-9]+ $pid " /proc/[0-9]*/stat
    (($? == 1)) || return 0
  fi
  marked=($(sbx_marked "$1"))
  ((${#marked[@]} == 0)) || ! grep -qsE '\) [^ZX] ' "${marked[@]/%limits/stat}" || return 0
  rm -f "$sbx_runs/$1.kill"
  return 1
}

# Waits for a run that another shell started: there is no pipe to read, only a file to look for.
sbx_await() {
  local deadline=$((${EPOCHREALTIME/[.,]/} + ${2%.*} * 1000000))
  while [[ ! -f $1.exit ]] && ((${EPOCHREALTIME/[.,]/} < deadline)) && sbx_alive "$1"; do
    sbx_sleep 0.05
  done
}

# Sleeps without starting a process: a read that can only time out.
sbx_sleep() {
  [[ -n $sbx_never ]] || exec {sbx_never}<> <(:)
  read -r -t "$1" -u "$sbx_never"
}

# Whether the leader of a run's process group lives; a run whose leader is not recorded yet counts as alive.
sbx_alive() {
  local pid=''
  [[ -f $1.pid ]] && read -r pid <"$1.pid"
  [[ -z $pid ]] || sbx_lives "$pid"
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

# sbx_kill ID [KILL]: asks every process of the run to end, and makes it two seconds later, or at once.
sbx_kill() {
  : >"$sbx_runs/$1.kill"
  if [[ ${2-} == KILL ]]; then
    sbx_signal KILL "$1"
    # One that has no leader by now never had any.
    [[ -f $sbx_runs/$1.pid || -f $sbx_runs/$1.exit ]] || printf 137 >"$sbx_runs/$1.exit"
    printf 'killing\n'
    return
  fi
  sbx_signal TERM "$1"
  # One that is held still gets to handle it.
  sbx_signal CONT "$1"
  (sbx_sleep 2; sbx_signal KILL "$1") </dev/null &>/dev/null &
  printf 'killing\n'
}

# Sets number to the mark of a run's processes: their limit of file locks, which Linux keeps and does not apply. Unlike a
# variable it stays with whatever they start, in any environment, and unlike a group no process leaves it by the way.
sbx_number() {
  local tail=${1%t}
  number=$((36#${tail: -12}))
}

# The limits in /proc of the processes that carry a run's mark, a line each. Where no such limit can be set, there is
# still the environment, which most keep.
sbx_marked() {
  local number process
  sbx_number "$1"
  grep -lE "^Max file locks +$number " /proc/[0-9]*/limits 2>/dev/null
  for process in $(grep -lzx "SANDBOX_MCP_RUN=$1" /proc/[0-9]*/environ 2>/dev/null); do
    printf '%s\n' "${process/%environ/limits}"
  done
}

# Signals the run's process group, then whatever left the group but still carries the run's mark.
sbx_signal() {
  local pid='' process
  [[ -f $sbx_runs/$2.pid ]] && read -r pid <"$sbx_runs/$2.pid"
  [[ -z $pid ]] || kill "-$1" -- "-$pid" 2>/dev/null
  for process in $(sbx_marked "$2"); do
    process=${process#/proc/}
    kill "-$1" "${process%/limits}" 2>/dev/null
  done
}

# sbx_clean ID...: removes the files of finished runs.
sbx_clean() {
  local id files=()
  for id in "$@"; do
    [[ ! -f $sbx_runs/$id.held ]] || sbx_resume "$sbx_runs/$id"
    files+=("$sbx_runs/$id".{cmd,out,err,pid,exit,kill,ends,held})
  done
  rm -rf "${files[@]}"
}
