# Sourced by the one line of shell.sh, by which a shell runs one command: evaluated and not sourced, so that the errors of
# bash name bash and no file of ours; one line, because `set -v` would show what follows the command; read from standard
# input, because bash gives other exit statuses to errors of `bash -c`. That line has read the session's state from the file that
# descriptor 3 named. Waits until it names the directory of the run, then does what its file `start` says.
#
# The session may have functions with the names of builtins, so these are called by `builtin`, here and in `start`.

# The state may have variables with the names of ours.
builtin unset -v sbx_text sbx_left sbx_run sbx_exec
builtin read -r sbx_run <&3
# What exec redirects stays only where it is called by its own name.
if builtin declare -F exec >/dev/null; then
  sbx_exec=$(builtin declare -f exec)
  builtin unset -f exec
fi
exec 3<&-
[[ -n ${sbx_run-} ]] || builtin exit
: >|"$sbx_run/begun"
IFS= builtin read -r -d '' sbx_text <"$sbx_run/command"
# The session's function with the name of `builtin`, last of all.
[[ -z ${sbx_builtin-} ]] || sbx_text="builtin eval \"\$sbx_builtin\"; $sbx_text"

# What is evaluated first of all after the command, which may have made a function `builtin`: it keeps that as text in sbx_builtin
# and removes it. The evaluating shell has switched to POSIX mode, in which bash finds `eval`, `export`, `set` and `unset` before functions
# of these names; a backslash keeps them from being aliases. Then leaves POSIX mode, and what that changes is as it was.
sbx_plain='\trap - DEBUG
\set +vx
if \export -nf builtin; then
  sbx_builtin=$(\unset -f declare; \declare -f builtin)
  \unset -f builtin
fi
if [[ $sbx_posix == :* ]]; then
  \unset -v POSIXLY_CORRECT
  for sbx_name in expand_aliases inherit_errexit shift_verbose; do
    [[ $sbx_posix == *:$sbx_name:* ]] && \builtin shopt -s "$sbx_name" || \builtin shopt -u "$sbx_name"
  done
fi'
builtin . "$sbx_run/start"
[[ -z ${sbx_exec-} ]] || builtin eval "$sbx_exec"
