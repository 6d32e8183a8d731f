"""Kamailio with presence as a standard SIP domain: its users and ours see each other and talk, over mutual TLS and SRV
records, over UDP and over TCP."""

import asyncio

from resident import cast, is_presence, is_text, part
from scenarios import body, scenario
from sip_control import lines
from sip_stage import Kamailio
from sip_ua import Agent, Datagrams, Stream, Watch, document, expect
from stage import Failed

K = Kamailio.address
WAIT = 30
# Domain, how its user reaches Kamailio, and how Kamailio reaches us.
WAYS = {"TLS": ("k.example", "kim", "127.0.0.41"), "UDP": ("ku.example", "kate", "127.0.0.42"),
        "TCP": ("kt.example", "kurt", "127.0.0.43")}


async def played(world, way):
    """Everything that the two of them do."""
    Kamailio.of(world)
    domain, name, source = WAYS[way]
    opening = Stream.to(K, 5060, source) if way == "TCP" else Datagrams.to(K, 5060, source)
    user, = await cast(world.near, name[:2] + "x")
    async with lines(opening) as (line,):
        agent = Agent(name, domain, line)
        await agent.registers()
        try:
            await sees(user, agent)
            await is_seen(user, agent)
            await talk(user, agent)
        except Failed as why:
            raise Failed(f"{why}\n{Kamailio.of(world).tail(30)}") from None
    await part(user)


async def sees(user, agent):
    """What Kamailio's user publishes comes to ours, who subscribed."""
    contact = f"{agent.user}@{agent.domain}"
    await agent.publishes(document(agent.uri, "open", "away", note="out for lunch"))
    user.shows(to=contact, kind="subscribe")
    await user.take("the approval", lambda it: is_presence(it, contact, "subscribed"), WAIT)
    await shown(user, contact, "away")
    await agent.publishes(document(agent.uri, "open", "busy"))
    # Tables 1 and 3: a busy SIP contact is shown as away to a client that is no Jabber, with its word in the status.
    await user.take("the next state", lambda it: is_presence(it, None, None) and it["from"].bare == contact
                    and (it.xml.findtext("{jabber:client}status") or "").lower().startswith("busy")
                    or it.xml.findtext("{jabber:client}show") == "dnd", WAIT)
    await agent.publishes(document(agent.uri, "open"))
    await shown(user, contact, None)
    await agent.publishes(document(agent.uri, "closed"))
    await user.take("offline", lambda it: is_presence(it, None, "unavailable") and it["from"].bare == contact, WAIT)
    user.shows(to=contact, kind="unsubscribe")


async def shown(user, contact, show):
    await user.take(f"{show} of {contact}", lambda it: is_presence(it, None, None) and it["from"].bare == contact
                    and it.xml.findtext("{jabber:client}show") == show, WAIT)


async def is_seen(user, agent):
    """Kamailio's user subscribes: pending, allowed, a change, a refresh, the end."""
    contact = f"{agent.user}@{agent.domain}"
    watch = Watch(agent, f"sip:{user.bare}")
    asked = asyncio.ensure_future(watch.ask())
    expect(await asked, 200)
    await watch.told("pending")
    await user.take("the request", lambda it: is_presence(it, contact, "subscribe"), WAIT)
    user.shows(to=contact, kind="subscribed")
    await watch.told("active", "<basic>open</basic>")
    user.shows(show="dnd")
    await watch.told("active", "busy")
    # In its dialog: what it came by is echoed, or Kamailio would not find the way back.
    expect(await watch.ask(), 200)
    await watch.told("active", "busy")
    expect(await watch.ask(0), 200)
    await watch.told("terminated")
    user.shows()


async def talk(user, agent):
    """Page mode, both ways; an unknown user on either side."""
    contact = f"{agent.user}@{agent.domain}"
    words = body("grüße & <words> from XMPP".replace("&", "und").replace("<", "(").replace(">", ")"))
    user.tells(contact, words)
    it = await agent.hears("MESSAGE", seconds=WAIT)
    if it.body.decode() != words or not it.get("content-type").startswith("text/plain"):
        raise Failed(f"{words!r} came as {it}")
    words = body("grüße from SIP")
    expect(await agent.says(f"sip:{user.bare}", words), 200)
    await user.take("the text", lambda it: is_text(it, words) and it["from"].bare == contact, WAIT)
    expect(await agent.says(f"sip:nobody-at-all@{user.home.domain}", "x"), 404)
    nobody = f"nobody@{agent.domain}"
    user.tells(nobody, "x")
    await user.bounced(nobody, "x", "item-not-found", "recipient-unavailable", "service-unavailable")
    if user.has(lambda it: it.xml.get("type") == "error"):
        raise Failed(f"errors: {user.tape}")


@scenario("Kamailio's users and ours see each other and talk, over TLS, UDP and TCP", near="tandem")
async def everything(world):
    Kamailio.of(world)
    said = await asyncio.gather(*(played(world, it) for it in WAYS), return_exceptions=True)
    bad = [f"over {way}: {type(it).__name__}: {it}" for way, it in zip(WAYS, said) if it is not None]
    for way, it in zip(WAYS, said):
        print(f"    Kamailio over {way} {'ok' if it is None else 'FAILED'}", flush=True)
    if bad:
        raise Failed("\n".join(bad))
