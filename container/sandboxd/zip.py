"""Writes a directory as a ZIP archive to standard output, with the modes, times and symbolic links of Info-ZIP on Unix.

    zip.py <directory>

It leaves out devices, sockets and pipes, and files that disappear while it packs. If it cannot read anything else, it fails.
It keeps one piece of a file in memory, and about a kilobyte per file for the central directory.
"""

import errno
import os
import re
import stat
import struct
import sys
import time
import zipfile
import zlib

PIECE_BYTES = 512 * 1024
# Set-user-id and set-group-id bits would apply to the user who unpacks the archive, perhaps root.
SET_ID = 0o6000
NAME_IS_UTF8 = 1 << 11
# The earliest and the latest MS-DOS time.
FIRST = (1980, 1, 1, 0, 0, 0)
LAST = (2107, 12, 31, 23, 59, 58)
# Parts of a name that lead out of the directory when Windows unpacks it: a parent, a root, a drive.
LEADS_OUT = re.compile(r"(^|[\\/])\.\.([\\/]|$)|^\\|^[A-Za-z]:")
# The file is gone, or has become a link.
GONE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO}


class Entry(zipfile.ZipInfo):
    def __init__(self, name, stats):
        name = re.sub(r"[\\:]", "_", name) if LEADS_OUT.search(name) else name
        super().__init__(name, max(FIRST, min(LAST, time.gmtime(stats.st_mtime)[:6])))
        self.create_system = 3
        self.external_attr = (stats.st_mode & 0xFFFF & ~SET_ID) << 16
        self.file_size = stats.st_size
        # The MS-DOS time has no time zone, and only even seconds. The extra field is in UTC, with all seconds.
        seconds = max(-(2**31), min(2**31 - 1, int(stats.st_mtime)))
        self.extra = struct.pack("<HHBi", 0x5455, 5, 1, seconds)

    def _encodeFilenameFlags(self):
        """Keeps a name's bytes. zipfile itself refuses a name that is not UTF-8."""
        name = os.fsencode(self.filename)
        try:
            name.decode()
        except UnicodeDecodeError:
            return name, self.flag_bits
        return name, self.flag_bits | NAME_IS_UTF8


def add_file(archive, path, name):
    # Opening a pipe without O_NONBLOCK waits for a writer.
    try:
        source = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno in GONE:
            return
        raise
    with open(source, "rb", buffering=0) as file:
        stats = os.fstat(source)
        if not stat.S_ISREG(stats.st_mode):
            return
        entry = Entry(name, stats)
        # A growing file is packed up to its initial size.
        left = stats.st_size
        piece = file.read(min(left, PIECE_BYTES))
        if len(zlib.compress(piece, 1)) < len(piece):
            entry.compress_type = zipfile.ZIP_DEFLATED
        with archive.open(entry, "w") as target:
            while piece:
                target.write(piece)
                left -= len(piece)
                piece = file.read(min(left, PIECE_BYTES))


def add(archive, path, name):
    try:
        stats = os.lstat(path)
        if stat.S_ISREG(stats.st_mode):
            add_file(archive, path, name)
        elif stat.S_ISLNK(stats.st_mode):
            archive.writestr(Entry(name, stats), os.fsencode(os.readlink(path)))
        elif stat.S_ISDIR(stats.st_mode):
            archive.writestr(Entry(f"{name}/", stats), b"")
    except FileNotFoundError:
        pass


def pack(root):
    with open(1, "wb", PIECE_BYTES) as output, zipfile.ZipFile(output, "w") as archive:
        directories = [""]
        while directories:
            prefix = directories.pop()
            try:
                found = list(os.scandir(os.path.join(root, prefix)))
            except OSError as error:
                if error.errno in GONE:
                    continue
                raise
            for each in found:
                name = prefix + each.name
                add(archive, each.path, name)
                if each.is_dir(follow_symlinks=False):
                    directories.append(f"{name}/")


try:
    # If memory runs out, Linux ends this process first.
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")
except OSError:
    pass
pack(sys.argv[1])
