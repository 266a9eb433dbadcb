"""The gradient of a penalty: one kernel for all tensors on CUDA, to the last bit what an operation for each gives."""

import pytest
import torch
from made_trees import copied, positive, same
from made_trees import tree as made_tree

from cl_repro import tree
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
    assert same((params, weight, *centre), before)


def test_under_vmap_each_tensor_is_pulled_by_itself() -> None:
    stacked = {name: torch.stack([value, 2 * value]) for name, value in made_tree(1).items()}
    found = torch.vmap(lambda p: tree.pulled(p, p, p))(stacked)
    assert same(found, tree.zeros_like(stacked))
