"""F1 to F9 with SIPp as the partner's edge: it checks what it gets, and we what our user saw of it.

Each flow has a partner domain of its own, so all of one carrier are played at once.
"""

import asyncio
import time

from resident import Resident, is_presence, names, part, together
from scenarios import scenario
from sip_control import until_async
from sip_stage import Sipp, Stunnel
from stage import Failed

STATES = "http://jabber.org/protocol/chatstates"
# Tandem begins these.
CALLED = (4, 6)
# NOTIFYs are 5 s apart, and all of them may be played on a slow machine.
WAIT = 30


def is_text(stanza, words):
    """SIPp ends each body with a line end."""
    text = stanza.xml.findtext("{jabber:client}body") or ""
    return stanza.xml.tag == "{jabber:client}message" and text.strip() == words


def state(stanza, name):
    return stanza.xml.tag == "{jabber:client}message" and stanza.xml.find(f"{{{STATES}}}{name}") is not None


async def text_of(user, contact, words):
    it = await user.take(f"{words!r} of {contact}", lambda it: is_text(it, words), WAIT)
    if it["from"].bare != contact or it.xml.get("type") != "chat":
        raise Failed(f"{words!r} came as {it}")


async def request_of(user, contact):
    await user.take("the request", lambda it: is_presence(it, contact, "subscribe"), WAIT)


async def f1(user, contact, sipp):
    """Allowed before: the state, a change of it, a refresh, the end."""
    user.shows(to=contact, kind="subscribed")
    await user.flush()
    await sipp.start()
    await sipp.comes_to(1)
    user.shows(show="dnd")
    await sipp.ends()
    if user.has(lambda it: is_presence(it, contact, "subscribe")):
        raise Failed("asked although it was allowed before")


async def f2(user, contact, sipp):
    """Pending, then allowed."""
    await sipp.start()
    await request_of(user, contact)
    user.shows(to=contact, kind="subscribed")
    await sipp.ends()


async def f3(user, contact, sipp):
    """Denied politely."""
    await sipp.start()
    await request_of(user, contact)
    user.shows(to=contact, kind="unsubscribed")
    await sipp.ends()


async def f4(user, contact, sipp):
    """We subscribe, see, and unsubscribe."""
    await sipp.start()
    user.shows(to=contact, kind="subscribe")
    await user.take("the approval", lambda it: is_presence(it, contact, "subscribed"), WAIT)
    it = await user.take("the state", lambda it: is_presence(it, None, None) and it["from"].bare == contact, WAIT)
    if it.xml.findtext("{jabber:client}show") not in ("away", "dnd", "xa"):
        raise Failed(f"on-the-phone is shown as {it}")
    user.shows(to=contact, kind="unsubscribe")
    await sipp.ends()


async def f5(user, contact, sipp):
    """They open a session; a text in it each way."""
    await sipp.start()
    await text_of(user, contact, "hello from a session")
    await sipp.comes_to(1)
    user.tells(contact, "hello back")
    await sipp.ends()
    if user.has(lambda it: is_text(it, "hello")):
        raise Failed("the text of the INVITE was shown")


async def f6(user, contact, sipp):
    """We open a session; the same is used by both."""
    await sipp.start()
    user.tells(contact, "first")
    user.tells(contact, "second")
    await text_of(user, contact, "an answer")
    await sipp.ends()


async def f7(user, contact, sipp):
    """Typing, both ways."""
    await sipp.start()
    await text_of(user, contact, "before the typing")
    await user.take("composing", lambda it: state(it, "composing"), WAIT)
    for point, name in ((1, "composing"), (2, "paused")):
        await sipp.comes_to(point)
        user.send_raw(f"<message to='{contact}' type='chat'><{name} xmlns='{STATES}'/></message>")
    await sipp.ends()


async def f8(user, contact, sipp):
    """They end the session."""
    await sipp.start()
    await text_of(user, contact, "before the end")
    await sipp.ends()
    await user.has_not("a text behind the end", lambda it: is_text(it, "too late"))


async def f9(user, contact, sipp):
    """Audio is refused, and the two go on."""
    await sipp.start()
    await text_of(user, contact, "the two of us go on")
    await sipp.ends()


PLAYS = {number: it for number, it in enumerate((f1, f2, f3, f4, f5, f6, f7, f8, f9), 1)}


class Edge:
    """Starts SIPp when the scenario is ready for it."""

    def __init__(self, world, carrier, number, user):
        kind = {"tcp": "s", "udp": "u", "tls": "l"}[carrier]
        self.world, self.number, self.user = world, number, user
        self.domain = f"f{number}.{kind}.example"
        self.address = f"127.0.{ {'tcp': 15, 'udp': 19, 'tls': 16}[carrier]}.{number}"
        self.carrier = "udp" if carrier == "udp" else "tcp"
        near = world.near.address
        if number in CALLED:
            self.port, self.remote = (5070 if carrier == "tls" else 5060), None
        else:
            # What we send in a dialog over UDP goes where their rule says that they are.
            self.port = 5060 if carrier == "udp" else 0
            self.remote = f"{self.address}:5060" if carrier == "tls" else f"{near}:5060"
        self.it = None

    async def start(self):
        self.it = Sipp(self.world, f"f{self.number}", self.domain, self.user, self.address, self.port, self.carrier, self.remote)

    async def comes_to(self, point):
        """What it would not wait for has to wait for it."""
        await until_async(f"SIPp to come to point {point} of F{self.number}",
                          lambda: self.it.marked(point) or self.it.ended() is not None)

    async def ends(self):
        await until_async(f"SIPp to end F{self.number}", lambda: self.it.ended() is not None, 50)
        self.it.verdict()


async def play(world, carrier, number):
    user, = names(world.near, f"flow{number}")
    it, = await together(Resident(world.near, user))
    await it.online()
    it.tape.clear()
    edge = Edge(world, carrier, number, user)
    try:
        await PLAYS[number](it, f"ann@{edge.domain}", edge)
    finally:
        if edge.it is not None:
            if edge.it.ended() is None:
                # It may see more clearly than the client why nothing came.
                edge.it.stop()
                seen = edge.it.folder / "messages"
                if seen.exists():
                    print(f"--- F{number} {carrier}: {seen.read_text(errors='replace')[-3000:]}")
            edge.it.stop()
        await part(it)


async def table(world, carrier):
    began = time.monotonic()
    played = await asyncio.gather(*(play(world, carrier, it) for it in PLAYS), return_exceptions=True)
    bad = []
    for number, said in zip(PLAYS, played):
        is_good = said is None
        words = PLAYS[number].__doc__.splitlines()[0].rstrip(".")
        print(f"    F{number} {carrier} {'ok    ' if is_good else 'FAILED'} {words}", flush=True)
        if not is_good:
            bad.append(f"F{number}: {type(said).__name__}: {said}")
    if bad:
        raise Failed(f"{len(bad)} of 9 over {carrier} after {time.monotonic() - began:.1f} s\n" + "\n".join(bad))


@scenario("SIPp plays F1 to F9 over TCP", near="tandem")
async def over_tcp(world):
    await table(world, "tcp")


@scenario("SIPp plays F1 to F9 over UDP", near="tandem")
async def over_udp(world):
    await table(world, "udp")


@scenario("SIPp plays F1 to F9 over TLS through stunnel", near="tandem")
async def over_tls(world):
    Stunnel.of(world)
    await table(world, "tls")
