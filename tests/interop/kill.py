"""The server is killed in the middle of its work: what it acknowledged is there afterwards, or was sent back."""

import asyncio
import os
import random
import time

from resident import names
from scenarios import body, scenario
from stage import Failed
from streams import GONE, Session

KILLS = int(os.environ.get("TANDEM_KILLS", "20"))
SEED = int(os.environ.get("TANDEM_SEED", "1"))
# What the clients do in one round: 1,000 things in all.
ROSTER_CLIENTS, ROSTER_CHANGES = 4, 100
AWAY, AWAY_TEXTS = 6, 50
PAIRS, CHATS = 6, 50
CONTACTS = 30
WINDOW = 25


class Keeper:
    """A user who changes his roster, and what the roster may hold after the server's end."""

    def __init__(self, world, user):
        self.session = Session(world.near, user, "desk", resume=False)
        self.certain = {}
        self.open = {}
        self.waiting = {}
        self.asked = self.granted = 0

    async def work(self, random_, mark):
        waiting = self.waiting = {}
        for number in range(ROSTER_CHANGES):
            contact = f"c{random_.randrange(CONTACTS)}@elsewhere.example"
            known = self.open.get(contact) or [self.certain.get(contact)]
            value = None if known[-1] is not None and random_.random() < 0.2 else f"{mark} {number}"
            if contact in self.open:
                # One change of a contact at a time, so that what is certain stays so.
                await asyncio.wait([future for future, (of, _) in waiting.items() if of == contact])
                self.collect(waiting)
                value = value or f"{mark} {number}"
            inner = "subscription='remove'" if value is None else f"name='{value}'"
            future = asyncio.get_running_loop().create_future()
            self.session.waiting[f"r{number}"] = future
            waiting[future] = (contact, value)
            self.open[contact] = [value]
            self.asked += 1
            self.session.send(f"<iq type='set' id='r{number}'><query xmlns='jabber:iq:roster'>"
                              f"<item jid='{contact}' {inner}/></query></iq>")
            while len(waiting) >= 10:
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                self.collect(waiting)
        while waiting:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            self.collect(waiting)

    def collect(self, waiting):
        for future in [it for it in waiting if it.done()]:
            contact, value = waiting.pop(future)
            self.open.pop(contact, None)
            if future.result().get("type") == "result":
                self.granted += 1
                self.certain[contact] = value
            elif value is not None or future.result().get("type") != "error":
                raise Failed(f"roster set of {contact} to {value}: {future.result()}")

    def judge(self, found):
        wrong = []
        for contact in {*self.certain, *self.open, *found}:
            allowed = [self.certain.get(contact), *self.open.get(contact, [])]
            if found.get(contact) not in allowed:
                wrong.append(f"{contact} is {found.get(contact)!r}, not one of {allowed}")
        self.certain = found
        self.open = {}
        return wrong


class Teller:
    """A user who sends numbered texts to another, and knows which were acknowledged or came back."""

    def __init__(self, world, user, peer, texts):
        self.session = Session(world.near, user, "desk", resume=False)
        self.session.on_stanza = self.hear
        self.session.on_acked = self.acknowledged
        self.peer = peer
        self.texts = texts
        self.acked = set()
        self.bounced = set()
        self.sent = 0

    def start(self, mark):
        self.mark = mark
        self.acked.clear()
        self.bounced.clear()
        self.sent = 0

    def acknowledged(self, number):
        if number is not None:
            self.acked.add(number)

    def hear(self, it):
        if it.name == "message" and it.get("type") == "error":
            self.bounced.add(int(it.get("id")[1:]))

    async def work(self):
        for number in range(self.texts):
            self.sent += 1
            self.session.send(f"<message to='{self.peer}' type='chat' id='m{number}'><body>{self.mark}{number}</body>"
                              "</message>", number)
            if number % 5 == 4 or number == self.texts - 1:
                self.session.ask_ack()
            while len(self.session.unacked) > WINDOW:
                await asyncio.sleep(0.001)
            await asyncio.sleep(0)
        while self.session.unacked:
            await asyncio.sleep(0.002)


class Listener:
    """Who is told; it counts stanzas and acknowledges them as a client does."""

    def __init__(self, world, user, resource="desk"):
        self.session = Session(world.near, user, resource, resume=False)
        self.session.on_stanza = self.hear
        self.got = []

    def hear(self, it):
        words = it.child("body")
        if it.name == "message" and it.get("type") != "error" and words is not None:
            self.got.append(words.text)


async def alive(session):
    """The session's reading goes on until the server is gone."""
    try:
        await session.read()
    except GONE:
        pass


async def log_in(*sessions):
    """Each on a stream of its own, new."""
    for it in sessions:
        it.id = None
        it.waiting = {}
    await asyncio.gather(*(it.connect() for it in sessions))
    return [asyncio.ensure_future(alive(it)) for it in sessions]


async def fetch(session, payload, seconds=20):
    future = session.waiting["fetch"] = asyncio.get_running_loop().create_future()
    session.send(f"<iq type='get' id='fetch'>{payload}</iq>")
    return await asyncio.wait_for(future, seconds)


async def round_of(world, number, random_, keepers, away, pairs, away_users):
    mark = body(f"k{number}")
    tellers = [*away, *(it for it, _ in pairs)]
    for place, it in enumerate(tellers):
        it.start(f"{mark}.{place} ")
    listeners = [it for _, it in pairs]
    for it in listeners:
        it.got.clear()
    sessions = [it.session for it in (*keepers, *tellers, *listeners)]
    reading = await log_in(*sessions)
    for it in listeners:
        it.session.send("<presence/>")
        await fetch(it.session, "<ping xmlns='urn:xmpp:ping'/>")
    for it in keepers:
        await fetch(it.session, "<query xmlns='jabber:iq:roster'/>")
    # Somewhere between the first and the last of what is done; how long that takes was seen in the round before.
    work = [asyncio.ensure_future(it) for it in (*(it.work(random_, mark) for it in keepers),
                                                 *(it.work() for it in tellers))]
    began = time.monotonic()
    await asyncio.wait(work, timeout=random_.random() * world.kill_span)
    if all(it.done() for it in work):
        world.kill_span = max(0.05, time.monotonic() - began)
    world.near.process.child.kill()
    world.near.process.child.wait()
    # What the server had written before its end is still read.
    await asyncio.wait(reading, timeout=10)
    failed = [it.exception() for it in work if it.done() and it.exception()]
    for it in work:
        it.cancel()
    await asyncio.gather(*work, return_exceptions=True)
    for it in sessions:
        it.close()
    for it in keepers:
        # Answers that came before the end count, even if nobody had looked at them yet.
        it.collect(it.waiting)
    if failed:
        raise Failed(f"before the end: {failed[:3]}")
    world.near.process = None
    world.near.start()
    return mark


async def after(world, keepers, away, pairs, away_users):
    """What the users find: complaints, and counts (acknowledged, bounced, found)."""
    wrong = []
    readers = [Listener(world, user) for user in away_users]
    again = [Listener(world, it.session.user) for _, it in pairs]
    sessions = [it.session for it in (*keepers, *readers, *again)]
    reading = await log_in(*sessions)
    for it in (*readers, *again):
        it.session.send("<presence/>")
        await fetch(it.session, "<ping xmlns='urn:xmpp:ping'/>")
    for keeper in keepers:
        answer = await fetch(keeper.session, "<query xmlns='jabber:iq:roster'/>")
        wrong += keeper.judge({it.get("jid"): it.get("name") for it in answer.child("query").children})
    acked = found = bounced = 0
    told = [(teller, [it]) for teller, it in zip(away, readers)]
    told += [(teller, [before, it]) for (teller, before), it in zip(pairs, again)]
    for teller, heard in told:
        def numbers(teller=teller, heard=heard):
            return [int(it[len(teller.mark):]) for one in heard for it in one.got if it.startswith(teller.mark)]
        wanted = teller.acked - teller.bounced
        for _ in range(100):
            if wanted <= set(numbers()):
                break
            await asyncio.sleep(0.02)
        got = numbers()
        acked, found, bounced = acked + len(teller.acked), found + len(set(got)), bounced + len(teller.bounced)
        if wanted - set(got):
            wrong.append(f"{teller.session.user} -> {teller.peer}: acknowledged and lost: {sorted(wanted - set(got))}")
        for one in heard:
            mine = [int(it[len(teller.mark):]) for it in one.got if it.startswith(teller.mark)]
            if mine != sorted(set(mine)):
                wrong.append(f"{teller.session.user} -> {teller.peer}: out of order or doubled: {mine}")
    for it in sessions:
        it.send("<presence type='unavailable'/>")
        it.ask_ack()
        await fetch(it, "<ping xmlns='urn:xmpp:ping'/>")
        it.connection.send("</stream:stream>")
    await asyncio.wait(reading, timeout=5)
    for it in sessions:
        it.close()
    return wrong, acked, bounced, found


@scenario(f"killed {KILLS} times at work: everything acknowledged is there or came back")
async def killed(world):
    random_ = random.Random(SEED)
    world.kill_span = 1.5
    # Prosody acknowledges a text for who is there before he has it, and forgets it when it dies.
    chats = PAIRS if world.near.kind == "tandem" else 0
    keepers = [Keeper(world, it) for it in names(world.near, *(f"k{it}x" for it in range(ROSTER_CLIENTS)))]
    away_users = names(world.near, *(f"a{it}x" for it in range(AWAY)))
    away = [Teller(world, user, world.near.jid(peer), AWAY_TEXTS) for user, peer in
            zip(names(world.near, *(f"s{it}x" for it in range(AWAY))), away_users)]
    pairs = []
    for number in range(chats):
        one, other = names(world.near, f"p{number}x", f"q{number}x")
        pairs.append((Teller(world, one, world.near.jid(other), CHATS), Listener(world, other)))
    totals = [0, 0, 0]
    wrong = []
    for number in range(KILLS):
        await round_of(world, number, random_, keepers, away, pairs, away_users)
        more, *counts = await after(world, keepers, away, pairs, away_users)
        wrong += [f"round {number}: {it}" for it in more]
        totals = [a + b for a, b in zip(totals, counts)]
    changes = sum(it.granted for it in keepers), sum(it.asked for it in keepers)
    print(f"killed {KILLS} times, seed {SEED}: {changes[0]} of {changes[1]} roster changes granted, {totals[0]} texts "
          f"acknowledged, {totals[1]} bounced, {totals[2]} found; {len(wrong)} complaints", flush=True)
    if wrong:
        raise Failed("; ".join(wrong[:6]))
