# Runs one command in the state of its session. Arguments: the command's file, the run's id, the state to start
# from, the file for the state to leave, then optionally a directory ("" for the session's) and NAME=VALUE pairs,
# both for this command only.

# A trap on EXIT of the command's own takes the place of ours: the state is left before it runs.
sbx_leave() {
  [[ -z ${sbx_left-} ]] || return 0
  trap -p EXIT >|"$sbx_command"
  IFS= read -r sbx_trap <"$sbx_command" || :
  # In a subshell: the trap needs the variables that state.sh restores.
  [[ $sbx_trap == *'/state.sh >'* ]] || { sbx_left=1; (. /opt/sandbox-mcp/state.sh) >|"$sbx_next"; }
}
sbx_is() { return "$1"; }

# Without a status it is that of the command before, and in a trap the one from before the trap: bash knows.
exit() {
  { sbx_status=$?; [[ $BASHPID != "$$" ]] || sbx_leave || :; sbx_is "$sbx_status" && :; } 2>/dev/null
  builtin exit "$@"
}

# May bring an exit of the session's own.
. "$3"
sbx_next=$4 sbx_command=$1 sbx_directory=
export SANDBOX_MCP_RUN=$2
declare -A sbx_before=()
if [[ -n ${5-} ]]; then
  sbx_directory=$PWD
  cd -- "$5" &>/dev/null || { printf 'The directory %q cannot be entered.\n' "$5" >&2; builtin exit 1; }
fi
for sbx_pair in "${@:6}"; do
  sbx_name=${sbx_pair%%=*}
  [[ -v $sbx_name ]] && sbx_before[$sbx_name]="=${!sbx_name}" || sbx_before[$sbx_name]=
  export "$sbx_pair"
done
set --
trap '. /opt/sandbox-mcp/state.sh >|"$sbx_next"' EXIT
. "$sbx_command"
sbx_status=$?
sbx_leave || :
builtin exit "$sbx_status"
