# Prepares a command in the state of its session, which is in place: the line of run.sh that sources this evaluates the one
# before and the other after it, so that the errors of bash name bash and no file of ours. Arguments: the command's file, the run's id, the state to start from, the file for the state to leave, then
# optionally a directory ("" for the session's) and NAME=VALUE pairs, both for this command only. What runs behind the
# command does so where `set -x` cannot show it.

# Without what the state may bring that is called like ours.
unset -v sbx_text sbx_state sbx_left
IFS= read -r -d '' sbx_text <"$1"
IFS= read -r -d '' sbx_state <"$3"
# A trap on EXIT of the command's own takes the place of ours: the state is left before it runs. What can set none
# finds no function here that is not its own; `set -v` would show ours. An exit of the session's own stays.
if [[ $sbx_text$sbx_state =~ trap|source|'. '|' -'[a-z]*v|verbose ]]; then
  sbx_leave() {
    [[ -z ${sbx_left-} ]] || return 0
    trap -p EXIT >|"$sbx_command"
    IFS= read -r -d '' sbx_trap <"$sbx_command" || :
    [[ $sbx_trap != *'/state.sh >'* ]] || return 0
    sbx_left=1
    # In a subshell: the trap needs the variables that state.sh restores.
    (. /opt/sandbox-mcp/state.sh) >|"$sbx_next"
    [[ -n $sbx_trap && $1 == *x* ]] || return 0
    eval "sbx_trap=(${sbx_trap#trap -- })"
    trap -- "{ sbx_trace && :; } 2>/dev/null; $sbx_trap" EXIT
  }
  sbx_is() { return "$1"; }
  # Shows the rest of a trap again, which begins with the status that it would have begun with.
  sbx_trace() { sbx_status=$?; set -x; return "$sbx_status"; }

  # Without a status it is that of the command before, and in a trap the one from before the trap: bash knows.
  declare -F exit >/dev/null || exit() {
    {
      sbx_status=$? sbx_options=$-
      set +vx
      [[ $BASHPID != "$$" ]] || sbx_leave "$sbx_options" || :
      sbx_is "$sbx_status" && :
    } 2>/dev/null
    builtin exit "$@"
  }
fi

unset -v sbx_state
sbx_command=$1 sbx_next=$4 sbx_directory=
export SANDBOX_MCP_RUN=$2
declare -A sbx_before=()
if [[ -n ${5-} ]]; then
  sbx_directory=$PWD
  builtin cd -- "$5" &>/dev/null || { printf 'The directory %q cannot be entered.\n' "$5" >&2; builtin exit 1; }
fi
for sbx_pair in "${@:6}"; do
  sbx_name=${sbx_pair%%=*}
  [[ -v $sbx_name ]] && sbx_before[$sbx_name]="=${!sbx_name}" || sbx_before[$sbx_name]=
  export "$sbx_pair"
done
set --
trap '{ set +vx; } 2>/dev/null; . /opt/sandbox-mcp/state.sh >|"$sbx_next"' EXIT
