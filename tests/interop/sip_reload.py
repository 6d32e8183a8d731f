"""`tandem ctl reload`: a SIP partner, what may be said to it and our certificate change without a restart, and no
connection that stands is touched."""

import socket

from resident import cast, is_text, part
from scenarios import body, scenario
from sip_control import lines
from sip_errors import FAR
from sip_stage import TCP_WIRE, rule
from sip_ua import Agent, Stream, expect
from stage import Failed
from wire import client_context

NEW = "127.0.0.47"
DENIED = """
[[peer]]
pattern = "y.example"
action = "deny"
"""


def reloaded(world, text, code=0):
    world.near.config.write_text(text)
    done = world.near.ctl("reload")
    if done.returncode != code:
        raise Failed(f"reload: {done.returncode}, {done.stdout}{done.stderr}")
    return done.stdout + done.stderr


@scenario("a SIP partner comes, moves and goes, and our certificate changes, by reload", near="tandem")
async def partners(world):
    before = world.near.config.read_text()
    at_new = f'transport = "tcp"\ntargets = ["{NEW}:5060"]'
    user, = await cast(world.near, "rita")
    near = world.near.address
    try:
        async with lines(Stream.to(near, 5060, TCP_WIRE), Stream.to(near, 5060, NEW)) as (old, new):
            known, newcomer = Agent("ann", FAR, old), Agent("yan", "y.example", new)

            async def stands():
                words = body("still here")
                expect(await known.says(f"sip:{user.bare}", words), 200)
                await user.take("the text", lambda it: is_text(it, words))

            async def may(status):
                it = expect(await newcomer.says(f"sip:{user.bare}", body("new")), status)
                await stands()
                return it

            await stands()
            await may(403)
            reloaded(world, before + rule("y.example", at_new))
            await may(200)
            # What it says on the same connection is refused once it is a partner no more, or lives elsewhere.
            reloaded(world, before + rule("y.example", 'transport = "tcp"\ntargets = ["127.0.0.48:5060"]'))
            await may(403)
            # Not from SIP to XMPP in one step: nothing changes, and it is said how.
            said = reloaded(world, before, 78)
            if "Deny it" not in said:
                raise Failed(f"a domain was moved in one step: {said}")
            await may(403)
            reloaded(world, before + rule("y.example", at_new))
            await may(200)
            reloaded(world, before + DENIED)
            await may(403)
            reloaded(world, before)
            await may(403)
            # Our certificate: who comes now sees the new one.
            shown = serial_of(world)
            world.stage.make_certificate("t.example")
            reloaded(world, before)
            if serial_of(world) == shown:
                raise Failed("the old certificate is shown")
            await stands()
    finally:
        world.near.config.write_text(before + DENIED)
        world.near.ctl("reload")
        reloaded(world, before)
    await part(user)


def serial_of(world):
    """The certificate of our SIP listener, as a partner sees it."""
    context = client_context(world.stage, "k.example")
    with socket.create_connection((world.near.address, 5061), 10) as plain:
        with context.wrap_socket(plain, server_hostname="sip.t.example") as secured:
            return secured.getpeercert()["serialNumber"]
