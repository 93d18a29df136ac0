"""A node: its modules, its place in the cluster, the answers to what the API asks.

`node.py` implements the API's `NodeFace`. `cluster.py` keeps the cluster's configuration and hears the other nodes,
`clustering.py` changes it. `modules.py` knows which modules are open, `configuring.py` changes their configuration,
`trees.py` keeps it on disk, `checks.py` holds it against this machine before it is applied. `replicated.py` and
`report.py` make answers.
"""
