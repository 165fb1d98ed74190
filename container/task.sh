# Starts the coding agent of a task: restores an earlier conversation, clones the repository, records the state of the files, and
# runs the agent. sandboxd runs this file as a program. A task's own files, outside the workspace, are in
# /var/lib/sandbox-mcp/tasks/ID:
#
#   conversation  the conversation of an earlier task, to continue it: files for the home directory
#   components    definitions of agents and commands that the operator offers and the task names, as KIND/NAME.md
#   git           a separate repository, with the files at the start
#   start         the id of these files' tree in that repository
#   changes.list  the names of the changed files. sandboxd writes this file and the next one
#   changes.diff  the changes
#
# After the agent's end, sandboxd calls `snapshot`.

set -u
# The agent keeps the user's PATH. This script itself must not run programs that user code has put first in PATH.
agent_path=$PATH
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
dir=/var/lib/sandbox-mcp/tasks/$2
home=${HOME:-/root}
# Limits in bytes. Files above the first limit are compared only by size and time. So are all files after the second limit is
# reached.
compared_file=$((8 * 1024 * 1024))
compared_total=$((128 * 1024 * 1024))

# Reports a step or a failure of the task itself, as a line among the agent's events.
say() {
  printf '{"sandbox_mcp":"%s"}\n' "$1"
}

# run ID DIRECTORY REPOSITORY BRANCH COMPONENTS AGENT...: prepares the directory, and then executes the agent. REPOSITORY, BRANCH
# and COMPONENTS may be empty.
run() {
  local work=$1 repository=$2 branch=$3 components=$4
  shift 4
  umask 022
  mkdir -p /workspace "$dir"
  [[ ! -d $dir/conversation ]] || cp -a "$dir/conversation/." "$home/"
  if [[ -n $repository ]]; then
    if [[ -e $work ]] && [[ -n $(ls -A -- "$work" 2>&1) ]]; then
      say directory_exists
      exit 1
    fi
    say cloning
    GIT_TERMINAL_PROMPT=0 GIT_SSH_COMMAND='ssh -o BatchMode=yes' \
      git clone --no-progress ${branch:+--branch "$branch"} -- "$repository" "$work" </dev/null >&2 ||
      { say clone_failed && exit 1; }
  fi
  mkdir -p -- "$work" && cd -- "$work" || { say no_directory && exit 1; }
  place "$components" </dev/null || { say no_component && exit 1; }
  snapshot </dev/null >"$dir/start" || say no_snapshot
  PATH=$agent_path
  if ! command -v "$1" >/dev/null; then
    say no_agent
    exit 1
  fi
  [[ $1 != opencode ]] || prevent_plugin_install
  say agent
  exec "$@"
}

# OpenCode installs its plugin library in its configuration directory, unless a lock file there lists the library. No setting
# prevents the installation. An existing directory stays unchanged, because it may have plugins.
prevent_plugin_install() {
  local configuration=${XDG_CONFIG_HOME:-$home/.config}/opencode
  [[ ! -e $configuration ]] && mkdir -p "$configuration/node_modules" || return 0
  echo '{"packages":{"":{"dependencies":{"@opencode-ai/plugin":"*"}}}}' >"$configuration/package-lock.json"
}

# place COMPONENTS: gives the agent these definitions, each KIND/NAME, separated by spaces. Definitions in the workspace or the home
# directory take precedence over the operator's.
place() {
  local each found missing=()
  local own=$home/.claude
  # An earlier task may have linked other components.
  find "$own/agents" "$own/commands" -maxdepth 1 -type l -lname '/var/lib/sandbox-mcp/tasks/*' -delete 2>/dev/null
  [[ -n $1 ]] || return 0
  found=$(definitions)
  for each in $1; do
    if grep -qxF -- "$each" <<<"$found"; then
      [[ ! -e $dir/components/$each.md ]] || say own_component
    elif [[ -e $dir/components/$each.md ]]; then
      mkdir -p "$own/${each%/*}" && ln -s "$dir/components/$each.md" "$own/$each.md" || missing+=("$each")
    else
      missing+=("$each")
    fi
  done
  ((${#missing[@]})) || return 0
  printf 'There is no %s here; there is %s\n' "$(join_words "${missing[@]}")" "$(join_words $(head -n 50 <<<"${found:-nothing}"))" >&2
  return 1
}

# Lists the definitions of the workspace and the home directory, each KIND/NAME.
definitions() {
  find -H .claude/agents .claude/commands "$home/.claude/agents" "$home/.claude/commands" -maxdepth 4 \
    -name '*.md' -printf '%H/\n%P\n' 2>/dev/null |
    perl -ne '
      chomp;
      if (m{(agents|commands)/$}) { $kind = $1; next }
      # The folder of an agent is not part of its name; the folder of a command is.
      s{.*/}{} if $kind eq "agents";
      print "$kind/$1\n" if m{^([A-Za-z0-9][A-Za-z0-9._-]{0,63})\.md$};' |
    sort -u
}

join_words() {
  local all
  printf -v all '%s, ' "$@"
  printf %s "${all%, }"
}

# snapshot ID: stores the current directory's files as a git tree, and prints the tree's id. Two calls may run at the same time.
snapshot() {
  local own=$dir/snapshot.$$ status
  mkdir -p "$own" && { [[ -d $dir/git ]] || git init -q --bare "$dir/git" >&2; } && ignore_attributes && tree "$own"
  status=$?
  rm -rf "$own"
  return "$status"
}

# Makes git store and compare the bytes of files. Otherwise a .gitattributes in the workspace could hide changes.
ignore_attributes() {
  local file=$dir/git/info/attributes
  [[ -e $file ]] || { mkdir -p "${file%/*}" && echo '* -text -ident -filter -working-tree-encoding !diff' >"$file"; }
}

tree() {
  local hash size time path own=$1
  candidates | perl -0 -e '
    my ($own, $file, $total) = @ARGV;
    my $sum = 0;
    open(my $small, ">", "$own/small") or die; open(my $large, ">", "$own/large") or die;
    while (my $path = <STDIN>) {
      chomp $path;
      my @stat = lstat $path or next;
      my $link = -l _;
      next unless -f _ || $link;
      if ($link || ($stat[7] <= $file && ($sum += $stat[7]) <= $total)) { print $small "$path\0" }
      else { print $large "$stat[7] $stat[9] $path\0" }
    }' "$own" "$compared_file" "$compared_total" || return
  own_git "$own" update-index --add --remove -z --stdin <"$own/small" || return
  while IFS=' ' read -r -d '' size time path; do
    hash=$(printf '[not compared: %s bytes, changed %(%F %T)T]\n' "$size" "$time" | own_git "$own" hash-object -w --stdin)
    own_git "$own" update-index --add --cacheinfo "100644,$hash,$path" || return
  done <"$own/large"
  own_git "$own" write-tree
}

# Runs git on the task's own repository with the current directory as its work tree, without the user's configuration.
own_git() {
  local own=$1
  shift
  GIT_DIR=$dir/git GIT_WORK_TREE=$PWD GIT_INDEX_FILE=$own/index GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL=/dev/null \
    git -c core.autocrlf=false -c core.quotePath=false -c core.looseCompression=1 "$@"
}

# Lists the files to store, each ended by NUL. In a repository these are the files that git does not ignore. git itself lists only
# the directory of a submodule or nested repository, so this function lists the files in it.
candidates() {
  if git rev-parse --is-inside-work-tree &>/dev/null; then
    perl -0 -e '
      sub files {
        my ($within) = @_;
        open(my $git, "-|", "git", "-C", $within || ".", qw(ls-files -z --cached --others --exclude-standard)) or return;
        while (my $path = <$git>) {
          chomp $path;
          $path =~ s{/$}{};
          $path = "$within$path";
          if (-l $path || !-d _) { print "$path\0" }
          elsif (-e "$path/.git") { files("$path/") }
        }
      }
      files("");'
  else
    find . \( -name .git -o -name node_modules -o -name .venv -o -name __pycache__ -o -name '.sandbox-mcp.*' \) -prune \
      -o \( -type f -o -type l \) -printf '%P\0'
  fi
}

command=$1
shift 2
"$command" "$@"
