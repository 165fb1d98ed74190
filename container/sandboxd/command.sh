# Sourced by shell.sh, which runs one command in a shell. shell.sh evaluates the command, so that errors name bash and not our file.
# shell.sh is one line, because `set -v` shows the lines after a command, and comes from standard input, because `bash -c` has other
# exit statuses. It has read the path of the session's state from descriptor 3, and the state. This script reads the path of the run's
# directory from descriptor 3, then sources the file `start` there. A session may have functions named like builtins, so builtins are
# called by `builtin`.

# The state may contain variables with our names.
builtin unset -v sbx_text sbx_left sbx_run sbx_exec
builtin read -r sbx_run <&3
# `exec` keeps redirections only if it is called directly, not by `builtin`.
if builtin declare -F exec >/dev/null; then
  sbx_exec=$(builtin declare -f exec)
  builtin unset -f exec
fi
exec 3<&-
[[ -n ${sbx_run-} ]] || builtin exit
: >|"$sbx_run/begun"
IFS= builtin read -r -d '' sbx_text <"$sbx_run/command"
# Restores the session's own function `builtin` last.
[[ -z ${sbx_builtin-} ]] || sbx_text="builtin eval \"\$sbx_builtin\"; $sbx_text"

# Evaluated directly after the command. Moves a function `builtin` of the command to sbx_builtin, as text. The shell is in POSIX
# mode, in which bash finds `eval`, `export`, `set` and `unset` before functions of these names; a backslash prevents aliases. Then
# leaves POSIX mode, and restores the options that the mode has changed.
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
