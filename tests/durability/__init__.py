"""Durability on real nodes: what an application was promised is there, whatever happens to the nodes.

    journal.py          one operation as the client saw it: asked, answered, with what promise
    promise.py          pure: which acknowledged operations the product may have lost, after what happened (nothing else may)
    linearizable.py     pure: is there an order of these reads and writes that one register could have had?
    namespace.py        pure: the names of a directory in memory, with the answers of a POSIX file system
    checks.py           pure: the journal and the two trees in, sentences out
    schedules.py        pure: a seed is a list of steps that a person can read
    on_nodes/           the programs that run on the nodes: the application, its clients, the look at a tree
    direct.py           asks a node without the engine
    pair.py             the mirror under test, on n1 and n2
    nemesis.py          carries out one step
    trial.py            one schedule, from its first write to the audit
    stall.py            how long a write waits when the secondary is lost
    __main__.py         `python -m tests.durability`: many schedules (`make soak`)

The promise that is checked: in mirror state each acknowledged modification survives the loss of either node; each
acknowledged fsync survives the loss of both powers; alone it is one machine.
"""
