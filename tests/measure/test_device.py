"""``device.json``: every field checked, what contradicts itself refused, nothing lost when it is merged or damaged."""

import copy
import json

import msgspec
import pytest
from msgspec.structs import replace
from support.devices import DEVICE, HARDWARE, MEASUREMENT, latency

from paraedge_measure.device import (
    MAX_OTHER_LOAD,
    P99_MIN_RUNS,
    Adb,
    Device,
    Local,
    Ssh,
    check_machine,
    decode_device,
    encode_device,
    find_measurement,
    foreign_measurement,
    hardware_fingerprint,
    merge,
    read_device,
    write_device,
)
from paraedge_runtime import DeviceError, ProfileError

DOCUMENT = json.loads(encode_device(DEVICE))
# Fields that may be left out: a person writes name and connection, the rest is measured.
OPTIONAL = {"connection", "connection.kind", "hardware", "measurements"} | {
    f"measurements.0.{name}" for name in ("firmware_limits", "sustained")
}  # a union's tag: in the table below
DICTIONARIES = {"parts"}


def _paths(node, before=()):
    """Every place of a document below the root."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        yield (*before, key)
        yield from _paths(value, (*before, key))


def _dotted(path):
    return ".".join(map(str, path))


PLACES = sorted(_paths(DOCUMENT), key=_dotted)
FIELDS = [path for path in PLACES if isinstance(path[-1], str) and (len(path) == 1 or path[-2] not in DICTIONARIES)]
RECORDS = sorted({path[:-1] for path in FIELDS}, key=_dotted)


def edited(path, value):
    """The document with one place changed, as bytes."""
    document = copy.deepcopy(DOCUMENT)
    node = document
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    return json.dumps(document).encode()


def test_what_is_encoded_is_decoded():
    assert decode_device(encode_device(DEVICE)) == DEVICE


def test_a_device_written_by_hand_needs_a_name_and_where_it_is():
    raw = b'{"format": "paraedge-device/1", "name": "pi", "connection": {"kind": "ssh", "host": "pi.local"}}'
    device = decode_device(raw)
    assert device == Device(name="pi", connection=Ssh(host="pi.local"))
    assert device.connection.python == "python3"
    assert device.measurements == ()


@pytest.mark.parametrize("path", [path for path in FIELDS if _dotted(path) not in OPTIONAL], ids=_dotted)
def test_a_missing_field_is_named(path):
    document = copy.deepcopy(DOCUMENT)
    node = document
    for key in path[:-1]:
        node = node[key]
    del node[path[-1]]
    with pytest.raises(ProfileError, match=rf"^x\.json: .*`{path[-1]}`"):
        decode_device(json.dumps(document).encode(), "x.json")


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: _dotted(path) or "top")
def test_an_unknown_field_is_named(path):
    with pytest.raises(ProfileError, match=r"^x\.json: .*unknown field `colour`"):
        decode_device(edited((*path, "colour"), "red"), "x.json")


@pytest.mark.parametrize("path", PLACES, ids=_dotted)
def test_a_wrong_type_is_refused(path):
    with pytest.raises(ProfileError, match=r"^x\.json: "):
        decode_device(edited(path, {"surprise": 1}), "x.json")


@pytest.mark.parametrize(
    "rest",
    [b'"name": "\xed\xbf"}', b'"name": 5}', b'"name": {"name": 5}}', b'"name": ' + b"[" * 100_000],
    ids=lambda rest: rest[:12].decode(errors="replace"),
)
def test_a_name_that_is_wrong_before_what_is_no_json_is_refused(rest):
    with pytest.raises(ProfileError, match=r"^x\.json: .*fix the file"):
        decode_device(b'{"format": "paraedge-device/1", "name": "a b", ' + rest, "x.json")


M = ("measurements", 0)


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        (("format",), "paraedge-device/2", r"'format' is 'paraedge-device/2', newer .* update paraedge"),
        (("format",), "paraedge-bundle/1", "Invalid enum value 'paraedge-bundle/1'"),
        (("name",), "", r"\$\.name"),
        (("name",), "a b", r"\$\.name"),
        (("connection",), {"kind": "telnet"}, r"'telnet' - at `\$\.connection\.kind`"),
        (("connection",), {}, r"`kind`"),
        (("connection",), {"kind": "ssh"}, "`host`"),
        (("connection",), {"kind": "ssh", "host": "-oProxyCommand=reboot"}, r"\$\.connection\.host"),
        (
            ("connection",),
            {"kind": "ssh", "host": "a b"},
            r"Expected 1 to 500 letters, digits and any of .* first, got 'a b' - at `\$\.connection\.host`;",
        ),
        (("connection",), {"kind": "ssh", "host": "a", "user": "-l"}, r"\$\.connection\.user"),
        (("connection",), {"kind": "ssh", "host": "a", "port": 0}, r"\$\.connection\.port"),
        (("connection",), {"kind": "ssh", "host": "a", "port": 65536}, r"\$\.connection\.port"),
        (("connection",), {"kind": "ssh", "host": "a", "folder": "x; reboot"}, r"\$\.connection\.folder"),
        (("connection",), {"kind": "ssh", "host": "a", "folder": ""}, r"\$\.connection\.folder"),
        (("connection",), {"kind": "adb", "serial": "-e"}, r"\$\.connection\.serial"),
        (("connection",), {"kind": "local", "host": "a"}, "unknown field `host`"),
        (("connection",), {"kind": "browser", "host": "a"}, "unknown field `host`"),
        (("hardware",), None, "'hardware' is null, though there are measurements"),
        (("hardware", "cores"), 5, "'hardware.clusters' .* each of 5 cores once"),
        (("hardware", "clusters"), [[0, 1], [1, 2]], "'hardware.clusters'"),
        (("hardware", "clusters"), [[0, 1, 2, 3], []], "'hardware.clusters'"),
        (("hardware", "max_frequency_mhz"), [1.0], "'hardware.max_frequency_mhz' has 1 values for 4 cores"),
        (("hardware", "cpu"), "another", "'hardware.fingerprint' is"),
        (("hardware", "fingerprint"), "0" * 16, "'hardware.fingerprint' is 0000000000000000"),
        (("hardware", "os"), "x\x1b[31m", r"\$\.hardware\.os"),
        ((*M, "bundle_sha256"), "5F" * 32, r"bundle_sha256"),
        ((*M, "threads"), 0, r"threads"),
        ((*M, "threads"), 3, r"'measurements\[0\].contention' has 2 values for 3 threads"),
        ((*M, "contention"), [1.1, 1.2], r"'measurements\[0\].contention' starts with 1.1"),
        ((*M, "contention"), [1.0, 0.0], r"contention"),
        ((*M, "measured_at"), "yesterday", "measured_at"),
        ((*M, "measured_at"), "2026-01-31T12:00:00+01:00", "measured_at"),
        ((*M, "parts"), {"branch_00": DOCUMENT["measurements"][0]["request"]}, r"\.parts' has no 'stem'"),
        ((*M, "parts"), {"stem": DOCUMENT["measurements"][0]["request"]}, r"\.parts' has no branch"),
        ((*M, "parts", "head"), DOCUMENT["measurements"][0]["request"], r"\.parts' has 'head'"),
        ((*M, "request", "n"), 0, r"\.request\.n"),
        ((*M, "request", "p50_ms"), 99.0, r"'measurements\[0\]\.request' is not in order"),
        ((*M, "request", "min_ms"), -1.0, r"min_ms"),
        ((*M, "request", "p99_ms"), 99.0, r"'measurements\[0\]\.request\.p99_ms' is 99.0 with n 50"),
        ((*M, "parts", "stem", "p99_ms"), None, r"'measurements\[0\]\.parts\.stem\.p99_ms' is None with n 1000"),
        ((*M, "timer_jitter_us", "p50"), 99.0, "timer_jitter_us' is not in order"),
        ((*M, "wakeup_us", "p50"), 999.0, "wakeup_us' is not in order"),
        ((*M, "throttled"), True, r"'measurements\[0\]\.valid' is true with throttled true"),
        ((*M, "other_load"), MAX_OTHER_LOAD + 0.01, r"'measurements\[0\]\.valid' is true with .* other_load 0.11"),
        ((*M, "valid"), False, r"'measurements\[0\]\.valid' is false"),
        ((*M, "firmware_limits"), ["too hot"], r"firmware_limits"),
        ((*M, "sustained", "minutes"), [], r"sustained\.minutes"),
        ((*M, "sustained", "minutes", 0, "p50_ms"), 99.0, r"sustained\.minutes\[0\]' is not in order"),
        (("measurements",), DOCUMENT["measurements"] * 2, r"'measurements\[1\]' has the bundle, engine and threads"),
    ],
    ids=lambda value: _dotted(value) if isinstance(value, tuple) else None,
)  # fmt: skip
def test_what_cannot_be_is_refused_and_named(path, value, problem):
    with pytest.raises(ProfileError, match=rf"^x\.json: .*{problem}"):
        decode_device(edited(path, value), "x.json")


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (b"", "truncated"),
        (b"no json", "malformed"),
        (encode_device(DEVICE)[:-40], "truncated"),
        (b"[]", "Expected `object`"),
        (b"{}", "`format`"),
        (encode_device(DEVICE).decode().encode("utf-16"), "malformed"),
        (b'{"x": ' + b"[" * 100_000, "recursion"),
        (b" " * (16 << 20) + encode_device(DEVICE), "more than 16777216 bytes"),
    ],
    ids=["empty", "no JSON", "cut off", "a list", "no fields", "UTF-16", "deep", "huge"],
)
def test_a_damaged_file_is_refused_and_left_as_it_is(tmp_path, raw, problem):
    path = tmp_path / "device.json"
    path.write_bytes(raw)
    with pytest.raises(ProfileError, match=rf"device\.json.*{problem}"):
        read_device(path)
    assert path.read_bytes() == raw


def test_a_file_that_is_not_there_says_how_to_make_it(tmp_path):
    with pytest.raises(ProfileError, match=r"none\.json does not exist; make it: paraedge profile .*none\.json"):
        read_device(tmp_path / "none.json")
    with pytest.raises(ProfileError, match="cannot be read"):
        read_device(tmp_path)


@pytest.mark.parametrize("connection", [Local(), Ssh(host="::1", user="pi", port=22), Adb(serial="10.0.0.7:5555")])
def test_writing_and_reading(tmp_path, connection):
    path = tmp_path / "new" / "device.json"
    write_device(replace(DEVICE, connection=connection), path)
    assert read_device(path) == replace(DEVICE, connection=connection)
    assert [entry.name for entry in path.parent.iterdir()] == ["device.json"]


@pytest.mark.parametrize(
    "bad",
    [
        replace(DEVICE, hardware=None),
        replace(DEVICE, measurements=(replace(MEASUREMENT, load_ms=float("nan")),)),
        replace(DEVICE, measurements=(replace(MEASUREMENT, load_ms=float("inf")),)),
    ],
    ids=["contradicts itself", "NaN", "infinite"],
)
def test_what_the_reader_would_refuse_is_not_written(tmp_path, bad):
    path = tmp_path / "device.json"
    write_device(DEVICE, path)
    with pytest.raises(
        DeviceError, match=r"device\.json was not written: the output of pi-5: .*; profile it again$"
    ) as why:
        write_device(bad, path)
    assert not isinstance(why.value, ProfileError)
    assert read_device(path) == DEVICE


def test_merging_replaces_the_same_and_keeps_the_rest():
    others = [
        replace(MEASUREMENT, threads=1, contention=(1.0,)),
        replace(MEASUREMENT, engine="onnxruntime"),
        replace(MEASUREMENT, bundle_sha256="ab" * 32),
    ]
    device = merge(DEVICE, others)
    assert device.measurements == (MEASUREMENT, *others)
    newer = replace(MEASUREMENT, engine_version="2.4.0", measured_at="2026-02-01T00:00:00Z")
    assert merge(device, [newer]).measurements == (newer, *others)
    assert merge(device, []) == device
    assert merge(merge(device, [newer]), [newer]) == merge(device, [newer])


def test_finding_a_measurement():
    assert find_measurement(DEVICE, "5f" * 32, "litert", 2) is MEASUREMENT
    for wanted in [("ab" * 32, "litert", 2), ("5f" * 32, "executorch", 2), ("5f" * 32, "litert", 1)]:
        with pytest.raises(ProfileError, match=r"it has: tiny-1\.0 \(5f5f5f5f5f5f…\) litert 2 thread"):
            find_measurement(DEVICE, *wanted)
    with pytest.raises(ProfileError, match=r"it has: none; run 'paraedge profile'"):
        find_measurement(Device(name="new"), "5f" * 32, "litert", 2)


def test_the_profile_of_another_machine_is_refused():
    check_machine(DEVICE, HARDWARE.fingerprint)
    problem = rf"another device \({HARDWARE.fingerprint}, this one is 0000000000000000.*--allow-foreign-profile"
    with pytest.raises(ProfileError, match=problem):
        check_machine(DEVICE, "0" * 16)
    with pytest.raises(ProfileError, match=r"another device \(an unknown machine"):
        check_machine(Device(name="new"), HARDWARE.fingerprint)


def test_the_nearest_foreign_measurement_has_the_parts_then_bundle_engine_and_threads():
    other_bundle = replace(MEASUREMENT, bundle_sha256="ab" * 32, threads=1, contention=(1.0,))
    other_engine = replace(MEASUREMENT, engine="executorch")
    device = merge(DEVICE, [other_bundle, other_engine])
    parts = ["stem", "branch_03"]
    assert foreign_measurement(device, "ab" * 32, "litert", 2, parts) is other_bundle
    assert foreign_measurement(device, "5f" * 32, "executorch", 9, parts) is other_engine
    assert foreign_measurement(device, "00" * 32, "litert", 1, parts) is other_bundle
    with pytest.raises(ProfileError, match="no measurement of branch_07, stem; run 'paraedge profile'"):
        foreign_measurement(device, "5f" * 32, "litert", 2, ["stem", "branch_07"])


IDENTITY = {
    "machine": "aarch64",
    "cpu": "A76",
    "cores": 4,
    "clusters": ((0, 1, 2, 3),),
    "max_frequency_mhz": None,
    "memory_bytes": 8_000_000_000,
}


@pytest.mark.parametrize(
    ("change", "equal"),
    [
        ({"memory_bytes": 8_100_000_000}, True),  # another kernel kept less of it
        ({"memory_bytes": 4_000_000_000}, False),
        ({"memory_bytes": None}, False),
        ({"machine": "armv7l"}, False),
        ({"cpu": None}, False),
        ({"cores": 2}, False),
        ({"clusters": ((2, 3), (0, 1))}, False),
        ({"max_frequency_mhz": (2400.0,) * 4}, False),
    ],
    ids=lambda value: str(value),
)
def test_the_fingerprint_tells_kinds_of_machines_apart(change, equal):
    assert (hardware_fingerprint(**IDENTITY) == hardware_fingerprint(**{**IDENTITY, **change})) is equal


def test_p99_is_there_from_its_number_of_runs_on():
    assert latency(1.0, n=P99_MIN_RUNS).p99_ms is not None
    assert latency(1.0, n=P99_MIN_RUNS - 1).p99_ms is None
    enough = replace(MEASUREMENT, request=latency(4.0, n=P99_MIN_RUNS))
    assert decode_device(msgspec.json.encode(replace(DEVICE, measurements=(enough,)))).measurements == (enough,)


def test_what_was_sustained_stays_until_it_is_measured_again():
    shorter = replace(MEASUREMENT, load_ms=1.0, sustained=None)
    (kept,) = merge(DEVICE, [shorter]).measurements
    assert kept == replace(MEASUREMENT, load_ms=1.0)
    again = replace(MEASUREMENT, sustained=replace(MEASUREMENT.sustained, measured_at="2026-02-01T00:00:00Z"))
    assert merge(DEVICE, [again]).measurements == (again,)
