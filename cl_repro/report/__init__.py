"""One page that shows all results: static, self-contained, made from the files under results/ without torch.

`collect` says what a section of the page holds, `ledger` the published numbers, `curves` the interactive charts;
`page` and page.html.jinja set them. Every number, name, colour and verdict is one of `cl_repro.analysis`.
"""
