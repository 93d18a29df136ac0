"""The nodes by hand, and for molecule: `python -m tests.nodes --help`."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from tests.nodes.engine import CommandFailed
from tests.nodes.image import ensure_image
from tests.nodes.lab import Lab
from tests.nodes.waiting import NotInTime


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.nodes", description="Drive the nodes of the lab.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    verbs.add_parser("image", help="build the image of a node, unless it is there")
    verbs.add_parser("up", help="have every node booted: those that are there, else new ones")
    verbs.add_parser("create", help="boot new nodes in place of those that are there")
    verbs.add_parser("destroy", help="remove the nodes, their disks and their segment")
    verbs.add_parser("clean", help="remove every lab of this machine, the images, everything")
    for verb, told in {
        "power-cut": "the power fails, and what was not synced is lost",
        "power-on": "power on, and wait until booted",
        "power-off": "an orderly end",
        "reboot": "an orderly reboot, and wait until booted",
        "freeze": "the node hangs and is not heard any more",
        "thaw": "... and goes on",
        "pull-cable": "the node loses its carrier",
        "plug-cable": "... and has it again",
    }.items():
        verbs.add_parser(verb, help=told).add_argument("node")
    cut = verbs.add_parser("cut", help="two nodes (or one from everybody) no longer hear each other; the carrier stays")
    cut.add_argument("node")
    cut.add_argument("other", nargs="?")
    cut.add_argument("--one-way", action="store_true", help="only what NODE sends is lost")
    cut.add_argument("--loss", type=int, default=100, help="per cent of the frames (100)")
    verbs.add_parser("heal", help="end every cut")
    verbs.add_parser("collect", help="save journals and logs").add_argument("folder", type=Path)
    run = verbs.add_parser("run", help="run a shell line on a node")
    run.add_argument("node")
    run.add_argument("line")
    return parser.parse_args()


def main() -> int:
    """Do what the command line says; exit code 1 and one line when it cannot be done."""
    args = _arguments()
    lab = Lab.here(say=print)
    begun = time.monotonic()
    match args.verb:
        case "image":
            ensure_image(lab.engine)
        case "up":
            lab.ensure()
        case "create":
            lab.create()
        case "destroy":
            lab.destroy()
        case "clean":
            Lab.destroy_everything(say=print)
        case "cut":
            lab.cut(args.node, args.other, one_way=args.one_way, loss=args.loss)
        case "heal":
            lab.heal()
        case "collect":
            lab.collect(args.folder)
        case "run":
            result = lab[args.node].run(args.line, check=False)
            sys.stdout.write(result.out)
            sys.stderr.write(result.err)
            return result.code
        case verb:
            getattr(lab[args.node], verb.replace("-", "_"))()
    print(f"{args.verb}: {time.monotonic() - begun:.1f} s")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (CommandFailed, NotInTime, RuntimeError, KeyError) as trouble:
        print(f"nodes: {trouble}", file=sys.stderr)
        sys.exit(1)
