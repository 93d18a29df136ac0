"""What ansible-test runs as `get-pip.py` in the virtual environments that it makes without pip.

It fetches that script from a host of its own, beside the package index. Put into its cache (`make/ansible-test` does), this
file does the same with the pip that every Python brings, and then installs the release that was asked for from the index.
It runs under whatever Python ansible-test has found, from 3.8 on.
"""

import ensurepip
import os
import subprocess
import sys

settings = dict(os.environ)  # ensurepip takes pip's settings away
ensurepip.bootstrap(upgrade=True)
wanted = [word for word in sys.argv[1:] if word not in ("--no-setuptools", "--no-wheel")]
sys.exit(subprocess.call([sys.executable, "-m", "pip", "install", "--force-reinstall"] + wanted, env=settings))
