"""The report of all results: static pages, made from the files under results/ without torch.

`collect` says which sections there are, `section` what one is made of, `finding` how the report begins; `studies`,
`search`, `explained` and `bench` make sections, `ledger` the published numbers, `curves` and `sizes` the interactive
charts of `chart`'s pieces; `page` and page.html.jinja set them, an index and a page a benchmark. Every number, name,
colour and verdict is one of `cl_repro.analysis`.
"""
