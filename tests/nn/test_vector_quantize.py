import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from cbtalk import ops
from cbtalk.nn import QuantizedFeatures, VectorQuantize

KINDS: dict[str, dict[str, Any]] = {
    "ema": {},
    "learned": {"ema": None},
    "cosine": {"cosine": True},
    "learned cosine": {"cosine": True, "ema": None},
    "heads": {"heads": 3},
}
kinds = pytest.mark.parametrize("options", KINDS.values(), ids=KINDS.keys())


def module(options: dict[str, Any] | None = None, codes: int = 10) -> VectorQuantize:
    """A quantiser of 12 channels with codes as large as the features."""
    quantize = VectorQuantize(12, codes, **(options or {}))
    codebook = torch.randn_like(quantize.codebook)
    if quantize.cosine:
        codebook = F.normalize(codebook, dim=-1)
    state = quantize.state_dict() | {"codebook": codebook}
    if quantize.ema is not None:
        state["sums"] = codebook * quantize.counts[..., None]
    quantize.load_state_dict(state)
    return quantize


def train(quantize: VectorQuantize, features: Tensor, **arguments: Any) -> QuantizedFeatures:
    """A call and the gradients of it."""
    found = quantize(features, **arguments)
    (found.quantized.square().sum() + found.loss).backward()
    return found


@kinds
@pytest.mark.parametrize("shape", [(7, 12), (2, 5, 12), (2, 12, 3, 4), (2, 12, 2, 3, 4)], ids=str)
def test_every_shape_comes_back_and_is_quantised_as_rows_are(shape: tuple[int, ...], options: dict[str, Any]) -> None:
    features = torch.randn(shape)
    quantize, by_rows = module(options), None
    by_rows = copy.deepcopy(quantize)
    last = features.movedim(1, -1) if features.dim() > 3 else features
    found, expected = quantize(features), by_rows(last.reshape(-1, 12))
    heads = (3,) if quantize.heads == 3 else ()
    assert found.quantized.shape == shape and found.indices.shape == (*last.shape[:-1], *heads)
    quantized = found.quantized.movedim(1, -1) if features.dim() > 3 else found.quantized
    torch.testing.assert_close(quantized.reshape(-1, 12), expected.quantized, rtol=0, atol=0)
    torch.testing.assert_close(found.indices.reshape(-1, *heads), expected.indices)
    torch.testing.assert_close((found.loss, found.counts), (expected.loss, expected.counts))
    torch.testing.assert_close(quantize.state_dict(), by_rows.state_dict())


@kinds
@pytest.mark.parametrize("shape", [(7, 12), (2, 5, 12), (2, 12, 3, 4)], ids=str)
def test_looking_the_indices_up_gives_what_was_quantised(shape: tuple[int, ...], options: dict[str, Any]) -> None:
    quantize = module(options).eval()
    ignored = torch.rand(shape[:1] + (shape[2:] if len(shape) > 3 else shape[1:-1])) < 0.3
    found = quantize(torch.randn(shape), ignored)
    torch.testing.assert_close(quantize.lookup(found.indices), found.quantized, rtol=0, atol=0)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_images_come_back_in_their_memory_format_and_dtype(
    memory_format: torch.memory_format, dtype: torch.dtype
) -> None:
    features = torch.randn(2, 12, 5, 6, dtype=dtype).to(memory_format=memory_format)
    quantized = module()(features).quantized
    assert quantized.is_contiguous(memory_format=memory_format) and quantized.dtype == dtype


def test_the_codebook_follows_the_rows_that_choose_its_codes() -> None:
    quantize = module({"ema": 0.9, "heads": 2})
    for _ in range(3):
        rows = torch.randn(50, 12)
        before = copy.deepcopy(quantize)
        found = quantize(rows)
        for head, columns in enumerate(rows.split(6, dim=-1)):
            nearest = ops.nearest_code(columns, before.codebook[head]).indices
            torch.testing.assert_close(found.indices[:, head], nearest)
            chosen = F.one_hot(nearest, 10).float()
            counts = 0.9 * before.counts[head] + 0.1 * chosen.sum(0)
            sums = 0.9 * before.sums[head] + 0.1 * chosen.T @ columns
            torch.testing.assert_close(quantize.counts[head], counts)
            torch.testing.assert_close(quantize.codebook[head], sums / counts[:, None])


def test_a_code_that_nobody_chooses_stays_what_it_is() -> None:
    quantize = module({"ema": 0.5})
    with torch.no_grad():
        quantize.codebook[0, 3] = quantize.sums[0, 3] = 100.0
    for _ in range(500):
        quantize(torch.randn(20, 12))
    torch.testing.assert_close(quantize.codebook[0, 3], torch.full((12,), 100.0), rtol=1e-5, atol=0)


@pytest.mark.parametrize("learned", [False, True])
def test_loss_and_gradients_are_those_of_the_op(learned: bool) -> None:
    quantize = module({"ema": None if learned else 0.9, "beta": 0.5})
    codebook = quantize.codebook.detach().clone().requires_grad_(learned)
    features, rows = (torch.randn(30, 12).requires_grad_() for _ in range(2))
    rows.data.copy_(features)
    found = train(quantize, features)
    expected = ops.vector_quantize(rows, codebook[0] if learned else codebook[0].detach(), 0.5, gamma=float(learned))
    (expected.codes.square().sum() + expected.loss).backward()
    torch.testing.assert_close(found.loss, expected.loss)
    torch.testing.assert_close(features.grad, rows.grad)
    if learned:
        torch.testing.assert_close(quantize.codebook.grad, codebook.grad)
    else:
        assert not list(quantize.parameters())


@pytest.mark.parametrize("ema", [0.9, None])
def test_cosine_compares_angles_and_gives_codes_of_length_one(ema: float | None) -> None:
    quantize = module({"ema": ema, "cosine": True})
    with torch.no_grad():
        quantize.codebook.mul_(1.0 if ema else 3.0)
    codes = F.normalize(quantize.codebook.detach()[0], dim=-1)
    features = torch.randn(40, 12) * torch.rand(40, 1) * 10
    found = quantize(features)
    torch.testing.assert_close(found.indices, (F.normalize(features, dim=-1) @ codes.T).argmax(1))
    torch.testing.assert_close(found.quantized.norm(dim=-1), torch.ones(40))
    if ema:
        torch.testing.assert_close(quantize.codebook.norm(dim=-1), torch.ones(1, 10))


@kinds
def test_ignored_features_change_nothing(options: dict[str, Any]) -> None:
    options = {**options, "kmeans_steps": 3, "revive_below": 1.5}
    quantize, ignored = module(options), torch.rand(4, 30) < 0.4
    kept = copy.deepcopy(quantize)
    for seed in range(3):
        features = torch.randn(4, 30, 12)
        features[ignored] = float("nan")
        features.requires_grad_()
        torch.manual_seed(seed)
        found = train(quantize, features, ignored=ignored)
        torch.manual_seed(seed)
        expected = train(kept, features.detach()[~ignored].requires_grad_())
        torch.testing.assert_close(found.loss, expected.loss)
        torch.testing.assert_close(found.counts, expected.counts)
        torch.testing.assert_close(found.indices[~ignored], expected.indices)
        assert (found.indices[ignored] == -1).all() and (found.quantized[ignored] == 0).all()
        assert features.grad is not None and (features.grad[ignored] == 0).all()
    torch.testing.assert_close(quantize.state_dict(), kept.state_dict())


@kinds
def test_evaluation_changes_nothing(options: dict[str, Any]) -> None:
    quantize = module({**options, "kmeans_steps": 3, "revive_below": 5.0}).eval()
    before = copy.deepcopy(quantize.state_dict())
    for _ in range(2):
        quantize(torch.randn(20, 12))
    torch.testing.assert_close(quantize.state_dict(), before, rtol=0, atol=0)


@kinds
def test_a_state_of_any_moment_loads_at_any_moment(options: dict[str, Any]) -> None:
    options = {**options, "kmeans_steps": 3, "revive_below": 1.0}
    quantize = VectorQuantize(12, 10, **options)
    early = copy.deepcopy(quantize.state_dict())
    quantize(torch.randn(50, 12))
    late = copy.deepcopy(quantize.state_dict())
    assert {name: x.shape for name, x in early.items()} == {name: x.shape for name, x in late.items()}
    quantize.load_state_dict(early)
    torch.testing.assert_close(quantize.state_dict(), early)
    other = VectorQuantize(12, 10, **options)
    other.load_state_dict(late)
    quantize.load_state_dict(late)
    features = torch.randn(20, 12)
    torch.manual_seed(1)
    first = quantize(features)
    torch.manual_seed(1)
    torch.testing.assert_close(tuple(other(features)), tuple(first))
    torch.testing.assert_close(other.state_dict(), quantize.state_dict())


def test_loading_a_state_before_the_first_batch_has_it_start_again() -> None:
    quantize = VectorQuantize(12, 10, kmeans_steps=3)
    early = copy.deepcopy(quantize.state_dict())
    quantize(torch.randn(50, 12))
    quantize.load_state_dict(early)
    quantize(torch.randn(50, 12) + 100)
    assert (quantize.codebook.mean(dim=-1) > 90).all() and quantize.started


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("ema", [0.9, None])
def test_k_means_finds_the_clusters_of_the_first_batch(ema: float | None, heads: int) -> None:
    centres = 10 * torch.randn(5, 12)
    rows = torch.cat([centres + 0.01 * torch.randn(5, 12) for _ in range(40)])
    quantize = VectorQuantize(12, 20, heads=heads, ema=ema, kmeans_steps=10)
    found = quantize(rows[torch.randperm(200)])
    quantized = found.quantized.detach()
    assert (torch.cdist(quantized, centres).amin(1) < 0.1).all()
    assert 5 <= quantize.perplexity.min() <= quantize.perplexity.max() <= 20


def test_more_codes_than_rows_leave_some_codes_as_they_are() -> None:
    quantize = VectorQuantize(12, 10, kmeans_steps=3)
    small = quantize.codebook.clone()
    rows = torch.randn(4, 12)
    found = quantize(rows)
    torch.testing.assert_close(found.quantized, rows)
    assert (quantize.codebook == small).all(-1).sum() == 6


@pytest.mark.parametrize("ema", [1 - 1e-6, None])
@pytest.mark.parametrize("heads", [1, 2])
def test_codes_out_of_use_become_rows_each_another(ema: float | None, heads: int) -> None:
    quantize = module({"ema": ema, "heads": heads, "revive_below": 0.5})
    dead = torch.rand(heads, 10) < 0.5
    quantize.counts[dead] = 0.1
    quantize.counts[~dead] = 3.0
    before = quantize.codebook.detach().clone()
    if ema is not None:
        quantize.sums.copy_(before * quantize.counts[..., None])
    rows, ignored = torch.randn(16, 12), torch.arange(16) % 3 == 0
    rows[ignored] = float("nan")
    quantize(rows, ignored)
    after = quantize.codebook.detach()
    torch.testing.assert_close(after[~dead], before[~dead], rtol=1e-4, atol=1e-4)
    for head in range(heads):
        own = rows[~ignored].chunk(heads, dim=1)[head]
        same = (after[head][dead[head], None] - own).abs().amax(-1) < 1e-4  # (dead codes, rows)
        assert (same.sum(1) == 1).all() and (same.sum(0) <= 1).all()
    assert (quantize.counts[dead] > 0.5).all()
    if ema is not None:
        torch.testing.assert_close(quantize.sums, after * quantize.counts[..., None])


def test_with_fewer_rows_than_codes_out_of_use_the_others_wait() -> None:
    quantize = module({"revive_below": 0.5})
    quantize.counts.fill_(0.1)
    quantize(torch.randn(3, 12))
    assert (quantize.counts > 0.1).sum() == 3


def test_revival_brings_all_codes_into_use() -> None:
    quantize = VectorQuantize(12, 32, ema=0.9, revive_below=1.0)
    with torch.no_grad():
        quantize.codebook += 100
        quantize.sums += 100
    for _ in range(60):
        quantize(torch.randn(400, 12))
    assert quantize.perplexity > 24


def test_perplexity_is_the_number_of_codes_in_use() -> None:
    quantize = module({"ema": 0.0})
    quantize(quantize.codebook[0, :4].repeat(3, 1))
    torch.testing.assert_close(quantize.perplexity, torch.tensor([4.0]))


@kinds
@pytest.mark.parametrize("rows", [0, 5])
def test_a_batch_of_which_nothing_counts_leaves_the_codebook_alone(options: dict[str, Any], rows: int) -> None:
    quantize = module({**options, "revive_below": 1.0, "ema": options.get("ema", 0.0)})
    before = quantize.codebook.detach().clone()
    found = quantize(torch.full((rows, 12), float("nan")), torch.ones(rows, dtype=torch.bool))
    assert found.quantized.shape == (rows, 12) and not found.counts.any()
    torch.testing.assert_close(quantize.codebook.detach(), before, rtol=0, atol=0)
    assert all(value.isfinite().all() for value in quantize.state_dict().values())


@kinds
@pytest.mark.parametrize("use_reentrant", [False, True])
def test_checkpointing_gives_the_same_gradients_and_updates_once(options: dict[str, Any], use_reentrant: bool) -> None:
    plain = module({**options, "revive_below": 2.0, "ema": options.get("ema", 0.3)})
    saving = copy.deepcopy(plain)
    layer = torch.nn.Linear(12, 12)
    for seed in range(3):
        features = torch.randn(30, 12)
        found: list[list[Tensor]] = []
        for quantize in (plain, saving):

            def step(x: Tensor, quantize: VectorQuantize = quantize) -> tuple[Tensor, Tensor]:
                result = quantize(layer(x))
                return result.quantized.sin(), result.loss

            torch.manual_seed(seed)
            layer.zero_grad()
            quantize.zero_grad()
            leaf = features.clone().requires_grad_()
            out, loss = step(leaf) if quantize is plain else checkpoint(step, leaf, use_reentrant=use_reentrant)
            (out.sum() + loss).backward()
            found.append(
                [p.grad.clone() for p in (leaf, *layer.parameters(), *quantize.parameters()) if p.grad is not None]
            )
        torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)
        torch.testing.assert_close(plain.state_dict(), saving.state_dict(), rtol=0, atol=0)


@kinds
def test_two_calls_before_one_backward_pass(options: dict[str, Any]) -> None:
    quantize = module({**options, "revive_below": 3.0})
    first, second = (torch.randn(20, 12).requires_grad_() for _ in range(2))
    (quantize(first).loss + quantize(second).loss).backward()
    assert first.grad is not None and first.grad.any() and second.grad is not None and second.grad.any()


def test_under_autocast_codes_are_compared_and_summed_in_float32() -> None:
    plain = module()
    mixed = copy.deepcopy(plain)
    features = torch.randn(40, 12)
    expected = plain(features.bfloat16())
    with torch.autocast("cpu", torch.bfloat16):
        found = mixed(features.bfloat16())
        in_float32 = copy.deepcopy(mixed).eval()(features)
    torch.testing.assert_close(tuple(found), tuple(expected))
    assert found.quantized.dtype == torch.bfloat16 and found.loss.dtype == torch.float32
    assert in_float32.quantized.dtype == torch.float32
    torch.testing.assert_close(mixed.state_dict(), plain.state_dict())


@kinds
def test_training_compiles_as_one_graph(options: dict[str, Any]) -> None:
    torch.compiler.reset()
    eager = module({**options, "revive_below": 0.01})
    compiled = copy.deepcopy(eager)
    call = torch.compile(compiled, fullgraph=True, backend="aot_eager")
    for _ in range(3):
        features = torch.randn(2, 12, 3, 4)
        for quantize, function in ((eager, eager), (compiled, call)):
            quantize.zero_grad()
            found = function(features.requires_grad_())
            (found.quantized.square().sum() + found.loss).backward()
        torch.testing.assert_close(compiled.state_dict(), eager.state_dict())
        for a, b in zip(compiled.parameters(), eager.parameters(), strict=True):
            torch.testing.assert_close(a.grad, b.grad)


def test_k_means_in_the_first_compiled_call() -> None:
    torch.compiler.reset()
    quantize = VectorQuantize(12, 10, kmeans_steps=3)
    call = torch.compile(quantize, backend="aot_eager")
    for _ in range(3):
        call(torch.randn(50, 12))
    assert quantize.started and quantize.perplexity > 3


@kinds
def test_evaluation_exports(options: dict[str, Any]) -> None:
    quantize = module(options).eval()
    batch = torch.export.Dim("batch", min=1, max=64)
    example = torch.randn(3, 12, 4, 4)
    program = torch.export.export(quantize, (example,), dynamic_shapes={"features": {0: batch}})
    features = torch.randn(5, 12, 4, 4)
    torch.testing.assert_close(tuple(program.module()(features)), tuple(quantize(features)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"codes": 0}, "0 codes"),
        ({"heads": 5}, "5 heads"),
        ({"ema": 1.0}, "ema must be"),
        ({"kmeans_steps": -1}, "negative"),
        ({"revive_below": -1.0}, "negative"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VectorQuantize(**{"dim": 12, "codes": 10, **options})


@pytest.mark.parametrize(
    ("features", "ignored", "message"),
    [
        (torch.randn(12), None, "features must be"),
        (torch.randn(5, 11), None, "features must be"),
        (torch.randn(2, 3, 4, 12), None, "features must be"),
        (torch.zeros(5, 12, dtype=torch.int64), None, "floating"),
        (torch.randn(2, 5, 12), torch.zeros(10, dtype=torch.bool), "ignored must be"),
        (torch.randn(2, 5, 12), torch.zeros(2, 5), "ignored must be"),
    ],
)
def test_features_that_do_not_fit_are_refused(features: Tensor, ignored: Tensor | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        module()(features, ignored)
