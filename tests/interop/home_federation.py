"""A home whose contacts live in another domain: subscriptions, probes and kept texts between two servers."""

import asyncio

from resident import Resident, befriend, cast, eventually, is_presence, is_text, names, part, stamp, together
from scenarios import body, scenario
from stage import Failed

WAIT = 40


async def friends(world):
    one, = await cast(world.near, "nina")
    other, = await cast(world.far, "fred")
    await befriend(one, other)
    return one, other


async def returns(server, user):
    it, = await together(Resident(server, user))
    await it.online()
    return it


@scenario("friends in two domains see each other come, change and go")
async def both_ways(world):
    one, other = await friends(world)
    one = await seen_whole(one, other)
    other = await seen_whole(other, one)
    await part(one, other)


async def seen_whole(mine, theirs):
    """`theirs` sees all that `mine` does; back comes a new resource, which has learnt what it should."""
    words = body("changed")
    mine.shows(show="dnd", status=words, priority=2)
    await theirs.presence(mine.full, show="dnd", status=words, priority=2, seconds=WAIT)
    mine.shows(kind="unavailable", status="gone")
    await theirs.presence(mine.full, "unavailable", seconds=WAIT)
    mine.shows()
    await theirs.presence(mine.full, seconds=WAIT)
    mine.abort()
    await theirs.presence(mine.full, "unavailable", seconds=WAIT)
    again = await returns(mine.home, mine.boundjid.user)
    await theirs.presence(again.full, seconds=WAIT)
    # What it learns by its probe at login (RFC 6121, 4.3.1).
    await again.presence(theirs.full, seconds=WAIT)
    return again


@scenario("a second resource in two domains is seen and heard, too")
async def second_resource(world):
    one, other = await friends(world)
    phone, = await together(Resident(world.near, one.boundjid.user, "phone"))
    await phone.online(priority=5, show="away")
    await other.presence(phone.full, show="away", priority=5, seconds=WAIT)
    await phone.presence(other.full, seconds=WAIT)
    words = body("to the bare JID")
    other.tells(one.bare, words)
    await phone.heard(other.full, words, seconds=WAIT)
    other.shows(to=one.bare, kind="probe")
    for it in (one, phone):
        await other.presence(it.full, seconds=WAIT)
    await part(one, phone, other)


@scenario("a stranger's probe from another domain learns nothing")
async def strange_probe(world):
    one, = await cast(world.near, "nina")
    stranger, = await cast(world.far, "stan")
    stranger.shows(to=one.bare, kind="probe")
    words = body("behind the probe")
    stranger.tells(one.full, words)
    await one.heard(stranger.full, words, seconds=WAIT)
    one.tells(stranger.full, words)
    await stranger.heard(one.full, words, seconds=WAIT)
    await stranger.has_not("presence", lambda it: is_presence(it, one.full))
    await one.has_not("the probe", lambda it: is_presence(it, None, "probe"))
    await part(one, stranger)


@scenario("texts from another domain are kept for who is away")
async def kept(world):
    user, = names(world.near, "nina")
    bare = world.near.jid(user)
    other, = await cast(world.far, "fred")
    mark = body("kept from afar")
    for number in range(10):
        other.tells(bare, f"{mark} {number}")
    # A text for another one is behind them on the same stream.
    near, = await cast(world.near, "nora")
    other.tells(near.full, mark)
    await near.heard(other.full, mark, seconds=WAIT)
    one = await returns(world.near, user)
    for number in range(10):
        it = await one.take("the next kept text", lambda it: it.xml.get("from") == other.full, WAIT)
        if not is_text(it, f"{mark} {number}") or not stamp(it):
            raise Failed(f"number {number} is {it}")
    await other.has_not("a bounce", lambda it: it.xml.get("type") == "error")
    await part(one, other, near)


@scenario("a request from another domain waits for its user")
async def pending(world):
    user, = names(world.near, "nina")
    bare = world.near.jid(user)
    other, = await cast(world.far, "fred")
    other.shows(to=bare, kind="subscribe")
    near, = await cast(world.near, "nora")
    words = body("behind it")
    other.tells(near.full, words)
    await near.heard(other.full, words, seconds=WAIT)
    for _ in range(2):
        one = await returns(world.near, user)
        await one.take("the request", lambda it: is_presence(it, other.bare, "subscribe"), WAIT)
        if _ == 0:
            await one.leave()
    one.shows(to=other.bare, kind="subscribed")
    await other.presence(one.full, seconds=WAIT)
    await eventually("the subscription", one, other.bare, "from")
    await eventually("the subscription", other, bare, "to", WAIT)
    await part(one, other, near)


@scenario("a contact in another domain who is removed is gone on both sides")
async def removal(world):
    one, other = await friends(world)
    await other.remove(one.bare)
    # Prosody 0.12 says it by its full JID.
    await one.take("the unsubscribe", lambda it: is_presence(it, None, "unsubscribe")
                   and it["from"].bare == other.bare, WAIT)
    await eventually("the end", one, other.bare, "none", WAIT)
    other.shows(show="away")
    words = body("behind it")
    other.tells(one.full, words)
    await one.heard(other.full, words, seconds=WAIT)
    await one.has_not("presence of who removed me", lambda it: is_presence(it, other.full, None)
                      and it.xml.findtext("{jabber:client}show") == "away")
    await part(one, other)


@scenario("friends in another domain see each other again after either server's restart")
async def restarts(world):
    one, other = await friends(world)
    users = one.boundjid.user, other.boundjid.user
    for server in (world.near, world.far):
        await part(one, other)
        server.restart()
        one, other = await returns(world.near, users[0]), await returns(world.far, users[1])
        await asyncio.gather(one.presence(other.full, seconds=WAIT), other.presence(one.full, seconds=WAIT))
        words = body("again")
        one.tells(other.full, words)
        await other.heard(one.full, words, seconds=WAIT)
    await part(one, other)
