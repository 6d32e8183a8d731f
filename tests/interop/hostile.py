"""Peers and clients that break the rules: what they are told, and that nobody else notices."""

import contextlib

from clients import Client, part, together
from scenarios import body, scenario
from stage import Failed
from wire import CLIENT, PEER, Authority, Wire, bound, dial, peer, secured

# Larger than any stanza that is let in: 262,144 octets from clients, 524,288 from peers.
OVERSIZE = {CLIENT: 300_000, PEER: 600_000}

FORBIDDEN = (
    ("a DTD", "<!DOCTYPE a [<!ENTITY b 'c'>]>", ("restricted-xml",)),
    ("a processing instruction", "<?run it?>", ("restricted-xml",)),
    ("a comment", "<!-- here -->", ("restricted-xml",)),
    ("a comment in a stanza", "<message><!-- here --></message>", ("restricted-xml",)),
    ("an entity of its own", "<message><body>&b;</body></message>", ("restricted-xml", "not-well-formed")),
    ("tags that cross", "<message><body></message></body>", ("not-well-formed",)),
    ("a bare ampersand", "<message><body>a & b</body></message>", ("not-well-formed",)),
    ("an attribute twice", "<message to='a' to='b'/>", ("not-well-formed",)),
    ("an unbound prefix", "<a:message/>", ("bad-namespace-prefix", "not-well-formed")),
    ("a character XML does not have", b"<message><body>\x01</body></message>", ("not-well-formed",)),
    ("text between stanzas", "hello", ("not-well-formed", "bad-format", "invalid-xml")),
    ("bytes that are not UTF-8", b"<message><body>\xff\xfe</body></message>",
     ("unsupported-encoding", "not-well-formed")),
    ("a stanza of no known kind", "<letter/>", ("unsupported-stanza-type",)),
)


@contextlib.asynccontextmanager
async def bystanders(world):
    """Two users in conversation, who must not notice what goes on beside them."""
    world.near_users()
    alice, bob = await together(Client(world.near, "alice"), Client(world.near, "bob"))
    yield alice, bob
    for one, other in ((alice, bob), (bob, alice)):
        text = body("still here")
        one.say(other.full, text)
        await other.hears(one.full, text)
    await part(alice, bob)


@contextlib.contextmanager
def authority(world):
    it = Authority(world.stage)
    try:
        yield it
    finally:
        it.close()


def text(server, user, sender, words):
    return (f"<message from='{sender}' to='{user}@{server.domain}' type='chat'>"
            f"<body>{words}</body></message>")


@scenario("dialback with the right key lets a peer in")
async def dialled(world):
    async with bystanders(world) as (alice, _):
        with authority(world) as judge, peer(world.near)[0] as wire:
            said = dial(wire, world.near)
            if said != "valid" or not judge.asked:
                raise Failed(f"{said}; asked: {judge.asked}")
            words = body("from a real peer")
            wire.send(text(world.near, "alice", "zoe@x.example/z", words))
            await alice.hears("zoe@x.example/z", words)


@scenario("dialback with a wrong key is refused and closed")
async def wrong_key(world):
    async with bystanders(world) as (alice, _):
        with authority(world) as judge, peer(world.near)[0] as wire:
            judge.verdict = "invalid"
            said = dial(wire, world.near)
            if said not in ("invalid", "error"):
                raise Failed(said)
            # RFC 6120, 4.9.3.12 or the plain end of XEP-0220, 2.2.1: either way nothing more is taken from it.
            wire.send(text(world.near, "alice", "zoe@x.example/z", "forged"))
            wire.close_politely()
            wire.until_end()
        if not alice.messages.empty():
            raise Failed("a forged text came through")


@scenario("a stanza before dialback: not-authorized", near="tandem")
async def too_early(world):
    async with bystanders(world) as (alice, _):
        with authority(world), peer(world.near)[0] as wire:
            wire.send(text(world.near, "alice", "zoe@x.example/z", "forged"))
            wire.dies_of("not-authorized")
        if not alice.messages.empty():
            raise Failed("a forged text came through")


@scenario("a `from` outside the proven pair: invalid-from")
async def foreign_from(world):
    async with bystanders(world) as (alice, _):
        for forged in (f"carol@{world.far.domain}/f", f"bob@{world.near.domain}/f", "zoe@sub.x.example/z"):
            with authority(world), peer(world.near)[0] as wire:
                if dial(wire, world.near) != "valid":
                    raise Failed("dialback failed")
                wire.send(text(world.near, "alice", forged, "forged"))
                # Prosody answers both faults by one name.
                wire.dies_of("invalid-from", *(() if world.near.kind == "tandem" else ("not-authorized",)))
        if not alice.messages.empty():
            raise Failed("a forged text came through")


@scenario("stanzas without addresses: improper-addressing", near="tandem")
async def no_addresses(world):
    async with bystanders(world):
        for stanza in ("<message from='zoe@x.example'><body>a</body></message>",
                       f"<message to='alice@{world.near.domain}'><body>a</body></message>"):
            with authority(world), peer(world.near)[0] as wire:
                if dial(wire, world.near) != "valid":
                    raise Failed("dialback failed")
                wire.send(stanza)
                wire.dies_of("improper-addressing")


@scenario("answers that nobody asked for change nothing")
async def unsolicited(world):
    async with bystanders(world) as (alice, _):
        with authority(world) as judge, peer(world.near)[0] as wire:
            near = world.near.domain
            for name, id_ in (("result", ""), ("verify", " id='guess'")):
                wire.send(f"<db:{name} from='x.example' to='{near}'{id_} type='valid'/>")
                wire.send(f"<db:{name} from='{world.far.domain}' to='{near}'{id_} type='valid'/>")
            if dial(wire, world.near) != "valid" or not judge.asked:
                raise Failed("the real dialback did not go on")
            words = body("after all that")
            wire.send(text(world.near, "alice", "zoe@x.example/z", words))
            await alice.hears("zoe@x.example/z", words)
            wire.send(text(world.near, "alice", f"carol@{world.far.domain}/f", "forged"))
            wire.dies_of("invalid-from", *(() if world.near.kind == "tandem" else ("not-authorized",)))
        if not alice.messages.empty():
            raise Failed("a forged text came through")


@scenario("a key we never made is not vouched for")
async def verify_forged(world):
    async with bystanders(world):
        with peer(world.near)[0] as wire:
            wire.send(f"<db:verify from='x.example' to='{world.near.domain}' id='abc'>{'0' * 64}</db:verify>")
            said = wire.until(r"<db:verify[^>]*type=['\"]([a-z]+)['\"]").group(1).decode()
            if said != "invalid":
                raise Failed(said)


@scenario("dialback for a domain that is not served here: item-not-found", near="tandem")
async def dial_elsewhere(world):
    async with bystanders(world):
        with authority(world), peer(world.near)[0] as wire:
            wire.send("<db:result from='x.example' to='elsewhere.example'>abc</db:result>")
            wire.until(r"<db:result[^>]*type=['\"]error['\"].*?<item-not-found")
            # XEP-0220, 2.2: the stream stays.
            if dial(wire, world.near) != "valid":
                raise Failed("the stream did not live on")


def headers(space, port):
    party = "client" if space == CLIENT else "peer"

    @scenario(f"opening faults of a {party}", near="tandem")
    async def run(world):
        near = world.near.domain
        async with bystanders(world):
            for what, send, names in (
                ("an unknown host", dict(to="nowhere.example"), ("host-unknown",)),
                ("no version", dict(to=near, version=None), ("unsupported-version",)),
                ("a wrong content namespace", dict(to=near, space="jabber:nonsense"), ("invalid-namespace",)),
                ("a DTD at the front", dict(to=near, front="<!DOCTYPE a>"), ("restricted-xml",)),
                ("a comment at the front", dict(to=near, front="<!-- a -->"), ("restricted-xml",)),
            ):
                with told(what), Wire(world.near.address, port) as wire:
                    send = dict(send)
                    wire.send(send.pop("front", ""))
                    wire.header(send.pop("space", space), sender="x.example" if space == PEER else None,
                                declaration=what[-5:] != "front", **send)
                    # RFC 6120, 4.9.1.1: the answer's header goes before the error.
                    wire.until("<stream:stream[^>]*>")
                    wire.dies_of(*names)
            for what, line, names in (
                ("another protocol", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", ("not-well-formed", "bad-format", "invalid-xml")),
                ("a wrong stream namespace",
                 f"<stream:stream xmlns='{space}' xmlns:stream='urn:nonsense' to='{near}' version='1.0'>",
                 ("invalid-namespace",)),
                ("a root of another name",
                 f"<stream:flood xmlns='{space}' xmlns:stream='http://etherx.jabber.org/streams' to='{near}' "
                 "version='1.0'>", ("bad-format", "invalid-namespace", "not-well-formed", "invalid-xml")),
                ("another encoding",
                 "<?xml version='1.0' encoding='iso-8859-1'?>" f"<stream:stream xmlns='{space}' "
                 f"xmlns:stream='http://etherx.jabber.org/streams' to='{near}' version='1.0'>",
                 ("unsupported-encoding",)),
            ):
                with told(what), Wire(world.near.address, port) as wire:
                    wire.send(line)
                    wire.dies_of(*names)


@contextlib.contextmanager
def told(what):
    """Puts the case in front of what went wrong in it."""
    try:
        yield
    except Failed as why:
        raise Failed(f"{what}: {why}") from None


headers(CLIENT, 5222)
headers(PEER, 5269)


@scenario("forbidden bytes from a client end its stream only", near="tandem")
async def forbidden_client(world):
    async with bystanders(world):
        for what, bytes_, names in FORBIDDEN:
            with told(f"{what}, before login"):
                wire, _, _ = secured(world.near)
                with wire:
                    wire.send(bytes_)
                    wire.dies_of(*names, "not-authorized")
            with told(what), bound(world.near, "alice") as wire:
                wire.send(bytes_)
                wire.dies_of(*names)


@scenario("forbidden bytes from a peer end its stream only", near="tandem")
async def forbidden_peer(world):
    async with bystanders(world), away_from(world):
        for what, bytes_, names in FORBIDDEN:
            with told(what), authority(world), peer(world.near)[0] as wire:
                if dial(wire, world.near) != "valid":
                    raise Failed("dialback failed")
                wire.send(bytes_)
                wire.dies_of(*names)


@contextlib.asynccontextmanager
async def away_from(world):
    """The stream to the far server, in use before and after."""
    world.far_users()
    carol, dora = await together(Client(world.far, "carol"), Client(world.near, "bob", "second"))
    for _ in range(2):
        words = body("between domains")
        carol.say(dora.full, words)
        await dora.hears(carol.full, words, seconds=40)
        if _ == 0:
            yield
    await part(carol, dora)


def piled(space, world):
    """A logged-in client, or a peer that is let in."""
    if space == CLIENT:
        return bound(world.near, "alice")
    wire, _ = peer(world.near)
    if dial(wire, world.near) != "valid":
        raise Failed("dialback failed")
    return wire


@scenario("too much of it: policy-violation", near="tandem")
async def oversize(world):
    async with bystanders(world):
        for space, size in OVERSIZE.items():
            sender = "" if space == CLIENT else " from='zoe@x.example'"
            for what, bytes_ in (
                ("one large text", f"<message{sender} to='bob@{world.near.domain}'><body>" + "a" * size),
                ("one large attribute", f"<message{sender} to='bob@{world.near.domain}' id='" + "a" * size),
                ("one large name", "<" + "a" * size),
                ("many small children", f"<message{sender} to='bob@{world.near.domain}'>" + "<a/>" * (size // 4)),
                ("a deep one", f"<message{sender} to='bob@{world.near.domain}'>" + "<a>" * 2000),
                ("many blanks in a tag", f"<message{sender} to='bob@{world.near.domain}'" + " " * size),
            ):
                with told(f"{what} on {space}"), authority(world), piled(space, world) as wire:
                    wire.send(bytes_)
                    wire.dies_of("policy-violation")


@scenario("a stanza of 10,000 bytes passes everywhere")
async def large_enough(world):
    world.far_users()
    async with bystanders(world) as (alice, bob):
        carol, = await together(Client(world.far, "carol"))
        words = body("a" * 10_000)
        alice.say(bob.full, words)
        await bob.hears(alice.full, words)
        alice.say(carol.full, words)
        await carol.hears(alice.full, words, seconds=40)
        carol.say(alice.full, words)
        await alice.hears(carol.full, words, seconds=40)
        await part(carol)


@scenario("limits before login: bytes, elements, depth", near="tandem")
async def before_login(world):
    near = world.near
    async with bystanders(world):
        for what, bytes_ in (
            ("bytes", "<iq type='get' id='a'><a>" + "a" * 9000),
            ("elements", "<iq type='get' id='a'>" + "<a/>" * 40),
            ("depth", "<iq type='get' id='a'>" + "<a>" * 12),
        ):
            for port, space in ((5222, CLIENT), (5269, PEER)):
                with told(f"{what} on port {port}"), Wire(near.address, port) as wire:
                    wire.header(space, near.domain, "x.example" if space == PEER else None)
                    wire.opened()
                    wire.send(bytes_)
                    wire.dies_of("policy-violation", "not-authorized")
                with told(f"{what} on port {port} under TLS"):
                    wire = secured(near)[0] if space == CLIENT else peer(near)[0]
                    with wire:
                        wire.send(bytes_)
                        wire.dies_of("policy-violation", "not-authorized")


@scenario("a stanza before login: not-authorized", near="tandem")
async def stanza_before_login(world):
    async with bystanders(world) as (alice, _):
        with secured(world.near)[0] as wire:
            wire.send(text(world.near, "alice", f"bob@{world.near.domain}", "forged"))
            wire.dies_of("not-authorized")
        if not alice.messages.empty():
            raise Failed("a forged text came through")


@scenario("bytes smuggled behind starttls count for nothing", near="tandem")
async def smuggled(world):
    near = world.near
    async with bystanders(world):
        with Wire(near.address, 5222) as wire:
            wire.header(CLIENT, near.domain)
            wire.opened()
            wire.send("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/><iq type='get' id='s'/>")
            wire.until_end()
            if b"id='s'" in wire.unread or b'id="s"' in wire.unread:
                raise Failed(f"answered: {wire.unread!r}")


@scenario("silence before login ends the connection", near="tandem")
async def silence(world):
    async with bystanders(world):
        with Wire(world.near.address, 5222) as nothing, Wire(world.near.address, 5222) as half, \
                Wire(world.near.address, 5269) as silent_peer:
            half.header(CLIENT, world.near.domain)
            for wire in (nothing, half, silent_peer):
                wire.until_end(seconds=25)


@scenario("rubbish instead of TLS ends its connection only", near="tandem")
async def rubbish(world):
    async with bystanders(world):
        for port in (5222, 5223, 5269):
            with Wire(world.near.address, port) as wire:
                if port != 5223:
                    wire.header(CLIENT if port == 5222 else PEER, world.near.domain, port == 5269 and "x.example" or None)
                    wire.opened()
                    wire.send("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")
                    wire.until("<proceed")
                wire.send(b"\x16\x03\x01\x00\x05hello" + b"\xff" * 4000)
                wire.until_end()


@scenario("stanzas in pieces of one byte are the same stanzas")
async def in_pieces(world):
    async with bystanders(world) as (_, bob):
        words = body("piece by piece")
        with bound(world.near, "alice") as wire:
            for it in f"<message to='{bob.full}' type='chat'><body>{words}</body></message>":
                wire.send(it)
            await bob.hears(f"alice@{world.near.domain}/wire", words)
