#!/usr/bin/python3
"""Runs a program that may not use io_uring.

Many container runtimes forbid io_uring by a seccomp filter. This is such a filter and nothing else: the three calls of
io_uring fail with EPERM, every other call passes. It needs no root and no compiler.

    tests/deny_io_uring.py target/release/tandem demo --once
"""

import ctypes
import errno
import os
import struct
import sys

PR_SET_NO_NEW_PRIVS = 38
PR_SET_SECCOMP = 22
SECCOMP_MODE_FILTER = 2
RET_ALLOW = 0x7FFF0000
RET_EPERM = 0x00050000 | errno.EPERM
LOAD_WORD, JUMP_EQUAL, RETURN = 0x20, 0x15, 0x06

# io_uring_setup, io_uring_enter, io_uring_register: the same numbers on every architecture since Linux 5.1.
FORBIDDEN = (425, 426, 427)


def instruction(code, value, if_true=0, if_false=0):
    return struct.pack("=HBBI", code, if_true, if_false, value)


def program():
    # The first word of struct seccomp_data is the number of the call.
    lines = [instruction(LOAD_WORD, 0)]
    for left, number in enumerate(FORBIDDEN[::-1]):
        # `left` comparisons follow, then ALLOW; EPERM stands behind it.
        lines.insert(1, instruction(JUMP_EQUAL, number, if_true=left + 1))
    return b"".join([*lines, instruction(RETURN, RET_ALLOW), instruction(RETURN, RET_EPERM)])


class Filter(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]


def deny():
    code = program()
    held = ctypes.create_string_buffer(code, len(code))
    filter_ = Filter(len(code) // 8, ctypes.cast(held, ctypes.c_void_p))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "PR_SET_NO_NEW_PRIVS")
    if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(filter_), 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "PR_SET_SECCOMP")
    # A filter that does not bite would prove nothing.
    if libc.syscall(FORBIDDEN[0], 1, None) != -1 or ctypes.get_errno() != errno.EPERM:
        raise OSError("the filter is in place and io_uring is not denied")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: deny_io_uring.py PROGRAM [ARGUMENT...]")
    deny()
    os.execvp(sys.argv[1], sys.argv[1:])
