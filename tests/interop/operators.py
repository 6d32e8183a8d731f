"""What an operator sees of a running node, and the end of it. Runs last: the account covers all that went before."""

import json
import re
import time
import urllib.error
import urllib.request

from clients import Client, part, together
from scenarios import body, scenario
from stage import Failed, until
from wire import bound, scram, secured

PORT = "http://127.0.0.1:9090"


def get(path):
    try:
        with urllib.request.urlopen(PORT + path, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def figures():
    """Every series of `/metrics` with its value."""
    status, text = get("/metrics")
    if status != 200 or not text.rstrip().endswith("# EOF"):
        raise Failed(f"{status}: {text[-300:]}")
    return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1])
            for line in text.splitlines() if line and not line.startswith("#")}


@scenario("health, ready and metrics answer", near="tandem")
async def admin_port(world):
    for path in ("/health", "/ready"):
        status, text = get(path)
        if status != 200:
            raise Failed(f"{path}: {status} {text}")
    if not figures():
        raise Failed("no figures")
    if get("/nothing")[0] != 404:
        raise Failed("a page that is not there was found")


def unbalanced(all_figures):
    """Kinds whose account does not close: what is wrong with each."""
    wrong = []
    kinds = {it for name in all_figures for it in re.findall(r'tandem_stanzas_offered_total\{.*?kind="(\w+)"', name)}
    if not kinds:
        return ["no account is exported"]
    for kind in sorted(kinds):
        def of(name, kind=kind):
            return sum(value for series, value in all_figures.items()
                       if series.startswith(f"tandem_stanzas_{name}{{") and f'kind="{kind}"' in series)

        offered, refused, taken, closed, flying = (
            of(it) for it in ("offered_total", "refused_total", "taken_total", "closed_total", "in_flight"))
        if offered != refused + taken or taken != closed + flying or flying:
            wrong.append(f"{kind}: offered {offered} refused {refused} taken {taken} closed {closed} in flight {flying}")
    return wrong


@scenario("the account balances and nothing stays in flight", near="tandem")
async def account(world):
    world.near_users()
    world.far_users()
    alice, bob, carol = await together(
        Client(world.near, "alice"), Client(world.near, "bob"), Client(world.far, "carol"))
    for _ in range(20):
        for whom in (bob, carol):
            words = body("counted")
            alice.say(whom.full, words)
            await whom.hears(alice.full, words, seconds=40)
    alice.say(f"nobody@{world.near.domain}", body("counted"))
    await alice.hears_error(f"nobody@{world.near.domain}", ("service-unavailable", "item-not-found"))
    await part(alice, bob, carol)
    # Nothing may stay in flight for longer than 40 s.
    end = time.monotonic() + 45
    while wrong := unbalanced(figures()):
        if time.monotonic() > end:
            raise Failed("; ".join(wrong))
        time.sleep(0.25)


@scenario("ctl makes, changes, lists and removes users", near="tandem")
async def users(world):
    near = world.near
    jid = f"frank@{near.domain}"

    def ctl(*words, text=None, fails=False):
        done = near.ctl(*words, text=text)
        if (done.returncode != 0) != fails:
            raise Failed(f"ctl {words}: {done.returncode} {done.stdout}{done.stderr}")
        return done.stdout

    def login(password):
        with secured(near)[0] as wire:
            return scram(wire, "frank", near.hash_name, password=password) is True

    ctl("user", "add", jid, text="one\n")
    ctl("user", "add", jid, text="one\n", fails=True)
    ctl("user", "add", "frank@elsewhere.example", text="one\n", fails=True)
    if not login("one"):
        raise Failed("the password does not work")
    ctl("user", "passwd", jid, text="two\n")
    if login("one") or not login("two"):
        raise Failed("the password was not changed")
    if jid not in ctl("user", "list"):
        raise Failed("not listed")
    ctl("user", "del", jid)
    if login("two") or jid in ctl("user", "list"):
        raise Failed("still there")


@scenario("ctl shows status, domains and streams", near="tandem")
async def shows(world):
    near = world.near
    world.near_users()
    world.far_users()
    alice, carol = await together(Client(near, "alice"), Client(world.far, "carol"))
    words = body("a stream to see")
    alice.say(carol.full, words)
    await carol.hears(alice.full, words, seconds=40)
    for word, wanted in (("status", "accounts"), ("domains", near.domain), ("streams", alice.full),
                         ("streams", world.far.domain)):
        done = near.ctl(word)
        if done.returncode != 0 or wanted not in done.stdout:
            raise Failed(f"ctl {word} without {wanted}: {done.stdout}{done.stderr}")
        json.loads(near.ctl(word, "-o", "json").stdout)
    await part(alice, carol)


@scenario("accounts outlive the node", near="tandem")
async def outlive(world):
    world.near.add_user("grace")
    world.near.restart()
    await part(*await together(Client(world.near, "grace")))


@scenario("the node ends in order and says goodbye", near="tandem")
async def goodbye(world):
    world.near_users()
    world.far_users()
    alice, carol = await together(Client(world.near, "alice"), Client(world.far, "carol"))
    words = body("before the end")
    alice.say(carol.full, words)
    await carol.hears(alice.full, words, seconds=40)
    with bound(world.near, "bob") as wire:
        process = world.near.process
        process.child.terminate()
        wire.dies_of("system-shutdown")
    await part(alice)
    until("the node to end", lambda: process.child.poll() is not None, 20)
    world.near.process = None
    if process.child.returncode != 0:
        raise Failed(f"exit code {process.child.returncode}")
    await part(carol)
    world.near.start()


@scenario("the node says by which pump it runs", near="tandem")
async def pump(world):
    wanted = "epoll" if world.near.wrapper else "io_uring"
    ready = [it for it in world.near.tail(200).splitlines() if it.startswith("ready: ")]
    if not ready or wanted not in ready[-1]:
        raise Failed(f"{wanted} not in {ready}:\n{world.near.tail()}")
