"""A seccomp filter by hand: the calling thread keeps only the system calls that demuxing needs.

An allow-list: whatever is not named fails with EPERM, among it opening files, starting processes or threads,
signals, ptrace, io_uring, and every socket unless one to a TCP peer was asked for. Sources: seccomp(2),
linux/filter.h, linux/audit.h, and the kernel's system call tables.
"""

import ctypes
import errno
import platform
import socket
import struct
from ctypes import c_ulong

_PR_SET_SECCOMP = 22
_SECCOMP_MODE_FILTER = 2
_RETURN_ALLOW = 0x7FFF_0000
_RETURN_ERRNO = 0x0005_0000
_LOAD_WORD, _AND, _JUMP_EQUAL, _RETURN = 0x20, 0x54, 0x15, 0x06
_OFFSET_NUMBER, _OFFSET_ARCHITECTURE, _OFFSET_ARGUMENT_0, _OFFSET_ARGUMENT_1 = 0, 4, 16, 24
"""In struct seccomp_data; an argument's lower half comes first, as both architectures are little-endian."""
_SOCKET_TYPE_MASK = 0xF

_ARCHITECTURES = {"x86_64": 0xC000_003E, "aarch64": 0xC000_00B7}

_ALWAYS = {
    # memory
    "mmap": (9, 222),
    "mprotect": (10, 226),
    "munmap": (11, 215),
    "brk": (12, 214),
    "mremap": (25, 216),
    "madvise": (28, 233),
    # descriptors that are already open
    "read": (0, 63),
    "write": (1, 64),
    "close": (3, 57),
    "fstat": (5, 80),
    "lseek": (8, 62),
    "pread64": (17, 67),
    "readv": (19, 65),
    "writev": (20, 66),
    "poll": (7, None),
    "select": (23, None),
    "pselect6": (270, 72),
    "ppoll": (271, 73),
    # time, waiting, chance
    "sched_yield": (24, 124),
    "nanosleep": (35, 101),
    "gettimeofday": (96, 169),
    "futex": (202, 98),
    "restart_syscall": (219, 128),
    "clock_gettime": (228, 113),
    "clock_getres": (229, 114),
    "clock_nanosleep": (230, 115),
    "getrandom": (318, 278),
    # itself
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "getpid": (39, 172),
    "exit": (60, 93),
    "sigaltstack": (131, 132),
    "gettid": (186, 178),
    "sched_getaffinity": (204, 123),
    "exit_group": (231, 94),
    "getcpu": (309, 168),
}
"""Name: number on x86_64, on aarch64."""

_FOR_TCP = {
    "connect": (42, 203),
    "sendto": (44, 206),
    "recvfrom": (45, 207),
    "sendmsg": (46, 211),
    "recvmsg": (47, 212),
    "shutdown": (48, 210),
    "getsockname": (51, 204),
    "getpeername": (52, 205),
    "setsockopt": (54, 208),
    "getsockopt": (55, 209),
    "fcntl": (72, 25),
}
_SOCKET = (41, 198)


class _FilterProgram(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def restrict_thread(*, allow_tcp: bool) -> None:
    """Deny this thread, for good, every system call but those above; `allow_tcp`: IPv4 TCP clients too.

    Needs no_new_privs. Raises OSError if the kernel refuses or the machine is neither x86_64 nor aarch64.
    """
    machine = platform.machine()
    if machine not in _ARCHITECTURES:
        raise OSError(errno.ENOSYS, f"no system call table for {machine}")
    code = _assemble(machine, allow_tcp=allow_tcp)
    program = _FilterProgram(len(code) // 8, code)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(
        _PR_SET_SECCOMP, c_ulong(_SECCOMP_MODE_FILTER), ctypes.byref(program), c_ulong(0), c_ulong(0)
    ):
        raise OSError(ctypes.get_errno(), "seccomp refused")


def _assemble(machine: str, *, allow_tcp: bool) -> bytes:
    column = list(_ARCHITECTURES).index(machine)
    calls = _ALWAYS | _FOR_TCP if allow_tcp else _ALWAYS
    numbers = [number for row in calls.values() if (number := row[column]) is not None]
    deny = _RETURN_ERRNO | errno.EPERM
    code = [
        _instruction(_LOAD_WORD, _OFFSET_ARCHITECTURE),
        _instruction(_JUMP_EQUAL, _ARCHITECTURES[machine], if_true=1),
        _instruction(_RETURN, deny),
        _instruction(_LOAD_WORD, _OFFSET_NUMBER),
    ]
    for number in numbers:
        code += [_instruction(_JUMP_EQUAL, number, if_false=1), _instruction(_RETURN, _RETURN_ALLOW)]
    if allow_tcp:
        code += [
            _instruction(_JUMP_EQUAL, _SOCKET[column], if_false=6),
            _instruction(_LOAD_WORD, _OFFSET_ARGUMENT_0),
            _instruction(_JUMP_EQUAL, socket.AF_INET, if_false=4),
            _instruction(_LOAD_WORD, _OFFSET_ARGUMENT_1),
            _instruction(_AND, _SOCKET_TYPE_MASK),
            _instruction(_JUMP_EQUAL, socket.SOCK_STREAM, if_false=1),
            _instruction(_RETURN, _RETURN_ALLOW),
        ]
    code.append(_instruction(_RETURN, deny))
    return b"".join(code)


def _instruction(opcode: int, operand: int, *, if_true: int = 0, if_false: int = 0) -> bytes:
    """Serialize one struct sock_filter; jumps count the instructions to skip."""
    return struct.pack("<HBBI", opcode, if_true, if_false, operand)
