# Prints what carries over to the next command of a session: directory, umask, exported variables and functions.
# Sourced at the end of a command (after restoring what was set for this command only), and once to begin with.
{ set +euvx; } 2>/dev/null
if [[ -v sbx_next ]]; then
  [[ -z $sbx_directory ]] || builtin cd -- "$sbx_directory"
  for sbx_name in "${!sbx_before[@]}"; do
    unset -v "$sbx_name"
    [[ -z ${sbx_before[$sbx_name]} ]] || export "$sbx_name${sbx_before[$sbx_name]}"
  done
  unset -v SANDBOX_MCP_RUN
  if declare -F sbx_leave >/dev/null; then
    [[ $(declare -f exit) != *sbx_leave* ]] || unset -f exit
    unset -f sbx_leave sbx_is sbx_trace
  fi
fi
printf 'cd -- %q 2>/dev/null || { cd /workspace 2>/dev/null || cd /; }\n' "$PWD"
umask -p
export -p
[[ ! -v sbx_next ]] || declare -f
