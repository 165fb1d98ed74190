#!/usr/bin/perl
# init.pl SANDBOXD... +++ SERVER...
#
# The first process of a sandbox: collects orphans, and keeps sandboxd and SERVER running. SERVER is the control server: the SDK's,
# or ours (local/runtime). Signals from inside cannot kill the first process of a pid namespace, so init.pl survives `kill -9 -1`.
# The names of our processes begin with sbx, so that a user's `pkill -f` for sandboxd, bash, node or /opt matches none of them.
#
# sandboxd writes a byte to its standard output while it responds to requests. This process kills a silent sandboxd, because user
# code may have stopped or replaced it. The next sandboxd adopts the runs.
#
# After SIGTERM from outside, this process ends sandboxd (which first lets the server save the workspace), then the control server,
# then itself. SIGTERM from inside, as by `pkill -u root`, can end only sandboxd and the control server, which are started again.
#
# Perl is in every Debian and Ubuntu, needs little memory, and survives a failed fork. Times are in seconds.
use strict;
use warnings;
use POSIX ();

# How long sandboxd may be silent. Time in which sandboxd waits for a processor or a disk does not count, because other programs
# may occupy these.
my $HUNG_S = 15;
# The time between two checks, and between two starts of a command that keeps ending.
my $TICK_S = 1;
# How long to wait for sandboxd and the control server after SIGTERM. The platform kills the container after 15 minutes.
my ($STOP_S, $SERVER_STOP_S) = (600, 5);
# How many times to restart a sandboxd that dies before the workspace is saved.
my $STOP_STARTS = 5;

my ($sandboxd, $server) = ({ beats => 1, command => [] }, { command => [] });
my $service = $sandboxd;
for my $word (@ARGV) {
  if ($word eq '+++' && $service == $sandboxd) { $service = $server }
  else { push @{ $service->{command} }, $word }
}
$0 = 'sbx-init';

my $stopping_since;
# Empty handlers and not SIG_IGN, which sandboxd and the control server would inherit.
$SIG{$_} = sub { } for qw(INT HUP QUIT PIPE CHLD USR1 USR2);
# This process obeys SIGTERM only from the platform, whose pid is equal to getppid: the platform is the parent, or it is outside the
# pid namespace, where both numbers are 0. Linux itself sets the sender's pid only for kill(2), which has code 0. With other
# codes, the sender can forge its pid. Perl knows a signal's sender only if it handles the signal immediately, so SIGTERM is blocked
# except during select.
my $terms = POSIX::SigSet->new(POSIX::SIGTERM());
POSIX::sigprocmask(POSIX::SIG_BLOCK(), $terms);
my $is_stop_asked = 0;
POSIX::sigaction(
  POSIX::SIGTERM(),
  POSIX::SigAction->new(sub { $is_stop_asked = 1 if $_[1]{code} == 0 && $_[1]{pid} == getppid }, POSIX::SigSet->new, POSIX::SA_SIGINFO()),
);

sub now {
  open(my $file, '<', '/proc/uptime') or return time;
  return (split ' ', <$file>)[0];
}

# If fork fails, the next check tries again.
sub begin {
  my ($service) = @_;
  return if $service->{pid} || defined $service->{begun} && now() - $service->{begun} < $TICK_S;
  $service->{begun} = now();
  my ($reader, $writer);
  if ($service->{beats}) { pipe($reader, $writer) or return }
  my $pid = fork;
  return unless defined $pid;
  if ($pid == 0) {
    setpgrp(0, 0);
    $SIG{TERM} = 'DEFAULT';
    POSIX::sigprocmask(POSIX::SIG_UNBLOCK(), $terms);
    open(STDIN, '<', '/dev/null');
    open(STDOUT, '>&', $writer) if $writer;
    # Processes that the control server starts are the user's.
    delete $ENV{SANDBOXD_TOKEN} if $service == $server;
    { no warnings; exec { $service->{command}[0] } @{ $service->{command} } }
    kill(KILL => $$);
  }
  @$service{qw(pid reader silent before responds is_signaled)} = ($pid, $reader, 0, undef, 0, 0);
}

sub collect {
  # 1 is WNOHANG.
  while ((my $pid = waitpid(-1, 1)) > 0) {
    my $status = $?;
    for my $service ($sandboxd, $server) {
      @$service{qw(pid status)} = (undef, $status) if ($service->{pid} // 0) == $pid;
    }
  }
}

# Returns how long a process has run, how long it has waited for a processor (finished waits only), and whether it now runs or
# waits for a processor or a disk. Undefined if unknown.
sub processor_use {
  my ($pid) = @_;
  open(my $times, '<', "/proc/$pid/schedstat") or return undef;
  my ($ran, $waited) = split ' ', <$times> // return undef;
  open(my $stat, '<', "/proc/$pid/stat") or return undef;
  my ($state) = (<$stat> // '') =~ /.*\) (\w)/s or return undef;
  return { at => now(), ran => $ran / 1e9, waited => $waited / 1e9, is_at_work => scalar($state =~ /[RD]/) };
}

sub kill_hung {
  my $pid = $sandboxd->{pid} or return;
  my ($before, $now) = ($sandboxd->{before}, processor_use($pid));
  $sandboxd->{before} = $now;
  return unless $before && $now;
  # The clock continues while the machine sleeps, but no process runs.
  my $passed = $now->{at} - $before->{at};
  $passed = 2 * $TICK_S if $passed > 2 * $TICK_S;
  my $own = $now->{is_at_work} ? $now->{ran} - $before->{ran} : $passed - ($now->{waited} - $before->{waited});
  $sandboxd->{silent} += $own if $own > 0;
  return if $sandboxd->{silent} < $HUNG_S;
  print STDERR "sandbox-mcp: sandboxd has not responded for $HUNG_S s (without waits for a processor or disk), so it is killed\n";
  kill(KILL => $pid);
  $sandboxd->{silent} = 0;
}

# Waits for sandboxd's bytes, and for the end of processes.
sub wait_for_news {
  my $reader = $sandboxd->{pid} ? $sandboxd->{reader} : undef;
  my $set = '';
  vec($set, fileno($reader), 1) = 1 if $reader;
  POSIX::sigprocmask(POSIX::SIG_UNBLOCK(), $terms);
  my $found = select($set, undef, undef, $TICK_S);
  POSIX::sigprocmask(POSIX::SIG_BLOCK(), $terms);
  $stopping_since //= now() if $is_stop_asked;
  return if $found <= 0;
  if (sysread($reader, my $beats, 4096)) { @$sandboxd{qw(silent before responds)} = (0, processor_use($sandboxd->{pid}), 1) }
  else { $sandboxd->{reader} = undef }
}

my $stop_starts = 0;
# Takes the next step of the shutdown.
sub stop {
  exit 0 if now() - $stopping_since > $STOP_S;
  # sandboxd exits with 0 when the workspace is saved. If sandboxd died for another reason, the next sandboxd saves.
  if (!$sandboxd->{pid} && !($sandboxd->{is_signaled} && $sandboxd->{status} == 0) && $stop_starts < $STOP_STARTS) {
    begin($sandboxd);
    $stop_starts += 1 if $sandboxd->{pid};
    return;
  }
  if ($sandboxd->{pid}) {
    # USR2 and not SIGTERM, which any `pkill` sends. Only after sandboxd has responded, because before that it has no handler.
    $sandboxd->{is_signaled} = kill(USR2 => $sandboxd->{pid}) if $sandboxd->{responds};
    return;
  }
  exit 0 unless $server->{pid};
  if (!defined $server->{stop_requested_at}) {
    $server->{stop_requested_at} = now();
    kill(TERM => $server->{pid});
  }
  exit 0 if now() - $server->{stop_requested_at} > $SERVER_STOP_S;
}

begin($server);
# Only the first control server of a local sandbox gets the engine's channel.
if (defined(my $channel = delete $ENV{NODE_CHANNEL_FD})) {
  if (open(my $handle, "<&=", $channel)) { close($handle) }
}
while (1) {
  collect();
  if ($stopping_since) { stop() }
  else { begin($sandboxd); begin($server) }
  wait_for_news();
  kill_hung();
}
