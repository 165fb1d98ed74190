# Prints what carries over to the next command of a session: directory, umask, exported variables and functions.
# Sourced at the end of a command; restores first what was set for that command only.
# A function of the command's with the name of `builtin`, by which the rest is called, is given up.
{ set +euvx; unset -f builtin; } 2>/dev/null
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
builtin printf 'builtin cd -- %q 2>/dev/null || { builtin cd /workspace 2>/dev/null || builtin cd /; }\n' "$PWD"
builtin umask -p
builtin export -p
builtin declare -f
# The shell may be killed while it writes: without this line, sandboxd leaves the session the state before.
builtin printf '# complete\n'
