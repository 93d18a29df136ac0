"""The product proven on nodes: installed as it is delivered, driven by its command, killed and cut off as nodes are."""
