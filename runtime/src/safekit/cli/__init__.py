"""The `safekit` command (spec §8). It speaks only to the local API and decides nothing.

`command.py` is the way in; `control.py`, `monitoring.py`, `configuration.py` and `cluster.py` hold the commands,
`client.py` the connection, `display.py` the words and tables, `exit_codes.py` what a script may rely on.
"""

from safekit.cli.command import main

__all__ = ["main"]
