# Sourced by shell.sh, which runs one command in a shell. shell.sh itself evaluates the command, so that bash's errors name bash and
# not our file. shell.sh has only one line, because `set -v` shows the lines after a command. The shell reads shell.sh from standard
# input, because `bash -c` has other exit statuses. Before shell.sh sources this file, it reads the path of the session's state from
# descriptor 3, and evaluates that state. This file reads the path of the run's directory from descriptor 3, then sources the file
# `start` in that directory. A session may define functions with the names of builtins, so our code calls builtins by `builtin`.

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

# Evaluated directly after the command. If the command has defined a function `builtin`, this code moves its text to sbx_builtin.
# The shell is in POSIX mode, in which bash finds `eval`, `export`, `set` and `unset` before functions of these names. A backslash
# prevents aliases. Then this code leaves POSIX mode, and restores the options that the mode has changed.
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
