#!/bin/bash
# keep-sandboxd.sh SERVER: keeps sandboxd running for as long as the process SERVER runs. One that ends is started again. One
# that does not answer is killed before: user code may have stopped it, or have taken its place. The one after takes over what
# it was running. Nothing here but a start makes a process, so that it works where there are no more.
#
# local/runtime/sandboxd.ts is the same for local sandboxes. Times are in milliseconds.
server=$1
sandboxd=/opt/sandbox-mcp/sandboxd/dist/sandboxd.cjs

# The pause between two questions, until the first answer and then; and how long an answer may take.
starting_ms=500
ask_ms=5000
answer_ms=5000
# How long sandboxd may leave questions unanswered: in time that it had to answer, because what runs in the sandbox may keep it
# from the processor for long.
hung_ms=15000

# seconds MS
seconds() { printf -v seconds '%d.%03d' $(($1 / 1000)) $(($1 % 1000)); }

# Whether something answers at its port in HTTP. Returns more than 128 where that was waited for in vain.
answers() {
  seconds "$answer_ms"
  {
    printf 'GET / HTTP/1.0\r\n\r\n' >&4 && read -r -t "$seconds" -N 5 -u 4 && [ "$REPLY" = HTTP/ ]
  } 4<>/dev/tcp/127.0.0.1/8671
} 2>/dev/null

# Sets what sandboxd did since its start: how long it ran, and how long it waited for a processor, where a wait counts once it is
# over; and what it does now. Fails where the system does not say.
look() {
  read -r ran waited _ <"/proc/$pid/schedstat" && read -r state <"/proc/$pid/stat" || return
  ran=$((ran / 1000000)) waited=$((waited / 1000000)) state=${state##*) }
} 2>/dev/null

# Sets how much of the time since the last question it had.
count() {
  case $state in
    # It runs or waits, for a processor or a disk.
    [RD]*) own=$((ran - ran_before)) ;;
    *) own=$((pause + (answered > 128 ? answer_ms : 0) - (waited - waited_before))) ;;
  esac
  [ "$own" -gt 0 ] || own=0
}

# What is written to a connection that was closed is no reason to end.
trap : PIPE
while kill -0 "$server" 2>/dev/null; do
  if [ -s "$sandboxd" ]; then
    # It prints nothing there, and the pipe ends with it.
    exec 3< <(exec node "$sandboxd")
    pid=$! pause=$starting_ms had=0 ran_before=0 waited_before=0
    while seconds "$pause" && read -r -t "$seconds" -u 3 || [ $? -ne 1 ]; do
      answers
      answered=$?
      look || continue
      count
      ran_before=$ran waited_before=$waited
      if [ "$answered" -eq 0 ]; then
        pause=$ask_ms had=0
      elif [ $((had += own)) -ge "$hung_ms" ]; then
        echo "sandbox-mcp: sandboxd has not answered for $((had / 1000)) s of its own time: it is killed" >&2
        kill -KILL "$pid"
      fi
    done
  fi
  sleep 0.1
done
