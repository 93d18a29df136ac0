"""A client of the database that remembers what it was promised.

pgbench runs on the client node, through the virtual address. Each transaction writes one numbered row beside the
usual updates, and pgbench's own log says which transactions it saw committed: transaction k of a client in the log
means that row k of this client must be there for ever. When the connection breaks, pgbench ends and a loop starts the
next run.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from itertools import pairwise

from tests.nodes.node import Node, Running

FOLDER = "/tmp/ledger"
CLIENTS = 4

_SCRIPT = r"""
\set aid random(1, 100000 * :scale)
\set delta random(-5000, 5000)
\set n :n + 1
BEGIN;
UPDATE pgbench_accounts SET abalance = abalance + :delta WHERE aid = :aid;
INSERT INTO ledger (run, client, n) VALUES (:run, :client_id, :n);
END;
"""

_LOOP = """
cd {folder}
run=0
while [ ! -e stop ]; do
  run=$((run + 1))
  echo "$run $(date +%s.%N)" >> runs
  pgbench -n -c {clients} -j 1 -T 3600 -D n=0 -D run=$run -D scale={scale} -f script.sql -l --log-prefix=log.$run \\
    "host={address} user=bench dbname=bench connect_timeout=1 tcp_user_timeout=2000" >> out 2>&1 &
  echo $! > pid
  wait $!
  sleep 0.05
done
"""

_SUMMARY = """
import glob, json, re
acked, times = {}, []
for path in glob.glob("log.*"):
    run = int(re.match(r"log\\.(\\d+)", path).group(1))
    for line in open(path):
        words = line.split()
        if len(words) < 6: continue
        key = f"{run}.{words[0]}"
        acked[key] = acked.get(key, 0) + 1
        times.append(int(words[4]) + int(words[5]) / 1e6)
print(json.dumps({"acked": acked, "times": sorted(times)}))
"""


@dataclass(frozen=True)
class Promises:
    """What the client saw: per run and client the number of committed transactions, and when each was answered."""

    acked: dict[str, int]
    times: list[float]

    @property
    def count(self) -> int:
        """All transactions that were seen committed."""
        return sum(self.acked.values())

    def first_after(self, moment: float) -> float | None:
        """The first commit that was answered after `moment`."""
        return next((time for time in self.times if time > moment), None)

    def longest_gap(self, begin: float, end: float) -> float:
        """The longest time without a commit between two moments."""
        inside = [begin, *(time for time in self.times if begin <= time <= end), end]
        return max(later - earlier for earlier, later in pairwise(inside))


class Ledger:
    """The load on the database, from `client` through the virtual address."""

    def __init__(self, client: Node, address: str, password: str, scale: int = 2) -> None:
        self._client = client
        self._address = address
        self._password = password
        self._scale = scale
        self._running: Running | None = None

    def prepare(self, server: Node) -> None:
        """Make the role, the database and its tables (on the node that serves)."""
        sql = (
            "DROP DATABASE IF EXISTS bench; DROP ROLE IF EXISTS bench;"
            f"CREATE ROLE bench LOGIN PASSWORD '{self._password}'; CREATE DATABASE bench OWNER bench;"
        )
        for statement in sql.split(";")[:-1]:
            server.run(["psql", "--quiet", "-v", "ON_ERROR_STOP=1", "-c", statement], user="postgres")
        self._client.write("/root/.pgpass", f"*:*:*:bench:{self._password}\n", mode=0o600)
        self.psql("CREATE TABLE ledger (run int, client int, n int, PRIMARY KEY (run, client, n))")
        self._client.run(
            [
                "pgbench",
                "--initialize",
                "--quiet",
                f"--scale={self._scale}",
                "-h",
                self._address,
                "-U",
                "bench",
                "bench",
            ],
            timeout=120,
        )

    def psql(self, statement: str) -> str:
        """Run a statement from the client, through the virtual address."""
        command = ["psql", "-h", self._address, "-U", "bench", "-d", "bench", "-At", "-v", "ON_ERROR_STOP=1"]
        return self._client.out([*command, "-c", statement], timeout=30)

    def start(self) -> None:
        """Begin the load."""
        self._client.run(f"rm -rf {FOLDER} && mkdir -p {FOLDER}")
        self._client.write(f"{FOLDER}/script.sql", _SCRIPT)
        loop = _LOOP.format(folder=FOLDER, address=self._address, clients=CLIENTS, scale=self._scale)
        self._client.write(f"{FOLDER}/loop", loop)
        self._running = self._client.start(f"exec bash {FOLDER}/loop")

    def stop(self) -> Promises:
        """End the load in order (SIGALRM is what ends a pgbench run in time), and say what was promised."""
        self._client.run(f"touch {FOLDER}/stop; kill -ALRM $(cat {FOLDER}/pid)", check=False)
        if self._running is not None:
            self._running.wait(timeout=30, check=False)
            self._running = None
        return self.promises()

    def promises(self) -> Promises:
        """What was promised so far, as far as pgbench wrote it down."""
        encoded = base64.b64encode(_SUMMARY.encode()).decode()
        summary = json.loads(self._client.out(f"cd {FOLDER} && echo {encoded} | base64 -d | python3 -", timeout=60))
        return Promises(summary["acked"], summary["times"])

    def lost(self, promises: Promises) -> int:
        """How many promised transactions are not in the database."""
        rows = self.psql("SELECT run || '.' || client, n FROM ledger")
        present: dict[str, set[int]] = {}
        for row in rows.splitlines():
            key, number = row.split("|")
            present.setdefault(key, set()).add(int(number))
        return sum(len(set(range(1, count + 1)) - present.get(key, set())) for key, count in promises.acked.items())

    def failed(self) -> list[str]:
        """What pgbench complained of."""
        lines = self._client.run(f"cat {FOLDER}/out", check=False).out.splitlines()
        return [line for line in lines if "error" in line.lower() or "abort" in line.lower()]
