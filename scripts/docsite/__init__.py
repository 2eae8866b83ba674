"""What the documentation site and the README take from the project's own data, as Markdown text.

`pages` is made from the catalogue, the claim records and the key names; `reference` from the source; `links`
leads from files of the checkout to pages of the site. `docs_hook.py` beside this folder puts them together.
"""
