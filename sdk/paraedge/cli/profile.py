"""``paraedge profile``: measure bundles on a device, and keep what was measured in its ``device.json``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import click

from paraedge.cli.options import ENGINE, THREADS, trusted_keys_option
from paraedge.cli.output import as_percent, console, json_option, print_json, progress_bar, size_text, table, working
from paraedge.cli.packaged_bundle import packaged_bundle

if TYPE_CHECKING:
    from paraedge_measure.device import Device, Hardware, Measurement, Sustained
    from paraedge_runtime.bundle import Bundle

_DEFAULT_PATH = Path("device.json")
_MAX_LISTED = 20  # of what was removed


@click.command()
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path), metavar="[DEVICE.JSON] [BUNDLES]...")
@click.option(
    "--engine", "engines", type=ENGINE, multiple=True, help="Engine; may be repeated. [default: the bundle's]"
)
@click.option(
    "--threads", type=THREADS, default=(), help="Thread counts, such as 1,2,4. [default: 1 and the number of cores]"
)
@click.option("--rigorous", is_flag=True, help="Measure each part for 1,024 runs and 60 s, instead of 50 and 1 s.")
@click.option(
    "--sustained",
    type=click.FloatRange(min=0, min_open=True, max=1440),
    metavar="MINUTES",
    help="Also run without a pause for this many minutes, and report every minute.",
)
@click.option("--html", type=click.Path(path_type=Path), help="Also write a page with plots to this file.")
@click.option("--name", help="Name of a new device. [default: its host name]")
@click.option("--clean", is_flag=True, help="Measure nothing: remove what paraedge has sent to the device.")
@trusted_keys_option
@json_option
def profile(
    paths: tuple[Path, ...],
    engines: tuple[str, ...],
    threads: tuple[int, ...],
    rigorous: bool,
    sustained: float | None,
    html: Path | None,
    name: str | None,
    clean: bool,
    trusted_keys: tuple[str, ...] | None,
    as_json: bool,
) -> None:
    """Measure how fast a device runs bundles.

    Measures each part, whole requests, contention between branches and the cold start, and adds the
    results to DEVICE.JSON (default: device.json). A new file describes this machine. If the file contains
    an ssh or adb connection, the bundles are sent there and measured there. Without BUNDLES, the packaged
    Fashion-MNIST model is exported first.

    \b
    Example:
      paraedge profile device.json
      paraedge profile pi.json fashion.paraedge --threads 1,2,4 --html pi.html
      paraedge profile pi.json --clean
    """
    from paraedge_measure.connections import connect
    from paraedge_measure.device import merge, read_device, write_device
    from paraedge_measure.plots.device_page import check_page, write_page
    from paraedge_measure.profiling import RIGOROUS, USUAL
    from paraedge_runtime.bundle import Bundle
    from paraedge_runtime.engines import engine_info

    length = dataclasses.replace(RIGOROUS if rigorous else USUAL, sustained_s=60.0 * (sustained or 0.0))
    path, bundle_paths = _split(paths)
    if clean:
        _clean(path, bundle_paths, as_json)
        return
    for known in engines:
        engine_info(known)
    if html is not None:
        check_page(html)  # says early what is missing
    device = read_device(path) if path.exists() else _new_device(name)
    connection = connect(device)
    with working(f"reading the hardware of {device.name}"):
        hardware = connection.hardware()
    device = _of_this_machine(device, hardware, path)
    write_device(device, path)  # and that it cannot be written is known before the measuring

    wanted: tuple[str | None, ...] = engines or (None,)
    jobs: list[tuple[Bundle, str | None]]
    if bundle_paths:
        opened = [Bundle.open(bundle_path, trusted_keys=trusted_keys) for bundle_path in bundle_paths]
        jobs = [(bundle, engine) for bundle in opened for engine in wanted]
    else:
        jobs = [(Bundle.open(packaged_bundle(engine), trusted_keys=trusted_keys), None) for engine in wanted]

    measured: list[Measurement] = []
    with progress_bar() as bar:
        task = bar.add_task("", total=100)  # percent
        for index, (bundle, engine) in enumerate(jobs):

            def show(done_s: float, total_s: float, what: str, index: int = index, bundle: Bundle = bundle) -> None:
                done = 100 * (index + done_s / total_s) / len(jobs)
                bar.update(task, completed=round(done), description=f"{bundle.manifest.name}: {what}")

            results = connection.measure(bundle, engine=engine, threads=threads, length=length, on_progress=show)
            device = merge(read_device(path), results)
            write_device(device, path)
            measured += results
    if html is not None:
        write_page(device, html)
    if as_json:
        import msgspec

        print_json({"path": str(path), "device": msgspec.to_builtins(device)})
        return
    _print(device, measured)
    if connection.notice is not None:
        console().print(connection.notice, style="yellow")
    console().print(f"\n{path}: {len(device.measurements)} measurement(s) of {device.name}")
    if html is not None:
        console().print(f"{html}: the same with plots")


def _clean(path: Path, bundle_paths: list[Path], as_json: bool) -> None:
    """Remove what any command has sent to the device: programs, bundles, inputs."""
    from paraedge_measure.connections import connect
    from paraedge_measure.device import read_device
    from paraedge_runtime.errors import InputError

    if bundle_paths:
        raise InputError(f"--clean removes everything that was sent; leave {bundle_paths[0]} out")
    device = read_device(path)
    with working(f"cleaning {device.name}"):
        removed = connect(device).clean()
    if as_json:
        print_json({"device": device.name, "removed": removed})
    else:
        more = [f"and {len(removed) - _MAX_LISTED} more"] if len(removed) > _MAX_LISTED else []
        names = ", ".join([*removed[:_MAX_LISTED], *more])
        console().print(f"{device.name}: removed {names or 'nothing, nothing was there'}")


def _split(paths: tuple[Path, ...]) -> tuple[Path, list[Path]]:
    """The device file and the bundles."""
    from paraedge_runtime.errors import InputError
    from paraedge_runtime.storage import looks_like_bundle

    if not paths or looks_like_bundle(paths[0]):
        return _DEFAULT_PATH, list(paths)
    if paths[0].suffix != ".json":
        raise InputError(f"{paths[0]} is neither a device file (NAME.json) nor a bundle; give one of these first")
    return paths[0], list(paths[1:])


def _new_device(name: str | None) -> Device:
    import platform
    import re

    from paraedge_measure.device import Device, check_name

    if name is not None:
        check_name("--name", name)
    return Device(name=name or re.sub(r"[^A-Za-z0-9_.+-]", "-", platform.node()).lstrip(".+-")[:100] or "device")


def _of_this_machine(device: Device, hardware: Hardware, path: Path) -> Device:
    """The device with today's system on the same kind of machine."""
    import msgspec

    from paraedge_runtime.errors import ProfileError

    known = device.hardware
    if known is not None and known.fingerprint != hardware.fingerprint:
        raise ProfileError(
            f"{path} describes another machine ({known.cpu}, {known.cores} cores; this is {hardware.cpu}, "
            f"{hardware.cores} cores); name another file"
        )
    return msgspec.structs.replace(device, hardware=hardware)


def _print(device: Device, measured: list[Measurement]) -> None:
    hardware = device.hardware
    if hardware is not None:
        memory = "unknown memory" if hardware.memory_bytes is None else f"{hardware.memory_bytes / 1e9:.1f} GB memory"
        console().print(
            f"{device.name}: {hardware.cpu or hardware.machine}, {hardware.cores} core(s), {memory}, {hardware.os}, "
            f"governor {hardware.governor or 'unknown'}",
        )
    for one in measured:
        contention = " ".join(f"×{factor:.2f}" for factor in one.contention)
        memory = "unknown memory" if one.memory_bytes is None else size_text(one.memory_bytes)
        console().print(f"\n{one.bundle_name}, {one.engine} {one.engine_version}, {one.threads} thread(s)")
        rows = table("part", ">runs", ">first", ">min", ">p50", ">p90", ">p95", ">p99 ms")
        for name, latency in {**one.parts, "request": one.request}.items():
            times = (latency.first_ms, latency.min_ms, latency.p50_ms, latency.p90_ms, latency.p95_ms, latency.p99_ms)
            rows.add_row(name, f"{latency.n:,}", *("" if ms is None else f"{ms:.3f}" for ms in times))
        console().print(rows)
        console().print(f"with 1, 2, … workers busy a branch takes {contention}; load {one.load_ms:.0f} ms, {memory}")
        if one.throttled:
            why = ", ".join(one.firmware_limits or ()) or "to cool it"
            console().print(f"not valid: the processor was slowed down ({why})", style="yellow")
        elif not one.valid:
            share = as_percent(one.other_load or 0.0)
            console().print(f"not valid: other programs used {share} of the processor; stop them", style="yellow")
        if one.sustained is not None:
            _print_sustained(one.sustained)


def _print_sustained(sustained: Sustained) -> None:
    first, last = sustained.minutes[0], sustained.minutes[-1]
    console().print("\nwithout a pause")
    rows = table(">minute", ">runs", ">p50", ">p95 ms", ">MHz", ">°C", "~")
    for number, minute in enumerate(sustained.minutes, 1):
        state = ["" if value is None else f"{value:.0f}" for value in (minute.frequency_mhz, minute.temperature_c)]
        slowed = ", ".join(minute.firmware_limits or ()) or "slowed down" if minute.throttled else ""
        rows.add_row(str(number), f"{minute.n:,}", f"{minute.p50_ms:.3f}", f"{minute.p95_ms:.3f}", *state, slowed)
    console().print(rows)
    if len(sustained.minutes) > 1:
        console().print(f"p50 of the last minute ÷ that of the first: {last.p50_ms / first.p50_ms:.2f}")
