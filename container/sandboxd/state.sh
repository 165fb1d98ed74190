# Prints the state that a session's next command starts with: directory, umask, exported variables and functions. Sourced at the end
# of a command, after sbx_plain of command.sh. First undoes settings that were for that command only.
\builtin shopt -u expand_aliases
builtin set +aeu
[[ -z $sbx_directory ]] || builtin cd -- "$sbx_directory"
for sbx_name in "${!sbx_before[@]}"; do
  builtin unset -v "$sbx_name"
  [[ -z ${sbx_before[$sbx_name]} ]] || builtin export "$sbx_name${sbx_before[$sbx_name]}"
done
builtin unset -v SANDBOX_MCP_RUN
if builtin declare -F sbx_leave >/dev/null; then
  [[ $(builtin declare -f exit) != *sbx_leave* ]] || builtin unset -f exit
  builtin unset -f sbx_leave sbx_is sbx_trace
fi
# Under `set -a`, bash has exported sandboxd's own variables.
builtin export -n "${!sbx_@}"
builtin printf 'builtin cd -- %q 2>/dev/null || { builtin cd /workspace 2>/dev/null || builtin cd /; }\n' "$PWD"
builtin umask -p
builtin export -p
# After an exported function, `declare -f` prints `declare -fx NAME`. A session's function `declare` must not get that call.
if builtin declare -F declare >/dev/null; then
  sbx_text=$(builtin declare -f)
  builtin printf '%s\n' "${sbx_text//$'\n'declare -f/$'\n'builtin declare -f}"
else
  builtin declare -f
fi
# The next command needs bash's own `builtin` first. Then it restores the session's function `builtin` itself.
[[ -z ${sbx_builtin-} ]] || builtin printf 'sbx_builtin=%q\n' "sbx_builtin=; $sbx_builtin"
# A directory's name may contain a line break.
[[ $PWD == *$'\n'* ]] || builtin printf '# in %s\n' "$PWD"
# The shell may be killed while it writes. Without this line, sandboxd keeps the previous state.
builtin printf '# complete\n'
