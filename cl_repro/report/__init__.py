"""One page that shows all results: static, self-contained, made from the files under results/ without torch.

`collect` says which sections the page has, `section` what one is made of; `studies`, `search`, `explained` and `bench`
make them, `ledger` the published numbers, `curves` and `sizes` the interactive charts of `chart`'s pieces; `page` and
page.html.jinja set them. Every number, name, colour and verdict is one of `cl_repro.analysis`.
"""
