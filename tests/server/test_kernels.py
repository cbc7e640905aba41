"""The CPU's own kernels against torch, each variant that this machine runs; and rows in company, to the bit."""

import runpy
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.engine

ROOT = Path(__file__).parents[2]
ALLOWED = {"float32": 1e-5, "bfloat16": 0.02, "int8": 0.05}  # of results of size 1


def variants():
    from chattts_server.engine import kernels

    return list(kernels.variants())


def each_precision():
    return [(one, precision) for one in variants() for precision in one.precisions]


def test_the_library_is_built_and_this_processor_runs_it():
    """Without it the engine falls back to torch, and every test here would pass by testing nothing."""
    names = [one.name for one in variants()]
    assert names, "no kernels: run `python hatch_build.py` (it needs g++), on a processor with AVX2"
    assert names[-1] == "avx2"


@pytest.mark.parametrize(("outputs", "inputs"), [(768, 768), (37, 96), (5, 130), (16, 64)])
def test_a_product_is_torchs(outputs, inputs):
    import torch

    torch.manual_seed(0)
    weight, x = torch.randn(outputs, inputs) / inputs**0.5, torch.randn(19, inputs)
    for kernels, precision in each_precision():
        made = kernels.pack(weight, precision)
        for rows in (1, 2, 7, 8, 9, 16, 19):
            error = (made(x[:rows]) - x[:rows] @ weight.T).abs().max()
            assert error < ALLOWED[precision], (kernels.name, precision, rows)


def test_a_rows_product_has_the_same_bits_in_any_company():
    import torch

    torch.manual_seed(1)
    weight, x = torch.randn(100, 320), torch.randn(70, 320)
    for kernels, precision in each_precision():
        made = kernels.pack(weight, precision)
        alone = torch.cat([made(row[None]) for row in x])
        for rows in (2, 3, 5, 8, 13, 16, 17, 33, 64, 70):
            assert torch.equal(made(x[:rows]), alone[:rows]), (kernels.name, precision, rows)
            assert torch.equal(made(x[-rows:]), alone[-rows:]), (kernels.name, precision, rows)
        assert not torch.equal(alone[0], alone[1])


@pytest.fixture(scope="module")
def weights(tiny):
    import torch

    from chattts_server.engine.weights import load_gpt

    return load_gpt(tiny / "asset", torch.device("cpu"))


def model_of(weights, precision, kernels):
    from chattts_server.engine.kernel_model import language_model

    made = language_model(weights, 8, 200, precision, kernels)
    made.allocate(8)
    return made


def stepped(model, prompts, splits=(100,)):
    """Hidden states of a step of all rows after their prompts, which are filled in chunks."""
    import torch

    for slot, prompt in enumerate(prompts):
        start = 0
        for size in (*splits, 100):
            chunk = prompt[start : min(start + size, len(prompt) - 1)]
            if len(chunk):
                model.prefill(slot, start, chunk)
                start += len(chunk)
    return model.decode(
        torch.stack([prompt[-1] for prompt in prompts]), range(len(prompts)), [len(prompt) - 1 for prompt in prompts]
    )


def prompts_of(weights, lengths):
    import torch

    generator = torch.Generator().manual_seed(2)
    return [weights.text[torch.randint(0, len(weights.text), (length,), generator=generator)] for length in lengths]


def test_a_step_of_all_layers_is_that_of_torch(weights):
    import torch

    prompts = prompts_of(weights, (3, 1, 40, 70))
    exact = stepped(model_of(weights, "float32", None), prompts)
    for kernels, precision in each_precision():
        made = stepped(model_of(weights, precision, kernels), prompts)
        likeness = torch.nn.functional.cosine_similarity(made, exact)
        assert likeness.min() > (1 - 1e-6 if precision == "float32" else 0.995), (kernels.name, precision)
        if precision == "float32":
            assert (made - exact).abs().max() < 1e-4


def test_neither_company_nor_chunks_nor_threads_change_a_bit_of_a_row(weights):
    import torch

    prompts = prompts_of(weights, (30, 5, 64, 17, 2))
    threads = torch.get_num_threads()
    for kernels, precision in each_precision():
        together = stepped(model_of(weights, precision, kernels), prompts)
        chunked = stepped(model_of(weights, precision, kernels), prompts, splits=(7, 1, 16))
        torch.set_num_threads(1)
        alone = torch.cat([stepped(model_of(weights, precision, kernels), [prompt]) for prompt in prompts])
        torch.set_num_threads(threads)
        assert torch.equal(together, alone), (kernels.name, precision)
        assert torch.equal(together, chunked), (kernels.name, precision)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_row_that_is_not_finite_stays_alone_and_is_seen(weights, value):
    import torch

    prompts = prompts_of(weights, (10, 10, 10, 10))
    for kernels, precision in each_precision():
        good = stepped(model_of(weights, precision, kernels), prompts)
        assert good.isfinite().all()
        spoiled = [prompt.clone() for prompt in prompts]
        spoiled[2][-1, 5] = value
        made = stepped(model_of(weights, precision, kernels), spoiled)
        assert not made[2].isfinite().all(), (kernels.name, precision)
        assert torch.equal(made[[0, 1, 3]], good[[0, 1, 3]]), (kernels.name, precision)


def test_the_last_position_of_a_slot_is_its_own(weights):
    """The step there reads 200 keys and writes none beyond them."""
    import torch

    for kernels in variants():
        model = model_of(weights, "float32", kernels)
        model.memory[:, 1] = 7.0
        made = stepped(model, prompts_of(weights, (200,)))
        assert made.isfinite().all()
        assert bool((model.memory[:, 1] == 7.0).all())
        assert bool((model.memory[:, 0, :, :, 199] != 0).any())
        assert torch.equal(made, stepped(model_of(weights, "float32", kernels), prompts_of(weights, (200,))))


@pytest.mark.parametrize(("books", "codes", "end"), [(4, 626, 625), (1, 21178, 21001)])
def test_codes_are_drawn_as_torch_draws_them(books, codes, end):
    from functools import partial

    import torch

    from chattts_server.engine.kernel_model import kernel_draw
    from chattts_server.engine.sampling import Addresses, Parameters, counter_noise, draw

    generator = torch.Generator().manual_seed(3)
    rows = 256 if books == 4 else 24

    def any_of(*values):
        return torch.tensor(values)[torch.randint(0, len(values), (rows,), generator=generator)]

    logits = 4 * torch.randn(rows, books, codes, generator=generator)
    logits[::3, :, end] = 20.0  # the end is wanted
    history = torch.randint(-1, 40, (rows, books, 16), generator=generator)
    logits[:, :, :40] += 6.0  # and codes of the history, whose penalty then matters
    parameters = Parameters(
        any_of(1e-6, 0.3, 1.0, 2.0),
        any_of(0.1, 0.7, 1.0),
        any_of(1, 20, 626),
        any_of(1.0, 1.05, 2.0),
        any_of(True, False),
    )
    addresses = Addresses(torch.randint(0, 2**62, (rows,), generator=generator), torch.arange(rows))
    by_torch = partial(draw, noise=counter_noise)(logits, history, parameters, addresses, end=end, looked_at=None)
    assert (by_torch == end).any()
    assert len(by_torch.unique()) > 20
    for kernels in variants():
        made = kernel_draw(kernels)(logits, history, parameters, addresses, end=end, looked_at=None)
        assert torch.equal(made, by_torch), kernels.name


def test_logits_that_are_not_finite_are_drawn_without_harm():
    """choose() says that the row is broken; here it only must not read beyond its memory."""
    import torch

    from chattts_server.engine.kernel_model import kernel_draw
    from chattts_server.engine.sampling import Addresses, Parameters

    logits = torch.full((1, 4, 626), float("nan"))
    one = torch.ones(1)
    parameters = Parameters(one, one, one.long(), one, one.bool())
    addresses = Addresses(one.long(), one.long())
    for kernels in variants():
        made = kernel_draw(kernels)(logits, torch.full((1, 4, 16), -1), parameters, addresses, end=625, looked_at=None)
        assert made.tolist() == [[0] * 4]


def test_a_library_of_other_sources_is_not_taken(tmp_path, monkeypatch):
    from chattts_server.engine import kernels

    here = kernels.library_name()
    for source in [*kernels.FOLDER.glob("*.[ch]pp"), kernels.FOLDER / "sources.py"]:
        (tmp_path / source.name).write_bytes(source.read_bytes())
    copied = runpy.run_path(str(tmp_path / "sources.py"))["library_name"]
    assert copied() == here
    with (tmp_path / "layers.hpp").open("a") as file:
        file.write("// another\n")
    assert copied() != here
    monkeypatch.setattr(kernels, "library_name", copied)
    kernels._library.cache_clear()
    try:
        assert variants() == []
    finally:
        monkeypatch.undo()
        kernels._library.cache_clear()
    assert variants()


def test_a_compiler_that_is_not_there_or_fails_is_said(tmp_path):
    hook = runpy.run_path(str(ROOT / "hatch_build.py"))
    with pytest.raises(hook["CannotCompile"], match="there is no no-such-compiler"):
        hook["build"]("no-such-compiler", tmp_path)
    with pytest.raises(hook["CannotCompile"], match="false failed"):
        hook["build"]("false", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_by_default_a_processor_without_kernels_is_served_by_torch(tiny):
    import torch

    from chattts_server.engine.model import Gpt
    from tests.server.test_slots import row, slots_of, speak

    ours, torchs = slots_of(tiny), slots_of(tiny, kernels=None)
    assert isinstance(torchs.gpt, Gpt)
    assert not isinstance(ours.gpt, Gpt)
    rows = [row([21131, 5, 6, 7, 21132], 30), row([21131, 9, 21132], 20)]
    for (codes, wave), (other, sound) in zip(speak(ours, rows), speak(torchs, rows), strict=True):
        assert torch.equal(codes, other)
        assert np.abs(wave - sound).max() < 1e-4
