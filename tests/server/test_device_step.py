"""The step that a GPU replays as a graph, run on the CPU: the same codes, and no look at a value."""

import random
from dataclasses import replace

import numpy as np
import pytest

from chattts_server.engine.nouns import UNLIMITED_CREDIT, Sampling, Submit
from chattts_server.engine.process import Engine
from tests.server.test_engine_loop import Port
from tests.server.test_slots import WILD, row, slots_of, speak

pytestmark = pytest.mark.engine
TEXT = "今天气很好我们去公园玩耍吧"


@pytest.fixture(scope="module")
def usual(tiny):
    return slots_of(tiny, slots=5)


@pytest.fixture(scope="module")
def launched(tiny):
    from chattts_server.engine.device_step import eager

    return slots_of(tiny, slots=5, capture=eager)


@pytest.fixture(scope="module")
def rows(prompt):
    chooser = random.Random(4)
    return [
        row(
            prompt("".join(chooser.choices(TEXT, k=chooser.randint(1, 70)))),
            chooser.randint(4, 40),
            chooser.choice([Sampling(0.3), Sampling(0.7, top_k=5), WILD]),
            np.random.default_rng(number).normal(size=64).astype("<f4").tobytes() if number % 2 else b"",
            stage="text" if number % 4 == 3 else "code",
        )
        for number in range(8)
    ]


@pytest.fixture(scope="module")
def expected(usual, rows):
    return [speak(usual, [one], [number])[0][0] for number, one in enumerate(rows)]


def test_codes_are_those_of_the_step_that_computes_just_its_rows(launched, rows, expected):
    """In mixes in which rows join, are prefilled beside others' steps, end and are cancelled; some of each at least."""
    chooser = random.Random(8)
    finished = dict.fromkeys(range(len(rows)), 0)
    running = {}  # slot -> [row number, steps, prefills left]
    while min(finished.values()) < 2:
        for slot in set(range(launched.slots)) - set(running):
            number = chooser.randrange(len(rows))
            running[slot] = [number, 0, launched.join(slot, rows[number], number)]
        for slot, state in running.items():
            if state[2]:
                launched.prefill(slot)
                state[2] -= 1
        stepping = [slot for slot, state in running.items() if not state[2]]
        if stepping:
            assert set(launched.step(stepping)) == {"made"}
        for slot in stepping:
            number, steps, _ = running[slot]
            running[slot][1] += 1
            if steps + 1 == rows[number].limits.max_steps:
                assert (launched.codes(slot) == expected[number]).all(), f"row {number} in slot {slot}"
                finished[number] += 1
                del running[slot]
            elif chooser.random() < 0.01:
                del running[slot]


def heard(model, rows):
    """The loop's own way with these rows, all of them wanted whole."""
    script = {1: [replaced(one, number) for number, one in enumerate(rows)]}
    port = Port(script)
    Engine(port, model).run()
    return port.sound()


def replaced(one, number):
    sampling = Sampling(one.sampling.temperature, one.sampling.top_p, one.sampling.top_k, seed=number)
    return Submit(number, one.token_ids, one.voice, sampling, one.limits, None, UNLIMITED_CREDIT, one.stage)


def test_the_loop_that_hears_a_step_late_makes_the_same_sound(usual, launched, rows):
    spoken = [one for one in rows if one.stage == "code"]
    theirs, ours = heard(usual, spoken), heard(launched, spoken)
    assert launched.late == 1
    assert sorted(ours) == sorted(theirs) == list(range(len(spoken)))
    for number, sound in theirs.items():
        assert len(sound) == len(ours[number])
        assert np.abs(sound - ours[number]).max() < 1e-5


def test_a_row_that_ends_by_itself_is_cropped_where_it_ends(tmp_path, prompt):
    """One step more is on its way when the end is heard of; nobody hears it, and the slot's next row is whole."""
    from chattts_server.engine.device_step import eager
    from chattts_server.engine.random_checkpoint import make_checkpoint

    make_checkpoint(tmp_path, "tiny", seed=7, end="random")
    ending = [row(prompt("好"), 60, WILD) for _ in range(12)]
    models = [slots_of(tmp_path, slots=3, rows_end=True, **more) for more in ({}, {"capture": eager})]
    theirs, ours = (heard(model, ending) for model in models)
    assert len({len(sound) for sound in theirs.values()}) > 1
    assert {n: len(sound) for n, sound in ours.items()} == {n: len(sound) for n, sound in theirs.items()}


def test_a_row_of_nan_is_named_late_and_harms_neither_its_mate_nor_the_slots_next_row(launched, rows, expected):
    code = [n for n, one in enumerate(rows) if one.stage == "code"][:2]
    bad, good = code
    for slot, number in ((0, bad), (1, good)):
        for _ in range(launched.join(slot, rows[number], number)):
            launched.prefill(slot)
    launched._state.inputs[0] = float("nan")
    launched.launch([0, 1])
    launched.launch([0, 1])
    assert launched.outcomes() == ["broken", "made"]
    for _ in range(launched.join(0, rows[good], good)):  # before the second step of the bad row is heard of
        launched.prefill(0)
    assert launched.outcomes() == ["broken", "made"]
    for _ in range(rows[good].limits.max_steps):
        launched.step([0])
    assert (launched.codes(0) == expected[good]).all()


def test_a_slot_that_is_given_away_before_its_nan_is_heard_of_is_clean(launched, rows, expected):
    """What is masked is multiplied by zero, and zero times NaN is NaN: the next row would fail where it gets as far."""
    good = max((n for n, one in enumerate(rows) if one.stage == "code"), key=lambda n: rows[n].limits.max_steps)
    for _ in range(launched.join(0, rows[good], good)):
        launched.prefill(0)
    launched._state.inputs[0] = float("nan")
    launched.launch([0])
    for _ in range(launched.join(0, rows[good], good)):
        launched.prefill(0)
    assert launched.outcomes() == ["broken"]
    for _ in range(rows[good].limits.max_steps):
        assert launched.step([0]) == ["made"]
    assert (launched.codes(0) == expected[good]).all()


def test_a_step_that_no_graph_serves_is_an_error_and_no_slow_step(launched):
    from functools import partial

    from chattts_server.engine.device_step import DeviceStep, MissingGraph, eager
    from chattts_server.engine.process import ROW_ERRORS
    from chattts_server.engine.sampling import counter_noise, draw

    bare = DeviceStep(launched.gpt, launched._state, 5, partial(draw, noise=counter_noise), False)
    assert not issubclass(MissingGraph, ROW_ERRORS)  # nobody tries it again in halves
    with pytest.raises(MissingGraph, match="1 rows, 10 columns"):
        bare.launch([0], 10, False)
    bare.capture(eager, [1, 2], 64)
    assert bare.launch([0], 10, False)() == ["made"]
    for slots, context, text in (([2], 10, False), ([0], 65, False)):
        with pytest.raises(MissingGraph):
            bare.launch(slots, context, text)


@pytest.mark.parametrize("text", [False, True])
def test_on_a_device_no_value_is_asked_for_and_nothing_comes_from_the_host(tiny, text):
    """On tensors that have a device and a shape and no values: whoever looked at one would fail here."""
    from functools import partial

    import torch
    from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

    from chattts_server.engine.device_step import DeviceStep
    from chattts_server.engine.model import Gpt
    from chattts_server.engine.products import RowCounts
    from chattts_server.engine.row_state import RowState
    from chattts_server.engine.sampling import counter_noise, draw
    from chattts_server.engine.weights import LayerWeights, load_gpt

    weights, device = load_gpt(tiny / "asset", torch.device("cpu")), torch.device("cuda")
    with FakeTensorMode(), torch.inference_mode():

        def there(holder):
            names = [name for name in type(holder).__slots__ if isinstance(getattr(holder, name), torch.Tensor)]
            return replace(holder, **{name: torch.empty(getattr(holder, name).shape, device=device) for name in names})

        layers = [there(layer) for layer in weights.layers]
        assert isinstance(layers[0], LayerWeights)
        gpt = Gpt(there(replace(weights, layers=layers)), 4, 300, "float16", RowCounts((4,)))
        gpt.allocate(4)
        step = DeviceStep(gpt, RowState(4, weights.width, device), 4, partial(draw, noise=counter_noise), True)
        step.run(4, 256, text)
        with pytest.raises(DataDependentOutputException):  # what the step would do if it looked
            bool(step._own.active.any())
