"""Opening a signed bundle on a device with trusted keys, against the same bundle unsigned.

    .venv/bin/python benchmarks/signed_opening.py BUNDLE [--rounds 200]

Both are opened in turns, in an order that changes; the table has medians.
"""

import argparse
import random
import shutil
import statistics
import tempfile
import time
from pathlib import Path

from paraedge.signing import make_keys, read_private_key, sign_bundle
from paraedge_runtime import Bundle, Session


def milliseconds(work) -> float:
    start = time.perf_counter()
    result = work()
    elapsed_ms = (time.perf_counter() - start) * 1e3
    if isinstance(result, Session):
        result.close()
    return elapsed_ms


def compare(name: str, unsigned, signed, rounds: int) -> None:
    times: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(rounds):
        for is_signed in random.sample([False, True], 2):
            times[is_signed].append(milliseconds(signed if is_signed else unsigned))
    middle = [statistics.median(times[is_signed]) for is_signed in (False, True)]
    print(
        f"{name:<22} {middle[0]:8.3f} ms unsigned {middle[1]:8.3f} ms signed   "
        f"{middle[1] / middle[0]:.3f} times, {1e3 * (middle[1] - middle[0]):+.0f} us"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--rounds", type=int, default=200)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        make_keys(folder / "k", None)
        key = read_private_key(folder / "k.key", lambda: "")
        plain, signed = (Path(shutil.copytree(arguments.bundle, folder / f"{name}.paraedge")) for name in ("u", "s"))
        sign_bundle(signed, [key])
        trusted = folder / "k.pub"
        print(f"{arguments.bundle}: {Bundle.open(plain).size_bytes} bytes, {arguments.rounds} rounds")
        for kind, paths in {
            "folder": (plain, signed),
            "zip": (Bundle.open(plain).pack(folder / "u.zip"), Bundle.open(signed).pack(folder / "s.zip")),
        }.items():
            one, two = paths
            compare(
                f"Bundle.open, {kind}",
                lambda one=one: Bundle.open(one),
                lambda two=two: Bundle.open(two, trusted_keys=trusted),
                arguments.rounds,
            )
        compare(
            "Session.open, folder",
            lambda: Session.open(plain),
            lambda: Session.open(signed, trusted_keys=trusted),
            max(arguments.rounds // 4, 10),
        )


if __name__ == "__main__":
    main()
