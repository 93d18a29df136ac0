"""What can happen next in a world: what goes on by itself, in any order, and the faults, of which there are so many at most."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from safekit.automaton import register as registers
from safekit.automaton.data import DataRecord
from safekit.automaton.mirror import Answered, DataPhase, DataSaid, PeerView, ResyncBegan, Silent
from safekit.automaton.register import Claim
from safekit.automaton.vocabulary import Action, Ask, Command, Publish, Readiness, Role, StepDone, Wish
from tests.exploration.world import NAMES, OTHER, Draft, Node, Stream, World

MOST_WRITES = 2


def by_itself(world: World) -> Iterator[Draft]:
    """All that goes on without any fault."""
    nodes = {"n1": world.n1, "n2": world.n2}
    for name in NAMES:
        node, peer = nodes[name], nodes[OTHER[name]]
        if not node.up:
            draft = Draft(world, f"{name} boots")
            draft.boot(name)
            yield draft
            continue
        yield from _steps(world, name, node)
        yield from _hears(world, name, node, peer)
        yield from _asks(world, name, node)
        yield from _applies(world, name, node)
    yield from _stream(world, nodes)
    if world.cut:
        draft = Draft(world, "the network is whole again")
        draft.changes["cut"] = False
        yield draft
    if not world.witness:
        draft = Draft(world, "the witness is back")
        draft.changes["witness"] = True
        yield draft


def _steps(world: World, name: str, node: Node) -> Iterator[Draft]:
    state = node.state
    if node.urgent is not None:
        draft = Draft(world, f"{name}: {node.urgent.step} beside its plan")
        draft.perform(name, urgent=True)
        yield draft
    doing = node.doing
    if doing is not None and not (isinstance(doing.step, Publish) and doing.record is not None):
        draft = Draft(world, f"{name}: {doing.step}")
        draft.perform(name, urgent=False)
        yield draft
    if state.role is Role.STOP and not state.plan and state.wish is Wish.STOPPED:
        draft = Draft(world, f"{name} is started")
        draft.tell(name, Command(Action.START))
        yield draft


def _hears(world: World, name: str, node: Node, peer: Node) -> Iterator[Draft]:
    if not node.links:
        return
    flows = not world.cut
    if flows and peer.old is not None:
        draft = Draft(world, f"{name} hears a late word")
        draft.set(OTHER[name], old=None)
        draft.tell(name, peer.old)
        yield draft
    speaks = peer.up and peer.links and peer.said.alive is True
    if flows and speaks and node.state.peer != peer.said:
        draft = Draft(world, f"{name} hears {peer.said.role} {peer.said.readiness}")
        draft.set(OTHER[name], old=None)
        draft.tell(name, peer.said)
        yield draft
    if not (flows and speaks) and node.state.peer.alive is not False:
        yield _silence(world, name, f"{name} hears nothing")


def _silence(world: World, name: str, label: str) -> Draft:
    draft = Draft(world, label)
    peer: PeerView = draft.n[name].state.peer
    draft.tell(name, replace(peer, alive=False))
    return draft


# --- the witness ---


def _asks(world: World, name: str, node: Node) -> Iterator[Draft]:
    if world.witness:
        for at in range(len(node.claims)):
            yield _judged(world, name, at)
    elif node.state.asked is not None and not node.state.silent:
        draft = Draft(world, f"{name} hears nothing of the witness")
        draft.tell(name, Silent("then"))
        yield draft
    for at, answer in enumerate(node.answers):
        draft = Draft(
            world, f"{name} hears {'granted' if answer.granted else 'refused'} {answer.epoch} {answer.holders}"
        )
        draft.set(name, answers=node.answers[:at] + node.answers[at + 1 :])
        draft.tell(name, answer)
        yield draft
    asked_now = node.state.asked
    under_way = {claim.number for claim in node.claims} | {answer.number for answer in node.answers}
    if asked_now is not None and asked_now.number not in under_way and world.witness:
        draft = Draft(world, f"{name} asks again")
        draft.set(name, claims=(*node.claims[-1:], asked_now))
        yield draft


def _judged(world: World, name: str, at: int) -> Draft:
    node = world.n1 if name == "n1" else world.n2
    asked = node.claims[at]
    draft = Draft(world, f"the witness judges number {asked.number} of {name}: {asked.holders} -> {asked.wanted}")
    draft.set(name, claims=node.claims[:at] + node.claims[at + 1 :])
    index = NAMES.index(name)
    life = (node.boots, asked.number)
    if life < world.newest[index]:
        return draft
    register, verdict = registers.decide(world.register, claim(name, node, asked), frozenset(NAMES))
    draft.changes["register"] = register
    draft.changes["newest"] = (life, world.newest[1]) if index == 0 else (world.newest[0], life)
    answer = Answered(asked.number, verdict.granted, verdict.epoch, tuple(sorted(verdict.holders)))
    draft.set(name, answers=(*node.answers[-1:], answer))
    return draft


def claim(name: str, node: Node, asked: Ask) -> Claim:
    """What the claimant of a node puts to the witness."""
    holders, wanted = frozenset(asked.holders), frozenset(asked.wanted)
    return Claim("c", "m", asked.epoch, holders, wanted, name, str(node.boots), asked.number, asked.ground)


# --- copies ---


def _applies(world: World, name: str, node: Node) -> Iterator[Draft]:
    """What the application and the plane of a node do."""
    if node.running and node.mode == "primary" and world.writes < MOST_WRITES and not node.pending:
        yield _written(world, name, node)
    if node.connecting:
        yield _connected(world, name)
    stream = world.stream
    if node.phase == "resync" and stream is not None and name in stream.open:
        draft = Draft(world, f"{name} copies")
        draft.set(name, phase="barrier")
        draft.stream = stream._replace(out=(*stream.out, ("copy", node.memory)))
        yield draft


def _written(world: World, name: str, node: Node) -> Draft:
    number = world.writes + 1
    draft = Draft(world, f"{name} writes {number}")
    draft.changes["writes"] = number
    draft.set(name, memory=node.memory | {number})
    if node.free:
        draft.acknowledge(name, number, mirrored=False)
        return draft
    draft.set(name, pending=(number,))
    stream = world.stream
    if stream is not None and name in stream.open and node.phase != "held":
        draft.stream = stream._replace(out=(*stream.out, ("write", number)))
    return draft


def _connected(world: World, name: str) -> Draft:
    draft = Draft(world, f"{name} connects")
    draft.set(name, connecting=False)
    node, other = draft.n[name], draft.n[OTHER[name]]
    listens = other.up and other.mode == "secondary" and world.stream is None
    if node.mode != "primary" or node.phase != "alone" or not listens or world.cut:
        draft.tell(name, DataSaid(DataPhase.ALONE))
        return draft
    draft.stream = Stream(name, out=(("begin",),))
    draft.set(name, phase="resync")
    draft.set(OTHER[name], published=None)
    return draft


def _stream(world: World, nodes: dict[str, Node]) -> Iterator[Draft]:
    stream = world.stream
    if stream is None:
        return
    flows = not (world.cut or stream.broken)
    for name in sorted(stream.open):
        if not flows or len(stream.open) == 1:
            draft = Draft(world, f"{name} finds its stream broken")
            draft.notice(name)
            yield draft
    if not flows or len(stream.open) == 1:
        return
    if stream.out:
        draft = Draft(world, f"{OTHER[stream.primary]} gets {stream.out[0][0]}")
        draft.stream = stream._replace(out=stream.out[1:])
        _at_secondary(draft, OTHER[stream.primary], stream.out[0])
        yield draft
    if stream.back:
        draft = Draft(world, f"{stream.primary} gets {stream.back[0][0]}")
        draft.stream = stream._replace(back=stream.back[1:])
        _at_primary(draft, stream.primary, stream.back[0])
        yield draft


def _at_secondary(draft: Draft, name: str, message: tuple[object, ...]) -> None:
    node = draft.n[name]
    back: tuple[object, ...] | None = None
    match message:
        case ("begin",):
            draft.set(name, partial=True)
            draft.tell(name, ResyncBegan())
        case ("copy", frozenset() as content):
            draft.overwrite(name, content)
            back = ("equal",)
        case ("write", int(number)):
            draft.set(name, memory=node.memory | {number})
            if number % 2 == 0:
                draft.sync(name)
            back = ("applied", number)
        case ("published", DataRecord() as record):
            draft.set(name, published=record)
            draft.tell(name, DataSaid(DataPhase.INSTEP, record=record))
            back = ("told",)
    if back is not None and draft.stream is not None:
        draft.stream = draft.stream._replace(back=(*draft.stream.back, back))


def _at_primary(draft: Draft, name: str, message: tuple[object, ...]) -> None:
    node = draft.n[name]
    match message:
        case ("equal",):
            draft.sync(name)
            draft.set(name, phase="mirror")
            draft.tell(name, DataSaid(DataPhase.MIRROR))
        case ("applied", int(number)) if number in node.pending:
            draft.set(name, pending=())
            draft.acknowledge(name, number, mirrored=node.phase == "mirror")
        case ("told",):
            if node.doing is not None and isinstance(node.doing.step, Publish):
                draft.set(name, doing=None)
                draft.tell(name, StepDone(0))


# --- faults ---


def faults(world: World) -> Iterator[Draft]:
    """Whatever goes wrong, and whatever an administrator orders."""
    nodes = {"n1": world.n1, "n2": world.n2}
    for name in NAMES:
        node, peer = nodes[name], nodes[OTHER[name]]
        if not node.up:
            continue
        draft = Draft(world, f"{name} LOSES ITS POWER")
        draft.crash(name)
        yield draft
        if node.links and node.state.peer.alive is True and peer.up and peer.links and not world.cut:
            yield _silence(world, name, f"{name} HEARS NOTHING")
        if node.answers:
            draft = Draft(world, f"an answer to {name} IS LOST")
            draft.set(name, answers=())
            yield draft
        if node.state.role is not Role.STOP and node.state.wish is not Wish.STOPPED:
            draft = Draft(world, f"{name} IS STOPPED")
            draft.tell(name, Command(Action.STOP))
            yield draft
        if node.state.role is Role.PRIM and node.state.readiness is Readiness.READY and not node.state.swap:
            draft = Draft(world, f"{name} IS TO SWAP")
            draft.tell(name, Command(Action.SWAP))
            yield draft
    if not world.cut:
        draft = Draft(world, "THE NETWORK IS CUT")
        draft.changes["cut"] = True
        yield draft
    if world.stream is not None and not world.stream.broken:
        draft = Draft(world, "THE STREAM BREAKS")
        draft.stream = world.stream._replace(broken=True)
        yield draft
    if world.witness:
        draft = Draft(world, "THE WITNESS IS AWAY")
        draft.changes["witness"] = False
        yield draft
