"""What must hold of the engine on a GPU: codes of ChatTTS, no say of a neighbour, memory that stays, bad rows alone."""

import random

import numpy as np
import pytest

from chattts_server.engine.nouns import Limits, Sampling, Submit, Voice
from chattts_server.engine.speech_model import Piece

pytestmark = pytest.mark.gpu

TEXTS = ["你好世界", "今天天气很好我们去公园玩耍吧", "hello world", "好[laugh]的"]
GREEDY = Sampling(temperature=1e-6)
STEPS = 64
SLOTS = 8


def slots_on(tiny, device, precision):
    from chattts_server.engine.device_step import eager
    from chattts_server.engine.slots import Slots

    # On a CPU the same step, computed as it comes.
    return Slots(
        tiny / "asset", SLOTS, device, precision, rows_end=False, capture=eager if device.type == "cpu" else None
    )


@pytest.fixture(scope="module")
def exact(tiny, device):
    return slots_on(tiny, device, "float32")


@pytest.fixture(scope="module")
def usual(tiny, device):
    """In the numbers that `auto` takes."""
    from chattts_server.engine.precision import chosen_precision

    return slots_on(tiny, device, chosen_precision("auto", device))


def row(token_ids, steps, sampling=GREEDY):
    return Submit(1, token_ids, Voice(), sampling, Limits(steps), None, 0)


def join(model, slot, one, seed):
    for _ in range(model.join(slot, one, seed)):
        model.prefill(slot)


def alone(model, one, seed):
    join(model, 0, one, seed)
    for _ in range(one.limits.max_steps):
        assert model.step([0]) == ["made"]
    return model.codes(0).cpu()


def test_greedy_codes_and_sound_in_float32_are_those_of_chattts(chat, exact, device):
    from chattts_server.engine.native import exactly

    theirs = next(chat._infer_code(list(TEXTS), False, device, True, exactly(STEPS, temperature=1e-6)))
    decorated = chat.speaker.decorate_code_prompts(list(TEXTS), "[speed_5]", None, None)
    for slot, text in enumerate(decorated):
        join(exact, slot, row(chat.tokenizer.encode([text], 4)[0][0, :, 0].tolist(), STEPS), slot)
    for _ in range(STEPS):
        exact.step(range(len(TEXTS)))
    for slot, ids in enumerate(theirs.ids):
        assert (ids.cpu() == exact.codes(slot).cpu()).all()
    waves = exact.vocode([Piece(slot, 0, STEPS, last=True) for slot in range(len(TEXTS))])
    for wave, ours in zip(chat._decode_to_wavs(theirs.hiddens, True), waves, strict=True):
        assert np.abs(wave - ours).max() < 1e-4


def test_company_changes_no_code_of_a_row(usual, prompt):
    """Mates that join and leave at every step, against the row alone."""
    chooser = random.Random(1)
    one = row(prompt(TEXTS[1]), STEPS, Sampling(temperature=0.7))
    expected = alone(usual, one, 5)
    for _ in range(20):
        join(usual, 3, one, 5)
        mates = {}
        for _ in range(STEPS):
            for slot in set(range(SLOTS)) - {3}:
                if slot in mates and chooser.random() < 0.1:
                    del mates[slot]
                elif slot not in mates and chooser.random() < 0.2:
                    join(usual, slot, row(prompt(chooser.choice(TEXTS)), STEPS, Sampling(temperature=1.5)), slot)
                    mates[slot] = True
            usual.step([3, *mates])
        assert (usual.codes(3).cpu() == expected).all()


def test_the_contexts_of_mates_change_no_code_of_a_row(usual, prompt):
    """A step reads as many columns as its furthest row sees: alone 256, beside these mates 512 and 2048."""
    one = row(prompt(TEXTS[1]), STEPS, Sampling(temperature=0.7))
    expected = alone(usual, one, 5)
    for tokens in (300, 900):
        join(usual, 0, one, 5)
        join(usual, 2, row(prompt(TEXTS[1])[:1] + [300] * tokens, STEPS, Sampling(temperature=1.5)), 7)
        for _ in range(STEPS):
            usual.step([0, 2])
        assert (usual.codes(0).cpu() == expected).all()


def test_joining_and_launching_wait_for_nothing(usual, prompt, device):
    import torch

    one = row(prompt(TEXTS[0]), STEPS)
    join(usual, 0, one, 0)
    if device.type == "cuda":
        torch.cuda.set_sync_debug_mode("error")
    try:
        usual.launch([0])
        usual.device_step.place(1, 3)
    finally:
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode("default")
    assert usual.outcomes() == ["made"]


def test_the_check_above_would_notice(usual, prompt):
    one = row(prompt(TEXTS[1]), STEPS, Sampling(temperature=0.7))
    assert not (alone(usual, one, 5) == alone(usual, one, 6)).all()


def test_a_row_of_nan_is_named_and_its_mate_is_unchanged(usual, prompt):
    one = row(prompt(TEXTS[0]), 20)
    expected = alone(usual, one, 0)
    for slot in (0, 1):
        join(usual, slot, one, 0)
    usual._state.inputs[1] = float("nan")
    assert usual.step([0, 1]) == ["made", "broken"]
    for _ in range(19):
        assert usual.step([0]) == ["made"]
    assert (usual.codes(0).cpu() == expected).all()


def test_every_step_is_one_launch_of_a_graph(usual, prompt, device):
    import torch

    before = usual.device_step.launches
    alone(usual, row(prompt(TEXTS[0]), STEPS), 0)
    assert usual.device_step.launches == before + STEPS
    if device.type == "cuda":
        assert all(isinstance(replay.__self__, torch.cuda.CUDAGraph) for replay in usual.device_step.graphs.values())


def test_a_step_is_launched_before_the_last_one_is_heard_of(usual, prompt):
    one = row(prompt(TEXTS[0]), STEPS)
    expected = alone(usual, one, 0)
    join(usual, 0, one, 0)
    usual.launch([0])
    for _ in range(STEPS - 1):
        usual.launch([0])
        assert usual.outcomes() == ["made"]
    assert usual.outcomes() == ["made"]
    assert (usual.codes(0).cpu() == expected).all()


def test_the_device_memory_stays(usual, prompt, device):
    """After a first round of all sizes nothing more is allocated. On a CPU the engine has no such figure."""
    one = row(prompt(TEXTS[1] * 8), STEPS)

    def turn():
        for slot in range(SLOTS):
            join(usual, slot, one, slot)
        for _ in range(STEPS):
            usual.step(range(SLOTS))
        usual.vocode([Piece(slot, 0, STEPS, last=True) for slot in range(SLOTS)])
        return usual.memory_bytes()

    turn()
    first = turn()
    assert [turn() for _ in range(3)] == [first] * 3
    assert (first != {}) == (device.type == "cuda")
