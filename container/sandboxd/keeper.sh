# Keeps one command: starts the shell that will run it, and leaves its exit status in a file, whatever becomes of sandboxd.
# Run by sh in the slot's directory. The argument is a word where the command is to have a pseudo terminal. The mark that ends the output
# is in a file: a command may print every command line that there is. Paths are relative, so that the command lines of our processes have no word that people match with `pkill -f`.
#
# The slot's pipes stay open here as long as it takes, so that no byte is lost and no writer is hit by SIGPIPE while
# sandboxd is away: `go` names the state to start from, then what to run, and later says that the end was noticed; `out` and
# `err` carry the output; `in` what is typed, of which `script` must see no end: it would end the command.

exec 4<>go 5<>out 6<>err
IFS= read -r mark <mark
shell="../sbx-sh --noprofile --norc -s"

begin() {
  read -r pid _ </proc/self/stat
  echo "$pid" >pid
  exec /usr/bin/setsid "$@" 3<&4 4>&- 5>&- 6>&- 7>&-
}

# In the foreground: what sh starts in the background ignores Ctrl-C.
if [ -n "$1" ]; then
  exec 7<>in
  (begin /usr/bin/script -qefc "exec $shell <../own/shell.sh" /dev/null <in >out 2>err)
else
  (begin $shell <../own/shell.sh >out 2>err)
fi
status=$?
# A sandboxd that has gone cannot be told: there is the file.
trap '' PIPE
echo "$status" >exit
# Behind the last byte of the command, and before those of what it leaves behind.
printf %s "$mark" >&5
printf %s "$mark" >&6
echo "$status" 2>/dev/null
read -r _ <&4
