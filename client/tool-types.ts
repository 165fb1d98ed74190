/** Inputs and data of the tools. Made by `npm run docs` from src/tools. */
export interface ToolInputs {
  run_code: {
    code: string;
    language?: "python" | "javascript" | "typescript";
    sandbox?: string;
    context?: string;
    timeout_seconds?: number;
    /** A run that takes longer continues. */
    wait_seconds?: number;
  };
  run_command: {
    command: string;
    session?: string;
    cwd?: string;
    env?: Record<string, string>;
    stdin?: string;
    /** In a terminal; returns its screen and id. */
    interactive?: boolean;
    sandbox?: string;
    /** Default 120; interactive 3600. */
    timeout_seconds?: number;
    /** A run that takes longer continues. */
    wait_seconds?: number;
  };
  send_input: {
    id: string;
    /** \n is Enter, \u0003 Ctrl-C, \u001b[A Up. */
    text?: string;
    /** With rows: resizes the terminal. */
    columns?: number;
    rows?: number;
  };
  write_file: {
    path: string;
    content: string;
    encoding?: "utf-8" | "base64";
    append?: boolean;
    sandbox?: string;
  };
  edit_file: {
    path: string;
    edits: { old_text: string; new_text: string; all?: boolean }[];
    sandbox?: string;
  };
  read_file: {
    /** Relative to /workspace, or absolute. */
    path: string;
    /** First line, from 1; base64: first byte, from 0. */
    offset?: number;
    /** Lines (default 2000) or bytes. */
    limit?: number;
    encoding?: "utf-8" | "base64";
    sandbox?: string;
  };
  list_files: {
    path?: string;
    recursive?: boolean;
    limit?: number;
    cursor?: string;
    sandbox?: string;
  };
  file_link: {
    path: string;
    direction?: "download" | "upload";
    expires_seconds?: number;
    /** For upload. */
    max_bytes?: number;
    sandbox?: string;
  };
  expose_port: { port: number; expose?: boolean; expires_seconds?: number; sandbox?: string };
  execute_task: {
    task: string;
    /** Git URL to clone. */
    repository?: string;
    branch?: string;
    /** Work in this sandbox. */
    sandbox?: string;
    agent?: "claude-code" | "opencode";
    model?: string;
    max_turns?: number;
    /** Id of an ended task. */
    continue_from?: string;
    /** Subagents from the repository or list_sandboxes. */
    agents?: string[];
    /** Slash commands, from the same places. */
    commands?: string[];
    timeout_seconds?: number;
    wait_seconds?: number;
    /** The fresh sandbox starts from it. */
    checkpoint?: string;
  };
  get_result: {
    id: string;
    wait_seconds?: number;
    cursor?: number;
    /** File that a task left; cursor counts its bytes. */
    artifact?: string;
  };
  list_runs: {
    sandbox?: string;
    /** task: in all sandboxes. */
    kind?: "code" | "command" | "task";
    limit?: number;
    /** Last id of the previous page. */
    cursor?: string;
  };
  cancel_run: { id: string };
  list_sandboxes: Record<string, never>;
  checkpoint_sandbox: { sandbox?: string; label?: string };
  restore_sandbox: { checkpoint: string; sandbox: string };
  configure_sandbox: {
    sandbox?: string;
    /** For all commands, kernels and tasks; an empty value removes a variable. */
    env?: Record<string, string>;
    /** Bash that runs once before the next call; new containers start from its result. */
    setup?: string;
    /** Only at first use. */
    region?: "wnam" | "enam" | "sam" | "weur" | "eeur" | "apac" | "oc" | "afr" | "me";
    internet?: "none" | "allowlist" | "full";
    /** Hosts for allowlist: names, *.name, or packages (PyPI, npm, Debian, GitHub). */
    allow_hosts?: string[];
    idle_minutes?: number;
    /** Bash that runs in every container, such as a server. */
    start?: string;
  };
  destroy_sandbox: {
    sandbox: string;
    /** Also delete its checkpoints. */
    checkpoints?: boolean;
    /** Delete only this checkpoint. */
    checkpoint?: string;
  };
}

export interface ToolOutputs {
  run_code: {
    id: string;
    state: "running" | "succeeded" | "failed" | "cancelled" | "timed_out" | "lost";
    duration_ms: number;
    next?: string;
    notice?: string;
    exit_code?: number;
    stdout: string;
    stderr: string;
    stdout_bytes: number;
    stderr_bytes: number;
    ports?: number[];
    cwd?: string;
    result?: string;
    html?: string[];
    left_out?: string;
    images?: { mime_type: string; data?: string; path?: string }[];
    error?: { name: string; message: string; traceback: string[] };
  };
  run_command: {
    id: string;
    state: "running" | "succeeded" | "failed" | "cancelled" | "timed_out" | "lost";
    duration_ms: number;
    next?: string;
    notice?: string;
    exit_code?: number;
    stdout: string;
    stderr: string;
    stdout_bytes: number;
    stderr_bytes: number;
    ports?: number[];
    cwd?: string;
  };
  send_input: {
    id: string;
    state: "running" | "succeeded" | "failed" | "cancelled" | "timed_out" | "lost";
    exit_code?: number;
    log: ({ stream: "stdout" | "stderr"; text: string })[];
    next_cursor: number;
    log_bytes: number;
    interactive?: true;
    notice?: string;
  };
  write_file: { path: string; bytes_written: number; size: number; notice?: string };
  edit_file: { path: string; replaced: number; size: number; diff: string; notice?: string };
  read_file: {
    path: string;
    size: number;
    lines?: number;
    offset: number;
    content: string;
    notice?: string;
  };
  list_files: {
    path: string;
    entries: ({ path: string; type: "file" | "directory" | "symlink" | "other"; size: number; modified: string })[];
    more: boolean;
    next_cursor?: string;
    notice?: string;
  };
  file_link: {
    url: string;
    path: string;
    expires_at: string;
    size?: number;
    sha256?: string;
    notice?: string;
  };
  expose_port: {
    sandbox: string;
    port: number;
    exposed: boolean;
    url?: string;
    expires_at?: string;
    notice?: string;
  };
  execute_task: {
    id: string;
    state: "running" | "succeeded" | "failed" | "cancelled" | "timed_out" | "lost";
    duration_ms: number;
    next?: string;
    notice?: string;
    success: boolean;
    answer?: string;
    note?: string;
    progress?: string;
    directory: string;
    files?: ({ path: string; change: "created" | "changed" | "deleted"; size: number })[];
    files_changed?: number;
    diff?: string;
    artifacts: { path: string; size: number }[];
    not_kept?: { count: number; named: { path: string; why: string }[] };
    turns?: number;
    tokens?: { input: number; output: number; cache_read: number; cache_write: number };
    cost_usd?: number;
    agent: string;
    model?: string;
    session_id?: string;
  };
  get_result: Record<string, unknown>;
  list_runs: {
    runs: ({ id: string; kind: "code" | "command" | "task"; state: "running" | "succeeded" | "failed" | "cancelled" | "timed_out" | "lost"; title: string; started_at: string; duration_ms: number; exit_code?: number })[];
    next_cursor?: string;
    notice?: string;
  };
  cancel_run: {
    id: string;
    state: "running" | "succeeded" | "failed" | "cancelled" | "timed_out" | "lost";
    duration_ms: number;
    next?: string;
    notice?: string;
  };
  list_sandboxes: {
    sandboxes: ({ name: string; state: "running" | "stopped"; created_at: string; last_used_at: string; size_bytes?: number; saved_at?: string; saved_bytes?: number; variables?: string[]; internet?: string; allow_hosts?: string[]; previews: { port: number; url?: string; expires_at: string }[] })[];
    secrets: { name: string; hosts: string[]; variable?: string }[];
    task_agents: string[];
    task_commands: string[];
    checkpoints: { id: string; sandbox: string; label: string; saved_at: string; bytes: number; expires_at: string }[];
    max_sandboxes: number;
    max_running_sandboxes: number;
    max_concurrent_runs: number;
    max_run_seconds_per_day: number;
    run_seconds_today: number;
    max_model_tokens_per_day: number;
    model_tokens_today: number;
    max_storage_bytes: number;
    storage_bytes: number;
    results_kept_days: number;
    max_checkpoints: number;
    max_workspace_bytes: number;
    workspace_bytes: number;
    notice?: string;
  };
  checkpoint_sandbox: {
    checkpoint: string;
    sandbox: string;
    files: number;
    bytes: number;
    expires_at: string;
    notice?: string;
  };
  restore_sandbox: {
    sandbox: string;
    checkpoint: string;
    before?: string;
    files: number;
    bytes: number;
    notice?: string;
  };
  configure_sandbox: {
    sandbox: string;
    variables: string[];
    setup: "none" | "due" | "running" | "succeeded" | "failed";
    region?: string;
    internet: "none" | "allowlist" | "full";
    allow_hosts: string[];
    idle_minutes: number;
    start: "none" | "stopped" | "running";
    start_id?: string;
    notice?: string;
  };
  destroy_sandbox: { sandbox: string; existed: boolean; checkpoints_left: number; notice?: string };
}

export type ToolName = keyof ToolInputs;

/** How many seconds a call waits for a run by default. A server may allow less, and then its default is lower too. */
export const WAIT_SECONDS = 45;

/** How many seconds a call may wait for a run, unless the server's operator changes MAX_WAIT_SECONDS. */
export const MAX_WAIT_SECONDS = 50;

/** The longest time of a run, in seconds. */
export const MAX_RUN_SECONDS = 21600;

/** The key of the code, message and hint in the `_meta` of a tool's error. */
export const ERROR_META = "sandbox-mcp/error";
