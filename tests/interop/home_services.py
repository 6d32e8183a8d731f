"""The small services of a home: cards, private data, times, what is offered, client state, stream limits."""

import asyncio
import base64
import datetime
import hashlib
import re

from resident import befriend, cast, is_presence, is_text, part
from scenarios import body, scenario
from stage import Failed
from wire import CLIENT, peer, scram, secured

VCARD = "vcard-temp"
PRIVATE = "jabber:iq:private"
LAST = "jabber:iq:last"
CSI = "urn:xmpp:csi:0"


def bound_features(world):
    """What the server offers a client that has logged in."""
    world.near_users()
    wire, _, _ = secured(world.near)
    with wire:
        if scram(wire, "alice", world.near.hash_name) is not True:
            raise Failed("no login")
        wire.header(CLIENT, world.near.domain)
        return wire.opened()[1]


def card(name):
    return f"<vCard xmlns='{VCARD}'><FN>{name}</FN><PHOTO><TYPE>image/png</TYPE><BINVAL>{'QUJD' * 200}</BINVAL></PHOTO></vCard>"


@scenario("vCard: one's own is set and fetched, others read it and can't set it")
async def vcards(world):
    one, other = await cast(world.near, "ann", "bob")
    mine = body("Ann of the stage")
    empty = await one.ask("get", f"<vCard xmlns='{VCARD}'/>") if world.near.kind == "tandem" else None
    if empty is not None and list(empty.xml.find(f"{{{VCARD}}}vCard")):
        raise Failed(f"a card that nobody set: {empty}")
    await one.ask("set", card(mine))
    for it, to in ((one, None), (one, one.bare), (other, one.bare)):
        answer = await it.ask("get", f"<vCard xmlns='{VCARD}'/>", to=to)
        found = answer.xml.find(f"{{{VCARD}}}vCard")
        if found.findtext(f"{{{VCARD}}}FN") != mine or found.find(f"{{{VCARD}}}PHOTO/{{{VCARD}}}BINVAL").text != "QUJD" * 200:
            raise Failed(f"{answer}")
    await other.refused("set", card("Mallory"), "forbidden", "not-allowed", "service-unavailable", "not-authorized", to=one.bare)
    answer = await other.ask("get", f"<vCard xmlns='{VCARD}'/>", to=one.bare)
    if answer.xml.find(f"{{{VCARD}}}vCard").findtext(f"{{{VCARD}}}FN") != mine:
        raise Failed("the set of a stranger took")
    if world.near.kind == "tandem":
        # A missing card and a missing user look the same.
        for it in (other.bare, world.near.jid("nobody")):
            await one.refused("get", f"<vCard xmlns='{VCARD}'/>", "service-unavailable", to=it)
    await part(one, other)


@scenario("private XML: kept by namespace, for its owner alone")
async def private(world):
    one, other = await cast(world.near, "ann", "bob")

    def data(name, value):
        return f"<query xmlns='{PRIVATE}'><{name} xmlns='stage:{name}'>{value}</{name}></query>"

    for name, value in (("prefs", "red"), ("marks", "blue"), ("prefs", "green")):
        await one.ask("set", data(name, value))
    for name, value in (("prefs", "green"), ("marks", "blue"), ("never", None)):
        answer = await one.ask("get", f"<query xmlns='{PRIVATE}'><{name} xmlns='stage:{name}'/></query>")
        found = answer.xml.find(f"{{{PRIVATE}}}query/{{stage:{name}}}{name}")
        if found is None or found.text != value:
            raise Failed(f"{name}: {answer}")
    await other.refused("get", f"<query xmlns='{PRIVATE}'><prefs xmlns='stage:prefs'/></query>", "forbidden",
                        "service-unavailable", "not-allowed", "not-authorized", to=one.bare)
    await part(one, other)


@scenario("last activity: told to subscribers, and to nobody else")
async def last(world):
    one, other, stranger = await cast(world.near, "ann", "bob", "stan")
    await befriend(one, other)
    answer = await other.ask("get", f"<query xmlns='{LAST}'/>", to=one.bare)
    if answer.xml.find(f"{{{LAST}}}query").get("seconds") != "0" and world.near.kind == "tandem":
        raise Failed(f"of who is there: {answer}")
    await stranger.refused("get", f"<query xmlns='{LAST}'/>", "forbidden", "service-unavailable", "subscription-required",
                           to=one.bare)
    one.shows(kind="unavailable", status="gone fishing")
    await one.flush()
    await one.leave()
    answer = await other.ask("get", f"<query xmlns='{LAST}'/>", to=other.home.jid(one.boundjid.user))
    query = answer.xml.find(f"{{{LAST}}}query")
    if not 0 <= int(query.get("seconds")) < 60 or query.text != "gone fishing":
        raise Failed(f"of who left: {answer}")
    await part(other, stranger)


@scenario("the server tells its time and its version, its uptime to nobody in particular")
async def times(world):
    one, = await cast(world.near, "ann")
    answer = await one.ask("get", "<time xmlns='urn:xmpp:time'/>", to=world.near.domain)
    found = answer.xml.find("{urn:xmpp:time}time")
    told = datetime.datetime.fromisoformat(found.findtext("{urn:xmpp:time}utc").replace("Z", "+00:00"))
    off = abs((told - datetime.datetime.now(datetime.timezone.utc)).total_seconds())
    if off > 60 or not re.fullmatch(r"Z|[+-]\d\d:\d\d", found.findtext("{urn:xmpp:time}tzo")):
        raise Failed(f"{off} s off: {answer}")
    answer = await one.ask("get", "<query xmlns='jabber:iq:version'/>", to=world.near.domain)
    if not answer.xml.find("{jabber:iq:version}query").findtext("{jabber:iq:version}name"):
        raise Failed(f"{answer}")
    await part(one)


@scenario("disco: the server and the account say what they can")
async def disco(world):
    one, other = await cast(world.near, "ann", "bob")
    info = "<query xmlns='http://jabber.org/protocol/disco#info'/>"

    async def features(client, to):
        query = (await client.ask("get", info, to=to)).xml[0]
        return ({(it.get("category"), it.get("type")) for it in query if it.tag.endswith("identity")},
                {it.get("var") for it in query if it.tag.endswith("feature")})

    kinds, offered = await features(one, world.near.domain)
    wanted = {"http://jabber.org/protocol/disco#info", "http://jabber.org/protocol/disco#items", "urn:xmpp:ping",
              "jabber:iq:version", "urn:xmpp:time", "urn:xmpp:blocking", "urn:xmpp:carbons:2", "msgoffline",
              "vcard-temp", "jabber:iq:private", "jabber:iq:roster"}
    if world.near.kind != "tandem":
        wanted -= {"urn:xmpp:carbons:2"}
    if ("server", "im") not in kinds or not wanted <= offered:
        raise Failed(f"{kinds}, not offered: {sorted(wanted - offered)}")
    kinds, _ = await features(one, one.bare)
    if ("account", "registered") not in kinds:
        raise Failed(f"the account is {kinds}")
    answer = await one.ask("get", "<query xmlns='http://jabber.org/protocol/disco#items'/>", to=world.near.domain)
    if answer["type"] != "result":
        raise Failed(f"{answer}")
    if world.near.kind == "tandem":
        # XEP-0030, 8: a stranger does not learn who exists.
        for it in (other.bare, world.near.jid("nobody")):
            await one.refused("get", info, "service-unavailable", "subscription-required", "item-not-found", to=it)
    await part(one, other)


@scenario("the server's capabilities hash is that of its disco answer", near="tandem")
async def caps(world):
    one, = await cast(world.near, "ann")
    found = re.search(r"<c [^>]*\bver=['\"]([^'\"]+)['\"]", bound_features(world))
    if not found:
        raise Failed("no capabilities in the stream features (XEP-0115, 6.3)")
    query = (await one.ask("get", "<query xmlns='http://jabber.org/protocol/disco#info'/>", to=world.near.domain)).xml[0]
    space = "{http://jabber.org/protocol/disco#info}"
    lines = sorted("/".join((it.get("category"), it.get("type"),
                             it.get("{http://www.w3.org/XML/1998/namespace}lang", ""), it.get("name", "")))
                   for it in query.findall(f"{space}identity"))
    lines += sorted(it.get("var") for it in query.findall(f"{space}feature"))
    told = base64.b64encode(hashlib.sha1("".join(f"{it}<" for it in lines).encode()).digest()).decode()
    if query.find("{jabber:x:data}x") is None and told != found.group(1):
        raise Failed(f"{found.group(1)} is told, {told} it is")
    await part(one)


@scenario("client state: an inactive client is spared presence, and misses nothing that counts")
async def inactive(world):
    one, other = await cast(world.near, "ann", "bob")
    await befriend(one, other)
    one.send_raw(f"<inactive xmlns='{CSI}'/>")
    await one.flush()
    one.tape.clear()
    for number in range(10):
        other.shows(show="away", status=f"change {number}")
    other.shows(show="xa", status="the last")
    await other.flush()
    other.send_raw(f"<message to='{one.full}' type='chat'><paused xmlns='http://jabber.org/protocol/chatstates'/></message>")
    words = body("this one counts")
    other.tells(one.full, words)
    await one.heard(other.full, words)
    one.send_raw(f"<active xmlns='{CSI}'/>")
    await one.presence(other.full, show="xa", status="the last")
    if world.near.kind == "tandem":
        held = [it for it in one.tape if is_presence(it, other.full, None)]
        if len(held) > 1:
            raise Failed(f"{len(held)} old presences were kept for an inactive client")
    words = body("active again")
    other.tells(one.full, words)
    await one.take("the text", lambda it: is_text(it, words))
    await part(one, other)


@scenario("stream limits are told in the features (XEP-0478)", near="tandem")
async def limits(world):
    world.near_users()
    wire, of_peers = peer(world.near)
    wire.close()
    for told in (bound_features(world), of_peers):
        found = re.search(r"<limits xmlns=['\"]urn:xmpp:stream-limits:0['\"]>(.*?)</limits>", told)
        if not found or not re.search(r"<max-bytes>\d+</max-bytes>", found.group(1)):
            raise Failed(told)


@scenario("the features after login name what a client may use")
async def features(world):
    world.near_users()
    told = bound_features(world)
    for it in ("urn:ietf:params:xml:ns:xmpp-bind", "urn:xmpp:sm:3", "urn:xmpp:features:rosterver",
               "urn:xmpp:features:pre-approval", CSI):
        if it not in told:
            raise Failed(f"no {it} in {told}")


@scenario("a conversation of many users at once stays a conversation")
async def crowd(world):
    people = await cast(world.near, *"abcdefgh")
    mark = body("crowd")
    for number in range(20):
        for one in people:
            for other in people:
                one.tells(other.bare, f"{mark} {number}")
    for one in people:
        for other in people:
            for number in range(20):
                await one.heard(other.full, f"{mark} {number}")
    await asyncio.gather(*(it.flush() for it in people))
    for it in people:
        if it.has(lambda it: it.xml.tag.endswith("message")):
            raise Failed("texts twice")
    await part(*people)

