"""What ends and begins again: a partner that restarts, and the switch killed under its watchers. Nobody is blind
afterwards, and nobody flaps."""

import time

from resident import Resident, cast, is_presence, is_text, part, together
from scenarios import body, scenario
from sip_control import lines
from sip_errors import FAR, SDP, filled, request
from sip_kamailio import K, shown
from sip_stage import TCP_WIRE, Kamailio
from sip_ua import Agent, Datagrams, Stream, Watch, document, expect
from stage import Failed

WAIT = 40


@scenario("Kamailio restarts and forgets everything: it is seen again within seconds", near="tandem")
async def partner_restarts(world):
    program = Kamailio.of(world)
    user, = await cast(world.near, "rosa")
    contact = "rex@k.example"
    async with lines(Datagrams.to(K, 5060, "127.0.0.45")) as (line,):
        agent = Agent("rex", "k.example", line)
        await agent.publishes(document(agent.uri, "open", "away"))
        user.shows(to=contact, kind="subscribe")
        await user.take("the approval", lambda it: is_presence(it, contact, "subscribed"), WAIT)
        await shown(user, contact, "away")
        program.process.stop()
        Kamailio.of(world)
        began = time.monotonic()
        # Its users come back before their watchers do.
        agent.etag = None
        await agent.publishes(document(agent.uri, "open"))
        await shown(user, contact, None)
        print(f"    {time.monotonic() - began:.1f} s after its return", flush=True)
        if user.has(lambda it: is_presence(it, None, "unavailable") and it["from"].bare == contact):
            raise Failed("shown as offline although it was only away for a moment")
        user.shows(to=contact, kind="unsubscribe")
    await part(user)


@scenario("killed under a watcher and a session: both go on in their dialogs", near="tandem")
async def killed(world):
    Kamailio.of(world)
    user, = await cast(world.near, "vera")
    name = user.boundjid.user
    async with lines(Datagrams.to(K, 5060, "127.0.0.46")) as (line,):
        agent = Agent("wes", "k.example", line)
        await agent.registers()
        user.shows(to="wes@k.example", kind="subscribed")
        await user.flush()
        watch = Watch(agent, f"sip:{user.bare}")
        expect(await watch.ask(), 200)
        await watch.told("active", "<basic>open</basic>")
        mark, ours = await session(world, name)
        await user.take("the first text", lambda it: is_text(it, "one"), WAIT)
        world.near.process.child.kill()
        world.near.process.child.wait()
        world.near.process = None
        world.near.start()
        began = time.monotonic()
        again, = await together(Resident(world.near, name))
        await again.online(show="dnd")
        it = await watch.told("active", "<basic>open</basic>", seconds=WAIT)
        print(f"    {time.monotonic() - began:.1f} s until the watcher saw the truth", flush=True)
        while b"busy" not in it.body:
            it = await watch.told("active", "<basic>open</basic>", seconds=WAIT)
        if any(b"closed" in it.body for it in agent.tape):
            raise Failed("the watcher was told offline")
        expect(await watch.ask(), 200)
        await watch.told("active", "busy")
        # The open window: a text in the old dialog, on a connection of its own.
        async with lines(Stream.to(world.near.address, 5060, TCP_WIRE)) as (wire,):
            ann = Agent("ann", FAR, wire)
            call, tag = f"kept{mark}", f"<sip:ann@{FAR}>;tag=k{mark}"
            text = request("MESSAGE", Call_ID=call, From=tag, CSeq="30 MESSAGE", to_tag=ours, Content_Type="text/plain", body="two")
            wire.send(filled(text, name, "kept"))
            expect(await ann.take("the answer", lambda it: it.status >= 200, 20), 200)
            await again.take("the second text", lambda it: is_text(it, "two"), WAIT)
            words = body("and back")
            again.tells(f"ann@{FAR}", words)
            it = await ann.take("our text in it", lambda it: it.method == "MESSAGE" and not it.status, WAIT)
            ann.replies(it, 200, "OK")
            if it.get("call-id") != call or it.body.decode() != words:
                raise Failed(f"not in the dialog: {it}")
            wire.send(filled(request("BYE", Call_ID=call, From=tag, CSeq="31 BYE", to_tag=ours), name, "end"))
            expect(await ann.take("the end", lambda it: it.status and it.get("cseq") == "31 BYE", 10), 200)
    await part(again)


async def session(world, name):
    """An INVITE session with a text in it; what names it, and our tag."""
    mark = time.monotonic_ns()
    async with lines(Stream.to(world.near.address, 5060, TCP_WIRE)) as (wire,):
        ann = Agent("ann", FAR, wire)
        call, tag = f"kept{mark}", f"<sip:ann@{FAR}>;tag=k{mark}"
        wire.send(filled(request("INVITE", Call_ID=call, From=tag, CSeq="10 INVITE", Content_Type="application/sdp", body=SDP), name, "i"))
        it = expect(await ann.take("the answer", lambda it: it.status >= 200, 20), 200)
        ours = it.tag("to")
        wire.send(filled(request("ACK", Call_ID=call, From=tag, CSeq="10 ACK", to_tag=ours), name, "a"))
        text = request("MESSAGE", Call_ID=call, From=tag, CSeq="11 MESSAGE", to_tag=ours, Content_Type="text/plain", body="one")
        wire.send(filled(text, name, "m"))
        expect(await ann.take("the answer", lambda it: it.status >= 200 and it.method == "MESSAGE", 20), 200)
    return mark, ours
