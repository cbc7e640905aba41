"""Memory whose size is fixed at the start, and whose pages come beside the first requests. Knows no model.

The kernel clears a page when it is first written to. For some gigabytes that is seconds, half of a cold start: so the
engine is ready without them, and a thread asks for them a little at a time. A limit that is too small for the batch
then shows in the first minute, not under the first full load.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import math
import mmap
import os
import time
from collections.abc import Sequence
from threading import Thread

import torch

_POPULATE_WRITE = 23  # MADV_POPULATE_WRITE, since Linux 5.14: pages are there to be written, what is in them stays
_AT_ONCE = 4 << 20  # bytes: milliseconds, in which no other page of the process can come
_SHARE = 0.1  # of one core
_REST = 5.0  # seconds before it begins: the first request has the machine to itself
log = logging.getLogger(__name__)


def reserved_zeros(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Zeros, as torch.zeros makes them; on a CPU without touching them."""
    if device.type != "cpu":
        return torch.zeros(*shape, dtype=dtype, device=device)
    pages = mmap.mmap(-1, math.prod(shape) * dtype.itemsize, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    pages.madvise(mmap.MADV_NOHUGEPAGE)  # a first write to each place of a slot would clear 2 MiB, not 4 KiB
    return torch.frombuffer(pages, dtype=dtype).view(*shape)  # it holds on to `pages`


def populate_beside(tensors: Sequence[torch.Tensor], rest: float = _REST, share: float = _SHARE) -> Thread:
    """Starts the thread that brings the pages of these CPU tensors, whatever is being written to them."""
    thread = Thread(target=_populate, args=(tensors, rest, share), name="populate", daemon=True)
    thread.start()
    return thread


def _populate(tensors: Sequence[torch.Tensor], rest: float, share: float) -> None:
    time.sleep(rest)
    madvise = ctypes.CDLL(None, use_errno=True).madvise  # ctypes lets go of Python's lock meanwhile
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    for tensor in tensors:
        first = -(-tensor.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE  # the whole pages of it
        end = (tensor.data_ptr() + tensor.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
        for start in range(first, end, _AT_ONCE):
            began = time.monotonic()
            if madvise(start, min(_AT_ONCE, end - start), _POPULATE_WRITE):
                code = ctypes.get_errno()
                level = logging.INFO if code == errno.EINVAL else logging.WARNING  # an older kernel
                log.log(level, "pages come as they are written to", extra={"error": os.strerror(code)})
                return
            time.sleep((time.monotonic() - began) * (1 / share - 1))
