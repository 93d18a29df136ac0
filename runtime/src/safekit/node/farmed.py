"""What the API asks about the farm of a module: `api/farm.py`, answered from the filter that is in force."""

from __future__ import annotations

from safekit.api.face import FaceError
from safekit.api.farm import FarmAddress, FarmGroup, FarmInfo, FarmShare
from safekit.module.farm import FarmModule
from safekit.module.mirror import MirrorModule


async def info(module: MirrorModule | FarmModule) -> FarmInfo:
    """The farm in the eyes of this node."""
    around = module.around
    if not isinstance(module, FarmModule) or not module.shares_addresses:
        message = f"module {around.name} has no virtual address that a farm shares (<vip> in mode farm)"
        raise FaceError("action.refused", message, module=around.name)
    picture = await module.picture()
    if picture is None:
        return FarmInfo(around.node, in_service=False)
    place = {name: number for number, name in enumerate(picture.nodes)}
    groups = tuple(
        FarmGroup(
            name,
            tuple(
                FarmShare(node, owners.count(node), round(100 * owners.count(node) / len(owners), 2))
                for node in picture.nodes
            ),
            tuple(None if owner is None else place[owner] for owner in owners),
        )
        for name, owners in picture.owners.items()
    )
    addresses = tuple(
        FarmAddress(str(use.address), use.resolved_by, use.connections, use.elsewhere) for use in picture.addresses
    )
    drains = module.drains_for_s
    left = None if drains is None else round(drains, 1)
    return FarmInfo(around.node, True, module.is_open, picture.nodes, groups, addresses, picture.packets, left)


async def set_open(module: MirrorModule | FarmModule, opened: bool) -> bool:
    """Open or close this node's share; True if that changed something."""
    around = module.around
    if not isinstance(module, FarmModule) or not module.scripts_control:
        message = (
            f'the scripts of module {around.name} do not control its traffic (<vip scriptcontrol="on"> in mode farm)'
        )
        raise FaceError("action.refused", message, module=around.name)
    if not module.in_service:
        message = f"module {around.name} is not in service on {around.node}: it takes no client that could be let in or kept out"
        raise FaceError("action.refused", message, module=around.name)
    return await module.set_open(opened)
