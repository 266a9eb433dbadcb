"""Importances: how much a task cares about each parameter. One short file per idea.

`columns` says what is backpropagated from the logits, `squares` how layers turn that into squared or absolute
per-example gradients, `fisher` and `sensitivity` put both together; `batched` and `one_sample` are the odd ones out.
`library` measures any `torch.nn.Module`.
"""

from cl_repro.importance.library.diagonal import diagonal_fisher, quadratic_penalty

__all__ = ["diagonal_fisher", "quadratic_penalty"]
