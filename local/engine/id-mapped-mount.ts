/** Mounts that show one owner's files as another owner's (mount_setattr(2), Linux 5.12). */
import { arch } from "node:process";
import { runHost } from "./host-programs.ts";

/** The number of unshare(2). */
const unshareNumbers: Record<string, number> = { x64: 272, arm64: 97 };

/**
 * util-linux can make such mounts since version 2.39. Debian 12 has an older version, so Perl makes the system calls. Perl's
 * `syscall` takes no constant strings, so strings are in variables. All calls but unshare(2) have the same numbers on both
 * architectures.
 */
const program = `
use strict;
my ($from, $to, $users, $groups, $unshare) = @ARGV;
my $empty = "";
pipe(my $made, my $say) and pipe(my $wait, my $over) or die "pipe: $!\\n";
my $child = fork() // die "fork: $!\\n";
if ($child == 0) {
  close $over;
  syscall($unshare + 0, 0x10000000) == 0 or exit 1;
  syswrite $say, "x";
  sysread $wait, my $byte, 1;
  exit 0;
}
close $say;
sysread($made, my $byte, 1) or die "cannot create a user namespace\\n";
for (["uid_map", $users], ["gid_map", $groups]) {
  my ($name, $map) = @$_;
  open(my $file, ">", "/proc/$child/$name") or die "$name: $!\\n";
  syswrite($file, $map) or die "$name: $!\\n";
}
open(my $namespace, "<", "/proc/$child/ns/user") or die "the user namespace: $!\\n";
# open_tree with OPEN_TREE_CLONE, AT_RECURSIVE and O_CLOEXEC
my $tree = syscall(428, -100, $from, 0x1 | 0x8000 | 0x80000);
die "open_tree: $!\\n" if $tree < 0;
# mount_setattr with AT_EMPTY_PATH and AT_RECURSIVE, to set MOUNT_ATTR_IDMAP
my $attributes = pack("QQQQ", 0x100000, 0, 0, fileno($namespace));
syscall(442, $tree, $empty, 0x1000 | 0x8000, $attributes, 32) == 0 or die "mount_setattr: $!\\n";
mkdir $to;
# move_mount with MOVE_MOUNT_F_EMPTY_PATH
syscall(429, $tree, $empty, -100, $to, 0x4) == 0 or die "move_mount: $!\\n";
`;

/** Each map has a line with the first id on disk, the id that the mount shows for it, and the number of ids. */
export interface MountMaps {
  users: string;
  groups: string;
}

/**
 * Mounts a directory again in the mount namespace of a process. @throws Error with the reason if the machine or file system does
 * not support such mounts
 */
export async function mountMapped(pid: number, from: string, to: string, maps: MountMaps): Promise<void> {
  const unshare = unshareNumbers[arch];
  if (unshare === undefined) throw new Error(`${arch} processors are not supported`);
  const words = [from, to, maps.users, maps.groups, String(unshare)];
  await runHost("nsenter", [`--mount=/proc/${pid}/ns/mnt`, "--", "perl", "-e", program, ...words]);
}

/** Removes a mount that `mountMapped` has made. */
export async function unmountMapped(pid: number, path: string): Promise<void> {
  const script = 'umount --lazy --no-mtab "$1" && rmdir "$1"';
  await runHost("nsenter", [`--mount=/proc/${pid}/ns/mnt`, "--", "sh", "-c", script, "sh", path]);
}
