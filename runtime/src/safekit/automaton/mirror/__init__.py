"""The mirror automaton (spec §4): everything that decides about a mirror module's state lives in this file.

Theory. The module is always in one of two situations.

* A *plan* runs: the steps of one row of `PLANS`, performed one at a time. What happens meanwhile (commands, the
  peer's words, the data plane's words) is only noted in the state.
* No plan runs: `_decide` looks at the levels - what is wished, what holds the module, what the peer last said, what
  the record and the data plane say - and names the next row, or nothing. Because it looks at levels, a lost, late or
  repeated message changes nothing.

Invariants that the rows keep:

1. `Record(ALONE)` stands before `DataPrimary` and `DataAlone`: nothing is acknowledged alone before the record says
   so on disk.
2. `Record(BOTH)` on the primary stands before `Publish`, and `Publish` before the secondary's `Record(ADOPTED)` and
   SECOND(Ready).
3. `Vip(True)` stands before the start scripts and `Vip(False)` after the stop scripts; a node that yields to a peer
   that already serves releases the address first.
4. A node that lost the data connection asks what the peer became before it goes alone: if the peer already took over,
   it yields.

Under the policies `witness` and `fence` every row that makes this node sole holder, and `publish`, begins only when the
arbiter or the peer's consent allows it (`claims.py`); where the register of a witness could name the other node, the
application runs on a lease (`safekit.lease`), and `Lapsed` says that it ran out. Under `manual` a secondary never becomes
primary without consent. Under `none` nothing is asked.

Not here: rows 3 and 8 of the figure. WAIT goes to PRIM through ALONE, and ALONE never becomes SECOND directly; both
are marked as derived in the spec and would add a second way to say the same.
"""

from __future__ import annotations

from safekit.automaton.mirror.claims import arbitrated, keeps_lease, leased
from safekit.automaton.mirror.decisions import SPLIT_BRAIN_RULE
from safekit.automaton.mirror.machine import record_for, refusal, step
from safekit.automaton.mirror.plans import PLANS
from safekit.automaton.mirror.speech import spoken
from safekit.automaton.mirror.values import (
    Answered,
    DataPhase,
    DataSaid,
    Degraded,
    Event,
    Failover,
    Lapsed,
    MirrorState,
    Named,
    PeerView,
    Policy,
    Recorded,
    ResyncBegan,
    Silent,
    Trusted,
)

__all__ = [
    "PLANS",
    "SPLIT_BRAIN_RULE",
    "Answered",
    "DataPhase",
    "DataSaid",
    "Degraded",
    "Event",
    "Failover",
    "Lapsed",
    "MirrorState",
    "Named",
    "PeerView",
    "Policy",
    "Recorded",
    "ResyncBegan",
    "Silent",
    "Trusted",
    "arbitrated",
    "keeps_lease",
    "leased",
    "record_for",
    "refusal",
    "spoken",
    "step",
]
