"""What a bundle is, as a table for people and as a document for scripts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from paraedge.cli.output import as_percent, console, size_text, table
from paraedge_runtime._console import printable

if TYPE_CHECKING:
    from paraedge_runtime.bundle import Bundle
    from paraedge_runtime.card import PartCard, PrefixParity
    from paraedge_runtime.manifest import Manifest

__all__ = ["bundle_document", "nearness_text", "print_bundle", "snr_text"]


def bundle_document(bundle: Bundle) -> dict[str, Any]:
    """Manifest and card with the bundle's path and size."""
    import msgspec

    return {
        "path": str(bundle.path),
        "size_bytes": bundle.size_bytes,
        "manifest": msgspec.to_builtins(bundle.manifest),
        "card": msgspec.to_builtins(bundle.card),
    }


def snr_text(snr_db: float | None) -> str:
    """``123 dB``, or ``equal`` for bit-equal outputs."""
    return "equal" if snr_db is None else f"{snr_db:.0f} dB"


def nearness_text(prefix: PrefixParity) -> str:
    """``100 %`` of the labels, or the relative error of a vector."""
    if prefix.top1_agreement is not None:
        return f"{100 * prefix.top1_agreement:.0f} %"
    return f"{prefix.relative_error:.1e}"


def print_bundle(bundle: Bundle) -> None:
    """Name, parts with their sizes and costs, and what each prefix is worth."""
    from rich.text import Text

    manifest, card = bundle.manifest, bundle.card
    console().print(Text.assemble((str(bundle.path), "bold"), f"  {size_text(bundle.size_bytes)}"))
    console().print(printable(f"{card.description} ({card.license})"))
    engines = " or ".join(f"{name} ≥ {version}" for name, version in manifest.engine_min_version.items())
    console().print(
        f"version {manifest.version}, target {manifest.target}, engine {manifest.engine} ({engines}), "
        f"{manifest.quantization}",
    )
    console().print(f"{_input_text(manifest)} → {_output_text(manifest)}\n")

    accuracy = card.accuracy
    rows = table("part", ">size", ">parameters", ">MACs", ">vs torch", ">sum so far", ">accuracy")
    names = list(manifest.parts())
    for name, entry in manifest.parts().items():
        position = names.index(name) - 1
        prefix = card.parity.prefixes[position] if position >= 0 and card.parity.prefixes else None
        rows.add_row(
            name,
            size_text(entry.size_bytes),
            f"{card.parts[name].parameters:,}",
            f"{entry.macs / 1e6:.2f} M",
            _nearness_of_part(card.parts[name]),
            "" if position < 0 else f"{snr_text(prefix.snr_db)}, {nearness_text(prefix)}" if prefix else "–",
            "" if position < 0 else as_percent(accuracy.prefix_accuracy[position]) if accuracy else "unknown",
        )
    if manifest.fused is not None:
        rows.add_row("fused", size_text(manifest.fused.size_bytes), "", "", "", "", "")
    console().print(rows)
    for line in _delegate_lines(bundle):
        console().print(line)
    compared = f"compared with {printable(card.parity.reference)} on {card.parity.num_samples} real inputs"
    console().print(f"\n{compared} (SNR, {'same label' if manifest.labels else 'relative error'})")
    if not manifest.labels:
        return
    if accuracy is not None:
        console().print(f"accuracy on {accuracy.num_samples} {_kind(manifest)}: {printable(accuracy.dataset)}")
    else:
        how = "" if manifest.quantization == "fp32" else "; export with --data-dir to measure it"
        console().print(f"accuracy unknown: not measured for these parts together{how}")
    console().print(_early_stop_text(bundle))


def _nearness_of_part(part: PartCard) -> str:
    return "never run" if part.similarity is None else snr_text(part.similarity.snr_db)


def _delegate_lines(bundle: Bundle) -> list[str]:
    """Which delegate each part is for, and how far that was proven."""
    lines: dict[tuple[str, str], list[str]] = {}
    for name, entry in bundle.manifest.parts().items():
        if entry.delegate is not None:
            lines.setdefault((entry.delegate, bundle.card.parts[name].proof), []).append(name)
    words = {
        "engine": "run in the engine",
        "reference model": "run in a reference model, never on the device",
        "never run": "exported, never run; the same part for the CPU stood in for it",
    }
    return [
        f"\nfor the delegate {delegate}: {', '.join(names)} ({words[how]})" for (delegate, how), names in lines.items()
    ]


def _kind(manifest: Manifest) -> str:
    """What its inputs are called."""
    from paraedge_runtime.manifest import ImageInput

    return "images" if isinstance(manifest.input, ImageInput) else "signals"


def _input_text(manifest: Manifest) -> str:
    from paraedge_runtime.manifest import ImageInput

    spec = manifest.input
    if isinstance(spec, ImageInput):
        _, channels, height, width = spec.shape
        return f"image {height} × {width}, {channels} channel(s)"
    axes = ", ".join(f"{axis} {size}" for axis, size in zip(spec.axes, spec.shape[1:], strict=True))
    rate = "" if spec.rate_hz is None else f", {spec.rate_hz:g} samples a second"
    names = spec.channel_names or ()
    listed = f": {', '.join(names)}" if 0 < len(names) <= 12 else ""
    return f"tensor {spec.name} ({axes}){rate}{listed}"


def _output_text(manifest: Manifest) -> str:
    from paraedge_runtime.manifest import LabelsOutput

    output = manifest.output
    return f"{len(output.labels)} labels" if isinstance(output, LabelsOutput) else f"{output.size} × {output.name}"


def _points(count: float) -> str:
    return "1 point" if count == 1 else f"{count:g} points"


def _early_stop_text(bundle: Bundle) -> str:
    early_stop, rules, recipe = bundle.card.early_stop, bundle.manifest.stop_rules, bundle.manifest.quantization
    if early_stop is None and recipe != "fp32":
        return f"early stop: not calibrated for {recipe}; export with --data-dir to measure it"
    if early_stop is None or rules is None:
        return "early stop: not calibrated for this choice of branches"
    if len(rules) == 1:
        return "early stop: nothing to stop with one branch"
    held, drop = early_stop.held_out, _points(100 * early_stop.max_accuracy_drop)
    decided = f"{early_stop.num_samples} {_kind(bundle.manifest)}"
    thresholds = [rule.threshold for rule in rules if rule.threshold is not None]
    if not thresholds:
        return f"early stop: never; on {decided} no threshold could be shown to lose at most {drop}"
    low, high = min(thresholds), max(thresholds)
    return (
        f"early stop: confidence {f'{low:g}' if low == high else f'{low:g} to {high:g}'} loses at most {drop} "
        f"(with {100 * early_stop.risk_confidence:g} % probability, {decided}); "
        f"on {held.num_samples} others "
        f"{as_percent(held.accuracy_stopped)} with {held.mean_branches:.2f} branches on average, "
        f"{as_percent(held.accuracy_full)} with all"
    )
