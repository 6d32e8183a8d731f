"""TuneD's own loader reads the profiles under tuning/tuned, and finds in them what tuning/*.toml means.

Without D-Bus, without root, without a daemon. What is meant is worked out here again from the TOML files, so that a
mistake of `tandem tune export` is not its own judge. TUNED names a folder with the unpacked package: installing it would
start its service on a host with systemd.
"""

import os
import sys
import tomllib

ROOT = os.environ.get("TUNED", "/")
sys.path.insert(0, os.path.join(ROOT, "usr/lib/python3/dist-packages"))

# The functions have to be there before the loader, which they and it import in a circle.
import tuned.profiles.functions.functions  # noqa: E402,F401
from tuned.profiles.factory import Factory  # noqa: E402
from tuned.profiles.loader import Loader  # noqa: E402
from tuned.profiles.locator import Locator  # noqa: E402
from tuned.profiles.merger import Merger  # noqa: E402
from tuned.profiles.variables import Variables  # noqa: E402
from tuned.utils.global_config import GlobalConfig  # noqa: E402

TUNING = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "tuning")
SYSTEM = [os.path.join(ROOT, it) for it in ("usr/lib/tuned", "usr/lib/tuned/profiles")]
SIGN = {"raise": ">", "lower": "<", "exact": "", "include": ""}


def sheet(name):
    for folder in ("", "parts", "traits"):
        path = os.path.join(TUNING, folder, name + ".toml")
        if os.path.exists(path):
            with open(path, "rb") as file:
                return tomllib.load(file)
    raise SystemExit(f"no file for {name}")


def knobs(name):
    """All knobs by key, with what the file includes; the later one counts."""
    read, found = sheet(name), {}
    for other in read["profile"].get("include", []):
        found.update(knobs(other))
    found.update({knob["key"]: knob for knob in read.get("knob", [])})
    return found


def meant(name):
    """Section, option -> value, as TuneD should have them."""
    connections = sheet(name)["profile"]["connections"]
    descriptors = (connections * 11 + 9) // 10
    filled = {"$NR_OPEN": str(1 << (descriptors - 1).bit_length())}
    values = {}
    for knob in knobs(name).values():
        is_set = knob["kind"] in ("sysctl", "sysfs") and knob.get("exported", True)
        if not is_set or knob.get("from_connections", 0) > connections:
            continue
        place = knob.get("tuned", "sysctl." + knob["key"])
        section, option = place.split(".", 1)
        value = filled.get(knob["value"], knob["value"])
        values[section, option] = SIGN[knob.get("how", "exact")] + value
    return values


def loaded(name):
    loader = Loader(Locator([os.path.join(TUNING, "tuned")] + SYSTEM), Factory(), Merger(), GlobalConfig(), Variables())
    units = loader.load(name).units
    return {(section, option): value for section, unit in units.items() for option, value in unit.options.items()}


def check(name):
    ours, parents = loaded("tandem-" + name), loaded("latency-performance")
    wanted = meant(name)
    for place, value in wanted.items():
        assert ours.get(place) == value, f"{name} {place}: {ours.get(place)!r}, meant {value!r}"
    for place, value in parents.items():
        if place not in wanted:
            assert ours.get(place) == value, f"{name} {place}: the parent's is lost"
    strangers = set(ours) - set(wanted) - set(parents)
    assert not strangers, f"{name}: {strangers} stand in no file"
    assert wanted and parents
    print(f"tandem-{name}: {len(wanted)} values as meant, {len(parents)} of latency-performance")


names = sorted(os.listdir(os.path.join(TUNING, "tuned")))
assert names == ["tandem-core", "tandem-edge", "tandem-loadgen"], names
for name in names:
    check(name.removeprefix("tandem-"))
print(f"interop: {len(names)} passed, 0 failed, 0 skipped")
sys.exit(0)
