# Runs one command in the state of its session. Arguments: the command's file, the run's id, the state to start
# from, the file for the state to leave, then optionally a directory ("" for the session's) and NAME=VALUE pairs,
# both for this command only.
. "$3"
sbx_next=$4 sbx_command=$1 sbx_directory=
export SANDBOX_MCP_RUN=$2
declare -A sbx_before=()
if [[ -n ${5-} ]]; then
  sbx_directory=$PWD
  cd -- "$5" &>/dev/null || { printf 'The directory %q cannot be entered.\n' "$5" >&2; exit 1; }
fi
for sbx_pair in "${@:6}"; do
  sbx_name=${sbx_pair%%=*}
  [[ -v $sbx_name ]] && sbx_before[$sbx_name]="=${!sbx_name}" || sbx_before[$sbx_name]=
  export "$sbx_pair"
done
set --
trap '. /opt/sandbox-mcp/state.sh >"$sbx_next"' EXIT
. "$sbx_command"
sbx_status=$?
# A trap of the command's own may have taken the place of ours, and needs the variables that state.sh restores.
trap -p EXIT >"$sbx_command"
IFS= read -r sbx_trap <"$sbx_command" || :
[[ $sbx_trap == *'/state.sh >'* ]] || (. /opt/sandbox-mcp/state.sh) >"$sbx_next"
exit "$sbx_status"
