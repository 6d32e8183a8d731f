"""profanity and go-sendxmpp as a person runs them: what he types, and what his screen says."""

import asyncio
import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import termios

from local import sendxmpp, trusting
from resident import Resident, cast, eventually, is_presence, names, part, together
from scenarios import PASSWORD, body, scenario
from stage import Failed


class Profanity:
    """The program under a terminal of its own, with a home of its own."""

    def __init__(self, world, server, user):
        self.bare = server.jid(user)
        self.home = world.stage.path(f"profanity-{user}")
        config, data = self.home / "config/profanity", self.home / "data/profanity"
        for it in (config, data):
            it.mkdir(parents=True)
        (data / "accounts").write_text(
            f"[{self.bare}]\nenabled=true\njid={self.bare}\nserver={server.address}\nport=5222\nresource=term\n"
            f"password={PASSWORD}\ntls.policy=force\npresence.last=online\npresence.login=online\n"
            "priority.online=0\npriority.chat=0\npriority.away=0\npriority.xa=0\npriority.dnd=0\nmuc.service=none\n"
            "omemo.policy=manual\n")
        (config / "profrc").write_text(
            "[ui]\nbeep=false\nflash=false\nsplash=false\noccupants=false\nwrap=false\nroster=false\n"
            "titlebar.show=false\nnotify.typing=false\n[notifications]\nmessage=off\ntyping=false\ninvite=false\n"
            f"[logging]\nchlog=false\ngrlog=off\n[tls]\ncertpath={world.stage.path('profanity-trust')}\n"
            "[connection]\nreconnect=0\nautoping=0\n")
        trust = world.stage.path("profanity-trust")
        trust.mkdir(exist_ok=True)
        (trust / "ca.crt").write_bytes(world.stage.ca.read_bytes())
        subprocess.run(["openssl", "rehash", str(trust)], check=True, capture_output=True)
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 60, 200, 0, 0))
        environment = {**os.environ, "HOME": str(self.home), "XDG_CONFIG_HOME": str(self.home / "config"),
                       "XDG_DATA_HOME": str(self.home / "data"), "TERM": "xterm", "LANG": "C.UTF-8",
                       "SSL_CERT_FILE": str(world.stage.ca)}
        self.child = subprocess.Popen(["profanity", "-l", "DEBUG"], stdin=slave, stdout=slave,
                                      stderr=slave, env=environment, start_new_session=True)
        os.close(slave)
        self.screen = ""
        self.position = 0
        asyncio.get_running_loop().add_reader(self.master, self.read)

    def read(self):
        try:
            data = os.read(self.master, 65536)
        except OSError:
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self.master)
            return
        self.screen += re.sub(r"\x1b(\[[0-9;?]*[A-Za-z]|[()][A-Z0-9]|[=>]|\][^\x07]*\x07)|[\x0e\x0f\r]", " ",
                              data.decode(errors="replace"))

    def type(self, line):
        os.write(self.master, line.encode() + b"\r")

    async def says(self, pattern, seconds=20):
        """What comes to the screen from here on."""
        for _ in range(seconds * 50):
            found = re.compile(pattern).search(self.screen, self.position)
            if found:
                self.position = found.end()
                return found
            if self.child.poll() is not None:
                break
            await asyncio.sleep(0.02)
        shown = re.sub(r"\s+", " ", self.screen[-1500:])
        raise Failed(f"the terminal never said {pattern!r} (ended: {self.child.poll()}); it says: {shown}")

    async def log_in(self):
        await self.says(r"Profanity|Type")
        self.type(f"/connect {self.bare}")
        await self.says(r"logged in successfully", 30)

    async def close(self):
        if self.child.poll() is None:
            self.type("/quit")
            for _ in range(100):
                if self.child.poll() is not None:
                    break
                await asyncio.sleep(0.02)
            else:
                self.child.send_signal(signal.SIGTERM)
                self.child.wait(5)
        asyncio.get_running_loop().remove_reader(self.master)
        os.close(self.master)


@scenario("profanity: log in, add a contact, subscribe, see presence, chat both ways")
async def person(world):
    one, = await cast(world.near, "ann")
    user, = names(world.near, "prof")
    terminal = Profanity(world, world.near, user)
    try:
        await terminal.log_in()
        terminal.type(f"/roster add {one.bare} Ann")
        await eventually_there(world, user, one.bare)
        terminal.type(f"/sub request {one.bare}")
        await one.take("the request", lambda it: is_presence(it, terminal.bare, "subscribe"))
        one.shows(to=terminal.bare, kind="subscribed")
        await terminal.says(r"(?i)subscription|accepted|authori[sz]ed")
        one.shows(to=terminal.bare, kind="subscribe")
        await terminal.says(r"(?i)requesting|subscription request|authori[sz]ation request")
        terminal.type(f"/sub allow {one.bare}")
        await one.take("the approval", lambda it: is_presence(it, terminal.bare, "subscribed"))
        await one.presence(f"{terminal.bare}/term")
        await eventually("a mutual contact", one, terminal.bare, "both")
        one.shows(show="dnd", status="painting the fence")
        await terminal.says(r"painting the fence")
        words = f"hello from {user}"
        terminal.type(f"/msg {one.bare} {words}")
        await one.heard(f"{terminal.bare}/term", words)
        one.tells(f"{terminal.bare}/term", "nice to read you")
        await terminal.says(r"nice to read you")
        terminal.type('/status set away "at lunch"')
        await one.presence(f"{terminal.bare}/term", show="away")
    finally:
        await terminal.close()
    await one.presence(f"{terminal.bare}/term", "unavailable")
    await part(one)


async def eventually_there(world, user, contact):
    """The contact is in the roster, seen by another resource of the same user."""
    other, = await together(Resident(world.near, user, "looking"))
    await eventually("the new contact", other, contact, "none")
    await other.leave()


@scenario("profanity: copies of what its user says and hears elsewhere (carbons)")
async def copies(world):
    one, = await cast(world.near, "ann")
    user, = names(world.near, "prof")
    terminal = Profanity(world, world.near, user)
    try:
        await terminal.log_in()
        terminal.type("/carbons on")
        terminal.type(f"/msg {one.bare}")
        desk, = await together(Resident(world.near, user))
        await desk.online()
        await terminal_enabled(terminal, desk, one)
        one.tells(desk.full, "heard at the desk")
        await desk.heard(one.full, "heard at the desk")
        await terminal.says(r"heard at the desk")
        await desk.leave()
    finally:
        await terminal.close()
    await part(one)


async def terminal_enabled(terminal, desk, one):
    """profanity asks for copies after its login and does not say when that is done."""
    for number in range(200):
        desk.tells(one.full, f"probe {number}")
        await one.heard(desk.full, f"probe {number}")
        if re.search(r"probe \d+", terminal.screen):
            return
        await asyncio.sleep(0.05)
    raise Failed("profanity never got a copy of what its user sent")


@scenario("profanity: texts kept while away are on the screen after login")
async def offline(world):
    one, = await cast(world.near, "ann")
    user, = names(world.near, "prof")
    for number in range(3):
        one.tells(world.near.jid(user), f"kept number {number}")
    await one.flush()
    terminal = Profanity(world, world.near, user)
    try:
        await terminal.log_in()
        terminal.type(f"/msg {one.bare}")
        for number in range(3):
            await terminal.says(rf"kept number {number}")
    finally:
        await terminal.close()
    await part(one)


@scenario("go-sendxmpp writes to who is away, and he reads it later")
async def go_offline(world):
    domain = world.near.plain_domain()
    user, = names(world.near, "away")
    text = body("kept from go")
    done = await asyncio.create_subprocess_exec(
        *sendxmpp(world, "gopher", world.near.jid(user)), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT, env=trusting(world))
    said, _ = await asyncio.wait_for(done.communicate(text.encode()), 30)
    if done.returncode != 0:
        raise Failed(f"go-sendxmpp: {said.decode()}")
    it, = await together(Resident(world.near, user))
    await it.online()
    came = await it.take("the kept text", lambda it: (it["body"] or "").strip() == text)
    if came["from"].bare != f"gopher@{domain}":
        raise Failed(str(came))
    await part(it)

