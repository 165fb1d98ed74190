# Keeps one command: starts the shell that will run it, and leaves its exit status in a file, whatever becomes of sandboxd.
# Run by sh. Arguments: the slot's directory, the state to start from, the mark that ends the output.
#
# The slot's pipes stay open here as long as it takes, so that no byte is lost and no writer is hit by SIGPIPE while
# sandboxd is away: `go` says what to run, and later that the end was noticed; `out` and `err` carry the output.

cd "$1" || exit
exec 4<>go 5<>out 6<>err
/usr/bin/setsid /bin/bash --noprofile --norc -s "$2" </opt/sandbox-mcp/sandboxd/shell.sh >out 2>err 3<&4 4>&- 5>&- 6>&- &
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
