"""Stopping what a control group sends, from the kernel's side: a two-instruction BPF program on the group's way out.

A stopped process's kernel goes on delivering what the process wrote, and acknowledges what it receives; a frozen
Lambda's does not. So while an environment is frozen, every packet from its sockets is refused. The program's verdict is
"dropped for local congestion" (NET_XMIT_DROP): TCP then keeps the data unsent and tries again every half second instead
of backing off exponentially, so that connections go on soon after a long freeze. What arrives is queued in the sockets,
as packets for a paused machine are queued on their way; since nothing leaves, no peer can tell.

Costs some 10 microseconds, needs CAP_BPF and CAP_NET_ADMIN (root), Linux 5.7 and control groups of version 2. A shut
gate is a file descriptor: it opens when this process ends, whatever it ends of. Source: bpf(2), linux/bpf.h.
"""

import ctypes
import os
import platform
import struct

SYSCALL_NUMBERS = {"x86_64": 321, "aarch64": 280, "riscv64": 280}
PROG_LOAD = 5
LINK_CREATE = 28
PROG_TYPE_CGROUP_SKB = 8
ATTACH_CGROUP_INET_EGRESS = 1
KEEP = 1
DROP_AS_CONGESTION = 2


class EgressGate:
    """Holds the loaded programs. Begins with the first control group that may need it, ends with `close`."""

    def __init__(self, parent: int) -> None:
        """`parent`: a descriptor of the control group that is above all those to be shut. Raises OSError where the
        machine does not allow any of it."""
        self._drop = _load(DROP_AS_CONGESTION)
        try:
            # The kernel patches its own code when the first program of this kind comes and when the last one goes:
            # 0.2 ms instead of 0.01 ms. One that stays, and lets everything pass, spares every freeze of that.
            keep = _load(KEEP)
            try:
                self._resident = _attach(keep, parent)
            finally:
                os.close(keep)
        except OSError:
            os.close(self._drop)
            raise

    def shut(self, group: int) -> int:
        """Let nothing more leave the control group with descriptor `group`, until the returned descriptor is closed."""
        return _attach(self._drop, group)

    def close(self) -> None:
        os.close(self._resident)
        os.close(self._drop)


def _load(verdict: int) -> int:
    """A program that answers `verdict` to every packet: BPF_MOV64_IMM(r0, verdict), BPF_EXIT."""
    instructions = ctypes.create_string_buffer(struct.pack("=BBhiBBhi", 0xB7, 0, 0, verdict, 0x95, 0, 0, 0), 16)
    licence = ctypes.create_string_buffer(b"Apache-2.0")
    attributes = struct.pack(
        "=IIQQIIQII16sII",
        PROG_TYPE_CGROUP_SKB,
        2,  # instructions
        ctypes.addressof(instructions),
        ctypes.addressof(licence),
        *(0, 0, 0, 0, 0),  # no verifier log, no kernel version, no flags
        b"lambda_freeze",
        0,  # no network device
        ATTACH_CGROUP_INET_EGRESS,
    )
    return _bpf(PROG_LOAD, attributes)


def _attach(program: int, group: int) -> int:
    return _bpf(LINK_CREATE, struct.pack("=IIII", program, group, ATTACH_CGROUP_INET_EGRESS, 0))


def _bpf(command: int, attributes: bytes) -> int:
    """bpf(2). Returns a descriptor, which is close-on-exec; raises OSError."""
    number = SYSCALL_NUMBERS.get(platform.machine())
    if number is None:
        raise OSError(f"bpf(2) on {platform.machine()}: system call number not known")
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    result: int = libc.syscall(ctypes.c_long(number), ctypes.c_int(command), buffer, ctypes.c_uint(len(attributes)))
    if result < 0:
        raise OSError(ctypes.get_errno(), f"bpf(2): {os.strerror(ctypes.get_errno())}")
    return result
