"""`python -m safekit.cli`, where the command is not installed."""

from safekit.cli.command import main

main()
