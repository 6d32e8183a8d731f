"""What a client or a peer forges never reaches its victim, and what is too much is refused by name."""

import asyncio
import xml.etree.ElementTree as ET

from hostile import authority, told
from resident import BLOCKING, CARBONS, DELAY, FORWARD, ROSTER, Resident, cast, is_push, names, part, together
from scenarios import body, scenario
from stage import Failed
from wire import bound, dial, peer

STANZA_ID = "urn:xmpp:sid:0"


def wrapped(victim, words, way="received", sender="friend@elsewhere.example/x"):
    return (f"<{way} xmlns='{CARBONS}'><forwarded xmlns='{FORWARD}'><message xmlns='jabber:client' from='{sender}' "
            f"to='{victim}' type='chat'><body>{words}</body></message></forwarded></{way}>")


async def forgeries(world, victim, send, sender, words):
    """Every forgery there is, sent by `send`; the victim must see none of them take."""
    near = world.near.domain
    # Carbons wrappers: XEP-0280, 11. From one's own bare JID alone are they believed.
    for way in ("received", "sent"):
        send(f"<message {sender} to='{victim.full}' type='chat'>{wrapped(victim.full, words, way)}</message>")
        send(f"<message {sender} to='{victim.bare}' type='chat'><body>{words} cover</body>"
             f"{wrapped(victim.full, words, way)}{wrapped(victim.full, words, way)}</message>")
    # A roster push: RFC 6121, 2.1.6.
    for to in (victim.full, victim.bare):
        send(f"<iq {sender} to='{to}' type='set' id='push'><query xmlns='{ROSTER}'>"
             "<item jid='evil@elsewhere.example' subscription='both'/></query></iq>")
        send(f"<iq {sender} to='{to}' type='set' id='block'><block xmlns='{BLOCKING}'>"
             "<item jid='evil@elsewhere.example'/></block></iq>")
    # Stamps and ids in our name, and twice: XEP-0203, 4; XEP-0359, 5.
    for owner in (near, victim.bare):
        send(f"<message {sender} to='{victim.full}' type='chat'><body>{words} stamped</body>"
             f"<delay xmlns='{DELAY}' from='{owner}' stamp='2001-01-01T00:00:00Z'/>"
             f"<delay xmlns='{DELAY}' from='{owner}' stamp='2002-01-01T00:00:00Z'/>"
             f"<stanza-id xmlns='{STANZA_ID}' by='{owner}' id='forged'/>"
             f"<stanza-id xmlns='{STANZA_ID}' by='{owner}' id='forged again'/></message>")
        send(f"<presence {sender} to='{victim.full}'><status>{words} stamped</status>"
             f"<delay xmlns='{DELAY}' from='{owner}' stamp='2001-01-01T00:00:00Z'/></presence>")
    send(f"<message {sender} to='{victim.full}' type='chat'><body>{words} last</body></message>")
    await victim.take("the last", lambda it: it["body"] == f"{words} last", 40)
    await victim.flush()
    judge(world, victim, words)


def judge(world, victim, words):
    ours = (world.near.domain, victim.bare)
    for it in victim.tape:
        for way in ("received", "sent"):
            if it.xml.find(f"{{{CARBONS}}}{way}") is not None and it.xml.get("from") != victim.bare \
                    and world.near.kind == "tandem":
                raise Failed(f"a forged copy came through: {it}")
        push = is_push(it, "evil@elsewhere.example") or (
            it.xml.tag.endswith("iq") and it.xml.find(f"{{{BLOCKING}}}block") is not None)
        if push and it.xml.get("from") in (None, *ours):
            raise Failed(f"a forged push came through in our name: {it}")
        if world.near.kind != "tandem":
            # Prosody leaves the rest to the client, which knows by `from` what to believe.
            continue
        if push:
            raise Failed(f"a forged push came through: {it}")
        forged = [one for one in it.xml.iter(f"{{{STANZA_ID}}}stanza-id") if one.get("id", "").startswith("forged")]
        forged += [one for one in it.xml.iter(f"{{{DELAY}}}delay")
                   if one.get("from") in ours and one.get("stamp", "").startswith("200")]
        if forged:
            raise Failed(f"a forged {forged[0].tag} came through: {it}")


@scenario("forged by a fellow user: copies, pushes, stamps and ids, single and doubled")
async def by_user(world):
    victim, = await cast(world.near, "vera")
    await victim.ask("set", f"<enable xmlns='{CARBONS}'/>")
    user, = names(world.near, "mallory")
    with bound(world.near, user) as wire:
        await forgeries(world, victim, wire.send, "", body("forged"))
        for sender in (victim.bare, victim.full, world.near.domain):
            words = body("in another's name")
            with told(sender), bound(world.near, user, "second") as other:
                other.send(f"<message from='{sender}' to='{victim.full}' type='chat'>"
                           f"{wrapped(victim.full, words)}<body>{words}</body></message>"
                           f"<iq from='{sender}' to='{victim.full}' type='set' id='p'><query xmlns='{ROSTER}'>"
                           "<item jid='evil@elsewhere.example' subscription='both'/></query></iq>")
                other.close_politely()
                try:
                    other.until_end(5)
                except Failed:
                    pass
            await victim.flush()
            for it in victim.tape:
                if it.xml.get("from") == sender and it["body"] == words:
                    raise Failed(f"came in the name of {sender}: {it}")
            judge(world, victim, words)
    if await victim.items():
        raise Failed(f"the roster has {await victim.items()}")
    await part(victim)


@scenario("forged by a peer: copies, pushes, stamps and ids, single and doubled")
async def by_peer(world):
    victim, = await cast(world.near, "vera")
    with authority(world), peer(world.near)[0] as wire:
        if dial(wire, world.near) != "valid":
            raise Failed("dialback failed")
        await forgeries(world, victim, wire.send, "from='zoe@x.example/z'", body("forged"))
    if await victim.items():
        raise Failed(f"the roster has {await victim.items()}")
    await part(victim)


@scenario("forged subscriptions: an approval nobody asked for changes nothing")
async def approvals(world):
    victim, mallory = await cast(world.near, "vera", "mallory")
    for kind in ("subscribed", "unsubscribed", "unsubscribe"):
        mallory.shows(to=victim.bare, kind=kind)
    await mallory.flush()
    await victim.has_not("it", lambda it: it.xml.tag.endswith("presence") and it.xml.get("from") == mallory.bare)
    await victim.has_not("a push", is_push)
    if await victim.items():
        raise Failed(f"the roster has {await victim.items()}")
    await part(victim, mallory)


def grows(name, payload, wanted, most):
    @scenario(f"too much: {name} ends in a clear error, and the rest stays", near="tandem")
    async def run(world):
        one, = await cast(world.near, "greta")
        for number in range(most):
            waiting = [one.make_iq(one.new_id(), itype="set") for _ in range(50)]
            answers = []
            for place, it in enumerate(waiting):
                it.append(ET.fromstring(payload(number * 50 + place)))
                answers.append(it.send(timeout=60))
            done = await asyncio.gather(*answers, return_exceptions=True)
            errors = {it.iq["error"]["condition"] for it in done if isinstance(it, Exception) and hasattr(it, "iq")}
            one.tape.clear()
            if errors:
                break
        else:
            raise Failed(f"{most * 50} were taken")
        if not errors <= set(wanted):
            raise Failed(f"refused by {errors}, not {wanted}")
        await one.flush()
        await part(one)


grows("contacts in a roster", lambda it: f"<query xmlns='{ROSTER}'><item jid='c{it}@elsewhere.example'/></query>",
      ("not-allowed", "not-acceptable", "resource-constraint", "policy-violation"), 60)
grows("blocked addresses", lambda it: f"<block xmlns='{BLOCKING}'><item jid='c{it}@elsewhere.example'/></block>",
      ("not-allowed", "not-acceptable", "resource-constraint", "policy-violation"), 60)
grows("private data", lambda it: f"<query xmlns='jabber:iq:private'><d xmlns='stage:{it}'>{'x' * 4000}</d></query>",
      ("not-allowed", "not-acceptable", "resource-constraint", "policy-violation"), 60)


@scenario("too much: groups of a contact and a large card end in a clear error", near="tandem")
async def groups(world):
    one, = await cast(world.near, "greta")
    many = "".join(f"<group>{number}</group>" for number in range(2000))
    clear = ("not-acceptable", "not-allowed", "resource-constraint", "policy-violation")
    await one.refused("set", f"<query xmlns='{ROSTER}'><item jid='c@elsewhere.example'>{many}</item></query>", *clear)
    await one.refused("set", f"<vCard xmlns='vcard-temp'><NOTE>{'n' * 200_000}</NOTE></vCard>", *clear)
    if await one.items():
        raise Failed(f"{await one.items()}")
    await part(one)


@scenario("too much: texts for who is away come back when the store is full", near="tandem")
async def offline(world):
    one, = await cast(world.near, "greta")
    user, = names(world.near, "away")
    bare = world.near.jid(user)
    for number in range(3000):
        one.tells(bare, f"kept {number}")
        if number % 200 == 199:
            await one.flush()
            if one.has(lambda it: it.xml.get("type") == "error"):
                break
    else:
        raise Failed("3,000 texts were taken")
    await one.bounced(bare, "the store is full", "service-unavailable", "resource-constraint")
    bounced = 1 + len(one.has(lambda it: it.xml.get("type") == "error"))
    two, = await together(Resident(world.near, user))
    began = asyncio.get_running_loop().time()
    await two.online()
    wanted = number + 1 - bounced
    while len(two.tape) < wanted and asyncio.get_running_loop().time() - began < 60:
        await asyncio.sleep(0.1)
    print(f"kept texts: {wanted} handed out in {asyncio.get_running_loop().time() - began:.1f} s", flush=True)
    # Until they are out a new text waits behind them, and where it would wait is full.
    last = body("the last")
    one.tells(two.full, last)
    await two.take("the last", lambda it: it["body"] == last, 40)
    kept = [it["body"] for it in two.tape if it.xml.tag.endswith("message")]
    if len(kept) + bounced != number + 1 or kept != [f"kept {it}" for it in range(len(kept))]:
        raise Failed(f"{number + 1} texts, {len(kept)} kept, {bounced} came back")
    await part(one, two)


@scenario("too much: a flood of requests from one peer leaves room for others", near="tandem")
async def requests(world):
    victim, friend = await cast(world.near, "vera", "fred")
    user = victim.boundjid.user
    await victim.leave()
    with authority(world), peer(world.near)[0] as wire:
        if dial(wire, world.near) != "valid":
            raise Failed("dialback failed")
        for number in range(2000):
            wire.send(f"<presence from='z{number}@x.example' to='{victim.bare}' type='subscribe'/>")
        words = body("behind the flood")
        wire.send(f"<message from='zoe@x.example/z' to='{friend.full}' type='chat'><body>{words}</body></message>")
        await friend.heard("zoe@x.example/z", words, seconds=60)
        friend.shows(to=victim.bare, kind="subscribe")
        await friend.flush()
        victim, = await together(Resident(world.near, user))
        await victim.online()
        await victim.take("the friend's request", lambda it: it.xml.get("from") == friend.bare, 30)
        flood = [it for it in victim.tape if it.xml.get("type") == "subscribe"]
        if len(flood) > 1000:
            raise Failed(f"{len(flood)} requests of one peer were kept")
        await part(victim, friend)

