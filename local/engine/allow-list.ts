/**
 * The system calls and options that programs in a sandbox may use, with their names and numbers in the kernel's headers (Debian's
 * linux-libc-dev). `seccomp.ts` and `socket-filter.ts` also limit the arguments of some calls.
 */

/** System calls, with their numbers on x64 and arm64. */
const calls = `
  # files and directories
  read 0 63  write 1 64  readv 19 65  writev 20 66  pread64 17 67  pwrite64 18 68  preadv 295 69  pwritev 296 70
  lseek 8 62  open 2 -  openat 257 56  creat 85 -  close 3 57  close_range 436 436  dup 32 23  dup2 33 -
  dup3 292 24  fcntl 72 25  flock 73 32  ioctl 16 29  stat 4 -  fstat 5 80  lstat 6 -  newfstatat 262 79
  statx 332 291  statfs 137 43  fstatfs 138 44  access 21 -  faccessat 269 48  faccessat2 439 439
  truncate 76 45  ftruncate 77 46  fallocate 285 47  fsync 74 82  fdatasync 75 83  sync 162 81  syncfs 306 267
  sync_file_range 277 84  sendfile 40 71  splice 275 76  copy_file_range 326 285  readahead 187 213
  fadvise64 221 223  getdents 78 -  getdents64 217 61  getcwd 79 17  chdir 80 49  fchdir 81 50  mkdir 83 -
  mkdirat 258 34  mknod 133 -  mknodat 259 33  rmdir 84 -  unlink 87 -  unlinkat 263 35  rename 82 -
  renameat 264 38  renameat2 316 276  link 86 -  linkat 265 37  symlink 88 -  symlinkat 266 36  readlink 89 -
  readlinkat 267 78  chmod 90 -  fchmod 91 52  fchmodat 268 53  fchmodat2 452 452  chown 92 -  fchown 93 55
  lchown 94 -  fchownat 260 54  umask 95 166  utime 132 -  utimes 235 -  futimesat 261 -  utimensat 280 88
  setxattr 188 5  lsetxattr 189 6  fsetxattr 190 7  getxattr 191 8  lgetxattr 192 9  fgetxattr 193 10
  listxattr 194 11  llistxattr 195 12  flistxattr 196 13  removexattr 197 14  lremovexattr 198 15
  fremovexattr 199 16  memfd_create 319 279
  # waiting for files, and signals and timers as files
  pipe 22 -  pipe2 293 59  poll 7 -  ppoll 271 73  select 23 -  pselect6 270 72  epoll_create 213 -
  epoll_create1 291 20  epoll_ctl 233 21  epoll_wait 232 -  epoll_pwait 281 22  epoll_pwait2 441 441
  eventfd 284 -  eventfd2 290 19  signalfd 282 -  signalfd4 289 74  timerfd_create 283 85
  timerfd_settime 286 86  timerfd_gettime 287 87  inotify_init 253 -  inotify_init1 294 26
  inotify_add_watch 254 27  inotify_rm_watch 255 28
  # memory
  brk 12 214  mmap 9 222  munmap 11 215  mremap 25 216  mprotect 10 226  msync 26 227  mincore 27 232
  madvise 28 233  mlock 149 228  mlock2 325 284  munlock 150 229  mlockall 151 230  munlockall 152 231
  pkey_alloc 330 289  pkey_free 331 290  pkey_mprotect 329 288  shmget 29 194  shmat 30 196  shmdt 67 197
  shmctl 31 195
  # processes, threads and their users
  clone 56 220  fork 57 -  vfork 58 -  execve 59 221  execveat 322 281  exit 60 93  exit_group 231 94
  wait4 61 260  waitid 247 95  getpid 39 172  getppid 110 173  gettid 186 178  set_tid_address 218 96
  restart_syscall 219 128  setpgid 109 154  getpgid 121 155  getpgrp 111 -  setsid 112 157  getsid 124 156
  getuid 102 174  geteuid 107 175  getgid 104 176  getegid 108 177  setuid 105 146  setgid 106 144
  setreuid 113 145  setregid 114 143  setresuid 117 147  getresuid 118 148  setresgid 119 149  getresgid 120 150
  setfsuid 122 151  setfsgid 123 152  getgroups 115 158  setgroups 116 159  capget 125 90  capset 126 91
  prctl 157 167  arch_prctl 158 -  personality 135 92  seccomp 317 277  futex 202 98  set_robust_list 273 99
  get_robust_list 274 100  rseq 334 293  membarrier 324 283  getrlimit 97 163  setrlimit 160 164
  prlimit64 302 261  getrusage 98 165  times 100 153  getpriority 140 141  setpriority 141 140
  ioprio_get 252 31  ioprio_set 251 30  sched_yield 24 124  sched_setparam 142 118  sched_getparam 143 121
  sched_setscheduler 144 119  sched_getscheduler 145 120  sched_get_priority_max 146 125
  sched_get_priority_min 147 126  sched_rr_get_interval 148 127  sched_setaffinity 203 122
  sched_getaffinity 204 123  getcpu 309 168  semget 64 190  semop 65 193  semtimedop 220 192  semctl 66 191
  msgget 68 186  msgsnd 69 189  msgrcv 70 188  msgctl 71 187
  # signals, and debuggers
  kill 62 129  tkill 200 130  tgkill 234 131  rt_sigqueueinfo 129 138  rt_tgsigqueueinfo 297 240
  pidfd_open 434 434  pidfd_send_signal 424 424  rt_sigaction 13 134  rt_sigprocmask 14 135
  rt_sigpending 127 136  rt_sigtimedwait 128 137  rt_sigsuspend 130 133  rt_sigreturn 15 139
  sigaltstack 131 132  pause 34 -  ptrace 101 117  process_vm_readv 310 270  process_vm_writev 311 271
  # sockets
  socket 41 198  socketpair 53 199  bind 49 200  connect 42 203  listen 50 201  accept 43 202  accept4 288 242
  shutdown 48 210  getsockname 51 204  getpeername 52 205  setsockopt 54 208  getsockopt 55 209  sendto 44 206
  recvfrom 45 207  sendmsg 46 211  sendmmsg 307 269  recvmsg 47 212  recvmmsg 299 243
  # time, random numbers, and the system
  time 201 -  gettimeofday 96 169  clock_gettime 228 113  clock_getres 229 114  nanosleep 35 101
  clock_nanosleep 230 115  alarm 37 -  getitimer 36 102  setitimer 38 103  timer_create 222 107
  timer_settime 223 110  timer_gettime 224 108  timer_getoverrun 225 109  timer_delete 226 111
  getrandom 318 278  uname 63 160  sysinfo 99 179
  # refused by the kernel, with an error that programs expect
  sethostname 170 161  setdomainname 171 162
`;

export function systemCalls(arch: "x64" | "arm64"): Map<string, number> {
  const rows = calls.matchAll(/([a-z]\w*) (\d+|-) (\d+|-)/g);
  return new Map(
    [...rows].flatMap(([, name = "", x64, arm64]) => {
      const number = arch === "x64" ? x64 : arm64;
      return number === "-" ? [] : [[name, Number(number)]];
    }),
  );
}

function numbers(text: string): number[] {
  return Array.from(text.matchAll(/[A-Z]\w* (0x\w+|\d+)/g), ([, number]) => Number(number));
}

/**
 * ioctl. Not in the list:
 * - typing into another program's terminal (TIOCSTI), consoles and modems;
 * - line disciplines (TIOCSETD), bridges and VLANs: the kernel would load modules for them;
 * - all requests to drivers.
 */
export const ioctlRequests = numbers(`
  # terminals
  TCGETS 0x5401  TCSETS 0x5402  TCSETSW 0x5403  TCSETSF 0x5404  TCGETA 0x5405  TCSETA 0x5406  TCSETAW 0x5407
  TCSETAF 0x5408  TCSBRK 0x5409  TCXONC 0x540a  TCFLSH 0x540b  TIOCEXCL 0x540c  TIOCNXCL 0x540d  TIOCSCTTY 0x540e
  TIOCGPGRP 0x540f  TIOCSPGRP 0x5410  TIOCOUTQ 0x5411  TIOCGWINSZ 0x5413  TIOCSWINSZ 0x5414  TIOCPKT 0x5420
  TIOCNOTTY 0x5422  TIOCGETD 0x5424  TCSBRKP 0x5425  TIOCGSID 0x5429  TCGETS2 0x802c542a  TCSETS2 0x402c542b
  TCSETSW2 0x402c542c  TCSETSF2 0x402c542d  TIOCGPTN 0x80045430  TIOCSPTLCK 0x40045431  TIOCGDEV 0x80045432
  TIOCSIG 0x40045436  TIOCGPKT 0x80045438  TIOCGPTLCK 0x80045439  TIOCGEXCL 0x80045440  TIOCGPTPEER 0x5441
  # files
  FIONREAD 0x541b  FIONBIO 0x5421  FIONCLEX 0x5450  FIOCLEX 0x5451
  FICLONE 0x40049409  FICLONERANGE 0x4020940d  FS_IOC_GETFLAGS 0x80086601  RNDGETENTCNT 0x80045200
  # sockets and network devices
  FIOSETOWN 0x8901  SIOCSPGRP 0x8902  FIOGETOWN 0x8903  SIOCGPGRP 0x8904  SIOCATMARK 0x8905
  SIOCGSTAMP 0x8906  SIOCGSTAMPNS 0x8907  SIOCGIFNAME 0x8910  SIOCGIFCONF 0x8912  SIOCGIFFLAGS 0x8913
  SIOCGIFADDR 0x8915  SIOCGIFDSTADDR 0x8917  SIOCGIFBRDADDR 0x8919  SIOCGIFNETMASK 0x891b  SIOCGIFMETRIC 0x891d
  SIOCGIFMTU 0x8921  SIOCGIFHWADDR 0x8927  SIOCGIFINDEX 0x8933  SIOCGIFTXQLEN 0x8942
`);

/**
 * fcntl. Not in the list:
 * - leases and notifications, which slow programs outside the sandbox that use the same files;
 * - hints;
 * - locks of open file descriptions (F_OFD_SETLK), which few programs use.
 */
export const fcntlCommands = numbers(`
  F_DUPFD 0  F_GETFD 1  F_SETFD 2  F_GETFL 3  F_SETFL 4  F_GETLK 5  F_SETLK 6  F_SETLKW 7  F_SETOWN 8  F_GETOWN 9
  F_SETSIG 10  F_GETSIG 11  F_DUPFD_QUERY 1027  F_DUPFD_CLOEXEC 1030  F_SETPIPE_SZ 1031  F_GETPIPE_SZ 1032
  F_ADD_SEALS 1033  F_GET_SEALS 1034
`);

/**
 * prctl. Not in the list:
 * - names of memory mappings (PR_SET_VMA): no control group counts their memory;
 * - merging of equal pages: it occupies a kernel thread;
 * - system call filters: all filters of the machine share one limit. man, sshd and Chromium also work without a filter.
 */
export const prctlOptions = numbers(`
  PR_SET_PDEATHSIG 1  PR_GET_PDEATHSIG 2  PR_GET_DUMPABLE 3  PR_SET_DUMPABLE 4  PR_GET_KEEPCAPS 7  PR_SET_KEEPCAPS 8
  PR_SET_NAME 15  PR_GET_NAME 16  PR_GET_SECCOMP 21  PR_CAPBSET_READ 23  PR_CAPBSET_DROP 24  PR_GET_SECUREBITS 27
  PR_SET_SECUREBITS 28  PR_SET_TIMERSLACK 29  PR_GET_TIMERSLACK 30  PR_SET_CHILD_SUBREAPER 36
  PR_GET_CHILD_SUBREAPER 37  PR_SET_NO_NEW_PRIVS 38  PR_GET_NO_NEW_PRIVS 39  PR_SET_THP_DISABLE 41
  PR_GET_THP_DISABLE 42  PR_CAP_AMBIENT 47  PR_SVE_SET_VL 50  PR_SVE_GET_VL 51  PR_GET_SPECULATION_CTRL 52
  PR_SET_SPECULATION_CTRL 53  PR_PAC_RESET_KEYS 54  PR_SET_TAGGED_ADDR_CTRL 55  PR_GET_TAGGED_ADDR_CTRL 56
  PR_PAC_SET_ENABLED_KEYS 60  PR_PAC_GET_ENABLED_KEYS 61  PR_SME_SET_VL 63  PR_SME_GET_VL 64  PR_SET_MDWE 65
  PR_GET_MDWE 66
`);

/** madvise, besides guard pages (`seccomp.ts`). Not in the list: merging of equal pages, reclaiming and collapsing pages, simulated hardware errors. */
export const memoryAdvice = numbers(`
  MADV_NORMAL 0  MADV_RANDOM 1  MADV_SEQUENTIAL 2  MADV_DONTNEED 4  MADV_FREE 8  MADV_REMOVE 9  MADV_DONTFORK 10
  MADV_DOFORK 11  MADV_UNMERGEABLE 13  MADV_HUGEPAGE 14  MADV_NOHUGEPAGE 15  MADV_DONTDUMP 16  MADV_DODUMP 17
  MADV_WIPEONFORK 18  MADV_KEEPONFORK 19  MADV_COLD 20  MADV_POPULATE_READ 22  MADV_POPULATE_WRITE 23
  MADV_DONTNEED_LOCKED 24
`);

/** membarrier. Not in the list: commands that also interrupt other programs. */
export const membarrierCommands = numbers(`
  MEMBARRIER_CMD_QUERY 0  MEMBARRIER_CMD_PRIVATE_EXPEDITED 8  MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED 16
  MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE 32  MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE 64
  MEMBARRIER_CMD_PRIVATE_EXPEDITED_RSEQ 128  MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_RSEQ 256
`);

/** personality: the default, 32 bits (for emulators), fixed addresses (for debuggers), and reading the current personality. */
export const personalities = numbers(
  "PER_LINUX 0  PER_LINUX32 8  ADDR_NO_RANDOMIZE 0x40000  QUERY 0xffffffff",
);

/** arch_prctl of x64: thread-local storage, further registers, shadow stacks. */
export const archCommands = numbers(`
  ARCH_SET_GS 0x1001  ARCH_SET_FS 0x1002  ARCH_GET_FS 0x1003  ARCH_GET_GS 0x1004  ARCH_GET_XCOMP_SUPP 0x1021
  ARCH_GET_XCOMP_PERM 0x1022  ARCH_REQ_XCOMP_PERM 0x1023  ARCH_SHSTK_ENABLE 0x5001  ARCH_SHSTK_DISABLE 0x5002
  ARCH_SHSTK_LOCK 0x5003  ARCH_SHSTK_STATUS 0x5005
`);

/**
 * setsockopt and getsockopt, by level. Not in the list:
 * - filters: all filters of the machine share one limit;
 * - keys, address options and flow labels: no control group counts their memory;
 * - encryption in the kernel, and transfers without copies;
 * - joining multicast groups: while the kernel searches all groups of one device, it locks all network devices of the machine.
 */
export const socketOptions = Object.entries({
  // SOL_SOCKET
  1: `
    SO_DEBUG 1  SO_REUSEADDR 2  SO_TYPE 3  SO_ERROR 4  SO_DONTROUTE 5  SO_BROADCAST 6  SO_SNDBUF 7  SO_RCVBUF 8
    SO_KEEPALIVE 9  SO_OOBINLINE 10  SO_PRIORITY 12  SO_LINGER 13  SO_REUSEPORT 15  SO_PASSCRED 16  SO_PEERCRED 17
    SO_RCVLOWAT 18  SO_SNDLOWAT 19  SO_RCVTIMEO 20  SO_SNDTIMEO 21  SO_PEERNAME 28  SO_TIMESTAMP 29  SO_ACCEPTCONN 30
    SO_PEERSEC 31  SO_SNDBUFFORCE 32  SO_RCVBUFFORCE 33  SO_PASSSEC 34  SO_TIMESTAMPNS 35  SO_MARK 36
    SO_PROTOCOL 38  SO_DOMAIN 39  SO_RXQ_OVFL 40  SO_PEEK_OFF 42  SO_SELECT_ERR_QUEUE 45
    SO_MAX_PACING_RATE 47  SO_INCOMING_CPU 49  SO_MEMINFO 55  SO_COOKIE 57  SO_PEERGROUPS 59  SO_PASSPIDFD 76
    SO_PEERPIDFD 77
  `,
  // IPPROTO_IP
  0: `
    IP_TOS 1  IP_TTL 2  IP_RECVOPTS 6  IP_PKTINFO 8  IP_MTU_DISCOVER 10  IP_RECVERR 11  IP_RECVTTL 12  IP_RECVTOS 13
    IP_MTU 14  IP_FREEBIND 15  IP_RECVORIGDSTADDR 20  IP_MINTTL 21  IP_BIND_ADDRESS_NO_PORT 24  IP_MULTICAST_IF 32
    IP_MULTICAST_TTL 33  IP_MULTICAST_LOOP 34  IP_MULTICAST_ALL 49  IP_UNICAST_IF 50  IP_LOCAL_PORT_RANGE 51
  `,
  // IPPROTO_TCP
  6: `
    TCP_NODELAY 1  TCP_MAXSEG 2  TCP_CORK 3  TCP_KEEPIDLE 4  TCP_KEEPINTVL 5  TCP_KEEPCNT 6  TCP_SYNCNT 7  TCP_LINGER2 8
    TCP_DEFER_ACCEPT 9  TCP_WINDOW_CLAMP 10  TCP_INFO 11  TCP_QUICKACK 12  TCP_CONGESTION 13  TCP_USER_TIMEOUT 18
    TCP_FASTOPEN 23  TCP_TIMESTAMP 24  TCP_NOTSENT_LOWAT 25  TCP_CC_INFO 26  TCP_FASTOPEN_CONNECT 30  TCP_INQ 36
  `,
  // IPPROTO_UDP
  17: "UDP_CORK 1  UDP_SEGMENT 103  UDP_GRO 104",
  // IPPROTO_IPV6
  41: `
    IPV6_CHECKSUM 7  IPV6_UNICAST_HOPS 16  IPV6_MULTICAST_IF 17  IPV6_MULTICAST_HOPS 18  IPV6_MULTICAST_LOOP 19
    IPV6_MTU_DISCOVER 23  IPV6_MTU 24  IPV6_RECVERR 25  IPV6_V6ONLY 26  IPV6_MULTICAST_ALL 29  IPV6_FLOWINFO_SEND 33
    IPV6_RECVPKTINFO 49  IPV6_PKTINFO 50  IPV6_RECVHOPLIMIT 51  IPV6_HOPLIMIT 52  IPV6_RECVPATHMTU 60
    IPV6_DONTFRAG 62  IPV6_RECVTCLASS 66  IPV6_TCLASS 67  IPV6_AUTOFLOWLABEL 70  IPV6_ADDR_PREFERENCES 72
    IPV6_MINHOPCOUNT 73  IPV6_RECVORIGDSTADDR 74  IPV6_UNICAST_IF 76  IPV6_FREEBIND 78
  `,
  // IPPROTO_ICMPV6
  58: "ICMPV6_FILTER 1",
  // SOL_NETLINK
  270: `
    NETLINK_ADD_MEMBERSHIP 1  NETLINK_DROP_MEMBERSHIP 2  NETLINK_PKTINFO 3  NETLINK_CAP_ACK 10  NETLINK_EXT_ACK 11
    NETLINK_GET_STRICT_CHK 12
  `,
}).map(([level, names]) => [Number(level), numbers(names)] as const);
