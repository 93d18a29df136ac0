"""Virtual addresses: taken, announced, filtered, released (spec §3.5, §5.3, §5.4; `docs/architecture.md`).

Synchronous and quick (milliseconds; `nft` takes tens): `module.py` calls them in a thread. Each may be repeated at any
time. All raise `VipError(code, message, facts)`; `plan`, `take` and a first `up` have then changed nothing.

Mirror (`mirror.py`):
    vip = MirrorVip(module, addresses: tuple[VirtualAddress, ...], run: Path)      # run = Paths.module_run(module)
    vip.plan() -> tuple[Placement, ...]         where each address goes; raises; touches nothing
    vip.take() -> None                          adds all or none, announces once
    vip.held() -> bool                          every address is there and ours
    vip.release(tcpreset: bool) -> Released     resets connections, removes only what we added
    await vip.keep_announcing()                 repeats after 1, 2, 4 s, then arpreroute's period; ends by itself or
    when cancelled

Farm (`farm.py`):
    vip = FarmVip(module, service: FarmService, node: str, identity: str, run: Path, nodes: Iterable[str])
                                                identity: the same text on every node; nodes: all of cluster.xml
    vip.plan() -> tuple[Placement, ...]
    vip.macs() -> dict[str, str]                this node's part of the membership payload (JSON-ready)
    vip.up(view: Mapping[str, Member], following=None, agreed=True) -> None
                                                filter, then addresses, then announcement; the view holds this node too
    vip.update(view, following=None, agreed=True) -> bool
                                                True: the kernel was changed; False: nothing to write. Also repairs what
                                                a stranger removed. `following`: whose filter follows this view already;
                                                `agreed`: every member has the groups of this configuration
    vip.waiting_for -> frozenset[str]           who has to follow before this node does all that the view asks of it
    vip.wanted, vip.in_force -> str             what tells the configured groups, and those in force, from others
    vip.down(tcpreset: bool) -> Released        connections, addresses, then filter
    vip.held() -> bool                          every address is there and the filter is in force
    vip.shares() -> dict[str, Share]            this node, per group ("web" -> Share(1366, 33.3)); zero before `up`
    vip.owners() -> dict[str, dict[str, int]]   group -> node -> buckets, for the console
    vip.counters() -> dict[str, int]            packets: local, taken, second_chance, refused, forwarded_NODE, left
    vip.connections() -> int                    established connections of other machines, all addresses together
    vip.was_open() -> bool                      this node took its share when a daemon wrote the filter last
    vip.invisible -> bool                       every node hears every frame
    vip.picture() -> Picture | None             all of it for a person, with the connections of each address
    await vip.keep_announcing()                 as above; start it anew after each `up` and `update`

From the configuration (`from_config.py`):
    mirror_addresses(vip) -> tuple[VirtualAddress, ...]      farm_service(vip) -> FarmService

After a restart of `safekitd` build the same object and call `take()` or `up(view)` again: what is right is left alone,
nothing is announced as lost, no connection is touched. `release` and `down` work on a fresh object too.
"""
