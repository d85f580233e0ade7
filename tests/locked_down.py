"""Runs a program that can write nowhere but where it may: `locked_down.py PATH… -- program …`.

By Linux's Landlock, which holds for root, too: a container's read-only disk, without a container.
Files that are open already, such as its output, stay open. A script of the standard library alone.
"""

from __future__ import annotations

import ctypes
import os
import stat
import sys

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_WHICH_VERSION = 1
_PATH_BENEATH = 1
_NO_NEW_PRIVILEGES = 38
_WRITE_FILE, _TRUNCATE, _REFER = 1 << 1, 1 << 14, 1 << 13
# Removing folders and files, and making any of seven kinds.
_CHANGE_FOLDER = sum(1 << bit for bit in range(4, 13))

_libc = ctypes.CDLL(None, use_errno=True)


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


def version() -> int:
    """Which Landlock there is; 0 or less where there is none."""
    if not sys.platform.startswith("linux"):
        return 0
    return int(_libc.syscall(_CREATE_RULESET, None, 0, _WHICH_VERSION))


def lock(paths: list[str]) -> None:
    """From now on this process, and whatever it starts, writes to these and below them only."""
    there = version()
    handled = _WRITE_FILE | _CHANGE_FOLDER
    # Known since the second and the third.
    handled |= (_REFER if there >= 2 else 0) | (_TRUNCATE if there >= 3 else 0)
    attribute = ctypes.c_uint64(handled)
    rules = _done(_libc.syscall(_CREATE_RULESET, ctypes.byref(attribute), 8, 0))
    for path in paths:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        is_folder = stat.S_ISDIR(os.fstat(place).st_mode)
        allowed = handled if is_folder else handled & (_WRITE_FILE | _TRUNCATE)
        rule = _PathBeneath(allowed, place)
        _done(_libc.syscall(_ADD_RULE, rules, _PATH_BENEATH, ctypes.byref(rule), 0))
        os.close(place)
    _done(_libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0))
    _done(_libc.syscall(_RESTRICT_SELF, rules, 0))
    os.close(rules)


def _done(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


if __name__ == "__main__":
    at = sys.argv.index("--")
    lock(sys.argv[1:at])
    os.execvp(sys.argv[at + 1], sys.argv[at + 1 :])  # noqa: S606 - a program, without a shell
