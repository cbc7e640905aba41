"""The same fixtures as the server's tests; CHATTTS_TEST_DEVICE=cpu tries the tests themselves where there is no GPU."""

import os

import pytest

from tests.server.conftest import chat_on, prompt, tiny

__all__ = ["prompt", "tiny"]


@pytest.fixture(scope="session")
def device():
    import torch

    name = os.environ.get("CHATTTS_TEST_DEVICE", "cuda")
    if name == "cuda" and not torch.cuda.is_available():
        pytest.fail("there is no CUDA device; CHATTTS_TEST_DEVICE=cpu tries the tests themselves")
    return torch.device(name)


@pytest.fixture(scope="session")
def chat(tiny, device):
    return chat_on(tiny, device)
