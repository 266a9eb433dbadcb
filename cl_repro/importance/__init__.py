"""Importances: how much a task cares about each parameter. One short file per idea.

`columns` says what is backpropagated from the logits, `squares` how layers turn that into squared per-example
gradients, `fisher` puts both together; `batched` and `one_sample` are the odd ones out.
"""
