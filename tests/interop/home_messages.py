"""Messages at home: kept for who is away (XEP-0160), copied to all devices (XEP-0280), the rules of RFC 6121, 8.5."""

import asyncio
import datetime

from resident import CARBONS, HINTS, Resident, carbon, cast, is_text, names, part, stamp, together
from scenarios import body, scenario
from stage import Failed

CHAT_STATE = "<composing xmlns='http://jabber.org/protocol/chatstates'/>"
RECEIPT = "<request xmlns='urn:xmpp:receipts'/>"
TEXTS = 20


async def away(world, *users):
    """Senders who are there, and one new user who is not."""
    senders = await cast(world.near, *users)
    user, = names(world.near, "away")
    return senders, user, world.near.jid(user)


async def returns(world, user, **options):
    one, = await together(Resident(world.near, user, **options))
    await one.online()
    return one


@scenario("texts for who is away are kept, stamped, and come in order with what was in them")
async def kept(world):
    (one, two), user, bare = await away(world, "ann", "bea")
    mark = body("kept")
    began = datetime.datetime.now(datetime.timezone.utc)
    for number in range(TEXTS):
        one.tells(bare, f"{mark} a{number}", inner=RECEIPT)
        two.tells(bare, f"{mark} b{number}", kind="normal")
    await asyncio.gather(one.flush(), two.flush())
    it, = await together(Resident(world.near, user))
    await it.items()
    await it.has_not("a kept text before its presence", lambda it: it.xml.tag.endswith("message"))
    it.shows()
    for sender, letter, kind in ((one, "a", "chat"), (two, "b", "normal")):
        for number in range(TEXTS):
            came = await it.take("the next kept text", lambda it, sender=sender: it.xml.get("from") == sender.full)
            if not is_text(came, f"{mark} {letter}{number}") or came.xml.get("type", "normal") != kind:
                raise Failed(f"number {number} of {sender.full} is {came}")
            stamps = [at for by, at in stamp(came) if by in (world.near.domain, bare)]
            if len(stamps) != 1:
                raise Failed(f"stamps {stamp(came)}: {came}")
            late = abs((datetime.datetime.fromisoformat(stamps[0].replace("Z", "+00:00")) - began).total_seconds())
            if late > 60:
                raise Failed(f"stamped {late} s off: {came}")
            if letter == "a" and came.xml.find("{urn:xmpp:receipts}request") is None:
                raise Failed(f"its receipt request is gone: {came}")
    await it.leave()
    it = await returns(world, user)
    await it.has_not("a kept text twice", lambda it: it.xml.tag.endswith("message"))
    await part(one, two, it)


@scenario("kept texts go to the first resource with a non-negative priority, once")
async def kept_for_one(world):
    (one,), user, bare = await away(world, "ann")
    words = body("for one")
    one.tells(bare, words)
    await one.flush()
    low, = await together(Resident(world.near, user, "low"))
    await low.online(priority=-1)
    await low.has_not("a kept text with a negative priority", lambda it: is_text(it, words))
    high, = await together(Resident(world.near, user, "high"))
    await high.online(priority=0)
    await high.heard(one.full, words)
    third = await returns(world, user)
    await third.has_not("a text that was delivered", lambda it: is_text(it, words))
    await part(one, low, high, third)


@scenario("what is not to be kept is not: hints, chat states alone, headlines, errors, group chat")
async def not_kept(world):
    (one,), user, bare = await away(world, "ann")
    words = body("not kept")
    one.tells(bare, words, inner=f"<no-store xmlns='{HINTS}'/>")
    one.send_raw(f"<message to='{bare}' type='chat'>{CHAT_STATE}</message>")
    one.tells(bare, words, kind="headline")
    one.tells(bare, words, kind="groupchat")
    one.send_raw(f"<message to='{bare}' type='error'><body>{words}</body><error type='cancel'>"
                 "<gone xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></message>")
    last = body("kept")
    one.tells(bare, last, inner=CHAT_STATE)
    await one.flush()
    it = await returns(world, user)
    await it.heard(one.full, last)
    found = it.has(lambda it: it.xml.tag.endswith("message"))
    # Prosody knows no hints here, and keeps chat states.
    if found and (world.near.kind == "tandem" or any(it["type"] not in ("chat", "normal") for it in found)):
        raise Failed(f"kept: {[str(it) for it in found]}")
    await part(one, it)


@scenario("group chat to a user is refused, errors vanish, a text to a lost resource finds the user")
async def rules(world):
    one, two = await cast(world.near, "ann", "bob")
    one.tells(two.bare, body("to a group"), kind="groupchat")
    await one.bounced(two.bare, "group chat", "service-unavailable")
    lost = f"{two.bare}/gone"
    words = body("to the lost one")
    one.tells(lost, words)
    came = await two.heard(one.full, words)
    if came.xml.get("to") != lost:
        raise Failed(f"`to` was rewritten: {came}")
    if world.near.kind == "tandem":
        # RFC 6121, 8.5.3.2.1: chat finds the user, the other kinds do not.
        for kind in ("normal", "groupchat", "headline"):
            one.tells(lost, body(kind), kind=kind)
            await one.bounced(lost, kind, "service-unavailable")
    one.send_raw(f"<message to='{two.bare}' type='error'><error type='cancel'>"
                 "<gone xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></message>")
    await one.flush()
    await two.has_not("an error by bare JID", lambda it: it.xml.tag.endswith("message"))
    await one.has_not("an answer to an error", lambda it: it.xml.tag.endswith("message"))
    await part(one, two)


@scenario("a bare JID's IQ is answered by the server for the user, a full one's by the client it is for")
async def questions(world):
    one, two = await cast(world.near, "ann", "bob")
    await one.refused("get", "<query xmlns='urn:nobody:knows'/>", "service-unavailable", "feature-not-implemented",
                      to=two.bare)
    await two.has_not("an IQ for the account", lambda it: it.xml.tag.endswith("iq") and it.xml.get("from") == one.full)
    two.shows(to=one.full)
    await one.presence(two.full)
    await one.ask("get", "<ping xmlns='urn:xmpp:ping'/>", to=two.full)
    await part(one, two)


async def devices(world):
    """A user on two devices that want copies and on one that does not, and somebody to talk to."""
    user, = names(world.near, "cara")
    desk, phone, deaf = await together(*(Resident(world.near, user, it) for it in ("desk", "phone", "deaf")))
    for it in (desk, phone, deaf):
        await it.online()
        if it is not deaf:
            await it.ask("set", f"<enable xmlns='{CARBONS}'/>")
    other, = await cast(world.near, "otto")
    return desk, phone, deaf, other


@scenario("carbons: what one device sends and gets, the others see once, in the account's name")
async def carbons(world):
    desk, phone, deaf, other = await devices(world)
    words = body("sent from the desk")
    desk.tells(other.full, words)
    await other.heard(desk.full, words)
    it = await phone.take("a copy of what was sent", lambda it: carbon(it, "sent", words))
    inner = it.xml.find(f"{{{CARBONS}}}sent").find(".//{jabber:client}message")
    if (it.xml.get("from"), inner.get("from"), inner.get("to")) != (desk.bare, desk.full, other.full):
        raise Failed(f"addresses of the copy: {it}")
    words = body("to the desk alone")
    other.tells(desk.full, words)
    await desk.heard(other.full, words)
    it = await phone.take("a copy of what came", lambda it: carbon(it, "received", words))
    inner = it.xml.find(f"{{{CARBONS}}}received").find(".//{jabber:client}message")
    if (it.xml.get("from"), inner.get("from"), inner.get("to")) != (desk.bare, other.full, desk.full):
        raise Failed(f"addresses of the copy: {it}")
    words = body("by bare JID")
    other.tells(desk.bare, words)
    for it in (desk, phone):
        await it.take("the text or its copy", lambda it: is_text(it, words) or carbon(it, "received", words))
    for it in (desk, phone, deaf):
        await it.flush()
    for it in (desk, phone):
        await it.has_not("one text twice", lambda it: is_text(it, words) or carbon(it, "received", words))
    await deaf.has_not("a copy without having asked", lambda it: it.xml.find(f"{{{CARBONS}}}sent") is not None
                       or it.xml.find(f"{{{CARBONS}}}received") is not None)
    await phone.ask("set", f"<disable xmlns='{CARBONS}'/>")
    words = body("without copies")
    desk.tells(other.full, words)
    await other.heard(desk.full, words)
    await desk.flush()
    await phone.has_not("a copy after the end", lambda it: carbon(it, "sent", words))
    await part(desk, phone, deaf, other)


@scenario("carbons: private and no-copy texts, and kinds that are not chat, are not copied")
async def not_copied(world):
    desk, phone, deaf, other = await devices(world)
    words = body("private")
    # XEP-0280, 6: both children go together.
    desk.tells(other.full, words, inner=f"<private xmlns='{CARBONS}'/><no-copy xmlns='{HINTS}'/>")
    await other.heard(desk.full, words)
    other.tells(desk.full, words, inner=f"<private xmlns='{CARBONS}'/><no-copy xmlns='{HINTS}'/>")
    await desk.heard(other.full, words)
    for kind in ("headline", "groupchat"):
        other.tells(desk.full, words, kind=kind)
        await desk.heard(other.full, words, kind=kind)
    last = body("the last")
    desk.tells(other.full, last)
    await phone.take("the copy of the last", lambda it: carbon(it, "sent", last))
    await phone.has_not("a copy", lambda it: carbon(it, "sent", words) or carbon(it, "received", words))
    await part(desk, phone, deaf, other)


@scenario("carbons: receipts, chat states and errors are copied where the texts were")
async def copied_signals(world):
    desk, phone, deaf, other = await devices(world)
    desk.send_raw(f"<message to='{other.full}' type='chat' id='m1'>{CHAT_STATE}</message>")
    state = "{http://jabber.org/protocol/chatstates}composing"
    await other.take("the chat state", lambda it: it.xml.find(state) is not None)
    await phone.take("its copy", lambda it: it.xml.find(f"{{{CARBONS}}}sent") is not None
                     and it.xml.find(f".//{state}") is not None)
    other.send_raw(f"<message to='{desk.full}' type='chat'><received xmlns='urn:xmpp:receipts' id='m1'/></message>")
    await desk.take("the receipt", lambda it: it.xml.find("{urn:xmpp:receipts}received") is not None)
    await phone.take("its copy", lambda it: it.xml.find(f"{{{CARBONS}}}received") is not None
                     and it.xml.find(".//{urn:xmpp:receipts}received") is not None)
    await part(desk, phone, deaf, other)


@scenario("kept texts outlive a restart of the server")
async def kept_over_restart(world):
    (one,), user, bare = await away(world, "ann")
    mark = body("over the restart")
    for number in range(TEXTS):
        one.tells(bare, f"{mark} {number}")
    await one.flush()
    sender = one.full
    await part(one)
    world.near.restart()
    it = await returns(world, user)
    for number in range(TEXTS):
        came = await it.take("the next kept text", lambda it: it.xml.get("from") == sender)
        if not is_text(came, f"{mark} {number}"):
            raise Failed(f"number {number} is {came}")
    await part(it)
