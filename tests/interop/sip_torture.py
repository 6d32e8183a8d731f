"""RFC 4475 and RFC 5118: every message of theirs sent to the running switch, over TCP and over UDP, and what it answers.

What is refused before anybody asks whose it is goes as it stands in the file. In the others the domains of Request-URI,
From and To become a served one and the partner's, foreign Routes go, and the user exists; nothing else is touched.
"""

import asyncio
import pathlib
import re
import time

from scenarios import scenario
from sip_control import lines
from sip_stage import TCP_WIRE, UDP_WIRE
from sip_ua import Agent, Datagrams, Stream, expect
from stage import Failed

DATA = pathlib.Path(__file__).resolve().parent.parent / "data" / "sip"
# What is known of a message before its sender is.
AT_ONCE = {"400", "405", "501", "505", "416", "drop", "400+close", "wait+close"}
# What the core answers to what was accepted.
ANSWERS = {"OPTIONS": ("200",), "INVITE": ("488",), "BYE": ("481",), "MESSAGE": ("200", "415")}
OF_FILE = {
    # Its To has a tag: no dialog of ours has it.
    "wsinv": ("481",),
    # Well read, and an address that is not ours.
    "ipv6-correct-abnf-2-colons": ("404",),
    "ipv6-bug-abnf-3-colons": ("404",),
}
# These keep their Request-URI, for it is what they are about.
OWN_URI = ("ipv6-correct-abnf-2-colons", "ipv6-bug-abnf-3-colons")
USERS = ("user", "vivekg", "userb", "kumiko", "joe", r"sips\3auser\40example.com", r"user;par=u\40example.net")
# Answers to what has no rport go to the port of its Via.
PORTS = (5060, 5050, 5070, 6050, 19823)


def table(column):
    """(name, octets, outcomes any of which conforms), in the order of the manifest."""
    for line in (DATA / "MANIFEST.tsv").read_text(encoding="utf-8").splitlines():
        if line.startswith("#") or not line.strip():
            continue
        row = line.split("\t")
        expected = row[9] if column == "stream" and row[9] != "=" else row[8]
        path = DATA / row[2]
        yield path.stem, path.read_bytes(), expected


def header(head, names, change):
    """The head with the values of these headers changed, folds and all."""
    pattern = rb"(?im)^((?:" + b"|".join(names) + rb")[ \t]*:)((?:.*)(?:\r\n[ \t].*)*)"
    return re.sub(pattern, lambda it: it.group(1) + change(it.group(2)), head)


def adapted(name, text, far):
    head, blank, body = text.partition(b"\r\n\r\n")
    start, end, rest = head.partition(b"\r\n")
    if name not in OWN_URI and not start.startswith(b"SIP/"):
        if b"@" in start:
            start = re.sub(rb"@(\[[^\]]*\]|[^;:?> @]+)(?=[^@]*$)", b"@t.example", start)
        else:
            start = re.sub(rb"sip:(\[[^\]]*\]|[^;:?> @]+)", b"sip:t.example", start)
    at = lambda domain: lambda value: re.sub(rb"@(\[[^\]]*\]|[^;:?> @\r]+)", b"@" + domain, value)  # noqa: E731
    rest = header(rest, (b"from", b"f"), at(far.encode()))
    rest = header(rest, (b"to", b"t"), at(b"t.example"))
    rest = re.sub(rb"(?im)^route[ \t]*:.*\r\n(?:[ \t].*\r\n)*", b"", rest + b"\r\n")
    return start + end + rest[:-2] + blank + body


def recounted(text):
    head, blank, body = text.partition(b"\r\n\r\n")
    return re.sub(rb"(?im)^(content-length|l)([ \t]*:).*?\r?$", b"\\1\\2 %d\r" % len(body), head + b"\r")[:-1] + blank + body


def wanted(name, text, expected):
    """Outcomes that conform, as they are told."""
    if expected == "405, then accept":
        # Its tail is not all of a body: the boundary is lost, before or after the home has answered.
        # Its session description is none (`m =video`).
        return ["405 400 close", "405 close 400"]
    found = []
    for it in expected.split("|"):
        if it in ("accept", "recount"):
            method = text.split(b" ", 1)[0].decode("latin-1")
            answers = ("nothing",) if method.startswith("SIP/") else OF_FILE.get(name, ANSWERS.get(method, ()))
            found += answers
        else:
            found.append({"drop": "nothing", "400+close": "400 close", "wait+close": "close"}.get(it, it))
    return found


def prepared(name, text, expected, far):
    if expected == "recount":
        text = recounted(text)
    if not set(expected.split("|")) <= AT_ONCE:
        text = adapted(name, text, far)
        if name == "dblreq":
            head, tail = text.split(b"\r\nINVITE ", 1)
            text = head + b"\r\n" + adapted(name, b"INVITE " + tail, far)
    return text


async def by_stream(world, name, text, may):
    """What came of it on a connection of its own."""
    async with lines(Stream.to(world.near.address, 5060, TCP_WIRE)) as (line,):
        agent = Agent("wil", "w.example", line)
        line.send(text)
        call = f"behind-{name}-{time.monotonic_ns()}"
        if may != ["close"]:
            # What is behind it must be answered, where there is a behind.
            line.send(agent.text("OPTIONS", "sip:t.example", "sip:t.example", call, 1, "t"))
        seen, answered = [], False
        while not answered or (not seen and may != ["nothing"]):
            it = await asyncio.wait_for(line.queue.get(), 5 if answered else 40)
            if it is None:
                return " ".join([*seen, "close"])
            if it.get("call-id") == call:
                expect(it, 200)
                answered = True
            elif it.status >= 200:
                seen.append(str(it.status))
        return " ".join(seen) or "nothing"


def report(rows):
    """The table; how many are as they should be."""
    good = 0
    for name, may, got in rows:
        right = got in may
        good += right
        print(f"    {name:32} {' or '.join(may):20} {got:20} {'' if right else 'WRONG'}".rstrip(), flush=True)
    print(f"    {good}/{len(rows)}", flush=True)
    wrong = [f"{name}: {got}, not {may}" for name, may, got in rows if got not in may]
    if wrong or len(rows) != 61:
        raise Failed(f"{good} of 61: " + "; ".join(wrong))


def ready(world):
    for it in USERS:
        world.near.add_user(it)


@scenario("torture messages over TCP", near="tandem")
async def torture_stream(world):
    ready(world)

    # An answer whose connection is gone comes here (RFC 3261, 18.2.2): the second message of dblreq has such a one.
    late = asyncio.Queue()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Stream(late.put_nowait), TCP_WIRE, 5060)

    async def one(name, octets, expected):
        text, may = prepared(name, octets, expected, "w.example"), wanted(name, octets, expected)
        try:
            got = await by_stream(world, name, text, may)
            if got == "405 close":
                line = await asyncio.wait_for(late.get(), 10)
                got = f"405 close {(await asyncio.wait_for(line.queue.get(), 10)).status}"
        except (Failed, asyncio.TimeoutError) as why:
            got = f"{type(why).__name__} {why}"
        return name, may, got

    try:
        rows = await asyncio.gather(*(one(*it) for it in table("stream") if it[0] != "dblreq"))
        # Alone, or the late answer takes another's connection.
        rows += [await one(*it) for it in table("stream") if it[0] == "dblreq"]
        # baddn is one empty line short; with it, it is whole.
        text = next(octets for name, octets, _ in table("stream") if name == "baddn")
        got = await by_stream(world, "baddn", text + b"\r\n", ["400"])
    finally:
        server.close()
    report(rows)
    if got != "400":
        raise Failed(f"baddn with its last line: {got}")


@scenario("torture messages over UDP", near="tandem")
async def torture_datagram(world):
    ready(world)
    near = world.near.address
    async with lines(*(Datagrams.to(near, 5060, UDP_WIRE, it) for it in PORTS)) as wires:
        agent = Agent("wil", "v.example", wires[0])
        rows = []
        for name, octets, expected in table("udp"):
            wires[0].send(prepared(name, octets, expected, "v.example"))
            # One behind the other: what this one makes has come before the answer to the next.
            seen = {}
            expect(await agent.asks("OPTIONS", "sip:t.example"), 200)
            for wire in wires:
                while not wire.queue.empty():
                    it = wire.queue.get_nowait()
                    agent.tape.append(it)
            waits = not set(wanted(name, octets, expected)) <= {"nothing"}
            if waits and not found(agent, octets):
                await until_found(agent, wires, octets)
            for it in found(agent, octets):
                seen[str(it.status)] = None
            rows.append((name, wanted(name, octets, expected), " ".join(seen) or "nothing"))
            agent.tape.clear()
        report(rows)


def call_of(octets):
    found = re.search(rb"(?im)^(?:call-id|i)[ \t]*:[ \t]*(?:\r\n[ \t]+)?(\S+)", octets)
    return found.group(1).decode("latin-1") if found else None


def found(agent, octets):
    call = call_of(octets)
    return [it for it in agent.tape if it.status >= 200
            and (it.get("call-id") == call if call else it.get("cseq").endswith("INVITE"))]


async def until_found(agent, wires, octets):
    """The core of another shard may be a little behind."""
    end = time.monotonic() + 2
    while not found(agent, octets) and time.monotonic() < end:
        for wire in wires:
            while not wire.queue.empty():
                agent.tape.append(wire.queue.get_nowait())
        await asyncio.sleep(0.01)
