#!/usr/bin/python3
"""Interop: real programs against Tandem, on a stage of their own.

    tests/interop/run.py                     Tandem against Prosody (needs target/release/tandem)
    tests/interop/run.py --near prosody      the control: Prosody against Prosody must pass first
    tests/interop/run.py chat login          only scenarios whose names contain one of the words
    tests/interop/run.py --list              their names

The files `sip_*` play partners of SIP: SIPp, stunnel, Kamailio, HAProxy and wires of our own; who is who is told in
`sip_stage.py`.

Prints `ok name`, `skipped name: why` or `FAILED name: why` with the ends of both servers' logs, and a count at the end.
"""

import argparse
import asyncio
import inspect
import os
import pathlib
import shutil
import signal
import sys
import tempfile
import time
import traceback

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
INSIDE = "TANDEM_INTEROP_INSIDE"
# The files with scenarios, in the order in which they are played.
MODULES = ("local", "federation", "hostile", "operators", "home_roster", "home_presence", "home_messages",
           "home_privacy", "home_services", "home_federation", "sip_control", "sip_flows", "sip_kamailio", "sip_haproxy",
           "sip_torture", "sip_errors", "sip_ends", "sip_reload", "terminal", "forged", "resume", "kill")


def arguments():
    parser = argparse.ArgumentParser(description="interop tests")
    parser.add_argument("words", nargs="*", help="only scenarios whose names contain one of these")
    parser.add_argument("--near", choices=("tandem", "prosody"), default="tandem", help="the server under test")
    parser.add_argument("--binary", default=os.environ.get("TANDEM", str(ROOT / "target/release/tandem")))
    parser.add_argument("--deny-io-uring", action="store_true", help="run Tandem under the filter")
    parser.add_argument("--keep", action="store_true", help="leave the folder with all logs")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--seconds", type=int, default=120, help="bound for one scenario")
    return parser.parse_args()


def enter_namespace():
    """Starts this program again in a network, mount and process namespace of its own."""
    rights = [] if os.getuid() == 0 else ["-r"]
    command = ["unshare", *rights, "-n", "-m", "-p", "-f", "--kill-child", "--mount-proc", sys.executable, *sys.argv]
    os.environ[INSIDE] = "1"
    os.execvp(command[0], command)


def run_one(function, world, seconds):
    """What the scenario said: None if all went well, else why it was skipped."""
    async def bounded():
        return await asyncio.wait_for(function(world), seconds)

    return asyncio.run(bounded())


def play(world, options, scenarios):
    counts = {"ok": 0, "failed": 0, "skipped": 0}
    for name, near, function in scenarios.ALL:
        if options.words and not any(it in name for it in options.words):
            continue
        if near not in (None, world.near.kind):
            continue
        began = time.monotonic()
        try:
            for server in (world.near, world.far):
                if server.process is None:
                    server.start()
            skipped = run_one(function, world, options.seconds)
        except Exception as why:  # Whatever it is, it is a failure of this scenario and of no other.
            counts["failed"] += 1
            print(f"FAILED {name}: {type(why).__name__}: {why}", flush=True)
            if not isinstance(why, (scenarios.Failed, asyncio.TimeoutError)):
                traceback.print_exc(file=sys.stdout)
            for server in (world.near, world.far):
                print(f"--- {server.domain} ({server.kind}), end of its log\n{server.tail()}", flush=True)
            for server in (world.near, world.far):
                if server.process is not None and server.process.child.poll() is not None:
                    print(f"--- {server.domain} is gone: {server.process.child.returncode}", flush=True)
                    server.process = None
        else:
            if skipped is None:
                counts["ok"] += 1
                print(f"ok {name} ({time.monotonic() - began:.1f} s)", flush=True)
            elif world.near.kind == "tandem":
                counts["skipped"] += 1
                print(f"skipped {name}: {skipped}", flush=True)
    return counts


def main():
    options = arguments()
    sys.path.insert(0, str(HERE))
    sys.dont_write_bytecode = True
    if options.near == "tandem" and not options.list and not os.access(options.binary, os.X_OK):
        sys.exit(f"{options.binary} is not there: cargo build --release")
    if not options.list and INSIDE not in os.environ:
        enter_namespace()
    import scenarios
    import stage as stages
    import servers
    for module in MODULES:
        __import__(module)
    scenarios.Failed = stages.Failed
    assert all(inspect.iscoroutinefunction(it) for _, _, it in scenarios.ALL)
    if options.list:
        for name, near, _ in scenarios.ALL:
            print(name + (f" [{near}]" if near else ""))
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    folder = tempfile.mkdtemp(prefix="tandem-interop-")
    stage = stages.Stage(folder)
    world = None
    try:
        stage.open()
        far = servers.Prosody(stage, "p.example")
        if options.near == "prosody":
            near = servers.Prosody(stage, "q.example")
            # A thousand resumptions written down in full take longer than they themselves.
            near.level = "info"
        else:
            near = servers.Tandem(stage, "t.example", os.path.abspath(options.binary), options.deny_io_uring)
        world = scenarios.World(stage, near, far)
        counts = play(world, options, scenarios)
    finally:
        stage.close()
        if options.keep:
            print(f"logs: {folder}", flush=True)
        else:
            shutil.rmtree(folder, ignore_errors=True)
    print(f"interop: {counts['ok']} passed, {counts['failed']} failed, {counts['skipped']} skipped", flush=True)
    return 1 if counts["failed"] or not counts["ok"] else 0


if __name__ == "__main__":
    sys.exit(main())
