"""The control of the SIP part: what its programs do with each other, without Tandem. These pass, or a failure with
Tandem means nothing."""

import asyncio
import contextlib

from scenarios import body, scenario
from sip_stage import Kamailio, Sipp, Stunnel
from sip_ua import Agent, Datagrams, Stream, Watch, document, expect
from stage import Failed
from wire import client_context

K = Kamailio.address


@contextlib.asynccontextmanager
async def lines(*openings):
    opened = [await it for it in openings]
    try:
        yield opened
    finally:
        for it in opened:
            it.close()


@scenario("control: presence and texts between two users of Kamailio", near="prosody")
async def kamailio_alone(world):
    Kamailio.of(world)
    async with lines(Datagrams.to(K, 5060, "127.0.0.24"), Stream.to(K, 5060, "127.0.0.25")) as (one, other):
        ada, bea = Agent("ada", "k.example", one), Agent("bea", "k.example", other)
        await ada.registers()
        await bea.registers()
        await ada.publishes(document(ada.uri, "open", "away"))
        watch = Watch(bea, ada.uri)
        expect(await watch.ask(), 200, 202)
        await watch.told("active", "<basic>open</basic>", "away")
        await ada.publishes(document(ada.uri, "open", "busy"))
        await watch.told("active", "busy")
        expect(await watch.ask(0), 200, 202)
        await watch.told("terminated")
        for mine, theirs in ((ada, bea), (bea, ada)):
            words = body("between ourselves")
            answer = asyncio.ensure_future(mine.says(theirs.uri, words))
            await theirs.hears("MESSAGE", lambda it, words=words: it.body == words.encode())
            expect(await answer, 200)
        expect(await ada.says("sip:nobody@k.example", "x"), 404)


@scenario("control: Kamailio over mutual TLS", near="prosody")
async def kamailio_tls(world):
    Kamailio.of(world)
    context = client_context(world.stage, "n.example")
    async with lines(Stream.to(K, 5061, "127.0.0.27", context, "sip.k.example")) as (line,):
        expect(await Agent("nan", "n.example", line).asks("OPTIONS", "sip:sip.k.example"), 200)
    bare = client_context(world.stage)
    try:
        async with lines(Stream.to(K, 5061, "127.0.0.27", bare, "sip.k.example")) as (line,):
            await Agent("nan", "n.example", line).asks("OPTIONS", "sip:sip.k.example", seconds=5)
    except (Failed, OSError):
        return
    raise Failed("who shows no certificate is answered")


@scenario("control: SIPp and Kamailio, over TCP, UDP and TLS through stunnel", near="prosody")
async def sipp_alone(world):
    Kamailio.of(world)
    Stunnel.of(world)
    async with lines(Datagrams.to(K, 5060, "127.0.0.24")) as (line,):
        eda = Agent("eda", "k.example", line)
        await eda.registers()
        await eda.publishes(document(eda.uri, "open", "away"))
        for address, carrier, remote in (("127.0.0.15", "tcp", f"{K}:5060"), ("127.0.0.15", "udp", f"{K}:5060"),
                                         ("127.0.0.16", "tcp", "127.0.0.16:5060")):
            sipp = Sipp(world, "control", f"{carrier}.s.example", "eda", address, 0, carrier, remote)
            await eda.hears("MESSAGE", lambda it: b"hello" in it.body)
            await until_async("SIPp to end", lambda: sipp.ended() is not None)
            sipp.verdict()


async def until_async(what, condition, seconds=30):
    """The same as `until`, while others go on."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while not condition():
        if loop.time() > end:
            raise Failed(f"waited {seconds} s for {what}")
        await asyncio.sleep(0.02)


__all__ = ["lines", "until_async"]
