"""Users of two domains: Tandem's and a real Prosody's."""

import asyncio

from slixmpp.exceptions import IqError

from clients import Client, part, together
from local import ask, shown
from scenarios import body, scenario
from stage import Failed

TEXTS = 500


async def pair(world):
    world.near_users()
    world.far_users()
    return await together(Client(world.near, "alice"), Client(world.far, "carol"))


async def both_ways(alice, carol):
    for one, other in ((alice, carol), (carol, alice)):
        for to in (other.full, other.boundjid.bare):
            text = body("across <&>\"' žluťoučký 🙂")
            one.say(to, text)
            await other.hears(one.full, text, seconds=40)


@scenario("two domains chat both ways, begun by us")
async def chat(world):
    alice, carol = await pair(world)
    await both_ways(alice, carol)
    await part(alice, carol)


@scenario("two domains chat both ways, begun by them")
async def chat_begun_there(world):
    world.near.restart()
    world.far.restart()
    alice, carol = await pair(world)
    await both_ways(carol, alice)
    await part(alice, carol)


@scenario(f"{TEXTS} texts each way keep their order")
async def order(world):
    alice, carol = await pair(world)
    mark = body("order")

    async def take(client, sender):
        for number in range(TEXTS):
            await client.hears(sender.full, f"{mark} {number}", seconds=60)

    for number in range(TEXTS):
        alice.say(carol.full, f"{mark} {number}")
        carol.say(alice.full, f"{mark} {number}")
    await asyncio.gather(take(carol, alice), take(alice, carol))
    await part(alice, carol)


@scenario("order holds from the first text on, while the stream is still being made")
async def order_from_cold(world):
    world.near.restart()
    world.far.restart()
    alice, carol = await pair(world)
    mark = body("cold")
    for number in range(50):
        alice.say(carol.full, f"{mark} {number}")
    for number in range(50):
        await carol.hears(alice.full, f"{mark} {number}", seconds=60)
    await part(alice, carol)


@scenario("presence is sent directly between domains")
async def directed(world):
    alice, carol = await pair(world)
    for one, other in ((alice, carol), (carol, alice)):
        one.send_presence(pto=other.full, pshow="dnd", pstatus="in a meeting")
        await other.sees(one.full, "dnd", condition=lambda it: it["status"] == "in a meeting")
        one.send_presence(pto=other.full, ptype="unavailable")
        await other.sees(one.full, "unavailable")
    await part(alice, carol)


@scenario("ping, disco and version between domains")
async def questions(world):
    alice, carol = await pair(world)
    await shown(alice, carol)
    await shown(carol, alice)
    await ask(alice, carol.full)
    await ask(carol, alice.full)
    await ask(alice, world.far.domain)
    await ask(carol, world.near.domain)
    await part(alice, carol)


@scenario("texts for unknown users come back on both sides")
async def unknown(world):
    alice, carol = await pair(world)
    for one, domain in ((alice, world.far.domain), (carol, world.near.domain)):
        to = f"nobody@{domain}"
        one.say(to, body("hello?"))
        await one.hears_error(to, ("service-unavailable", "item-not-found"))
        try:
            await one["xep_0092"].get_version(f"{to}/gone", timeout=30)
        except IqError as error:
            if error.iq["error"]["condition"] not in ("service-unavailable", "item-not-found"):
                raise Failed(str(error.iq)) from None
        else:
            raise Failed(f"{to} answered")
    await part(alice, carol)


@scenario("a domain that can't be resolved: remote-server-not-found")
async def unresolvable(world):
    world.near_users()
    alice, = await together(Client(world.near, "alice"))
    alice.say("someone@nowhere.example", body("hello?"))
    await alice.hears_error("someone@nowhere.example", ("remote-server-not-found",))
    try:
        await alice["xep_0092"].get_version("nowhere.example", timeout=40)
    except IqError as error:
        if error.iq["error"]["condition"] != "remote-server-not-found":
            raise Failed(str(error.iq)) from None
    await part(alice)


@scenario("a peer that is away bounces; once it is back, texts arrive")
async def away(world):
    alice, carol = await pair(world)
    await both_ways(alice, carol)
    await carol.leave()
    world.far.stop()
    to = f"carol@{world.far.domain}"
    # Prosody has one word for both cases.
    words = ("remote-server-timeout",) if world.near.kind == "tandem" else ("remote-server-timeout", "remote-server-not-found")
    alice.say(to, body("are you there?"))
    await alice.hears_error(to, words, seconds=60)
    world.far.start()
    carol, = await together(Client(world.far, "carol"))
    # A text from their side ends our back-off at once; one of ours must come through within it anyway.
    text = body("I am back")
    carol.say(alice.full, text)
    await alice.hears(carol.full, text, seconds=60)
    text = body("welcome")
    alice.say(carol.full, text)
    await carol.hears(alice.full, text, seconds=60)
    await part(alice, carol)


@scenario("a peer that wants good certificates gets them")
async def secure(world):
    world.far.restart(secure=True)
    try:
        alice, carol = await pair(world)
        await both_ways(alice, carol)
        await part(alice, carol)
    finally:
        world.far.restart()


@scenario("by certificate alone (EXTERNAL)", near="tandem")
async def external(world):
    world.far.restart(secure=True)
    world.near.restart(auth="external")
    try:
        alice, carol = await pair(world)
        await both_ways(alice, carol)
        await part(alice, carol)
    finally:
        world.near.restart()
        world.far.restart()


@scenario("a domain that is not permitted is refused both ways", near="tandem")
async def denied(world):
    world.near.restart(default="deny")
    try:
        alice, carol = await pair(world)
        alice.say(carol.full, body("psst"))
        await alice.hears_error(carol.full, ("not-allowed",))
        carol.say(alice.full, body("psst"))
        it = await carol.message(60)
        if it["type"] != "error" or not alice.messages.empty():
            raise Failed(f"{it}")
        await part(alice, carol)
    finally:
        world.near.restart()


@scenario("an exception lets one domain through", near="tandem")
async def excepted(world):
    world.near.restart(default="deny", rules=((world.far.domain, "allow"),))
    try:
        alice, carol = await pair(world)
        await both_ways(alice, carol)
        alice.say("someone@x.example", body("psst"))
        await alice.hears_error("someone@x.example", ("not-allowed",))
        await part(alice, carol)
    finally:
        world.near.restart()


@scenario("an exception shuts one domain out", near="tandem")
async def shut_out(world):
    world.near.restart(default="allow", rules=((world.far.domain, "deny"),))
    try:
        alice, carol = await pair(world)
        alice.say(carol.full, body("psst"))
        await alice.hears_error(carol.full, ("not-allowed",))
        await part(alice, carol)
    finally:
        world.near.restart()
