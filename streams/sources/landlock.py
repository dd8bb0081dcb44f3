"""Landlock by hand: the calling thread gives up the filesystem and all but one outgoing TCP port.

Linux 5.13 has Landlock for files, 6.7 (ABI 4) for TCP ports, 6.12 (ABI 6) for signals and abstract sockets;
UDP is never covered (`seccomp` takes care of that). Source: linux/landlock.h and
Documentation/userspace-api/landlock.rst. Open files stay usable, new ones cannot be opened.
"""

import ctypes
import os
from ctypes import c_int, c_uint32, c_uint64

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
"""System call numbers, equal on every architecture."""
_CREATE_RULESET_VERSION = 1
_RULE_NET_PORT = 2
_ACCESS_NET_BIND_TCP, _ACCESS_NET_CONNECT_TCP = 1, 2
_SCOPE_ABSTRACT_UNIX_SOCKET, _SCOPE_SIGNAL = 1, 2
_FILESYSTEM_RIGHTS_OF_ABI = {1: 13, 2: 14, 3: 15, 4: 15}
"""How many LANDLOCK_ACCESS_FS_* bits an ABI knows; from 5 on they are 16."""
_NET_ABI, _SCOPE_ABI = 4, 6


class _RulesetAttributes(ctypes.Structure):
    _fields_ = (
        ("handled_access_fs", c_uint64),
        ("handled_access_net", c_uint64),
        ("scoped", c_uint64),
    )


class _NetPortAttributes(ctypes.Structure):
    _fields_ = (("allowed_access", c_uint64), ("port", c_uint64))


_libc = ctypes.CDLL(None, use_errno=True)


def abi_version() -> int:
    """Return the kernel's Landlock ABI, 0 if it has none."""
    version: int = _libc.syscall(_CREATE_RULESET, None, 0, _CREATE_RULESET_VERSION)
    return max(version, 0)


def restrict_thread(*, connect_port: int | None) -> None:
    """Deny this thread, for good, every path and every TCP port but `connect_port`; no Landlock: do nothing.

    Needs no_new_privs. Raises OSError if the kernel has Landlock and refuses.
    """
    abi = abi_version()
    if abi == 0:
        return
    attributes = _RulesetAttributes(handled_access_fs=(1 << _FILESYSTEM_RIGHTS_OF_ABI.get(abi, 16)) - 1)
    size = _RulesetAttributes.handled_access_net.offset
    if abi >= _NET_ABI:
        attributes.handled_access_net = _ACCESS_NET_BIND_TCP | _ACCESS_NET_CONNECT_TCP
        size = _RulesetAttributes.scoped.offset
    if abi >= _SCOPE_ABI:
        attributes.scoped = _SCOPE_ABSTRACT_UNIX_SOCKET | _SCOPE_SIGNAL
        size = ctypes.sizeof(attributes)
    ruleset = _call(_CREATE_RULESET, ctypes.byref(attributes), ctypes.c_size_t(size), c_uint32(0))
    try:
        if connect_port is not None and abi >= _NET_ABI:
            rule = _NetPortAttributes(_ACCESS_NET_CONNECT_TCP, connect_port)
            _call(_ADD_RULE, c_int(ruleset), c_int(_RULE_NET_PORT), ctypes.byref(rule), c_uint32(0))
        _call(_RESTRICT_SELF, c_int(ruleset), c_uint32(0))
    finally:
        os.close(ruleset)


def _call(number: int, *arguments: object) -> int:
    result: int = _libc.syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), "Landlock refused")
    return result
