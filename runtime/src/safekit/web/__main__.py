"""`python -m safekit.web`: what the unit runs."""

from safekit.web.service import main

main()
