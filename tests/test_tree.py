"""Operations on all tensors of a tree: one kernel on CUDA, to the last bit what an operation for each gives."""

import pytest
import torch
from made_trees import copied, positive, same
from made_trees import tree as made_tree

from cl_repro.common import tree
from cl_repro.types import Tree


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_all_tensors_at_once_have_the_bits_of_each(
    parts: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    params, weight, *centre = (
        *(f(i, dtype) for i, f in enumerate([made_tree, positive])),
        *map(made_tree, range(2, 4)),
    )
    centre = [{name: value.to(dtype) for name, value in part.items()} for part in centre[:parts]]
    before = copied((params, weight, *centre))

    def difference(name: str) -> torch.Tensor:
        d = params[name] - centre[0][name]
        return weight[name] * (d if parts == 1 else d - centre[1][name])

    expected = {name: difference(name) for name in params}
    for at_once in (False, True):
        monkeypatch.setattr(tree, "at_once", lambda _, answer=at_once: answer)
        assert same(tree.pulled(params, weight, *centre), expected)
        # as first and as second term a tensor that is transposed in memory
        some: Tree = {name: value for name, value in params.items() if value.dim() > 1}
        transposed = {name: expected[name].mT.contiguous().mT for name in some}
        for terms in ((some, expected | transposed), (transposed, params)):
            total = tree.add(*terms)
            assert same(total, {name: params[name] + expected[name] for name in some})
            assert all(value.stride() == terms[0][name].stride() for name, value in total.items())
            mine = dict(zip(terms[0], (value.clone() for value in terms[0].values()), strict=True))
            assert same(tree.add_(mine, terms[1]), total)
            assert all(value.stride() == terms[0][name].stride() for name, value in mine.items())
    assert same((params, weight, *centre), before)


@pytest.mark.parametrize("at_once", [False, True])
def test_what_methods_observe_has_the_bits_of_each(at_once: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "at_once", lambda _: at_once)
    a, b, c = (made_tree(i, torch.float32) for i in range(3))
    before = copied((a, b, c))
    assert same(tree.subtract(a, b, 0.3), {name: v.sub(b[name], alpha=0.3) for name, v in a.items()})
    expected = {name: v.addcmul(b[name], c[name], value=-1) for name, v in a.items()}
    assert same(tree.add_products(a, b, c, -1), expected)
    expected = {name: (0.9 * v).addcmul(b[name], b[name], value=0.1) for name, v in a.items()}
    assert same(tree.add_products(a, b, b, 0.1, 0.9), expected)
    other = tree.copied(a)
    assert same(other, a)
    assert not {v.data_ptr() for v in other.values()} & {v.data_ptr() for v in a.values()}
    assert same(tree.change_since(other, b), {name: v - a[name] for name, v in b.items()})
    assert same((a, b, c), before)


def test_under_vmap_each_tensor_is_pulled_by_itself() -> None:
    stacked = {name: torch.stack([value, 2 * value]) for name, value in made_tree(1).items()}
    found = torch.vmap(lambda p: tree.pulled(p, p, p))(stacked)
    assert same(found, tree.zeros_like(stacked))


def test_traces_of_float32_are_summed_in_float64() -> None:
    """A large entry among many that are below its rounding."""
    many = torch.cat([torch.ones(1, 1), torch.full((1, 1_000_000), 1e-8)], 1)
    assert float(tree.traces({"w": many})) == pytest.approx(1.01, rel=1e-6)
