"""A user of the near server as the scenarios of his home need him: slixmpp that answers nothing by itself.

Every stanza that comes is put on a tape in the order it came; a scenario takes from the tape what it expects, and what
nobody took is still there to be asked about. Not here: streams by hand (`wire.py`, `streams.py`).
"""

import asyncio
import itertools
import xml.etree.ElementTree as ET

from slixmpp.exceptions import IqError, IqTimeout

from clients import Client, part, together
from stage import Failed

ROSTER = "jabber:iq:roster"
CARBONS = "urn:xmpp:carbons:2"
DELAY = "urn:xmpp:delay"
FORWARD = "urn:xmpp:forward:0"
BLOCKING = "urn:xmpp:blocking"
HINTS = "urn:xmpp:hints"
STANZAS = "urn:ietf:params:xml:ns:xmpp-stanzas"

NUMBERS = itertools.count(1)


class Resident(Client):
    """`login` binds; `online` fetches the roster, if the client is to be an interested one, and sends presence."""

    def __init__(self, server, user, resource="desk", **options):
        super().__init__(server, user, resource, **options)
        self.home = server
        self.tape = []
        self.arrival = asyncio.Event()
        self.roster.auto_authorize = None
        self.roster.auto_subscribe = False
        self.add_filter("in", self.record)

    def record(self, stanza):
        if stanza.xml.tag.startswith("{jabber:client}"):
            self.tape.append(stanza)
            self.arrival.set()
        return stanza

    def started(self, _):
        if not self.ready.done():
            self.ready.set_result(True)

    @property
    def bare(self):
        return self.boundjid.bare

    async def online(self, roster=True, priority=None, show=None):
        """Awake: interested in the roster if asked, then available; back when the server has dealt with it."""
        if roster:
            await self.items()
        self.shows(priority=priority, show=show)
        await self.flush()
        return self

    def shows(self, to=None, kind=None, priority=None, show=None, status=None, inner=""):
        """One presence stanza, as given."""
        attributes = (f" to='{to}'" if to else "") + (f" type='{kind}'" if kind else "")
        children = "".join(f"<{name}>{value}</{name}>" for name, value in
                           (("show", show), ("status", status), ("priority", priority)) if value is not None)
        self.send_raw(f"<presence{attributes}>{children}{inner}</presence>")

    def tells(self, to, words, kind="chat", inner=""):
        self.send_raw(f"<message to='{to}' type='{kind}'><body>{words}</body>{inner}</message>")

    async def take(self, what, condition, seconds=15):
        """The first stanza on the tape that fits; it leaves the tape."""
        end = self.loop.time() + seconds
        while True:
            for place, it in enumerate(self.tape):
                if condition(it):
                    return self.tape.pop(place)
            self.arrival.clear()
            try:
                await asyncio.wait_for(self.arrival.wait(), max(0.01, end - self.loop.time()))
            except asyncio.TimeoutError:
                said = "\n  ".join(str(it)[:400] for it in self.tape[-8:])
                raise Failed(f"{self.full} waited {seconds} s for {what}; it has:\n  {said}") from None

    def has(self, condition):
        return [it for it in self.tape if condition(it)]

    async def has_not(self, what, condition):
        """Nothing of the kind has come, after the server answered a ping behind whatever it was doing."""
        await self.flush()
        found = self.has(condition)
        if found:
            raise Failed(f"{self.full} got {what}: {found[0]}")

    async def ask(self, kind, payload, to=None, seconds=20):
        """An IQ with this payload; the result, or IqError."""
        it = self.make_iq(self.new_id(), ito=to, itype=kind)
        it.append(ET.fromstring(payload))
        try:
            answer = await it.send(timeout=seconds)
        except IqTimeout:
            raise Failed(f"{self.full}: no answer within {seconds} s to {payload[:200]}") from None
        self.tape[:] = [one for one in self.tape if one.xml is not answer.xml]
        return answer

    async def refused(self, kind, payload, *conditions, to=None):
        """The same, which must be answered by one of these errors."""
        try:
            answer = await self.ask(kind, payload, to)
        except IqError as error:
            said = error.iq["error"]["condition"]
            self.tape[:] = [one for one in self.tape if one.xml is not error.iq.xml]
            if said not in conditions:
                raise Failed(f"{payload[:200]} was refused by {said}, not {conditions}: {error.iq}") from None
            return error.iq
        raise Failed(f"{payload[:200]} was granted: {str(answer)[:300]}")

    async def flush(self):
        """Whatever this stream sent before is dealt with, and whatever was on its way here has come."""
        for _ in range(2):
            await self.ask("get", "<ping xmlns='urn:xmpp:ping'/>", to=self.home.domain)

    async def items(self):
        """The roster: JID -> Item."""
        answer = await self.ask("get", f"<query xmlns='{ROSTER}'/>")
        return {it.jid: it for it in items_of(answer)}

    async def set_item(self, jid, name=None, groups=(), more=""):
        named = f" name='{name}'" if name is not None else ""
        inner = "".join(f"<group>{it}</group>" for it in groups)
        return await self.ask("set", f"<query xmlns='{ROSTER}'><item jid='{jid}'{named}{more}>{inner}</item></query>")

    async def remove(self, jid):
        return await self.ask("set", f"<query xmlns='{ROSTER}'><item jid='{jid}' subscription='remove'/></query>")

    async def pushed(self, jid, seconds=15, **values):
        """The next push about this contact; it must say what is given."""
        it = await self.take(f"a push about {jid} with {values}",
                             lambda it: pushed_item(it) is not None and pushed_item(it).jid == jid, seconds)
        item = pushed_item(it)
        sender = it.xml.get("from")
        if sender not in (None, self.bare):
            raise Failed(f"a push from {sender}: {it}")
        for name, value in values.items():
            if getattr(item, name) != value:
                raise Failed(f"{self.full}: the push says {item}, not {name}={value}")
        return item

    async def presence(self, sender, kind=None, seconds=15, **values):
        """A presence of this kind (None: available) from exactly this JID, which says what is given."""
        def fits(it):
            return (is_presence(it, sender, kind)
                    and all((it.xml.findtext(f"{{jabber:client}}{name}") or "") == str(value)
                            for name, value in values.items()))
        return await self.take(f"{kind or 'available'} from {sender} {values or ''}", fits, seconds)

    async def heard(self, sender, words, kind="chat", seconds=20):
        return await self.take(f"{words!r} from {sender}", lambda it: is_text(it, words)
                               and it.xml.get("from") == str(sender) and it.xml.get("type", "normal") == kind, seconds)

    async def bounced(self, sender, words, *conditions, seconds=20):
        """An error for a message of ours to `sender`."""
        it = await self.take(f"an error {conditions} from {sender}", lambda it: it.xml.tag == "{jabber:client}message"
                             and it.xml.get("type") == "error" and it.xml.get("from") == str(sender), seconds)
        said = it["error"]["condition"]
        if said not in conditions:
            raise Failed(f"{words!r} was refused by {said}, not {conditions}: {it}")
        return it


class Item:
    """What a roster says of one contact."""

    def __init__(self, xml):
        self.jid = xml.get("jid")
        self.name = xml.get("name") or ""
        self.subscription = xml.get("subscription", "none")
        self.ask = xml.get("ask")
        self.approved = xml.get("approved") in ("true", "1")
        self.groups = sorted(it.text or "" for it in xml.findall(f"{{{ROSTER}}}group"))

    @property
    def state(self):
        return self.subscription + ("+ask" if self.ask else "")

    def __repr__(self):
        return f"Item({self.jid} {self.state}{' approved' if self.approved else ''} {self.name!r} {self.groups})"


def items_of(stanza):
    query = stanza.xml.find(f"{{{ROSTER}}}query")
    return [] if query is None else [Item(it) for it in query.findall(f"{{{ROSTER}}}item")]


def pushed_item(stanza):
    if stanza.xml.tag != "{jabber:client}iq" or stanza.xml.get("type") != "set":
        return None
    found = items_of(stanza)
    return found[0] if len(found) == 1 else None


def is_push(stanza, jid=None):
    item = pushed_item(stanza)
    return item is not None and (jid is None or item.jid == jid)


def is_presence(stanza, sender=None, kind="any"):
    return (stanza.xml.tag == "{jabber:client}presence" and (sender is None or stanza.xml.get("from") == str(sender))
            and (kind == "any" or stanza.xml.get("type") == kind))


def is_text(stanza, words):
    return stanza.xml.tag == "{jabber:client}message" and stanza.xml.findtext("{jabber:client}body") == words


def stamp(stanza):
    """The delay stamps of a stanza: (from, stamp)."""
    return [(it.get("from"), it.get("stamp")) for it in stanza.xml.findall(f"{{{DELAY}}}delay")]


def carbon(stanza, way, words):
    """True if the stanza is a copy of these words, `sent` or `received`."""
    return (stanza.xml.tag == "{jabber:client}message"
            and stanza.xml.findtext(f"{{{CARBONS}}}{way}/{{{FORWARD}}}forwarded/{{jabber:client}}message/"
                                    "{jabber:client}body") == words)


def names(server, *users):
    """Users of this server that no other scenario knows."""
    made = [f"{it}{next(NUMBERS)}" for it in users]
    for it in made:
        server.add_user(it)
    return made


async def cast(server, *users):
    """New users, each logged in, interested and available."""
    clients = await together(*(Resident(server, it) for it in names(server, *users)))
    await asyncio.gather(*(it.online() for it in clients))
    for it in clients:
        it.tape.clear()
    return clients


async def befriend(one, other):
    """Mutual subscription; both tapes are empty afterwards."""
    for asks, grants in ((one, other), (other, one)):
        asks.shows(to=grants.bare, kind="subscribe")
        await grants.take("the request", lambda it, asks=asks: is_presence(it, asks.bare, "subscribe"), 40)
        grants.shows(to=asks.bare, kind="subscribed")
        await asks.take("the approval", lambda it, grants=grants: is_presence(it, grants.bare, "subscribed"), 40)
        await asks.presence(grants.full, seconds=40)
    for client, peer in ((one, other), (other, one)):
        await eventually(f"{peer.bare} to be mutual for {client.bare}", client, peer.bare, "both")
        client.tape.clear()


async def eventually(what, client, jid, state, seconds=15):
    """The roster comes to hold this contact in this state (None: not at all)."""
    end = client.loop.time() + seconds
    while True:
        item = (await client.items()).get(jid)
        found = item.state if item else None
        if found == state:
            return item
        if client.loop.time() > end:
            raise Failed(f"waited for {what}: {found}, not {state}")
        await asyncio.sleep(0.1)


__all__ = ["BLOCKING", "CARBONS", "DELAY", "FORWARD", "HINTS", "ROSTER", "STANZAS", "Resident", "befriend", "carbon",
           "cast", "eventually", "is_presence", "is_push", "is_text", "items_of", "names", "part", "pushed_item",
           "stamp", "together"]
