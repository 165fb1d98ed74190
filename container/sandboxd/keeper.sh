# Keeps one command: starts the shell that will run it, and writes its exit status to a file, even if sandboxd ends.
# Run by sh in the slot's directory. With a non-empty argument the command gets a pseudo terminal. The mark that ends the output is
# in a file, because a command may print all command lines. Paths are relative, so that our command lines have no word that people
# match with `pkill -f`.
#
# The slot's pipes stay open here, so that no byte is lost and no writer gets SIGPIPE while sandboxd is away. `go` names the state
# to start from, then the run, and later says that the end was noticed. `out` and `err` carry the output. `in` carries typed text;
# it must not reach its end, because `script` would then end the command.

exec 4<>go 5<>out 6<>err
IFS= read -r mark <mark
shell="../sbx-sh --noprofile --norc -s"

begin() {
  read -r pid _ </proc/self/stat
  echo "$pid" >pid
  exec /usr/bin/setsid "$@" 3<&4 4>&- 5>&- 6>&- 7>&-
}

# In the foreground: processes that sh starts in the background ignore Ctrl-C.
if [ -n "$1" ]; then
  exec 7<>in
  (begin /usr/bin/script -qefc "exec $shell <../own/shell.sh" /dev/null <in >out 2>err)
else
  (begin $shell <../own/shell.sh >out 2>err)
fi
status=$?
# If sandboxd has gone, the next one reads the file.
trap '' PIPE
echo "$status" >exit
# After the last byte of the command, and before output of processes that it leaves behind.
printf %s "$mark" >&5
printf %s "$mark" >&6
echo "$status" 2>/dev/null
read -r _ <&4
