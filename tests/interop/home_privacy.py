"""Blocking of persons and whole domains (XEP-0191), as both sides see it."""

import asyncio

from slixmpp.exceptions import IqError

from resident import BLOCKING, Resident, befriend, cast, is_presence, is_text, names, part, together
from scenarios import body, scenario
from stage import Failed


def block(*jids):
    return f"<block xmlns='{BLOCKING}'>" + "".join(f"<item jid='{it}'/>" for it in jids) + "</block>"


def unblock(*jids):
    return f"<unblock xmlns='{BLOCKING}'>" + "".join(f"<item jid='{it}'/>" for it in jids) + "</unblock>"


def said(name, *jids):
    """A push about exactly these."""
    def fits(it):
        found = it.xml.find(f"{{{BLOCKING}}}{name}")
        return (it.xml.tag.endswith("iq") and it.xml.get("type") == "set" and found is not None
                and {one.get("jid") for one in found} == set(jids))
    return fits


async def blocked(client):
    answer = await client.ask("get", f"<blocklist xmlns='{BLOCKING}'/>")
    return {it.get("jid") for it in answer.xml.find(f"{{{BLOCKING}}}blocklist")}


@scenario("blocking: the list is set, fetched, pushed to who asked for it, emptied")
async def lists(world):
    user, = names(world.near, "bree")
    desk, phone, deaf = await together(*(Resident(world.near, user, it) for it in ("desk", "phone", "deaf")))
    for it in (desk, phone, deaf):
        await it.online()
    for it in (desk, phone):
        if await blocked(it):
            raise Failed("a new user blocks somebody")
    # XEP-0191, 3.3.
    await desk.refused("set", block(), "bad-request")
    await desk.ask("set", block("one@elsewhere.example", "elsewhere.test"))
    await phone.take("the push", said("block", "one@elsewhere.example", "elsewhere.test"))
    if await blocked(phone) != {"one@elsewhere.example", "elsewhere.test"}:
        raise Failed(f"{await blocked(phone)}")
    await desk.ask("set", unblock("one@elsewhere.example"))
    await phone.take("the push", said("unblock", "one@elsewhere.example"))
    await phone.ask("set", unblock())
    await phone.take("the push", said("unblock"))
    if await blocked(desk):
        raise Failed("not emptied")
    await deaf.has_not("a push without having asked for the list", lambda it: it.xml.tag.endswith("iq")
                       and it.xml.get("type") == "set")
    await part(desk, phone, deaf)


async def quarrel(world, far=False):
    one, = await cast(world.near, "anna")
    other, = await cast(world.far if far else world.near, "ben")
    await befriend(one, other)
    return one, other


def shut(name, far, entry):
    @scenario(f"blocking of {name}: nothing passes either way, and the end of it")
    async def run(world):
        one, other = await quarrel(world, far)
        jid = entry(other)
        wait = 40 if far else 15
        await one.ask("set", block(jid))
        tandem = world.near.kind == "tandem"
        if tandem or jid == other.bare:
            # XEP-0191, 3.3: who is blocked sees the user go.
            await other.presence(one.full, "unavailable", seconds=wait)
        words = body("let me in")
        other.tells(one.full, words)
        if tandem:
            # Prosody lets a text for a full JID vanish.
            await other.bounced(one.full, words, "service-unavailable", seconds=wait)
        other.tells(one.bare, words)
        await other.bounced(one.bare, words, "service-unavailable", seconds=wait)
        for to in (one.full, one.bare):
            try:
                await other.ask("get", "<query xmlns='jabber:iq:version'/>", to=to, seconds=wait)
            except IqError as error:
                if error.iq["error"]["condition"] != "service-unavailable":
                    raise Failed(f"{error.iq}") from None
            else:
                raise Failed(f"{to} answered who is blocked")
        other.shows(show="dnd")
        one.shows(show="away")
        # Who blocks is told so when he writes himself (3.3).
        for to in (other.full, *(() if jid == other.full else (other.bare,))):
            one.tells(to, body("no answer"))
            it = await one.bounced(to, "to the blocked", "not-acceptable")
            if it.xml.find(".//{urn:xmpp:blocking:errors}blocked") is None:
                raise Failed(f"without <blocked/>: {it}")
        await one.refused("get", "<ping xmlns='urn:xmpp:ping'/>", "not-acceptable", to=other.full)
        await asyncio.gather(one.flush(), other.flush())
        await one.has_not("a text of who is blocked", lambda it: is_text(it, words))
        await one.has_not("presence of who is blocked", lambda it: is_presence(it, other.full, None)
                          and it.xml.findtext("{jabber:client}show") == "dnd")
        if tandem or jid != other.full:
            await other.has_not("presence of who blocks", lambda it: is_presence(it, one.full, None))
        await one.ask("set", unblock(jid))
        # 3.4: presence comes back.
        if tandem or jid == other.bare:
            await other.presence(one.full, show="away", seconds=wait)
        words = body("good again")
        other.tells(one.full, words)
        await one.heard(other.full, words, seconds=wait)
        one.tells(other.full, words)
        await other.heard(one.full, words, seconds=wait)
        await part(one, other)


shut("a user", False, lambda it: it.bare)
shut("one resource's address", False, lambda it: it.full)
shut("a user of another domain", True, lambda it: it.bare)
shut("a whole domain", True, lambda it: it.boundjid.domain)


@scenario("blocking: a request from who is blocked never arrives")
async def requests(world):
    one, other = await cast(world.near, "anna", "ben")
    await one.ask("set", block(other.bare))
    other.shows(to=one.bare, kind="subscribe")
    await other.flush()
    await one.has_not("a request of who is blocked", lambda it: is_presence(it, other.bare, "subscribe"))
    user = one.boundjid.user
    await one.leave()
    one, = await together(Resident(world.near, user))
    await one.online()
    await one.has_not("it at the next login", lambda it: is_presence(it, other.bare, "subscribe"))
    await part(one, other)


@scenario("blocking holds while the user is away, and over a restart")
async def lasting(world):
    one, other = await cast(world.near, "anna", "ben")
    await one.ask("set", block(other.bare))
    users = [it.boundjid.user for it in (one, other)]
    await part(one, other)
    world.near.restart()
    other, = await together(Resident(world.near, users[1]))
    await other.online()
    words = body("while you were away")
    other.tells(world.near.jid(users[0]), words)
    await other.bounced(world.near.jid(users[0]), words, "service-unavailable")
    one, = await together(Resident(world.near, users[0]))
    await one.online()
    if await blocked(one) != {other.bare}:
        raise Failed(f"the list is {await blocked(one)}")
    await one.has_not("a text of who is blocked", lambda it: is_text(it, words))
    await part(one, other)
