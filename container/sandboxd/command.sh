# Sourced by the one line of shell.sh, by which a shell runs one command: evaluated and not sourced, so that the errors of
# bash name bash and no file of ours; one line, because `set -v` would show what follows the command; read from standard
# input, because bash gives other exit statuses to errors of `bash -c`. That line has read the session's state from the file that
# descriptor 3 named. Waits until it names the directory of the run, then does what its file `start` says.

# The state may have variables with the names of ours.
unset -v sbx_text sbx_left sbx_run
builtin read -r sbx_run <&3
builtin exec 3<&-
[[ -n ${sbx_run-} ]] || builtin exit
: >|"$sbx_run/begun"
IFS= read -r -d '' sbx_text <"$sbx_run/command"
. "$sbx_run/start"
