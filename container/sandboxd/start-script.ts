/**
 * The script that a ready shell reads before its command: it applies the call's settings, and sets a trap that stores the session's
 * state. Its commands send standard error to /dev/null where a user's `set -x` would print them.
 */
import { directoryIn } from "./session-directories.ts";
import { MAX_CELLS, type StartCall, type TerminalSize, type Variables, markOf } from "./protocol.ts";

/** Matches commands that may set an EXIT trap, or may show the script itself (`set -v`). */
const MAY_TRAP = /trap|source|\. |' -'[a-z]*v|-[a-z]*v|verbose/;
const TERMINAL: TerminalSize = { rows: 30, columns: 120 };

/**
 * Matches `return` where bash expects a command. The spaces before it include no line break, after which the pattern begins anew:
 * 99,000 blank lines stopped sandboxd for 29 s.
 */
const RETURNS =
  /(^|[;&|(){!\n]|(^|[\s;&|(])(then|do|else|elif|if|while|until|builtin|command)\s)[^\S\n]*return([\s;&|)}]|$)/;

/**
 * Restores bash's own `builtin` even if functions or aliases replace it, and ends `set -v`, `set -x` and a DEBUG trap: see
 * command.sh.
 */
const PLAIN =
  'sbx_posix=${POSIXLY_CORRECT+set}:$BASHOPTS: POSIXLY_CORRECT=${POSIXLY_CORRECT-}; \\eval "$sbx_plain"';

/**
 * Functions for commands that may replace our EXIT trap: `sbx_leave` stores the state before the command's own trap runs. Other
 * commands do not get these functions, so that `declare -F` shows only the session's functions. `sbx_leave` is called after PLAIN,
 * which removes the command's function `builtin`.
 */
const BEFORE_OWN_TRAP = `sbx_leave() {
  [[ -z \${sbx_left-} ]] || builtin return 0
  builtin trap -p EXIT >|"$sbx_run/trap"
  IFS= builtin read -r -d '' sbx_trap <"$sbx_run/trap" || :
  [[ $sbx_trap != *'/state.sh >'* ]] || builtin return 0
  sbx_left=1
  # In a subshell, because state.sh changes variables that the trap needs.
  (builtin . /opt/sandbox-mcp/sandboxd/state.sh) >|"$sbx_run/state"
  [[ -n $sbx_trap && $1 == *x* ]] || builtin return 0
  builtin eval "sbx_trap=(\${sbx_trap#trap -- })"
  builtin trap -- "{ sbx_trace && :; } 2>/dev/null; $sbx_trap" EXIT
}
sbx_is() { builtin return "$1"; }
# Turns set -x on again for the rest of a trap, and returns the status with which the trap began.
sbx_trace() { sbx_status=$?; builtin set -x; builtin return "$sbx_status"; }
# Defines the function exit, unless the session has one or bash is in POSIX mode, which forbids such a function. Bash itself chooses
# the status of an exit without arguments.
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

/** @param state the text of the session's state; a function in it may set a trap */
export function startScript(call: StartCall, state: string): string {
  const { id, command, cwd, stdin, interactive } = call;
  const { size, env } = interactive ? terminalOf(call.env) : { size: undefined, env: call.env ?? {} };
  const lines = [
    // SECONDS then counts from the command's start, and not from the shell's.
    "SECONDS=0",
    `builtin ulimit -x ${markOf(id)} 2>/dev/null`,
    `builtin export SANDBOX_MCP_RUN=${id}`,
    "builtin unset -v sbx_before",
    "builtin declare -A sbx_before",
    "sbx_directory=",
    // The directory may have been removed and recreated while the shell was waiting.
    '[[ . -ef $PWD ]] || builtin cd -- "$PWD" 2>/dev/null || builtin cd /workspace 2>/dev/null || builtin cd /',
  ];
  const directory = directoryIn(state);
  if (directory !== undefined)
    lines.push(
      `[[ $PWD == ${quote(directory)} ]] || builtin printf "The session's directory %q no longer exists. The session continues in %q.\\n" ${quote(directory)} "$PWD" >&2`,
    );
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
  // A `return` outside functions ends the command. Bash allows it only in sourced files, so such a command is evaluated in a
  // sourced file. Bash's error messages begin with the name under which a file was sourced. So the file is named `bash`, and is
  // sourced from its own directory.
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

/** Valid LINES and COLUMNS become the terminal's size. They are not set as variables, because they would be wrong after a resize. */
function terminalOf(given: StartCall["env"] = {}): { size: TerminalSize; env: Record<string, string> } {
  const { LINES = "", COLUMNS = "", ...others } = given;
  const [rows = 0, columns = 0] = [LINES, COLUMNS].map((text) =>
    /^[1-9]\d{0,3}$/.test(text) ? Number(text) : 0,
  );
  const isSize = rows > 0 && columns > 0 && Math.max(rows, columns) <= MAX_CELLS;
  const size = isSize ? { rows, columns } : TERMINAL;
  return { size, env: { TERM: "xterm-256color", ...(isSize ? others : given) } };
}

function variableLines({ version, entries }: Variables): string[] {
  return [
    // Only digits pass, because the session's commands can set the variable, and bash evaluates the operands of -ge as code.
    'case ${SANDBOX_MCP_VARIABLES-} in "" | *[!0-9]*) SANDBOX_MCP_VARIABLES=0 ;; esac',
    ...entries.map((entry) => {
      const set = entry.value === null ? "unset -v" : "export";
      const word = entry.value === null ? entry.name : `${entry.name}=${quote(entry.value)}`;
      // A variable that the session has made readonly keeps its value.
      return `[[ 10#$SANDBOX_MCP_VARIABLES -ge ${entry.version} ]] || builtin ${set} ${word} 2>/dev/null`;
    }),
    `builtin export SANDBOX_MCP_VARIABLES=${version}`,
  ];
}

function quote(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
