/**
 * The script that a ready shell reads before the command: it sets what the call asks for, and a trap that leaves the session's
 * state behind. Its own commands run with standard error at /dev/null where `set -x` may be on, which would show them.
 */
import { MAX_CELLS, type StartCall, type TerminalSize, type Variables, markOf } from "./protocol.ts";

/** Matches commands that may set a trap on EXIT, or may show the script that is read (`set -v`). */
const MAY_TRAP = /trap|source|\. |' -'[a-z]*v|-[a-z]*v|verbose/;

/** The size of a pseudo terminal whose call says none, in characters. */
const TERMINAL: TerminalSize = { rows: 30, columns: 120 };

/** Matches `return` where bash expects a command. */
const RETURNS =
  /(^|[;&|(){!\n]|(^|[\s;&|(])(then|do|else|elif|if|while|until|builtin|command)\s)\s*return([\s;&|)}]|$)/;

/** Has `builtin` be that of bash, whatever functions and aliases there are, and ends `set -v`, `set -x` and a trap on DEBUG: see command.sh. */
const PLAIN =
  'sbx_posix=${POSIXLY_CORRECT+set}:$BASHOPTS: POSIXLY_CORRECT=${POSIXLY_CORRECT-}; \\eval "$sbx_plain"';

/**
 * For commands that may set a trap on EXIT, which then takes the place of ours: the state is left before that trap runs. Other
 * commands are not given these functions, so that a command's `declare -F` has none that are not its own. They are called after
 * PLAIN, so that a function `builtin` of the command's own is not there for its trap.
 */
const BEFORE_OWN_TRAP = `sbx_leave() {
  [[ -z \${sbx_left-} ]] || builtin return 0
  builtin trap -p EXIT >|"$sbx_run/trap"
  IFS= builtin read -r -d '' sbx_trap <"$sbx_run/trap" || :
  [[ $sbx_trap != *'/state.sh >'* ]] || builtin return 0
  sbx_left=1
  # In a subshell: the trap needs the variables that state.sh restores.
  (builtin . /opt/sandbox-mcp/sandboxd/state.sh) >|"$sbx_run/state"
  [[ -n $sbx_trap && $1 == *x* ]] || builtin return 0
  builtin eval "sbx_trap=(\${sbx_trap#trap -- })"
  builtin trap -- "{ sbx_trace && :; } 2>/dev/null; $sbx_trap" EXIT
}
sbx_is() { builtin return "$1"; }
# Shows the rest of a trap again, which begins with the status that it would have begun with.
sbx_trace() { sbx_status=$?; builtin set -x; builtin return "$sbx_status"; }
# A function named exit of the session's own stays, and POSIX mode allows none. Without a status it is that of the command before, and in a trap the one from before
# the trap: bash knows.
builtin declare -F exit >/dev/null || [[ -v POSIXLY_CORRECT ]] || exit() {
  {
    sbx_status=$? sbx_options=$-
    ${PLAIN}
    [[ $BASHPID != "$$" ]] || sbx_leave "$sbx_options" || :
    sbx_is "$sbx_status" && :
  } 2>/dev/null
  builtin exit "$@"
}
`;

/** @param state the text of the session's state: a function in it may set a trap */
export function startScript(call: StartCall, state: string): string {
  const { id, command, cwd, stdin, interactive } = call;
  const { size, env } = interactive ? terminalOf(call.env) : { size: undefined, env: call.env ?? {} };
  const lines = [
    // The time for which the shell stood ready does not count.
    "SECONDS=0",
    `builtin ulimit -x ${markOf(id)} 2>/dev/null`,
    `builtin export SANDBOX_MCP_RUN=${id}`,
    "builtin unset -v sbx_before",
    "builtin declare -A sbx_before",
    "sbx_directory=",
    // The directory may have been removed, and made again, while the shell stood ready.
    '[[ . -ef $PWD ]] || builtin cd -- "$PWD" 2>/dev/null || builtin cd /workspace 2>/dev/null || builtin cd /',
  ];
  if (MAY_TRAP.test(command + state)) lines.push(BEFORE_OWN_TRAP);
  if (cwd)
    lines.push(
      "sbx_directory=$PWD",
      `builtin cd -- ${quote(cwd)} &>/dev/null || { builtin printf 'The directory %q cannot be entered.\\n' ${quote(cwd)} >&2; builtin exit 1; }`,
    );
  if (call.variables) lines.push(...variableLines(call.variables));
  for (const [name, value] of Object.entries(env))
    lines.push(
      `[[ -v ${name} ]] && sbx_before[${name}]="=$${name}" || sbx_before[${name}]=`,
      `builtin export ${name}=${quote(value)}`,
    );
  if (stdin !== undefined) lines.push('exec <"$sbx_run/stdin"');
  if (size) lines.push(`exec <&1; builtin command stty sane rows ${size.rows} cols ${size.columns}`);
  // A return outside of functions ends the command. Bash allows it only in a sourced file, so that such a command is evaluated
  // by one. Error messages begin with the file's name as it was given: it is `bash`, and is given from its own directory.
  if (RETURNS.test(command) && !/\(\)|function/.test(command))
    lines.push(
      "sbx_own=$sbx_text",
      "[[ ! -v OLDPWD ]] || sbx_old=$OLDPWD",
      "sbx_text='builtin cd /opt/sandbox-mcp/sandboxd/sourced; builtin shopt -u sourcepath; builtin . bash'",
    );
  const leave = `{ ${PLAIN}; } 2>/dev/null; \\builtin . /opt/sandbox-mcp/sandboxd/state.sh >|"$sbx_run/state"`;
  lines.push(`builtin trap '${leave}' EXIT`);
  return `${lines.join("\n")}\n`;
}

/**
 * The size of a terminal, and the variables of a command in it. LINES and COLUMNS say the size, and are then no variables:
 * programs would believe them when the size is another.
 */
function terminalOf(given: StartCall["env"] = {}): { size: TerminalSize; env: Record<string, string> } {
  const { LINES = "", COLUMNS = "", ...others } = given;
  const [rows = 0, columns = 0] = [LINES, COLUMNS].map((text) =>
    /^[1-9]\d{0,3}$/.test(text) ? Number(text) : 0,
  );
  const isSize = rows > 0 && columns > 0 && Math.max(rows, columns) <= MAX_CELLS;
  const size = isSize ? { rows, columns } : TERMINAL;
  return { size, env: { TERM: "xterm-256color", ...(isSize ? others : given) } };
}

/** Brings the sandbox's variables to where they are now; the session's state carries them, and up to which version it has them. */
function variableLines({ version, entries }: Variables): string[] {
  return [
    // The session's commands can set it, and bash evaluates what is compared as a number.
    'case ${SANDBOX_MCP_VARIABLES-} in "" | *[!0-9]*) SANDBOX_MCP_VARIABLES=0 ;; esac',
    ...entries.map((entry) => {
      const set = entry.value === null ? "unset -v" : "export";
      const word = entry.value === null ? entry.name : `${entry.name}=${quote(entry.value)}`;
      // One that the session has made readonly stays.
      return `[[ 10#$SANDBOX_MCP_VARIABLES -ge ${entry.version} ]] || builtin ${set} ${word} 2>/dev/null`;
    }),
    `builtin export SANDBOX_MCP_VARIABLES=${version}`,
  ];
}

/** `text` as one word of a shell line. */
export function quote(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
