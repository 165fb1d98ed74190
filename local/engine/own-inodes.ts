/**
 * Shows a sandbox the machine's files as files of its own (overlayfs), though they are stored, and cached in memory, once. File
 * locks and watches belong to a file and not to who set them. Without this a sandbox locks the machine's programs, and each
 * close of a file in /usr goes through all locks on it. A sandbox can set a million locks, and its watches show who opens what.
 */
import { readFileSync, realpathSync } from "node:fs";
import { arch } from "node:process";
import type { Mount } from "./bubblewrap.ts";

/** unshare(2) and mount(2). */
const calls: Partial<Record<typeof arch, [unshare: number, mount: number]>> = {
  x64: [272, 165],
  arm64: [97, 40],
};

/**
 * Perl, because a program for each mount takes too long. Where the kernel has no overlay, or cannot show the root's file system
 * by one, the files stay as they are. The second layer is empty: there must be two.
 */
const program = `
use strict;
my ($unshare, $mount, $place, $count, @rest) = @ARGV;
my ($none, $overlay, $all, $layer) = ("none", "overlay", "$place/overlay", "$place/no-files");
my $options = "lowerdir=/:$layer,redirect_dir=off,xino=off";
mkdir $_ for $all, $layer;
syscall($unshare + 0, 0x20000) == 0 or die "unshare: $!\\n";
# MS_REC | MS_SLAVE, MS_RDONLY, MS_BIND
my $root = "/";
syscall($mount + 0, $none, $root, $none, 0x84000, 0) == 0 or die "mount: $!\\n";
my $shown = syscall($mount + 0, $overlay, $all, $overlay, 1, $options) == 0;
while ($count-- > 0) {
  my ($from, $to) = ($all . shift @rest, shift @rest);
  next if !$shown;
  syscall($mount + 0, $from, $to, $none, 0x1000, 0) == 0 or die "$from: $!\\n";
}
exec @rest or die "$rest[0]: $!\\n";
`;

/**
 * The command prefix that shows a sandbox's files in a mount namespace of its own, made from the present one.
 * @param place a directory of the namespace that may be written
 * @param held the files by their paths on the machine, with those at which they are mounted in the namespace
 */
export function withOwnInodes(place: string, held: readonly Mount[]): string[] {
  const numbers = calls[arch];
  if (numbers === undefined) return [];
  const others = otherMounts();
  const pairs = held.flatMap(({ from, to }) => {
    const path = realpathSync(from);
    const isWhole = !others.some((other) => isBelow(path, other) || isBelow(other, path));
    return isWhole ? [path, to] : [];
  });
  return ["perl", "-e", program, ...numbers.map(String), place, String(pairs.length / 2), ...pairs];
}

/** Where other file systems than the root's are mounted: an overlay does not show them. */
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
