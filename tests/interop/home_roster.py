"""A user's contacts: roster sets and pushes, versions, and every step of a subscription (RFC 6121, 2 and 3)."""

import asyncio
import xml.etree.ElementTree as ET

from resident import (ROSTER, Resident, befriend, cast, eventually, is_presence, is_push, names, part, together)
from scenarios import scenario
from stage import Failed


@scenario("roster: set, change and remove, pushed to each interested resource and to no other")
async def sets(world):
    user, = names(world.near, "rita")
    desk, phone, deaf = await together(*(Resident(world.near, user, it) for it in ("desk", "phone", "deaf")))
    for it, roster in ((desk, True), (phone, True), (deaf, False)):
        await it.online(roster=roster)
    contact = "romeo@elsewhere.example"
    for name, groups in (("Romeo", ("Friends", "Montague")), ("Romeo &lt;3", ("Friends",)), ("", ())):
        await desk.set_item(contact, name, groups)
        for it in (desk, phone):
            # RFC 6121, 2.1.6: all interested resources, the one that asked among them.
            await it.pushed(contact, name=name.replace("&lt;", "<"), groups=sorted(groups), state="none")
        item = (await phone.items())[contact]
        if (item.name, item.groups) != (name.replace("&lt;", "<"), sorted(groups)):
            raise Failed(f"the roster has {item}")
    await desk.remove(contact)
    for it in (desk, phone):
        await it.pushed(contact, subscription="remove")
    if contact in await phone.items():
        raise Failed("still there after its removal")
    await deaf.has_not("a push without having asked for the roster", is_push)
    await part(desk, phone, deaf)


@scenario("roster: what a client may not set is refused by the error the RFC names")
async def refusals(world):
    one, = await cast(world.near, "rita")

    def query(inner):
        return f"<query xmlns='{ROSTER}'>{inner}</query>"

    # RFC 6121, 2.3.3 and 2.5.3.
    await one.refused("set", query("<item jid='stranger@elsewhere.example' subscription='remove'/>"), "item-not-found")
    await one.refused("set", query("<item jid='a@b.example'/><item jid='c@b.example'/>"), "bad-request")
    await one.refused("set", query(""), "bad-request")
    await one.refused("set", query("<item name='nobody'/>"), "bad-request")
    if world.near.kind == "tandem":
        await one.refused("set", query("<item jid='a@b.example'><group>A</group><group>A</group></item>"), "bad-request")
        await one.refused("set", query("<item jid='a@b.example'><group/></item>"), "not-acceptable")
        await one.refused("set", query(f"<item jid='a@b.example'><group>{'g' * 5000}</group></item>"), "not-acceptable")
        await one.refused("set", query(f"<item jid='a@b.example' name='{'n' * 5000}'/>"), "not-acceptable")
    # The client's word about states counts for nothing (2.1.2.2, 2.1.2.5).
    await one.set_item("liar@elsewhere.example", "Liar", more=" subscription='both' ask='subscribe' approved='true'")
    item = (await one.items())["liar@elsewhere.example"]
    if item.state != "none" or item.approved:
        raise Failed(f"the client made itself {item}")
    if len(await one.items()) != 1:
        raise Failed(f"something refused is there: {await one.items()}")
    await part(one)


@scenario("roster: nobody reads or sets the roster of another")
async def not_yours(world):
    one, other = await cast(world.near, "rita", "otto")
    await one.refused("get", f"<query xmlns='{ROSTER}'/>", "forbidden", "not-allowed", "service-unavailable", "not-authorized",
                      to=other.bare)
    await one.refused("set", f"<query xmlns='{ROSTER}'><item jid='evil@elsewhere.example'/></query>", "forbidden",
                      "not-allowed", "service-unavailable", "not-authorized", to=other.bare)
    await other.has_not("a push", is_push)
    if await other.items():
        raise Failed("the set of a stranger took")
    await part(one, other)


@scenario("roster: with versions only what changed is sent")
async def versions(world):
    user, = names(world.near, "vera")
    one, = await together(Resident(world.near, user))
    if "xep_0237" not in one.features and "urn:xmpp:features:rosterver" not in str(one.features) \
            and "rosterver" not in str(one.features):
        raise Failed(f"not offered: {one.features}")

    async def fetch(client, version):
        return (await client.ask("get", f"<query xmlns='{ROSTER}' ver='{version}'/>")).xml.find(f"{{{ROSTER}}}query")

    query = await fetch(one, "")
    if query is None or query.get("ver") is None:
        raise Failed("no version with a roster that was asked for by version (RFC 6121, 2.6.2)")
    for number in range(3):
        await one.set_item(f"c{number}@elsewhere.example", f"C{number}")
    pushes = [await one.take("a push", is_push) for _ in range(3)]
    seen = [it.xml.find(f"{{{ROSTER}}}query").get("ver") for it in pushes]
    if None in seen or len(set(seen)) != 3:
        raise Failed(f"versions of the pushes: {seen}")
    await one.leave()
    one, = await together(Resident(world.near, user))
    query = await fetch(one, seen[-1])
    if query is not None and (query.get("ver") != seen[-1] or len(query) not in (0, 3)):
        raise Failed(f"the same version again was answered by {ET.tostring(query)}")
    # From an older version either the whole roster comes or the pushes that are missing.
    query = await fetch(one, seen[0])
    if query is None:
        for number in (1, 2):
            await one.pushed(f"c{number}@elsewhere.example", name=f"C{number}")
    elif len(query) != 3:
        raise Failed(f"an old version was answered by {ET.tostring(query)}")
    await part(one)


async def leaves(goer, watcher, seconds=15):
    """Who no longer watches sees the other go (RFC 6121, 2.5.2, 3.2.2, 3.3.3). Prosody leaves it out."""
    if goer.home.kind == "tandem":
        await watcher.presence(goer.full, "unavailable", seconds)


def path(far=False):
    """The steps of one subscription, between two users of one domain or of two."""
    where = "two domains" if far else "one domain"

    @scenario(f"subscription in {where}: asked, granted, mutual, taken back, ended, with both rosters right")
    async def run(world):
        one, = await cast(world.near, "anna")
        other, = await cast(world.far if far else world.near, "ben")
        wait = 40 if far else 15

        async def states(mine, theirs):
            await eventually("the state of the asking side", one, other.bare, mine, wait)
            await eventually("the state of the asked side", other, one.bare, theirs, wait)

        one.shows(to=other.bare, kind="subscribe", status="let me in")
        await one.pushed(other.bare, state="none+ask")
        it = await other.take("the request", lambda it: is_presence(it, one.bare, "subscribe"), wait)
        if it.xml.findtext("{jabber:client}status") != "let me in":
            raise Failed(f"the request came as {it}")
        # A request alone makes no item (RFC 6121, 3.1.3 and A.1).
        await states("none+ask", None)

        other.shows(to=one.bare, kind="subscribed")
        await one.take("the approval", lambda it: is_presence(it, other.bare, "subscribed"), wait)
        await one.pushed(other.bare, state="to", seconds=wait)
        await other.pushed(one.bare, state="from")
        await one.presence(other.full, seconds=wait)
        await states("to", "from")

        other.shows(to=one.bare, kind="subscribe")
        await other.pushed(one.bare, state="from+ask")
        await one.take("the request", lambda it: is_presence(it, other.bare, "subscribe"), wait)
        one.shows(to=other.bare, kind="subscribed")
        await other.take("the approval", lambda it: is_presence(it, one.bare, "subscribed"), wait)
        await other.presence(one.full, seconds=wait)
        await states("both", "both")

        one.shows(to=other.bare, kind="unsubscribe")
        await other.take("the unsubscribe", lambda it: is_presence(it, one.bare, "unsubscribe"), wait)
        await leaves(other, one, wait)
        await states("from", "to")

        one.shows(to=other.bare, kind="unsubscribed")
        await leaves(one, other, wait)
        await ended(world, one, other, wait)
        await part(one, other)

    async def ended(world, one, other, wait):
        await eventually("no subscription on the side that took it back", one, other.bare, "none", wait)
        if world.near.kind == "tandem":
            # Polite denial: the other side is told `unavailable` and keeps believing.
            await eventually("an old belief", other, one.bare, "to", wait)
        else:
            await eventually("the end", other, one.bare, "none", wait)


path()
path(far=True)


@scenario("removal of a contact ends both subscriptions")
async def removal(world):
    one, other = await cast(world.near, "anna", "ben")
    await befriend(one, other)
    await one.remove(other.bare)
    await one.pushed(other.bare, subscription="remove")
    await other.take("the unsubscribe", lambda it: is_presence(it, one.bare, "unsubscribe"))
    await leaves(one, other)
    await leaves(other, one)
    if other.bare in await one.items():
        raise Failed("still in the roster")
    item = (await other.items())[one.bare]
    if item.subscription not in (("none", "to") if world.near.kind == "tandem" else ("none",)):
        raise Failed(f"the removed side has {item}")
    await part(one, other)


@scenario("a denied request ends, and nothing of it is in the roster of who denied")
async def denied(world):
    one, other = await cast(world.near, "anna", "ben")
    one.shows(to=other.bare, kind="subscribe")
    await other.take("the request", lambda it: is_presence(it, one.bare, "subscribe"))
    other.shows(to=one.bare, kind="unsubscribed")
    if world.near.kind == "tandem":
        # Polite denial: he sees a contact that is never there.
        await one.take("an approval", lambda it: is_presence(it, other.bare, "subscribed"))
        await eventually("a contact who is never there", one, other.bare, "to")
    else:
        await one.take("the denial", lambda it: is_presence(it, other.bare, "unsubscribed"))
        await eventually("the end of the request", one, other.bare, "none")
    other.shows(show="away")
    await other.flush()
    await one.has_not("presence of who denied", lambda it: is_presence(it, other.full, None))
    await eventually("no item", other, one.bare, None)
    # It is answered: it does not come back at the next login.
    user = other.boundjid.user
    await other.leave()
    other, = await together(Resident(world.near, user))
    await other.online()
    await other.has_not("the answered request", lambda it: is_presence(it, one.bare, "subscribe"))
    await part(one, other)


@scenario("a cancelled request is no longer delivered")
async def cancelled(world):
    one, = await cast(world.near, "anna")
    user, = names(world.near, "ben")
    bare = world.near.jid(user)
    one.shows(to=bare, kind="subscribe")
    await one.pushed(bare, state="none+ask")
    one.shows(to=bare, kind="unsubscribe")
    await eventually("the end of the request", one, bare, "none")
    await one.flush()
    other, = await together(Resident(world.near, user))
    await other.online()
    await other.has_not("a cancelled request", lambda it: is_presence(it, one.bare, "subscribe"))
    await part(one, other)


@scenario("a pending request waits for its user and comes at each login until it is answered")
async def pending(world):
    one, = await cast(world.near, "anna")
    user, = names(world.near, "ben")
    one.shows(to=world.near.jid(user), kind="subscribe", status="it is me",
              inner="<nick xmlns='http://jabber.org/protocol/nick'>Anna</nick>")
    await one.flush()
    for attempt in range(2):
        other, = await together(Resident(world.near, user))
        await other.online()
        it = await other.take("the request", lambda it: is_presence(it, one.bare, "subscribe"))
        nick = it.xml.findtext("{http://jabber.org/protocol/nick}nick")
        if world.near.kind == "tandem" and (it["status"], nick) != ("it is me", "Anna"):
            # RFC 6121, 3.1.3: the complete stanza is kept.
            raise Failed(f"login {attempt}: it came as {it}")
        if one.bare in await other.items():
            raise Failed("a request alone made an item")
        if attempt == 0:
            await other.leave()
    other.shows(to=one.bare, kind="subscribed")
    await one.presence(other.full)
    await other.leave()
    other, = await together(Resident(world.near, user))
    await other.online()
    await other.has_not("an answered request", lambda it: is_presence(it, one.bare, "subscribe"))
    await part(one, other)


@scenario("a contact approved beforehand is let in without being asked about")
async def approved(world):
    one, other = await cast(world.near, "anna", "ben")
    other.shows(to=one.bare, kind="subscribed")
    item = await other.pushed(one.bare, state="none")
    if not item.approved and world.near.kind == "tandem":
        raise Failed(f"no word of the approval: {item}")
    await one.has_not("an approval nobody asked for", lambda it: is_presence(it, other.bare, "subscribed"))
    one.shows(to=other.bare, kind="subscribe")
    await one.take("the approval", lambda it: is_presence(it, other.bare, "subscribed"))
    await one.presence(other.full)
    await eventually("the subscription", one, other.bare, "to")
    await eventually("the subscription on the other side", other, one.bare, "from")
    # RFC 6121, 3.4.2: the user is not bothered.
    await other.has_not("the request", lambda it: is_presence(it, one.bare, "subscribe"))
    await part(one, other)


@scenario("a pre-approval that was taken back counts no more", near="tandem")
async def unapproved(world):
    one, other = await cast(world.near, "anna", "ben")
    other.shows(to=one.bare, kind="subscribed")
    await other.pushed(one.bare)
    other.shows(to=one.bare, kind="unsubscribed")
    await other.flush()
    if (item := (await other.items()).get(one.bare)) and item.approved:
        raise Failed(f"still approved: {item}")
    one.shows(to=other.bare, kind="subscribe")
    await other.take("the request", lambda it: is_presence(it, one.bare, "subscribe"))
    await one.has_not("an approval", lambda it: is_presence(it, other.bare, "subscribed"))
    await part(one, other)


@scenario("subscribing once more is answered by the server alone")
async def again(world):
    one, other = await cast(world.near, "anna", "ben")
    await befriend(one, other)
    one.shows(to=other.bare, kind="subscribe")
    await one.flush()
    await other.has_not("a request of who is subscribed", lambda it: is_presence(it, one.bare, "subscribe"))
    await eventually("no change", one, other.bare, "both")
    await eventually("no change", other, one.bare, "both")
    await part(one, other)


@scenario("rosters and subscriptions outlive a restart")
async def restart(world):
    one, other = await cast(world.near, "anna", "ben")
    await befriend(one, other)
    await one.set_item(other.bare, "Ben", ("Work", "Home"))
    users = [it.boundjid.user for it in (one, other)]
    await part(one, other)
    world.near.restart()
    one, other = await together(*(Resident(world.near, it) for it in users))
    await asyncio.gather(one.online(), other.online())
    item = (await one.items())[other.bare]
    if (item.name, item.groups, item.state) != ("Ben", ["Home", "Work"], "both"):
        raise Failed(f"after the restart: {item}")
    await one.presence(other.full)
    await other.presence(one.full)
    await part(one, other)

