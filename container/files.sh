# Files of a sandbox: atomic writes, reads by range, listings. Sourced once into a shell of the sandbox.
#
# Every answer starts with a line of words; data follows in base64, so that any byte survives. "failed" is followed
# by the system's own sentence. What a shell builtin can do starts no process: each costs more than the call itself.

shopt -s extglob
# For sbx_slurp and sbx_lives.
[[ -v sbx_runs ]] || . /opt/sandbox-mcp/run.sh
sbx_files=/var/lib/sandbox-mcp
[[ -d $sbx_files ]] || mkdir -p "$sbx_files"

# sbx_put PATH write|append ID [base64|text|raw] [confined]: standard input becomes the file, or its end: decoded when it says base64,
# without its last line break when it says text, which takes no process and must not hold NUL. The
# content is complete under another name in the same directory before it takes the file's place, so a killed write
# leaves the old content. A symbolic link stays and what it points to is written; the file's mode stays. Answers
# "written", after append with the SIZE, "directory", "special" or "failed"; "outside" and where the path leads when it is
# to be confined and does not lead below /workspace or /tmp, symbolic links on the way and at its end followed. A second call with the same id and content
# goes on where the shell of the first was killed.
sbx_put() {
  local said
  if [[ -n ${5-} ]]; then
    # A dot behind it: the name itself may end in line breaks.
    said=$(readlink -m -- "$1" && printf .)
    said=${said%$'\n'.}
    if [[ $said != /workspace/?* && $said != /tmp/?* ]]; then
      printf 'outside %s\n' "$said"
      return
    fi
    set -- "$said" "${@:2:3}"
  fi
  if [[ -d $1 || $1 == */ ]]; then
    printf 'directory\n'
  elif [[ -e $1 && ! -f $1 ]]; then
    printf 'special\n'
  elif said=$(sbx_replace "$@" 2>&1); then
    # The last line: attempts to start a process before the one that succeeded have lines too.
    printf 'written %s\n' "${said##*$'\n'}"
  else
    said=${said##*files.sh: line +([0-9]): }
    printf 'failed %s\n' "${said//$'\n'/ }"
  fi
}

sbx_replace() {
  local target=$1 temporary pid='' complete='' progress=$sbx_files/append-$3 earlier
  [[ -d ${1%/*}/ ]] || mkdir -p -- "${1%/*}/" || return
  [[ ! -L $1 ]] || target=$(readlink -vf -- "$1") || return
  temporary=${target%/*}/.sandbox-mcp.$3
  if [[ $2 == append ]]; then
    [[ -f $progress ]] && { read -r pid; read -r complete; } <"$progress"
    # What a killed shell left at work goes on by itself, and must not be done twice.
    while [[ -n $pid ]] && sbx_lives "$pid"; do sleep 0.05; done
    [[ -f $progress ]] && { read -r pid; read -r complete; } <"$progress"
    # Its own stays until the next append: the shell can be killed after the last step, before the answer is read.
    if [[ -z $pid ]]; then
      earlier=("$sbx_files"/append-*)
      [[ ! -e ${earlier[0]} ]] || rm -f -- "${earlier[@]}"
    fi
    [[ -n $complete ]] || printf '%s\n' "$BASHPID" >"$progress" || return
  else
    # Whoever still writes it writes the same: without a name to move, it comes to nothing.
    for earlier in "$temporary".*; do
      [[ ! -e $earlier ]] || rm -f -- "$earlier"
    done
    temporary+=.$BASHPID
  fi
  if {
    [[ -n $complete ]] || {
      sbx_prepare "$target" "$temporary" "$2" "${4-}" && { [[ $2 != append ]] || printf 'complete\n' >>"$progress"; }
    }
  } && {
    # What is complete and has its name no more was moved before, or is just being moved, by a killed shell's mv.
    [[ -n $complete && ! -e $temporary ]] || mv -fT -- "$temporary" "$target" ||
      [[ -n $complete && ! -e $temporary ]]
  }; then
    [[ $2 != append ]] || stat -c %s -- "$target"
  else
    rm -f -- "$temporary" "$progress"
    return 1
  fi
}

# Standard input under the temporary name, after the old content where it is appended.
sbx_prepare() {
  [[ ! -e $2 ]] || rm -f -- "$2"
  {
    [[ $3 != append || ! -e $1 ]] || cp --reflink=auto -- "$1" "$2"
  } && case $4 in
    base64) base64 -d ;;
    text) sbx_echo ;;
    *) cat ;;
  esac >>"$2" && {
    [[ ! -e $1 ]] || chmod --reference="$1" -- "$2"
  }
}

sbx_echo() {
  local text LC_ALL=C
  IFS= read -r -d '' text
  printf '%s' "${text%$'\n'}"
}

# sbx_drop PATH ID: removes what a killed sbx_put left beside its file.
sbx_drop() {
  local target
  target=$(readlink -f -- "$1") && rm -f -- "${target%/*}/.sandbox-mcp.$2" "${target%/*}/.sandbox-mcp.$2".*
}

# sbx_get PATH lines|bytes OFFSET LIMIT MAX_BYTES [text]: lines count from 1, bytes from 0. Answers "file SIZE LINES"
# (LINES only for lines: how many the file has) and the range, cut at MAX_BYTES; or for a file that is no longer than
# that "whole SIZE" and all of it; or, where text is welcome, "text" and all of a short file as it is, ended by one ".".
sbx_get() {
  local size lines bytes text LC_ALL=C
  if [[ ! -e $1 ]]; then
    printf 'missing\n'
  elif [[ -d $1 ]]; then
    printf 'directory\n'
  elif [[ ! -f $1 ]]; then
    printf 'special\n'
  elif [[ ! -r $1 ]]; then
    printf 'failed %s: Permission denied\n' "$1"
  elif [[ -n ${6-} && -s $1 ]] && sbx_slurp "$1" text && ((${#text} <= $5)); then
    printf 'text\n%s.' "$text"
  else
    size=$(stat -Lc %s -- "$1")
    # The system's own files say that they are empty, and can be without end.
    if ((size > 0 && size <= $5)); then
      printf 'whole %s\n' "$size"
      base64 -w 0 -- "$1"
    elif [[ $2 == lines ]]; then
      read -r lines bytes < <(wc -lc <"$1")
      # A last line that no line break ends counts too.
      printf 'file %s %s\n' "$size" "$((lines + (bytes > 0) - $(tail -c 1 -- "$1" | wc -l)))"
      tail -n "+$3" -- "$1" | head -n "$4" | head -c "$5" | base64 -w 0
    else
      printf 'file %s\n' "$size"
      tail -c "+$(($3 + 1))" -- "$1" | head -c "$(($4 < $5 ? $4 : $5))" | base64 -w 0
    fi
  fi
}

# sbx_list PATH DEPTH LIMIT: answers "directory" and NUL-terminated "TYPE SIZE MTIME MODE NAME" in the order of
# their names, at most LIMIT of them.
sbx_list() {
  if [[ ! -e $1 ]]; then
    printf 'missing\n'
  elif [[ ! -d $1 ]]; then
    printf 'file\n'
  else
    printf 'directory\n'
    find -H "$1" -mindepth 1 -maxdepth "$2" -printf '%y %s %T@ %m %P\0' 2>/dev/null |
      LC_ALL=C sort -z -k 5 | head -z -n "$3" | base64 -w 0
  fi
}

# sbx_usage PATH: bytes of the files below it, as far as they can be counted in two seconds; not of directories mounted
# there, which the sandbox does not hold.
sbx_usage() {
  timeout 2 du -sbx -- "$1" 2>/dev/null | cut -f 1
}
