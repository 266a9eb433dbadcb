r"""The diagonal Fisher of any `torch.nn.Module`, and the penalty of EWC, for a trainer of one's own.

Elastic Weight Consolidation (Kirkpatrick et al. 2017, equation 3) on `tasks`, pairs (x, y) of tensors, is:

    importance, anchor = {}, {}
    for x, y in tasks:
        optimizer = torch.optim.Adam(model.parameters())
        for rows in torch.randint(len(x), (iterations, 128)):
            loss = functional.cross_entropy(model(x[rows]), y[rows])
            (loss + quadratic_penalty(model, importance, anchor, lam)).backward()
            optimizer.step()
            optimizer.zero_grad()
        fisher = diagonal_fisher(model, (x, y))
        importance = {name: importance.get(name, 0) + value for name, value in fisher.items()}
        anchor = {name: p.detach().clone() for name, p in model.named_parameters()}
"""
