"""Presence of a user's resources: who gets it, who is asked at login, who hears of the end (RFC 6121, 4)."""

import asyncio

from resident import Resident, befriend, cast, is_presence, is_text, names, part, stamp, together
from scenarios import body, scenario
from stage import Failed

CAPS = "<c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='http://stage.example' ver='QgayPKawpkPSDYmwT/WM94uAlu0='/>"


async def watched(world):
    """`watcher` sees `seen`, and not the other way round; a stranger sees nobody."""
    watcher, seen, stranger = await cast(world.near, "walt", "sam", "stan")
    watcher.shows(to=seen.bare, kind="subscribe")
    await seen.take("the request", lambda it: is_presence(it, watcher.bare, "subscribe"))
    seen.shows(to=watcher.bare, kind="subscribed")
    await watcher.presence(seen.full)
    for it in (watcher, seen):
        await it.flush()
        it.tape.clear()
    return watcher, seen, stranger


@scenario("presence goes to subscribers and own resources, whole, and to nobody else")
async def subscribers_only(world):
    watcher, seen, stranger = await watched(world)
    second, = await together(Resident(world.near, seen.boundjid.user, "phone"))
    await second.online()
    await watcher.presence(second.full)
    await seen.presence(second.full)
    await second.presence(seen.full)
    words = body("at lunch")
    seen.shows(show="away", status=words, priority=3, inner=CAPS)
    for it in (watcher, second):
        came = await it.presence(seen.full, show="away", status=words, priority=3)
        if came.xml.find("{http://jabber.org/protocol/caps}c") is None:
            raise Failed(f"without its capabilities: {came}")
        if str(came["to"]).split("/")[0] != it.bare:
            raise Failed(f"`to` is not the watcher: {came}")
    watcher.shows(show="dnd")
    await watcher.flush()
    await seen.has_not("presence of somebody not subscribed to", lambda it: is_presence(it, watcher.full))
    await stranger.has_not("presence", lambda it: is_presence(it, seen.full))
    await part(watcher, seen, stranger, second)


@scenario("at login a client sees who is there; at logout it is seen to leave, with its words")
async def login_and_logout(world):
    watcher, seen, stranger = await watched(world)
    seen.shows(show="xa", status="far away")
    await watcher.presence(seen.full, show="xa")
    user = watcher.boundjid.user
    await watcher.leave()
    watcher, = await together(Resident(world.near, user))
    await watcher.online()
    # RFC 6121, 4.3.2: the last presence of each available resource.
    await watcher.presence(seen.full, show="xa", status="far away")
    seen.shows(kind="unavailable", status="good night")
    await watcher.presence(seen.full, "unavailable", status="good night")
    seen.shows()
    await watcher.presence(seen.full)
    seen.abort()
    await watcher.presence(seen.full, "unavailable")
    await watcher.leave()
    watcher, = await together(Resident(world.near, user))
    await watcher.online()
    await watcher.has_not("presence of who is away", lambda it: is_presence(it, seen.full, None))
    await part(watcher, stranger)


@scenario("a probe is answered for subscribers alone")
async def probe(world):
    watcher, seen, stranger = await watched(world)
    seen.shows(show="chat")
    await watcher.presence(seen.full, show="chat")
    watcher.shows(to=seen.bare, kind="probe")
    await watcher.presence(seen.full, show="chat")
    stranger.shows(to=seen.bare, kind="probe")
    await stranger.flush()
    await stranger.has_not("an answer to his probe", lambda it: is_presence(it, seen.full))
    await seen.has_not("a probe", lambda it: is_presence(it, None, "probe"))
    await part(watcher, seen, stranger)


@scenario("a resource with negative priority gets no message by bare JID")
async def priorities(world):
    sender, = await cast(world.near, "sue")
    user, = names(world.near, "ray")
    low, mid, high = await together(*(Resident(world.near, user, it) for it in ("low", "mid", "high")))
    for it, priority in ((low, -5), (mid, 1), (high, 7)):
        await it.online(priority=priority)
    words = body("to the best")
    sender.tells(high.bare, words)
    it = await high.heard(sender.full, words)
    if it.xml.get("to") != high.bare:
        raise Failed(f"`to` was rewritten: {it}")
    if world.near.kind == "tandem":
        # All resources of the highest priority, and no other (RFC 6121, 8.5.2.1.1).
        await mid.has_not("a text for the best", lambda it: is_text(it, words))
    await low.has_not("a text by bare JID", lambda it: is_text(it, words))
    words = body("to the low one itself")
    sender.tells(low.full, words)
    await low.heard(sender.full, words)
    words = body("news")
    sender.tells(high.bare, words, kind="headline")
    for it in (mid, high):
        await it.heard(sender.full, words, kind="headline")
    await low.has_not("a headline", lambda it: is_text(it, words))
    for it in (mid, high):
        it.shows(priority=-1)
        await it.flush()
    words = body("nobody wants it now")
    sender.tells(high.bare, words)
    await sender.flush()
    for it in (low, mid, high):
        await it.has_not("a text by bare JID", lambda it: is_text(it, words))
    if world.near.kind == "tandem":
        mid.shows(priority=0)
    else:
        # Prosody gives them to a newcomer only.
        mid, = await together(Resident(world.near, user, "new"))
        mid.shows()
    came = await mid.heard(sender.full, words)
    if not stamp(came):
        raise Failed(f"a kept text without its stamp: {came}")
    await part(sender, low, mid, high)


@scenario("directed presence to a stranger: delivered, no later presence, the end told")
async def directed(world):
    one, stranger = await cast(world.near, "dora", "stan")
    one.shows(to=stranger.full, show="chat")
    await stranger.presence(one.full, show="chat")
    one.shows(show="away")
    await one.flush()
    await stranger.has_not("a broadcast", lambda it: is_presence(it, one.full, None))
    await one.has_not("presence of the stranger", lambda it: is_presence(it, stranger.full))
    one.shows(to=stranger.full, kind="unavailable")
    await stranger.presence(one.full, "unavailable")
    one.abort()
    await stranger.flush()
    # RFC 6121, 4.6.3: told once, not twice.
    await stranger.has_not("the end twice", lambda it: is_presence(it, one.full, "unavailable"))
    two, = await cast(world.near, "dana")
    two.shows(to=stranger.bare)
    await stranger.presence(two.full)
    two.shows(kind="unavailable")
    await stranger.presence(two.full, "unavailable")
    await part(stranger, two)


@scenario("presence of who is subscribed comes after the directed one ended, too")
async def directed_to_friend(world):
    one, other = await cast(world.near, "anna", "ben")
    await befriend(one, other)
    one.shows(to=other.full, kind="unavailable")
    await other.presence(one.full, "unavailable")
    one.shows(show="dnd")
    await other.presence(one.full, show="dnd")
    await part(one, other)


@scenario("many changes of presence: the last one is what all see")
async def last_counts(world):
    watcher, seen, stranger = await watched(world)
    for number in range(200):
        seen.shows(show="away" if number % 2 else "dnd", status=f"change {number}")
    seen.shows(show="xa", status="the last")
    await watcher.presence(seen.full, show="xa", status="the last", seconds=30)
    await watcher.flush()
    numbers = [int(it.xml.findtext("{jabber:client}status").split()[1]) for it in watcher.tape
               if is_presence(it, seen.full, None)]
    if numbers != sorted(numbers):
        raise Failed(f"out of order: {numbers}")
    await part(watcher, seen, stranger)


@scenario("friends who come at once all see each other")
async def at_once(world):
    people = await cast(world.near, "a", "b", "c", "d")
    for place, one in enumerate(people):
        for other in people[place + 1:]:
            await befriend(one, other)
    users = [it.boundjid.user for it in people]
    await part(*people)
    people = await together(*(Resident(world.near, it) for it in users))
    await asyncio.gather(*(it.online() for it in people))
    for one in people:
        for other in people:
            await one.presence(other.full)
    await part(*people)
