#!/usr/bin/perl
# count-objects.pl ARCHITECTURE MAX_PIPE_BYTES ACCEPT LIST
# Prints the `KernelObjects` (kernel-objects.ts) of the processes in LIST, a file cgroup.procs, or "late" if there are too many objects to
# count. A sandbox can have 500,000 descriptors and millions of mappings and watches, and the kernel goes through all locks of a
# file for each of its descriptors.
#
# The kernel counts nothing for a first thread that has ended, and a thread can have descriptors of its own. So this program visits each
# different table of descriptors, and each different epoll, because a forked process has the same one.
#
# Of files that wait in a socket, the program takes copies for a moment and visits them, too. It reads the messages without removing them,
# one after another (SO_PEEK_OFF), from a copy of the socket. It finds no socket of a further thread that has descriptors of its own before
# Linux 6.9. It sees a connection that no program has accepted only if it accepts it, and so breaks it: if ACCEPT is "files", connections
# to a socket in whose connections files wait, and if it is "all", all connections. Only then it counts the unread bytes of all sockets.
use strict;
use Fcntl;

# How much processor time the count may take, in seconds. A sandbox that needs more has very many objects.
use constant COUNT_SECONDS => 5;
# After this time less processor time is enough, in seconds, because several principals can make counts slow at once.
use constant SLOW_SECONDS => 8;
use constant SLOW_COUNT_SECONDS => 2;
# How many watches of different files count as one more watch of the same file. An event visits all watches of its file, and a packet to 190
# sockets those of all these files. But a read of /proc/PID/fdinfo visits all watches of an epoll: 960,000 stopped a processor for 0.5 s.
use constant WATCHES_OF_OTHERS => 50;
# The most files that programs of a sandbox may watch by epoll. The count keeps each of them in memory.
use constant MAX_WATCHED => 200_000;
# More than the bytes in a socket (net.core.wmem_default). A message that was read in two parts would count twice.
use constant MESSAGE_BYTES => 1024 * 1024;
# In how many sockets, each in a message of the one before, the program looks for files. Since Linux 6.10, 60,000 are possible.
use constant MAX_DEPTH => 4;

# Constants of Linux that Fcntl does not have. pidfd_open(2) and pidfd_getfd(2) have these numbers on both architectures.
use constant {
  KCMP_FILE => 0, KCMP_FILES => 2, ESRCH => 3, F_GETPIPE_SZ => 1032, FIONREAD => 0x541b, PAGE_BYTES => 4096,
  PIDFD_OPEN => 434, PIDFD_GETFD => 438, PIDFD_THREAD => 0200,
  SOL_SOCKET => 1, SO_ACCEPTCONN => 30, SO_PEEK_OFF => 42, SCM_RIGHTS => 1, SCM_PIDFD => 4, MSG_PEEK => 0x2, MSG_DONTWAIT => 0x40,
};

my ($architecture, $maxPipeBytes, $accepted, $list) = @ARGV;
# The numbers of kcmp(2), which compares resources of two threads, and recvmsg(2). Without kcmp, only the descriptors of first threads
# count, and only one epoll of those with the same number. Without recvmsg, files that wait in sockets only count in `waiting`.
my %calls = (x64 => [312, 47], arm64 => [272, 212]);
my ($compare, $receive) = @{$calls{$architecture} // [-1, -1]};

my ($mappings, $bytes, $pages, $waiting, $locks, $watches, $repeated, $directories, $timers, %seen, %watched, %polls) = (0) x 9;

sub isLate {
  my ($user, $system) = times;
  return $user + $system > (time - $^T < SLOW_SECONDS ? COUNT_SECONDS : SLOW_COUNT_SECONDS) || keys %watched > MAX_WATCHED;
}

sub isSame {
  my $order = syscall($compare, map { 0 + $_ } @_);
  return $order == 0 || ($order < 0 && $! != ESRCH);
}

sub countLines {
  my $count = 0;
  open(my $file, "<", $_[0]) or return 0;
  while (!isLate() && sysread($file, my $lines, 65536)) { $count += $lines =~ tr/\n// }
  return $count;
}

sub lockedPages {
  open(my $file, "<", "$_[0]/status") or return undef;
  while (<$file>) { return $1 * 1024 / PAGE_BYTES if /^VmLck:\s*(\d+)/ }
  return undef;
}

sub unreadIn {
  my $unread = pack "L", 0;
  ioctl($_[0], FIONREAD, $unread) if $_[0];
  return unpack "L", $unread;
}

sub zeros { my $bytes = ""; vec($bytes, $_[0] - 1, 8) = 0; return $bytes }
my ($text, $control) = (zeros(MESSAGE_BYTES), zeros(4096));

sub copyOf {
  my ($thread, $name) = map { 0 + $_ } @_;
  my ($process, $copy);
  my $number = syscall(PIDFD_OPEN, $thread, PIDFD_THREAD);
  $number = syscall(PIDFD_OPEN, $thread, 0) if $number < 0;
  open($process, "<&=", $number) or return;
  open($copy, "+<&=", syscall(PIDFD_GETFD, $number, $name, 0)) or return;
  return $copy;
}

# Accepts the connections to a socket, visits them, and closes them. Returns whether it has done so.
sub accepts {
  my ($count, $socket) = @_;
  return unless $accepted eq "all" || ($accepted eq "files" && $count > 0);
  return unless $socket && unpack("L", getsockopt($socket, SOL_SOCKET, SO_ACCEPTCONN) // zeros(4));
  vec(my $sockets = "", fileno $socket, 1) = 1;
  while (!isLate() && select(my $ready = $sockets, undef, undef, 0) > 0 && accept(my $connection, $socket)) {
    visitFile($$, "/proc/self", fileno $connection);
  }
  return 1;
}

# Visits the files that wait in a socket. Returns how many of the count it could not visit.
my $depth = 0;
sub unseenIn {
  my ($count, $socket) = @_;
  my $begin = $depth < MAX_DEPTH && $socket && getsockopt($socket, SOL_SOCKET, SO_PEEK_OFF) or return $count;
  $depth++;
  setsockopt($socket, SOL_SOCKET, SO_PEEK_OFF, 0);
  my $seen = 0;
  while (!isLate() && $seen <= $count) {
    my $part = pack "PQ", $text, MESSAGE_BYTES;
    my $message = pack "QQPQPQQ", 0, 0, $part, 1, $control, 4096, 0;
    my $read = syscall($receive, fileno $socket, $message, MSG_PEEK | MSG_DONTWAIT);
    my ($length, @files, @copies) = unpack "x40Q", $message;
    last if $read < 0 || $read + $length == 0;
    for (my ($at, $size) = (0, 0); $at + 16 <= $length; $at += ($size + 7) & ~7) {
      ($size, my ($level, $type)) = unpack "x${at}QLL", $control;
      # A message can have a descriptor of its sender (SO_PASSPIDFD). It is closed, too: the program would run out of descriptors.
      next unless $level == SOL_SOCKET && ($type == SCM_RIGHTS || $type == SCM_PIDFD);
      my @numbers = unpack "l*", substr $control, $at + 16, $size - 16;
      push @copies, map { open(my $copy, "<&=", $_); $copy } @numbers;
      push @files, @numbers if $type == SCM_RIGHTS;
    }
    $seen += grep { !isLate() && visitFile($$, "/proc/self", $_) } @files;
  }
  setsockopt($socket, SOL_SOCKET, SO_PEEK_OFF, unpack "l", $begin);
  $depth--;
  return $seen == $count ? 0 : $count;
}

sub visitFile {
  my ($thread, $table, $name) = @_;
  my ($device, $inode, $mode) = stat "$table/fd/$name" or return;
  $directories++ if ($mode & 0170000) == 0040000;
  my $isFirst = !$seen{"$device:$inode"}++;
  open(my $state, "<", "$table/fdinfo/$name") or return;
  my $isPoll;
  while (<$state>) {
    last if $. % 1000 == 0 && isLate();
    $locks++ if /^lock:/;
    $timers++ if /^it_value:/;
    if ($isFirst && /^scm_fds:\s*(\d+)/) {
      # A sandbox can have thousands of sockets, and a copy takes longer than the rest of a visit.
      my ($count, $socket) = ($1, $1 > 0 || $accepted eq "all" ? copyOf($thread, $name) : undef);
      # Each byte can be in a page of its own (sendfile).
      $pages += unreadIn($socket);
      $waiting += unseenIn($count, $socket) if !accepts($count, $socket) && $count > 0;
    }
    next unless /^tfd:.* ino:(\S+) +sdev:(\S+)/;
    my $file = "$1:$2";
    last if !$isPoll++ && grep { isSame($thread, $_, KCMP_FILE, $name, $name) } @{$polls{$name}};
    $watches++;
    $repeated++ if ++$watched{$file} > 2;
  }
  push @{$polls{$name}}, $thread if $isPoll && $thread != $$;
  return 1 unless $isFirst && ($mode & 0170000) == 0010000;
  # The pipe is open for a moment to ask for its size and its unread bytes.
  my $isOpen = sysopen(my $pipe, "$table/fd/$name", O_RDONLY | O_NONBLOCK | O_NOCTTY);
  my $size = $isOpen && fcntl($pipe, F_GETPIPE_SZ, 0) || $maxPipeBytes;
  my ($most, $unread) = ($size / PAGE_BYTES, $isOpen ? unreadIn($pipe) : $maxPipeBytes);
  $bytes += $size;
  $pages += $unread < $most ? $unread : $most;
  return 1;
}

sub visit {
  my ($thread, $table) = @_;
  opendir(my $descriptors, "$table/fd") or return;
  while (!isLate() && defined(my $name = readdir $descriptors)) { visitFile($thread, $table, $name) }
}

open(my $processes, "<", $list) or exit;
for my $process (map { 0 + $_ } <$processes>) {
  my ($ofProcess, $locked, @different) = (0);
  # The first thread comes first: before Linux 6.9, no copy of a socket is possible through another one.
  for my $thread ($process, grep { $_ != $process } map { m{([0-9]+)$} } glob "/proc/$process/task/*") {
    $ofProcess ||= countLines("/proc/$process/task/$thread/maps");
    $locked //= lockedPages("/proc/$process/task/$thread");
    next if isLate() || grep { isSame($thread, $_, KCMP_FILES, 0, 0) } @different;
    push @different, $thread;
    visit($thread, "/proc/$process/task/$thread");
  }
  $mappings += $ofProcess;
  $pages += $locked // 0;
}
if (isLate()) {
  print "late";
} else {
  $watches = int($watches / WATCHES_OF_OTHERS);
  $watches = $repeated if $repeated > $watches;
  print qq({"mappings":$mappings,"pipeBytes":$bytes,"keptPages":$pages,"waiting":$waiting,"locks":$locks,"watches":$watches,);
  print qq("directories":$directories,"timers":$timers});
}
