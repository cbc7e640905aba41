"""Our model, sampler and vocoder against ChatTTS's, on the random `tiny` checkpoint; and rows in company."""

import random
import warnings

import numpy as np
import pytest

from chattts_server.engine.nouns import Limits, Sampling, Submit, Voice, samples_of
from chattts_server.engine.speech_model import Piece

pytestmark = pytest.mark.engine

TEXTS = ["你好世界", "今天天气很好我们去公园玩耍吧", "hello world", "好[laugh]的"]
GREEDY = Sampling(temperature=1e-6)
WILD = Sampling(temperature=2.0, top_p=1.0, top_k=626)


def slots_of(folder, slots=4, rows_end=False, threads=2, precision="float32", **more):
    import torch

    from chattts_server.engine import kernels
    from chattts_server.engine.slots import Slots

    torch.set_num_threads(threads)
    cpu = torch.device("cpu")
    more.setdefault("kernels", None if "capture" in more else kernels.fastest(precision, cpu))
    return Slots(folder / "asset", slots, cpu, precision, rows_end, **more)


@pytest.fixture(scope="module")
def model(tiny):
    return slots_of(tiny)


def row(token_ids, steps, sampling=GREEDY, embedding=b"", codes=b"", stage="code"):
    return Submit(1, token_ids, Voice(embedding, codes), sampling, Limits(steps), None, 0, stage)


def speak(model, rows, seeds=None):
    """[(codes [T, 4], pcm)] of rows that begin together, one slot each; a row that is done leaves."""
    seeds = seeds or range(len(rows))
    for slot, (one, seed) in enumerate(zip(rows, seeds, strict=True)):
        for _ in range(model.join(slot, one, seed)):
            model.prefill(slot)
    made, running = [0] * len(rows), list(range(len(rows)))
    while running:
        for slot, outcome in zip(tuple(running), model.step(running), strict=True):
            made[slot] += outcome == "made"
            if outcome != "made" or made[slot] == rows[slot].limits.max_steps:
                running.remove(slot)
    waves = model.vocode([Piece(slot, 0, steps, last=True) for slot, steps in enumerate(made)])
    return [(model.codes(slot)[: made[slot]], wave) for slot, wave in enumerate(waves)]


def native(chat, texts, steps, speaker=None, **parameters):
    import ChatTTS

    params = ChatTTS.Chat.InferCodeParams(
        max_new_token=steps, show_tqdm=False, ensure_non_empty=False, spk_emb=speaker, **parameters
    )
    return next(chat._infer_code(list(texts), False, chat.device, True, params))


def same_codes(theirs, ours):
    return [bool((a == b).all()) and len(a) == len(b) for a, (b, _) in zip(theirs.ids, ours, strict=True)]


def test_the_speaker_token_is_the_one_of_the_tokenizer(chat):
    from chattts_server.engine.slots import SPEAKER_TOKEN

    assert chat.tokenizer.spk_emb_ids == SPEAKER_TOKEN


@pytest.mark.parametrize("spoken_by_somebody", [False, True])
def test_codes_and_audio_of_a_ragged_batch_are_those_of_chattts(chat, model, prompt, spoken_by_somebody):
    speaker = chat.sample_random_speaker() if spoken_by_somebody else None
    embedding = chat.speaker._decode(speaker).astype("<f4").tobytes() if speaker else b""
    theirs = native(chat, TEXTS, 96, speaker, temperature=1e-6)
    # ChatTTS says [empty_spk] where there is no speaker.
    ids = [prompt(text) if speaker else _without_speaker(chat, text) for text in TEXTS]
    ours = speak(model, [row(one, 96, embedding=embedding) for one in ids])
    assert same_codes(theirs, ours) == [True] * 4
    for wave, (_, pcm) in zip(chat._decode_to_wavs(theirs.hiddens, True), ours, strict=True):
        assert np.abs(wave - pcm).max() < 1e-4


@pytest.mark.parametrize("seed", [11, 12, 13])
def test_codes_of_other_weights_are_those_of_chattts_too(tmp_path, seed):
    import torch

    from chattts_server.engine.native import load_chat
    from chattts_server.engine.random_checkpoint import make_checkpoint

    make_checkpoint(tmp_path, "tiny", seed=seed)
    chat, model = load_chat(tmp_path, torch.device("cpu")), slots_of(tmp_path)
    theirs = native(chat, TEXTS, 96, temperature=1e-6)
    ours = speak(model, [row(_without_speaker(chat, text), 96) for text in TEXTS])
    assert same_codes(theirs, ours) == [True] * 4


def _without_speaker(chat, text):
    decorated = chat.speaker.decorate_code_prompts([text], "[speed_5]", None, None)
    return chat.tokenizer.encode(decorated, 4)[0][0, :, 0].tolist()


def test_refined_text_is_that_of_chattts(chat, model):
    """The text stage, beside a row of codes in the same batch; and again as one row with ChatTTS's noise."""
    import ChatTTS

    params = ChatTTS.Chat.RefineTextParams(
        prompt="[oral_2][laugh_0][break_4]", temperature=1e-6, max_new_token=40, show_tqdm=False, ensure_non_empty=False
    )
    theirs = chat._refine_text(list(TEXTS), chat.device, params).ids
    decorated = chat.speaker.decorate_text_prompts(list(TEXTS), params.prompt)
    ids = [chat.tokenizer.encode([text], 4)[0][0, :, 0].tolist() for text in decorated]
    rows = [row(one, 40, Sampling(1e-6, repetition_penalty=1.0), stage="text") for one in ids[:3]]
    ours = speak(model, [*rows, row(ids[3], 40)])
    for one, (tokens, _) in zip(theirs[:3], ours, strict=False):
        assert one.tolist() == tokens[:, 0].tolist()


def test_an_audio_prompt_is_continued_as_by_chattts(chat, model, prompt):
    reference = chat.sample_audio_speaker(np.random.default_rng(1).normal(0, 0.1, 24000).astype(np.float32))
    codes = chat.speaker.decode_prompt(reference).numpy().astype("<u2")
    theirs = native(chat, TEXTS[:2], 48, temperature=1e-6, spk_smp=reference, txt_smp="参考")
    decorated = chat.speaker.decorate_code_prompts(TEXTS[:2], "[speed_5]", "参考", None)
    ids = [chat.tokenizer.encode([text], 4)[0][0, :, 0].tolist() for text in decorated]
    ours = speak(model, [row(one, 48, codes=codes.tobytes()) for one in ids])
    assert same_codes(theirs, ours) == [True] * 2


def test_a_seeded_stream_is_that_of_chattts(chat, tiny):
    """With ChatTTS's noise in place of ours: it seeds its generator anew at each step."""
    import torch

    def chattts_noise(addresses, index):
        rows = [torch.Generator().manual_seed(seed) for seed in addresses.seed.tolist()]
        noise = torch.stack([torch.empty(4, 626).exponential_(generator=generator) for generator in rows])
        return noise.gather(-1, index)

    reference = slots_of(tiny, noise=chattts_noise)
    seeds = [100, 101, 102, 103]
    theirs = [
        native(chat, [text], 64, manual_seed=seed, temperature=0.7) for text, seed in zip(TEXTS, seeds, strict=True)
    ]
    ids = [_without_speaker(chat, text) for text in TEXTS]
    ours = speak(reference, [row(one, 64, Sampling(temperature=0.7)) for one in ids], seeds)
    for one, mine in zip(theirs, ours, strict=True):
        assert same_codes(one, [mine]) == [True]


def test_a_random_row_never_ends_by_itself(chat, model, prompt):
    """In ChatTTS with its own defaults, and with us even where every code may be drawn."""
    assert {len(codes) for codes in native(chat, ["好"] * 8, 120).ids} == {120}
    assert {len(codes) for codes, _ in speak(model, [row(prompt("好"), 200, WILD)] * 4)} == {200}


def test_rows_end_early_when_asked_for(tmp_path, prompt):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from chattts_server.engine.random_checkpoint import make_checkpoint
    make_checkpoint(tmp_path, "tiny", seed=7, end="random")
    ending = slots_of(tmp_path, slots=16, rows_end=True)
    lengths = [len(codes) for codes, _ in speak(ending, [row(prompt("好"), 150, WILD)] * 16)]
    assert 1 <= min(lengths) < 150


def test_limits_are_per_row(model, prompt):
    made = speak(model, [row(prompt("好"), 60), row(prompt("好"), 40), row(prompt("好"), 1)])
    assert [(len(codes), len(pcm)) for codes, pcm in made] == [(n, samples_of(n)) for n in (60, 40, 1)]


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
def test_row_counts_are_those_with_equal_bits(precision):
    """Found again by hand, for a product like those of the model; and a row's place does not matter either."""
    import torch

    from chattts_server.engine.products import CANDIDATES, equal_row_counts, multiplied, product

    generator = torch.Generator().manual_seed(2)
    made = product(torch.randn(192, 64, generator=generator), 16, precision)
    equal = equal_row_counts([made], 13, torch.device("cpu"))
    rows = torch.randn(4800, 64, generator=generator)  # a multiple of every candidate up to 16
    by_count = {count: multiplied(made, rows, count) for count in CANDIDATES if count <= 16}
    expected = by_count[equal.counts[-1]]
    for count, results in by_count.items():
        again = multiplied(made, rows.roll(3, 0), count).roll(-3, 0)
        same = torch.equal(results, expected) and torch.equal(again, results)
        # Of halves the lone row is left out without a look.
        assert same or count not in equal.counts
        assert count in equal.counts or not same or (count == 1 and made.coarse) or precision == "float32"
    assert len(equal.counts) >= 2


def test_blocks_are_few_and_small():
    from chattts_server.engine.products import RowCounts

    counts = RowCounts((2, 4, 6, 8, 12))
    assert [counts.blocks(rows) for rows in (1, 2, 3, 7, 12, 13, 16, 24, 25)] == [
        (1, 2), (1, 2), (1, 4), (1, 8), (1, 12), (2, 8), (2, 8), (2, 12), (3, 12),
    ]  # fmt: skip


@pytest.fixture(scope="module", params=["float32", "bfloat16", "int8", "float32 by torch"])
def every_model(tiny, request):
    """The first two on any CPU with AVX512 or, slowly, without; int8 where there is VNNI."""
    import torch

    from chattts_server.engine.checkpoint import CannotServe
    from chattts_server.engine.precision import chosen_precision

    precision, _, by_torch = request.param.partition(" by ")
    try:
        chosen_precision(precision, torch.device("cpu"))
    except CannotServe as error:
        pytest.skip(str(error))
    return slots_of(tiny, slots=6, precision=precision, **({"kernels": None} if by_torch else {}))


@pytest.fixture(scope="module")
def alone(every_model, prompt):
    """Twelve different rows, two of them of the text stage, each spoken alone."""
    chooser = random.Random(5)
    rows = [
        row(
            prompt("".join(chooser.choices("今天气很好我们去公园玩耍吧一二三四五", k=chooser.randint(1, 90)))),
            chooser.randint(4, 40),
            Sampling(
                chooser.choice([1e-6, 0.3, 0.7, 1.5]), chooser.choice([0.5, 0.7, 1.0]), chooser.choice([5, 20, 626]),
                chooser.choice([1.0, 1.05, 1.3]),
            ),
            np.random.default_rng(number).normal(size=64).astype("<f4").tobytes() if number % 2 else b"",
            stage="text" if number in (4, 9) else "code",
        )
        for number in range(12)
    ]  # fmt: skip
    return rows, [speak(every_model, [one], [number])[0][0] for number, one in enumerate(rows)]


def test_company_changes_no_code_of_a_row(every_model, alone):
    """200 random mixes: rows join at any step into any slot, leave at their end, some are cancelled on the way."""
    model, (rows, expected) = every_model, alone
    chooser = random.Random(9)
    finished = cancelled = 0
    running = {}  # slot -> [row number, steps, prefills left, step at which it is cancelled]
    for _ in range(200):
        for _ in range(chooser.randint(1, 12)):
            for slot in range(model.slots):
                if slot not in running and chooser.random() < 0.3:
                    number = chooser.randrange(len(rows))
                    gone_at = chooser.choice([None, None, None, chooser.randint(1, 20)])
                    running[slot] = [number, 0, model.join(slot, rows[number], number), gone_at]
            for slot, state in running.items():
                if state[2]:
                    model.prefill(slot)
                    state[2] -= 1
            stepping = [slot for slot, state in running.items() if not state[2]]
            chooser.shuffle(stepping)
            if stepping:
                model.step(stepping)
            for slot in stepping:
                number, steps, _, gone_at = running[slot]
                running[slot][1] = steps + 1
                if steps + 1 == gone_at:
                    cancelled += 1
                    del running[slot]
                elif steps + 1 == rows[number].limits.max_steps:
                    assert (model.codes(slot) == expected[number]).all(), f"row {number} in slot {slot}"
                    finished += 1
                    del running[slot]
    assert finished > 100
    assert cancelled > 20


def test_the_check_above_would_notice(every_model, alone):
    """Another seed, and one code of the history that is another, are both seen."""
    model, (rows, expected) = every_model, alone
    number = next(n for n, one in enumerate(rows) if one.sampling.temperature > 1 and one.limits.max_steps > 10)
    other, _ = speak(model, [rows[number]], [number + 100])[0]
    assert not (other == expected[number]).all()
    for _ in range(model.join(0, rows[number], number)):
        model.prefill(0)
    model.step([0])
    model._state.inputs[0] += 0.5
    for _ in range(rows[number].limits.max_steps - 1):
        model.step([0])
    assert not (model.codes(0) == expected[number]).all()


def test_what_may_not_reach_the_device_is_named(model, prompt):
    ids = prompt("好")
    assert model.problem(row(ids, 47)) is None
    for bad in (
        row([], 47), row([21178], 47), row([-1], 47), row([5] * 2000, 47), row(ids, 0), row(ids, 3000),
        row(ids, 47, embedding=b"\0" * 8), row(ids, 47, embedding=np.full(64, np.nan, "<f4").tobytes()),
        row(ids, 47, codes=b"\0" * 6), row(ids, 47, codes=np.full(8, 625, "<u2").tobytes()),
        row(ids, 47, Sampling(temperature=0.0)), row(ids, 47, Sampling(temperature=float("nan"))),
        row(ids, 47, Sampling(top_k=0)),
    ):  # fmt: skip
        assert model.problem(bad)


def test_a_row_of_nan_is_named_and_its_mate_is_unchanged(model, prompt):
    ids = prompt("好")
    expected, _ = speak(model, [row(ids, 20)])[0]
    for slot, one in enumerate((row(ids, 20), row(ids, 20))):
        for _ in range(model.join(slot, one, 0)):
            model.prefill(slot)
    model._state.inputs[1] = float("nan")
    assert model.step([0, 1]) == ["made", "broken"]
    for _ in range(19):
        model.step([0])
    assert (model.codes(0) == expected).all()
    model.join(1, row(ids, 20), 0)  # the slot that had the bad row
    model.prefill(1)
    for _ in range(20):
        assert model.step([1]) == ["made"]
    assert (model.codes(1) == expected).all()


def test_a_row_that_is_rewound_goes_on_where_it_was(model, prompt):
    whole = speak(model, [row(prompt("好"), 120)])[0][1]
    for _ in range(model.join(0, row(prompt("好"), 120), 0)):
        model.prefill(0)
    for _ in range(120):
        model.step([0])
    heard = [model.vocode([Piece(0, 0, 70, False)])[0]]
    model.rewind(0)
    heard.append(model.vocode([Piece(0, 0, 90, False)])[0][len(heard[0]) :])
    heard.append(model.vocode([Piece(0, 90, 120, True)])[0])
    assert np.abs(np.concatenate(heard) - whole).max() < 1e-5


def test_a_prompt_of_one_token_needs_no_prefill(model):
    assert model.join(0, row([21131], 5), 0) == 0
    assert model.step([0]) == ["made"]


@pytest.mark.parametrize("call", ["join", "prefill", "step", "vocode"])
def test_a_lost_device_is_said_to_be_lost_whoever_finds_it_out(model, prompt, monkeypatch, call):
    import torch

    from chattts_server.engine.speech_model import DeviceLost

    def lost(*_):
        raise torch.AcceleratorError("unspecified launch failure")

    one = row(prompt("好"), 5)
    for _ in range(model.join(0, one, 0)):
        model.prefill(0)
    monkeypatch.setattr(model.gpt, "embed_text", lost)
    monkeypatch.setattr(model.gpt, "prefill", lost)
    monkeypatch.setattr(model.gpt, "decode", lost)
    monkeypatch.setattr(model._vocoder, "push", lost)
    arguments = {"join": (0, one, 0), "prefill": (0,), "step": ([0],), "vocode": ([Piece(0, 0, 1, True)],)}
    with pytest.raises(DeviceLost):
        getattr(model, call)(*arguments[call])


def test_the_loop_and_the_vocoder_agree_on_the_look_ahead():
    from chattts_server.engine import scheduler, vocoder

    assert scheduler.LOOK_AHEAD_STEPS == vocoder.LOOK_AHEAD_STEPS


def test_a_voice_is_encoded_as_chattts_does(chat, model):
    pcm = np.random.default_rng(1).normal(0, 0.1, 24000).astype(np.float32)
    codes = np.frombuffer(model.encode_voice(pcm), "<u2").reshape(4, -1)
    assert np.array_equal(codes, chat.dvae.sample_audio(pcm).numpy())


def test_the_sampler_keeps_what_chattts_keeps():
    import torch
    from ChatTTS.model.processors import gen_logits

    from chattts_server.engine.sampling import Parameters, candidates

    generator = torch.Generator().manual_seed(1)
    for temperature, top_p, top_k in ((0.3, 0.7, 20), (1.0, 0.9, 50), (2.0, 1.0, 626), (0.1, 0.1, 1)):
        logits = torch.randn(32, 626, generator=generator) * 2
        made = torch.randint(0, 626, (32, 30), generator=generator)
        made[:, -4:] = made[:, -5:-4]  # repeated codes are punished by their count
        scores = logits / temperature
        warpers, processors = gen_logits(625, top_p, top_k, 1.05)
        for step in (*processors, *warpers):
            scores = step(made, scores)
        same = torch.ones(8)
        parameters = Parameters(
            same * temperature, same * top_p, torch.full((8,), top_k), same * 1.05, torch.ones(8, dtype=torch.bool)
        )
        top, index = candidates(logits.view(8, 4, 626), made[:, -16:].reshape(8, 4, 16), parameters)
        ours = torch.full_like(scores, -torch.inf).scatter_(1, index.view(32, -1), top.view(32, -1))
        torch.testing.assert_close(ours.softmax(-1), scores.softmax(-1), rtol=1e-4, atol=1e-6)


def test_no_noise_is_zero_whatever_the_bits(monkeypatch):
    """0 would be -inf in logarithms, and a candidate that is left out would become NaN and win."""
    import torch

    from chattts_server.engine import sampling

    for bits in (0, -1):
        monkeypatch.setattr(sampling, "_mixed", lambda x, bits=bits: torch.full_like(x, bits))
        one = torch.zeros(1, dtype=torch.long)
        noise = sampling.counter_noise(sampling.Addresses(one, one), torch.zeros(1, 4, 3, dtype=torch.long))
        assert 0 < noise.min() <= noise.max() < 20


def test_the_noise_is_exponential_and_a_function_of_its_address():
    import torch

    from chattts_server.engine.sampling import Addresses, counter_noise

    index = torch.arange(626).expand(64, 4, 626)
    steps = torch.arange(64)
    noise = counter_noise(Addresses(torch.full((64,), 7), steps), index)
    assert noise.mean().item() == pytest.approx(1.0, abs=0.02)
    assert noise.std().item() == pytest.approx(1.0, abs=0.02)
    assert (noise > 3).float().mean().item() == pytest.approx(np.exp(-3), rel=0.05)
    few = torch.tensor([[[625, 3]] * 4])
    assert torch.equal(counter_noise(Addresses(torch.tensor([7]), torch.tensor([5])), few)[0], noise[5, :, [625, 3]])
    others = [Addresses(torch.full((64,), 8), steps), Addresses(torch.full((64,), 7), steps + 1)]
    for other in others:
        together = np.corrcoef(counter_noise(other, index).flatten(), noise.flatten())[0, 1]
        assert abs(together) < 0.01


def test_a_slot_takes_what_is_said(tiny, model):
    import torch

    from chattts_server.engine.slots import row_bytes

    parts = (model.gpt._cache, model._state.hiddens)
    assert (
        row_bytes(tiny / "asset", "float32", torch.device("cpu"), True)
        == sum(part.nbytes for part in parts) / model.slots
    )
