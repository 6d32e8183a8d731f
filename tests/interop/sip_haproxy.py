"""HAProxy between us and partners: in front of our listener it terminates their TLS and vouches for their names (PROXY
protocol v2 with the TLS CN); toward a partner with suites that rustls lacks it speaks those."""

import asyncio
import socket
import ssl

from resident import cast, is_presence, is_text, part
from scenarios import body, scenario
from sip_control import lines
from sip_stage import OLD, OLD_SUITE, PROXY, Haproxy
from sip_ua import Agent, Stream, Watch, expect
from stage import Failed, until
from wire import client_context

WAIT = 30
SOURCE = "127.0.0.44"


async def through(world, certificate, source=SOURCE):
    context = client_context(world.stage, certificate)
    return await Stream.to(PROXY, 5061, source, context, "sip.t.example")


@scenario("a partner behind HAProxy is who its certificate says", near="tandem")
async def vouched(world):
    Haproxy.of(world)
    user, = await cast(world.near, "hana")
    async with lines(through(world, "h.example")) as (line,):
        agent = Agent("hal", "h.example", line)
        contact = "hal@h.example"
        expect(await agent.asks("OPTIONS", "sip:t.example"), 200)
        words = body("through the proxy")
        expect(await agent.says(f"sip:{user.bare}", words), 200)
        await user.take("the text", lambda it: is_text(it, words) and it["from"].bare == contact, WAIT)
        # Ours go the same way back: the partner has no other.
        words = body("and back")
        user.tells(contact, words)
        it = await agent.hears("MESSAGE", seconds=WAIT)
        if it.body.decode() != words:
            raise Failed(f"{words} came as {it}")
        watch = Watch(agent, f"sip:{user.bare}")
        expect(await watch.ask(), 200)
        await watch.told("pending")
        await user.take("the request", lambda it: is_presence(it, contact, "subscribe"), WAIT)
        user.shows(to=contact, kind="subscribed")
        await watch.told("active", "<basic>open</basic>")
        # The name is good for one domain alone.
        forger = Agent("kim", "k.example", line)
        it = expect(await forger.says(f"sip:{user.bare}", "forged"), 403)
        if "399" not in it.get("warning"):
            raise Failed(f"no Warning in {it}")
        # Counted and told by the address that HAProxy reports, not by its own.
        until("the address behind the proxy in the log", lambda: any(
            "sip_identity_mismatch" in it and SOURCE in it for it in world.near.tail(400).splitlines()))
        await user.has_not("what was forged", lambda it: is_text(it, "forged"))
    await part(user)


@scenario("a stranger behind HAProxy, and who passes HAProxy by, gets nowhere", near="tandem")
async def strangers(world):
    Haproxy.of(world)
    user, = await cast(world.near, "hugo")
    # The authority's certificate, but of nobody's whom we know.
    async with lines(through(world, "n.example")) as (line,):
        agent = Agent("nan", "n.example", line)
        try:
            it = await agent.says(f"sip:{user.bare}", "strange")
            expect(it, 403)
        except Failed as why:
            if "the connection ended" not in str(why):
                raise
    # Without a certificate HAProxy itself says no.
    try:
        async with lines(Stream.to(PROXY, 5061, SOURCE, client_context(world.stage), "sip.t.example")) as (line,):
            await Agent("hal", "h.example", line).asks("OPTIONS", "sip:t.example", seconds=5)
        raise Failed("who has no certificate is answered through HAProxy")
    except OSError:
        pass
    except Failed as why:
        if "the connection ended" not in str(why):
            raise
    near = world.near.address
    header = (b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c" + socket.inet_aton(SOURCE) + socket.inet_aton(near)
              + (5555).to_bytes(2, "big") + (5062).to_bytes(2, "big"))
    # From the proxy's address, without its header: the connection ends unanswered.
    for first in (b"", b"PROXY TCP4 127.0.0.44 127.0.0.10 5555 5062\r\n"):
        async with lines(Stream.to(near, 5062, PROXY)) as (line,):
            agent = Agent("hal", "h.example", line)
            line.send(first + agent.text("OPTIONS", "sip:t.example", "sip:t.example", f"c{len(first)}", 1, "t"))
            await asyncio.wait_for(line.ended, 10)
            if line.queue.qsize() > 1:
                raise Failed(f"answered without a header: {line.queue.get_nowait()}")
    # A header without a name: TLS peers are nobody without one.
    async with lines(Stream.to(near, 5062, PROXY)) as (line,):
        line.send(header)
        expect(await Agent("hal", "h.example", line).says(f"sip:{user.bare}", "strange"), 403)
    # From elsewhere a header is no header.
    async with lines(Stream.to(near, 5062, SOURCE)) as (line,):
        line.send(header)
        agent = Agent("hal", "h.example", line)
        line.send(agent.text("MESSAGE", f"sip:{user.bare}", f"sip:{user.bare}", "elsewhere", 1, "t", body=b"strange"))
        try:
            expect(await agent.take("an answer", lambda it: it.status >= 200, 5), 400, 403)
        except Failed as why:
            if "the connection ended" not in str(why):
                raise
    await user.has_not("a stranger's text", lambda it: is_text(it, "strange"))
    await part(user)


@scenario("a partner with old suites is reached through HAProxy", near="tandem")
async def old_suites(world):
    Haproxy.of(world)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(world.stage.path("o.example.crt"), world.stage.path("o.example.key"))
    context.load_verify_locations(str(world.stage.ca))
    context.verify_mode = ssl.CERT_REQUIRED
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(OLD_SUITE)
    came = asyncio.Queue()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Stream(came.put_nowait), OLD, 5061, ssl=context)
    user, = await cast(world.near, "olga")
    contact = "otto@o.example"
    try:
        words = body("to an old machine")
        user.tells(contact, words)
        line = await asyncio.wait_for(came.get(), WAIT)
        agent = Agent("otto", "o.example", line)
        suite = line.transport.get_extra_info("cipher")[0]
        if suite != OLD_SUITE:
            raise Failed(f"the suite is {suite}")
        if not line.transport.get_extra_info("peercert"):
            raise Failed("HAProxy showed no certificate of ours")
        it = await agent.hears("MESSAGE", seconds=WAIT)
        if it.body.decode() != words:
            raise Failed(f"{words} came as {it}")
        words = body("from an old machine")
        expect(await agent.says(f"sip:{user.bare}", words), 200)
        await user.take("the text", lambda it: is_text(it, words) and it["from"].bare == contact, WAIT)
        await user.has_not("a bounce", lambda it: it.xml.get("type") == "error")
        line.close()
    finally:
        server.close()
    await part(user)
