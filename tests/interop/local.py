"""Clients of one server: how they come in and what they say to each other."""

import asyncio
import os
import subprocess

from slixmpp.exceptions import IqError

from clients import Client, part, together
from scenarios import PASSWORD, body, scenario
from stage import Failed, until
from wire import CLIENT, OpensslWire, Wire, bound, end_point, scram, secured


async def logs_in(world, **how):
    world.near_users()
    await part(*await together(Client(world.near, "alice", **how)))


def login(mechanism, direct):
    way = "direct TLS" if direct else "STARTTLS"

    @scenario(f"slixmpp logs in by {mechanism} over {way}")
    async def run(world):
        if mechanism not in world.near.mechanisms:
            return "not a mechanism of this server"
        await logs_in(world, mechanism=mechanism, direct=direct)


for hash_name in ("SHA-1", "SHA-256", "SHA-512"):
    login(f"SCRAM-{hash_name}", direct=False)
    login(f"SCRAM-{hash_name}", direct=True)


@scenario("slixmpp logs in by its own choice")
async def own_choice(world):
    await logs_in(world)
    await logs_in(world, direct=True)


@scenario("slixmpp as it comes logs in where channel binding is off", near="tandem")
async def as_it_comes(world):
    domain = f"plain.{world.near.domain}"
    world.near.add_user("ella", domain)
    await part(*await together(Client(world.near, "ella", domain=domain, as_it_comes=True)))


@scenario("a wrong password and an unknown user look the same")
async def wrong_password(world):
    world.near_users()
    said = []
    for user, password in (("alice", "wrong"), ("nobody", PASSWORD)):
        wire, _, _ = secured(world.near)
        with wire:
            said.append(scram(wire, user, world.near.hash_name, password=password))
    # Prosody tells the two apart in its text; Tandem must not.
    if any(it is True or "<not-authorized" not in it for it in said):
        raise Failed(f"{said}")
    if world.near.kind == "tandem" and said[0] != said[1]:
        raise Failed(f"{said}")
    try:
        await Client(world.near, "alice", password="wrong").login()
    except Failed as why:
        # It tries one mechanism after the other until it has none left or the server has had enough.
        if "failed_all_auth" not in str(why) and "disconnected" not in str(why):
            raise
    else:
        raise Failed("slixmpp came in with a wrong password")


@scenario("PLAIN is offered only where it is switched on", near="tandem")
async def plain(world):
    domain = f"plain.{world.near.domain}"
    world.near.add_user("erin", domain)
    wire, _, features = secured(world.near)
    with wire:
        if ">PLAIN<" in features:
            raise Failed(f"offered where it is off: {features}")
        wire.send("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AGFsaWNlAHB3</auth>")
        wire.until("<invalid-mechanism")
    client = Client(world.near, "erin", domain=domain, mechanism="PLAIN")
    await part(*await together(client))


def plus(hash_name):
    @scenario(f"SCRAM-{hash_name}-PLUS binds to the certificate", near="tandem")
    async def run(world):
        world.near_users()
        for port in (5222, 5223):
            wire, _, features = secured(world.near, port)
            with wire:
                if f">SCRAM-{hash_name}-PLUS<" not in features:
                    raise Failed(f"not offered: {features}")
                said = scram(wire, "alice", hash_name, binding=end_point(wire))
                if said is not True:
                    raise Failed(f"port {port}: {said}")

    @scenario(f"SCRAM-{hash_name}-PLUS binds to the exporter", near="tandem")
    async def exporter(world):
        world.near_users()
        with OpensslWire(world.near.address, 5222, world.near.domain, world.stage.ca) as wire:
            wire.header(CLIENT, world.near.domain)
            wire.opened()
            said = scram(wire, "alice", hash_name, binding=("tls-exporter", wire.exporter))
            if said is not True:
                raise Failed(said)


for hash_name in ("SHA-1", "SHA-256", "SHA-512"):
    plus(hash_name)


@scenario("a binding to another connection or certificate lets nobody in", near="tandem")
async def wrong_binding(world):
    world.near_users()
    for binding, flag in ((("tls-server-end-point", b"\0" * 32), None), (("tls-exporter", b"\0" * 32), None),
                          (("tls-unique", b"\0" * 12), None), (None, "y")):
        wire, _, _ = secured(world.near)
        with wire:
            said = scram(wire, "alice", "SHA-256", binding=binding, flag=flag)
            if said is True:
                raise Failed(f"came in with {binding or flag}")


@scenario("nobody logs in without TLS")
async def needs_tls(world):
    with Wire(world.near.address, 5222) as wire:
        wire.header(CLIENT, world.near.domain)
        _, features = wire.opened()
        if "<mechanisms" in features or "<required" not in features:
            raise Failed(features)


@scenario("two users chat by full and by bare JID")
async def chat(world):
    world.near_users()
    alice, bob = await together(Client(world.near, "alice"), Client(world.near, "bob"))
    for to in (bob.full, bob.boundjid.bare):
        text = body("to bob <&>\"' žluťoučký 🙂")
        alice.say(to, text)
        it = await bob.hears(alice.full, text)
        if str(it["to"]) != to:
            raise Failed(f"`to` was {to} and came as {it['to']}")
        bob.say(alice.full, text)
        await alice.hears(bob.full, text)
    await part(alice, bob)


@scenario("a forged `from` of a client is stamped or refused")
async def stamped(world):
    world.near_users()
    bob, = await together(Client(world.near, "bob"))
    text = body("forged")
    with bound(world.near, "alice") as wire:
        wire.send(f"<message to='{bob.full}' from='{bob.full}' type='chat'><body>{text}</body></message>")
        # RFC 6120, 8.1.2.1: the server either puts the right address in its place or ends the stream.
        try:
            wire.dies_of("invalid-from", seconds=1.5)
        except Failed:
            await bob.hears(f"alice@{world.near.domain}/wire", text)
    await part(bob)


@scenario("messages for nobody come back")
async def unknown_local(world):
    world.near_users()
    alice, = await together(Client(world.near, "alice"))
    for place in ("nobody@{}/gone", "nobody@{}"):
        to = place.format(world.near.domain)
        alice.say(to, body("is anybody there?"))
        await alice.hears_error(to, ("service-unavailable", "item-not-found"))
    await part(alice)


@scenario("presence is sent directly")
async def directed(world):
    world.near_users()
    alice, bob = await together(Client(world.near, "alice"), Client(world.near, "bob"))
    alice.send_presence(pto=bob.full, pshow="away", pstatus="soon back")
    await bob.sees(alice.full, "away", condition=lambda it: it["status"] == "soon back")
    alice.send_presence(pto=bob.full, ptype="unavailable")
    await bob.sees(alice.full, "unavailable")
    await part(alice, bob)


@scenario("who got directed presence hears of the end")
async def directed_end(world):
    world.near_users()
    alice, bob = await together(Client(world.near, "alice"), Client(world.near, "bob"))
    alice.send_presence(pto=bob.full)
    await bob.sees(alice.full, "available")
    await alice.leave()
    # RFC 6121, 4.6.3: the server tells those who were told.
    await bob.sees(alice.full, "unavailable")
    await part(bob)


@scenario("ping, disco and version of the server and of each other")
async def questions(world):
    world.near_users()
    alice, bob = await together(Client(world.near, "alice"), Client(world.near, "bob"))
    await ask(alice, world.near.domain)
    await shown(bob, alice)
    await ask(alice, bob.full)
    try:
        await alice["xep_0092"].get_version(f"bob@{world.near.domain}/gone", timeout=15)
    except IqError as error:
        if error.iq["error"]["condition"] not in ("service-unavailable", "recipient-unavailable"):
            raise Failed(str(error.iq)) from None
    else:
        raise Failed("a resource that is not there answered")
    await part(alice, bob)


async def shown(one, *others):
    """Presence shared with these, without which a full JID answers no question (RFC 6121, 8.5.3.1)."""
    for it in others:
        one.send_presence(pto=it.full)
        await it.sees(one.full, "available")


async def ask(client, whom):
    """Ping, disco and version, each with one answer."""
    ping = client.make_iq_get(ito=whom)
    ping.enable("ping")
    answers = [await ping.send(timeout=20),
               await client["xep_0030"].get_info(jid=whom, timeout=20),
               await client["xep_0092"].get_version(whom, timeout=20)]
    for it in answers:
        if it["type"] != "result" or str(it["from"]) != str(whom):
            raise Failed(f"{it}")
    if not answers[1]["disco_info"]["features"] or not answers[2]["software_version"]["name"]:
        raise Failed(f"{answers[1]} {answers[2]}")


@scenario("an IQ of an unknown kind gets its error")
async def unknown_iq(world):
    world.near_users()
    with bound(world.near, "alice") as wire:
        wire.send("<iq type='get' id='q1'><query xmlns='urn:nobody:knows'/></iq>")
        wire.until(r"<iq [^>]*type=['\"]error['\"].*?<service-unavailable.*?</iq>")
        wire.send(f"<iq type='get' id='q2' to='{world.near.domain}'><query xmlns='urn:nobody:knows'/></iq>")
        wire.until(r"<iq [^>]*type=['\"]error['\"].*?<(service-unavailable|feature-not-implemented).*?</iq>")
        wire.send("<iq type='error' id='q3'><error type='cancel'><gone "
                  "xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>"
                  "<iq type='get' id='q4'><ping xmlns='urn:xmpp:ping'/></iq>")
        # An error gets no answer, so the next thing to come is the answer to the ping.
        wire.until(r"^\s*<iq [^>]*id=['\"]q4['\"]")


@scenario("a second login under one resource is settled")
async def conflict(world):
    world.near_users()
    with bound(world.near, "alice", "same") as first:
        with bound(world.near, "alice", "same") as second:
            first.dies_of("conflict")
            second.send("<iq type='get' id='p'><ping xmlns='urn:xmpp:ping'/></iq>")
            second.until(r"<iq [^>]*id=['\"]p['\"]")


def sendxmpp(world, user, *more):
    """go-sendxmpp 0.5.6 knows PLAIN and DIGEST-MD5 only."""
    domain = world.near.plain_domain()
    world.near.add_user(user, domain)
    return ["go-sendxmpp", "-u", f"{user}@{domain}", "-p", PASSWORD, "-j", f"xmpp.{domain}:5222", *more]


def trusting(world):
    home = world.stage.path("go-home")
    home.mkdir(exist_ok=True)
    return {**os.environ, "SSL_CERT_FILE": str(world.stage.ca), "HOME": str(home)}


@scenario("go-sendxmpp sends")
async def go_sends(world):
    world.near_users()
    bob, = await together(Client(world.near, "bob"))
    for way in ((), ("-t",)):
        text = body("from go")
        command = sendxmpp(world, "gopher", *way, bob.boundjid.bare)
        if way:
            command = [it.replace(":5222", ":5223") for it in command]
        done = subprocess.run(command, input=text, text=True, capture_output=True, timeout=30, check=False,
                              env=trusting(world))
        if done.returncode != 0:
            raise Failed(f"go-sendxmpp {way}: {done.stdout}{done.stderr}")
        it = await bob.message()
        if it["body"].strip() != text or it["from"].bare != f"gopher@{world.near.plain_domain()}":
            raise Failed(str(it))
    await part(bob)


@scenario("go-sendxmpp listens")
async def go_listens(world):
    world.near_users()
    alice, = await together(Client(world.near, "alice"))
    listener = world.stage.spawn("go-sendxmpp", sendxmpp(world, "gopher", "-l"), env=trusting(world))
    text = body("to go")

    async def heard(seconds=20):
        # It does not say when it has logged in, so the text is offered until it is printed.
        end = alice.loop.time() + seconds
        while alice.loop.time() < end:
            alice.say(f"gopher@{world.near.plain_domain()}", text)
            await asyncio.sleep(0.2)
            if text in listener.tail():
                return True
        return False

    if not await heard():
        raise Failed(f"nothing printed:\n{listener.tail()}")
    listener.stop()
    until("go-sendxmpp to end", lambda: listener.child.poll() is not None)
    await part(alice)
