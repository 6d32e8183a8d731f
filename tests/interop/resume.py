"""Resumption (XEP-0198, 5): connections are cut at random octets, and no text is lost, doubled or out of order."""

import asyncio
import os
import random

from resident import Resident, names, together
from scenarios import body, scenario
from stage import Failed
from streams import GONE, Cut, Refused, Relay, Session

CUTS = int(os.environ.get("TANDEM_CUTS", "1000"))
PAIRS = 20
# A connection takes some 5,000 octets until it is resumed; cuts fall into that, and into what follows.
FARTHEST = 12_000
WINDOW = 24
SEED = int(os.environ.get("TANDEM_SEED", "1"))


class Conversation:
    """Two users who tell each other numbers, one of them through the relay that cuts."""

    def __init__(self, world, cut_user, other_user, cuts, mark):
        self.relay = Relay((world.near.address, 5222), cuts)
        self.world = world
        self.mark = mark
        self.cut = Session(world.near, cut_user, "cut")
        self.other = Session(world.near, other_user, "whole")
        self.got = {self.cut: [], self.other: []}
        self.stray = []
        self.told = {self.cut: 0, self.other: 0}
        self.over = False
        self.failures = []

    def hear(self, session, it):
        if it.name != "message":
            return
        words = it.child("body")
        if it.get("type") == "error" or words is None or not words.text.startswith(self.mark):
            self.stray.append(repr(it)[:300])
        else:
            self.got[session].append(int(words.text[len(self.mark):]))
            self.tell(*((self.other, self.cut) if session is self.cut else (self.cut, self.other)))

    def tell(self, session, peer):
        """As many as the window takes, which is also how far one may be ahead of what the other got."""
        while (not self.over and session.connection is not None and len(session.unacked) < WINDOW
               and self.told[session] - len(self.got[peer]) < WINDOW):
            number = self.told[session]
            self.told[session] += 1
            session.send(f"<message to='{peer.full}' type='chat' id='n{number}'><body>{self.mark}{number}</body></message>",
                         number)
            if number % 6 == 5:
                session.ask_ack()

    async def run(self):
        self.cut.address = await self.relay.open()
        for session, peer in ((self.cut, self.other), (self.other, self.cut)):
            session.on_stanza = lambda it, session=session: self.hear(session, it)
            session.on_acked = lambda _, session=session, peer=peer: self.tell(session, peer)
        parts = []
        try:
            await self.other.connect()
            whole, again = parts = [asyncio.ensure_future(it) for it in (self.other.read(), self.live())]
            done, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
            if whole in done:
                raise Failed(f"the side that is not cut ended: {whole.exception()!r}")
            again.result()
        finally:
            for it in parts:
                it.cancel()
            self.cut.close()
            self.other.close()
            await self.relay.close()

    async def live(self):
        """The cut side: connects until the relay has no more cuts, then speaks to the end."""
        begun = False
        while True:
            last = not self.relay.cuts
            try:
                await self.cut.connect()
            except GONE as why:
                self.failures.append(repr(why))
                await asyncio.sleep(0.01)
                continue
            if not begun:
                begun = True
                self.other.send("<presence/>")
                self.tell(self.other, self.cut)
            self.tell(self.cut, self.other)
            self.cut.ask_ack()
            reading = asyncio.ensure_future(self.cut.read())
            if last and not self.relay.cuts:
                await self.finish(reading)
                return
            try:
                # A cut that lies beyond what this conversation has to say is not waited for.
                await asyncio.wait_for(reading, 20)
            except GONE:
                pass
            except asyncio.TimeoutError:
                raise Failed(f"{self.cut.full}: nothing moves after {self.cut.resumptions} resumptions; "
                             f"{len(self.cut.unacked)} and {len(self.other.unacked)} unacked") from None
            self.cut.close()

    async def finish(self, reading):
        self.over = True
        for _ in range(300):
            if reading.done():
                raise Failed(f"the last connection ended: {reading.exception()!r}")
            for it in (self.cut, self.other):
                it.ask_ack()
            if not self.cut.unacked and not self.other.unacked and self.complete():
                reading.cancel()
                return
            await asyncio.sleep(0.05)
        reading.cancel()

    def complete(self):
        return (len(self.got[self.cut]) >= self.told[self.other]
                and len(self.got[self.other]) >= self.told[self.cut])

    def verdict(self):
        """(sent, lost, doubled, order broken) over both directions."""
        sent = lost = doubled = broken = 0
        for session, peer in ((self.cut, self.other), (self.other, self.cut)):
            got = self.got[session]
            sent += self.told[peer]
            lost += len(set(range(self.told[peer])) - set(got))
            doubled += len(got) - len(set(got))
            broken += sum(a > b for a, b in zip(got, got[1:]))
        return sent, lost, doubled, broken


async def play(world, cuts, pairs, seed=SEED, farthest=FARTHEST):
    random_ = random.Random(seed)
    users = names(world.near, *(f"{it}{number}x" for number in range(pairs) for it in ("cut", "whole")))
    talks = []
    for number in range(pairs):
        plan = [Cut(random_.random() < 0.5, random_.randrange(farthest), random_.choice(("close", "reset", "hang")))
                for _ in range(cuts // pairs)]
        talks.append(Conversation(world, users[2 * number], users[2 * number + 1], plan, f"{body('n')} "))
    ends = await asyncio.gather(*(it.run() for it in talks), return_exceptions=True)
    totals = [sum(it) for it in zip(*(it.verdict() for it in talks))]
    made = sum(len(it.relay.done) for it in talks)
    resumed = sum(it.cut.resumptions for it in talks)
    stray = [it for talk in talks for it in talk.stray]
    print(f"resumption: seed {seed}, {made} cuts, {resumed} resumptions, {totals[0]} texts: "
          f"{totals[1]} lost, {totals[2]} doubled, {totals[3]} out of order", flush=True)
    wrong = [repr(it) for it in ends if it is not None]
    if wrong or stray or any(totals[1:]):
        raise Failed(f"{len(wrong)} conversations failed: {wrong[:4]}; strays: {stray[:4]}; {totals}")
    if made < cuts * 9 // 10:
        raise Failed(f"{made} cuts of {cuts} happened")


@scenario(f"resumption: {CUTS} cuts at random octets, nothing lost, doubled or out of order")
async def thousand(world):
    await play(world, CUTS, PAIRS)


@scenario("resumption: cuts close to one another in every step of a login")
async def during_login(world):
    await play(world, 100, 10, seed=SEED + 1, farthest=5_500)


@scenario("resumption: what was sent meanwhile is there, and nobody saw the user leave")
async def meanwhile(world):
    from resident import befriend, is_presence

    users = names(world.near, "rose", "walt")
    rose = Session(world.near, users[0], "desk")
    got = []
    rose.on_stanza = got.append
    await rose.connect()
    reading = asyncio.ensure_future(rose.read())
    rose.send("<presence/>")
    walt, = await together(Resident(world.near, users[1]))
    await walt.online()
    walt.shows(to=world.near.jid(users[0]), kind="subscribe")
    await until(lambda: any(it.get("type") == "subscribe" for it in got))
    rose.send(f"<presence to='{walt.bare}' type='subscribed'/>")
    await walt.presence(rose.full)
    rose.close()
    await asyncio.wait([reading])
    for number in range(5):
        walt.tells(rose.full if number % 2 else world.near.jid(users[0]), f"meanwhile {number}")
    await walt.flush()
    await walt.has_not("the user's end", lambda it: is_presence(it, rose.full, "unavailable"))
    await walt.has_not("a bounce", lambda it: it.xml.get("type") == "error")
    await rose.connect()
    reading = asyncio.ensure_future(rose.read())
    texts = lambda: [it.child("body").text for it in got if it.name == "message" and it.child("body")]
    await until(lambda: len(texts()) >= 5)
    if texts() != [f"meanwhile {number}" for number in range(5)]:
        raise Failed(f"{texts()}")
    rose.send(f"<message to='{walt.full}' type='chat'><body>back</body></message>")
    await walt.heard(rose.full, "back")
    await walt.has_not("presence that did not change", lambda it: is_presence(it, rose.full, "unavailable"))
    reading.cancel()
    # An orderly end of the stream ends the session (XEP-0198, 5).
    rose.connection.send("</stream:stream>")
    await walt.presence(rose.full, "unavailable")
    rose.close()
    try:
        await rose.connect()
    except Refused:
        pass
    else:
        raise Failed("a session that was closed came back")
    rose.close()
    await walt.leave()


async def until(condition, seconds=15):
    for _ in range(seconds * 50):
        if condition():
            return
        await asyncio.sleep(0.02)
    raise Failed(f"{seconds} s passed")


@scenario("resumption: a session is given to nobody else, and a wrong id is refused and harmless")
async def foreign(world):
    users = names(world.near, "rose", "mallory")
    rose, mallory = Session(world.near, users[0], "desk"), Session(world.near, users[1], "desk")
    await rose.connect()
    for id_ in (rose.id, "made-up", "x" * 500):
        mallory.id = id_
        try:
            await mallory.connect()
        except Refused as why:
            if "item-not-found" not in str(why):
                raise Failed(f"{why}") from None
        else:
            raise Failed(f"another user took the session {id_}")
    mallory.id = None
    await mallory.connect()
    reading = asyncio.ensure_future(rose.read())
    got = []
    rose.on_stanza = got.append
    mallory.send(f"<message to='{rose.full}' type='chat'><body>hi</body></message>")
    await until(lambda: got)
    reading.cancel()
    rose.close()
    mallory.close()


@scenario("stream management: what a client does wrong ends its stream by the right error")
async def faults(world):
    user, = names(world.near, "rose")
    cases = [("<enable xmlns='urn:xmpp:sm:3'/>", ("failed", "error"))]
    if world.near.kind == "tandem":
        # XEP-0198, 4: a count of what was never sent.
        cases.append(("<a xmlns='urn:xmpp:sm:3' h='99999'/>", ("error",)))
    for line, wanted in cases:
        rose = Session(world.near, user, "desk")
        await rose.connect()
        rose.connection.send(line)
        while (it := await rose.connection.next()).name in ("presence", "message", "iq", "r"):
            pass
        if it.name not in wanted:
            raise Failed(f"{line} was answered by {it}")
        if "99999" in line and it.child("handled-count-too-high") is None:
            raise Failed(f"{it}")
        rose.close()


@scenario("slixmpp resumes by itself")
async def by_slixmpp(world):
    users = names(world.near, "sara", "tom")
    relay = Relay((world.near.address, 5222), [])
    address = await relay.open()
    sara, tom = Resident(world.near, users[0], address=address, more=("xep_0198",)), Resident(world.near, users[1])
    await together(sara, tom)
    await asyncio.gather(sara.online(), tom.online())
    resumed = asyncio.Event()
    sara.add_event_handler("session_resumed", lambda _: resumed.set())
    for number in range(10):
        for it in range(5):
            tom.tells(sara.full, f"t{number}.{it}")
            sara.tells(tom.full, f"s{number}.{it}")
        if number % 3 == 0:
            resumed.clear()
            await asyncio.sleep(0)
            sara.transport.abort()
            sara.connect(address, force_starttls=True)
            await asyncio.wait_for(resumed.wait(), 20)
    for one, other, letter in ((tom, sara, "s"), (sara, tom, "t")):
        await one.take("the last", lambda it: it["body"] == f"{letter}9.4")
        texts = [it["body"] for it in one.tape if it.xml.tag.endswith("message")]
        wanted = [f"{letter}{number}.{it}" for number in range(10) for it in range(5)][:-1]
        if texts != wanted:
            raise Failed(f"{one.full} got {texts}")
    await sara.leave()
    await tom.leave()
    await relay.close()
