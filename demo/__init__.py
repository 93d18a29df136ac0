"""The demonstration: `make demo` deploys `inventories/demo` on three real nodes and plays the story.

`__main__.py` is the story, `ledger.py` the database's client that remembers what it was promised, `clients.py` the
web's clients, `narrator.py` tells and measures, `cluster.py` asks the product. Nothing here is used by the product.
"""
