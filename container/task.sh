# A task in its sandbox: prepares the workspace, starts the coding agent, says what it changed, packs it all up.
# Run as a program: bash task.sh COMMAND ID ... . A task's own files, apart from the workspace, are in $dir:
#
#   prompt argv env                 the task, the agent's command (a word a line), its variables (NAME=VALUE a line)
#   directory repository branch     where it works; what is cloned there
#   workspace.NNN conversation.NNN  archives of an earlier task, in pieces, to start from
#   git start                       what the files were like at the start, as a tree in a repository of its own
#   changes.diff changes.list       what it changed: a diff, and a line for each file
#   files.tgz talk.tgz              what else is fetched from here at the end

set -u
# The agent's programs may be anywhere; those of this script are not what user code has put first in the PATH.
agent_path=$PATH
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
shopt -s nullglob
dir=/var/lib/sandbox-mcp/tasks/$2
home=${HOME:-/root}
# A file above the first, and what comes after the second, is compared by its size and time only. Bytes.
compared_file=$((8 * 1024 * 1024))
compared_total=$((128 * 1024 * 1024))

# Says something about the task itself, on the same stream as the agent's events.
say() {
  printf '{"sandbox_mcp":"%s"}\n' "$1"
}

# prepare ID <<< "NAME BASE64" lines: makes the task's files.
prepare() {
  local name data
  mkdir -p "$dir" || { printf 'unable\n' && return; }
  while read -r name data; do
    base64 -d <<<"$data" >"$dir/$name" || { printf 'unable\n' && return; }
  done
  printf 'prepared\n'
}

# run ID: everything up to the agent's end. Its standard output is the agent's.
run() {
  local work argv name pieces
  umask 022
  work=$(<"$dir/directory")
  mkdir -p /workspace
  pieces=("$dir"/workspace.*)
  if ((${#pieces[@]})); then
    say restoring
    cat "$dir"/workspace.* | tar -xzf - -C /workspace || { say restore_failed && exit 1; }
    rm -f "$dir"/workspace.*
  fi
  pieces=("$dir"/conversation.*)
  if ((${#pieces[@]})); then
    cat "$dir"/conversation.* | tar -xzf - -C "$home" || { say restore_failed && exit 1; }
    rm -f "$dir"/conversation.*
  fi
  if [[ -f $dir/repository ]]; then
    if [[ -e $work ]] && [[ -n $(ls -A -- "$work" 2>&1) ]]; then
      say directory_exists
      exit 1
    fi
    say cloning
    name=()
    [[ ! -f $dir/branch ]] || name=(--branch "$(<"$dir/branch")")
    GIT_TERMINAL_PROMPT=0 GIT_SSH_COMMAND='ssh -o BatchMode=yes' git clone --no-progress "${name[@]}" -- "$(<"$dir/repository")" "$work" </dev/null >&2 ||
      { say clone_failed && exit 1; }
  fi
  mkdir -p -- "$work" && cd -- "$work" || { say no_directory && exit 1; }
  snapshot start >&2 || say no_snapshot
  mapfile -t argv <"$dir/argv"
  PATH=$agent_path
  if ! command -v "${argv[0]}" >/dev/null; then
    say no_agent
    exit 1
  fi
  while IFS= read -r name; do
    export "${name?}"
  done <"$dir/env"
  say agent
  exec "${argv[@]}" <"$dir/prompt"
}

# snapshot NAME: writes down the files of the current directory as a tree, whose id goes into the file NAME.
snapshot() {
  local hash size time path
  [[ -d $dir/git ]] || git init -q --bare "$dir/git" || return
  rm -f "$dir/index" "$dir/large" "$dir/small"
  candidates | perl -0 -e '
    my ($dir, $file, $total) = @ARGV;
    my $sum = 0;
    open(my $small, ">", "$dir/small") or die; open(my $large, ">", "$dir/large") or die;
    while (my $path = <STDIN>) {
      chomp $path;
      my @stat = lstat $path or next;
      my $link = -l _;
      next unless -f _ || $link;
      if ($link || ($stat[7] <= $file && ($sum += $stat[7]) <= $total)) { print $small "$path\0" }
      else { print $large "$stat[7] $stat[9] $path\0" }
    }' "$dir" "$compared_file" "$compared_total" || return
  hidden update-index --add -z --stdin <"$dir/small" || return
  while IFS=' ' read -r -d '' size time path; do
    hash=$(printf '[not compared: %s bytes, changed %(%F %T)T]\n' "$size" "$time" | hidden hash-object -w --stdin)
    hidden update-index --add --cacheinfo "100644,$hash,$path" || return
  done <"$dir/large"
  hidden write-tree >"$dir/$1"
}

# git on the task's own repository, with the current directory as its files, whatever the user has configured.
hidden() {
  GIT_DIR=$dir/git GIT_WORK_TREE=$PWD GIT_INDEX_FILE=$dir/index GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL=/dev/null \
    git -c core.autocrlf=false -c core.quotePath=false -c core.looseCompression=1 "$@"
}

# The files that count, each ended by NUL: in a repository those that it does not ignore, and those of its submodules and
# of other repositories inside it, of which git itself names only the directory.
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

# changes ID MAX_FILES: answers "changes COUNT DIFF_BYTES LIST_BYTES" and a line of base64: NUL-ended
# "A|M|D file|link|name SIZE PATH", where a path that is no UTF-8 counts as a "name" and is escaped as git does it. Or
# "none" where nothing was written down at the start.
changes() {
  local count quote=false
  cd -- "$(<"$dir/directory")" 2>/dev/null && [[ -s $dir/start ]] && snapshot end &>/dev/null ||
    { printf 'none\n' && return; }
  hidden diff-tree -r -z --no-renames --name-status "$(<"$dir/start")" "$(<"$dir/end")" |
    perl -0 -e '
    open(my $list, ">", "$ARGV[0]/changes.list") or die;
    my %said = (A => "created", M => "changed", D => "deleted");
    while (my $change = <STDIN>) {
      chomp $change; chomp(my $path = <STDIN>);
      my $size = $change eq "D" ? 0 : (lstat $path)[7] // 0;
      my $kind = $change ne "D" && -l _ ? "link" : "file";
      $change = "M" if $change eq "T";
      if (!utf8::decode(my $copy = $path)) {
        $kind = "name";
        $path =~ s{(["\\])}{\\$1}g;
        $path =~ s{([^ -~])}{sprintf "\\%03o", ord $1}ge;
        $path = "\"$path\"";
      }
      print "$change $kind $size $path\0";
      (my $line = $path) =~ s{\n}{\\n}g;
      print $list "$said{$change} $line", $change eq "D" ? "\n" : " ($size bytes)\n";
    }' "$dir" >"$dir/changed"
  # One name that is no text would make none of the diff text.
  ! grep -qzE '^[AMD] name ' "$dir/changed" || quote=true
  hidden -c "core.quotePath=$quote" diff --no-color --no-ext-diff --no-textconv --find-renames "$(<"$dir/start")" "$(<"$dir/end")" >"$dir/changes.diff"
  count=$(tr -cd '\0' <"$dir/changed" | wc -c)
  printf 'changes %s %s %s\n' "$count" "$(size changes.diff)" "$(size changes.list)"
  head -z -n "$1" "$dir/changed" | base64 -w 0
}

# archive ID MAX_BYTES CONVERSATIONS CONVERSATION: packs the workspace into files.tgz and the agent's conversation into
# talk.tgz. Up to MAX_BYTES of files go in: what can be made again goes last, then small before large. Answers "archive
# FILES_BYTES TALK_BYTES LEFT_COUNT LEFT_BYTES" and a line of base64: NUL-ended "SIZE PATH" of what was left out.
archive() {
  local left
  cd /workspace || return
  : >"$dir/left"
  left=$(find . -mindepth 1 -print0 | perl -0 -e '
    my ($dir, $max) = @ARGV;
    my $again = qr{((?:^|/)(?:node_modules|\.venv|venv|__pycache__|\.cache|\.next|target))/};
    my (@files, %left);
    my ($sum, $count, $bytes) = (0, 0, 0);
    open(my $list, ">", "$dir/list") or die;
    open(my $out, ">", "$dir/left") or die;
    while (my $path = <STDIN>) {
      chomp $path;
      my @stat = lstat $path or next;
      if (-f _) { push @files, [$path =~ $again ? 1 : 0, $stat[7], $path] }
      elsif (-l _ || -d _) { print $list "$path\0" }
    }
    for my $file (sort { $a->[0] <=> $b->[0] || $a->[1] <=> $b->[1] } @files) {
      my ($last, $size, $path) = @$file;
      if ($sum + $size <= $max) { $sum += $size; print $list "$path\0"; next }
      $count++;
      $bytes += $size;
      $path =~ s{^\./}{};
      $path =~ s{$again.*}{$1}s if $last;
      $left{$path} += $size;
    }
    my @largest = sort { $left{$b} <=> $left{$a} || $a cmp $b } keys %left;
    splice @largest, 20 if @largest > 20;
    print $out "$left{$_} $_\0" for @largest;
    print "$count $bytes";' "$dir" "$1") || return
  tar --create --gzip --file "$dir/files.tgz" --null --no-recursion --files-from "$dir/list" 2>/dev/null
  # 1: a file changed meanwhile, which is no reason to keep nothing.
  (($? <= 1)) || rm -f "$dir/files.tgz"
  if [[ -n ${3-} ]] && cd -- "$home" 2>/dev/null; then
    find "$2" -path "*$3*" -print0 2>/dev/null |
      tar --create --gzip --file "$dir/talk.tgz" --null --no-recursion --files-from - 2>/dev/null || rm -f "$dir/talk.tgz"
  fi
  printf 'archive %s %s %s\n' "$(size files.tgz)" "$(size talk.tgz)" "$left"
  base64 -w 0 "$dir/left"
}

size() {
  stat -c %s "$dir/$1" 2>/dev/null || printf 0
}

# clean ID: removes the task's files.
clean() {
  rm -rf -- "$dir"
}

command=$1
shift 2
"$command" "$@"
