"""Memory that is there at once, and whose pages come later, whatever is written to it meanwhile."""

from pathlib import Path

import pytest

pytestmark = pytest.mark.engine
MEGABYTES = 64


def resident_bytes():
    return 4096 * int(Path("/proc/self/statm").read_text().split()[1])


def test_pages_come_beside_and_what_is_written_meanwhile_stays():
    import torch

    from chattts_server.engine.fixed_memory import populate_beside, reserved_zeros

    before = resident_bytes()
    memory = reserved_zeros((MEGABYTES, 2**18), torch.float32, torch.device("cpu"))
    assert (memory[::7, :9] == 0).all()
    assert resident_bytes() - before < 8 << 20  # a fraction of it
    memory[3] = 1.0
    thread = populate_beside([memory], rest=0.0, share=0.5)
    memory[MEGABYTES - 1] = 2.0
    thread.join(60)
    assert not thread.is_alive()
    assert resident_bytes() - before > (MEGABYTES - 4) << 20
    assert memory.sum() == 3.0 * 2**18
