"""Every state that two nodes and a witness can reach within some faults: the automaton of production, its register and its
records are what is explored; what surrounds them (planes, network, disks) is a small value here, without any clock.
"""
