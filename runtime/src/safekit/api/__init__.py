"""The local API: HTTP/1.1 and JSON on a unix socket, the one door to a node for the command line, the collection and
the console.

`face.py` is what the API asks of the node; `node.py` implements it. `app.py` is the HTTP side and knows nothing else
of the node.
"""
