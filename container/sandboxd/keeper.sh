# Keeps one command: starts the shell that will run it, and leaves its exit status in a file, whatever becomes of sandboxd.
# Run by sh. Arguments: the slot's directory, the state to start from, the mark that ends the output, and for a command in
# a pseudo terminal the line that starts its shell.
#
# The slot's pipes stay open here as long as it takes, so that no byte is lost and no writer is hit by SIGPIPE while
# sandboxd is away: `go` says what to run, and later that the end was noticed; `out` and `err` carry the output; `in` what is
# typed, of which `script` must see no end: it would end the command.

cd "$1" || exit
exec 4<>go 5<>out 6<>err
# What sh starts in the background ignores Ctrl-C.
start='/usr/bin/setsid /usr/bin/env --default-signal=INT,QUIT'
if [ -n "$4" ]; then
  exec 7<>in
  $start /usr/bin/script -qefc "$4" /dev/null <in >out 2>err 3<&4 4>&- 5>&- 6>&- 7>&- &
else
  $start /bin/bash --noprofile --norc -s "$2" </opt/sandbox-mcp/sandboxd/shell.sh >out 2>err 3<&4 4>&- 5>&- 6>&- &
fi
pid=$!
echo "$pid" >pid
wait "$pid"
status=$?
# A sandboxd that has gone cannot be told: there is the file.
trap '' PIPE
echo "$status" >exit
# Behind the last byte of the command, and before those of what it leaves behind.
printf %s "$3" >&5
printf %s "$3" >&6
echo "$status" 2>/dev/null
read -r _ <&4
