# Starts the shell that will run one command, and writes the command's exit status to a file, even if sandboxd ends.
# sh runs this script in the slot's directory. With a non-empty argument the command gets a pseudo terminal. Paths are relative, so
# that no `pkill -f` of a user matches them. This script reads the mark, which ends the output, from a file, because ps would show
# an argument.
#
# The slot's pipes stay open here, so that no byte is lost and no writer gets SIGPIPE while sandboxd restarts. `go` carries three
# lines: for the shell the path of the session's state, then the path of the run's directory; for this script a line that lets it
# end. `in` carries typed text, and must not reach its end, because `script` would then end the command.

exec 4<>go 5<>out 6<>err
IFS= read -r mark <mark
shell="../sbx-sh --noprofile --norc -s"

begin() {
  read -r pid _ </proc/self/stat
  echo "$pid" >pid
  exec /usr/bin/setsid "$@" 3<&4 4>&- 5>&- 6>&- 7>&-
}

# In the foreground, because background processes of sh ignore Ctrl-C.
if [ -n "$1" ]; then
  exec 7<>in
  (begin /usr/bin/script -qefc "exec $shell <../own/shell.sh" /dev/null <in >out 2>err)
else
  (begin $shell <../own/shell.sh >out 2>err)
fi
status=$?
# If sandboxd has ended, the write to standard output below fails, and the next sandboxd reads the file `exit`.
trap '' PIPE
echo "$status" >exit
# The mark separates the command's output from later output of its background processes.
printf %s "$mark" >&5
printf %s "$mark" >&6
echo "$status" 2>/dev/null
read -r _ <&4
