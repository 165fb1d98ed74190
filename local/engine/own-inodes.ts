/**
 * Gives each sandbox its own inodes for the machine's files and devices, and for the engine's files (overlayfs). The files are
 * still stored and cached only once. The kernel keeps locks and watches by inode. If sandboxes shared inodes with the machine, a
 * sandbox could set a million locks on /dev/null or on a program of the machine. The kernel would go through all these locks each
 * time that anyone closes that file. By watches, a sandbox could see which files the other sandboxes open.
 */
import { readFileSync, realpathSync } from "node:fs";
import { arch } from "node:process";
import type { Mount } from "./bubblewrap.ts";

/** The numbers of unshare(2) and mount(2). */
const numbers: Record<string, number[]> = { x64: [272, 165], arm64: [97, 40] };
export const callNumbers = numbers[arch];

/**
 * The program is in Perl, because running mount(8) for each mount takes too long. If the kernel has no overlayfs, or cannot
 * overlay the root's file system, the files keep the machine's inodes. An overlay needs two lower layers, so an empty directory
 * is the second one.
 */
const program = `
use strict;
my ($unshare, $mount, $place, $engine, $count, @rest) = @ARGV;
my ($none, $overlay, $all, $layer) = ("none", "overlay", "$place/overlay", "$place/no-files");
my $devices = "$place/devices";
mkdir $_ for $all, $layer, $devices;
syscall($unshare + 0, 0x20000) == 0 or die "unshare: $!\\n";
# MS_REC | MS_SLAVE, MS_RDONLY, MS_BIND
my $root = "/";
syscall($mount + 0, $none, $root, $none, 0x84000, 0) == 0 or die "mount: $!\\n";
sub show {
  my ($lower, $to) = @_;
  my $options = "lowerdir=$lower:$layer,redirect_dir=off,xino=off";
  return syscall($mount + 0, $overlay, $to, $overlay, 1, $options) == 0;
}
sub place {
  my ($from, $to) = @_;
  syscall($mount + 0, $from, $to, $none, 0x1000, 0) == 0 or die "$from: $!\\n";
}
my $shown = show("/", $all);
while ($count-- > 0) {
  my ($from, $to) = ($all . shift @rest, shift @rest);
  place($from, $to) if $shown;
}
# bubblewrap takes these devices from /dev. The overlay of all files does not have them, because they are in another file system.
if (show("/dev", $devices)) { place("$devices/$_", "/dev/$_") for grep { -c "$devices/$_" } qw(null zero full random urandom tty) }
show($engine, $engine) if $engine ne "";
exec @rest or die "$rest[0]: $!\\n";
`;

/**
 * The beginning of a command line that gives a sandbox its own inodes, in its own mount namespace.
 * @param place a writable directory of the namespace
 * @param engine the place of the engine's files, if the sandbox cannot write to them
 * @param files the paths of the machine's files, and where they are mounted
 */
export function withOwnInodes(place: string, engine: string | undefined, files: readonly Mount[]): string[] {
  if (callNumbers === undefined) return [];
  const others = otherMounts();
  const pairs = files.flatMap(({ from, to }) => {
    const path = realpathSync(from);
    const isWhole = !others.some((other) => isBelow(path, other) || isBelow(other, path));
    return isWhole ? [path, to] : [];
  });
  return [
    "perl",
    "-e",
    program,
    ...callNumbers.map(String),
    place,
    engine ?? "",
    String(pairs.length / 2),
    ...pairs,
  ];
}

function otherMounts(): string[] {
  const lines = readFileSync("/proc/self/mountinfo", "utf8").trimEnd().split("\n");
  const points = lines.map((line) =>
    (line.split(" ")[4] ?? "").replace(/\\(\d{3})/g, (_, octal: string) =>
      String.fromCharCode(parseInt(octal, 8)),
    ),
  );
  return points.filter((point) => point !== "/");
}

const isBelow = (path: string, directory: string) => path === directory || path.startsWith(`${directory}/`);
