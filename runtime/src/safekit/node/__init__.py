"""A node: its modules, its place in the cluster, the answers to what the API asks.

`node.py` implements the API's `NodeFace`, `cluster.py` keeps the cluster's configuration and hears the other nodes,
`trees.py` keeps the modules' trees on disk, `checks.py` holds a configuration against this machine before it is
applied, `report.py` makes the answers.
"""
