"""What a bundle is, as a table for people and as a document for scripts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from paraedge.cli.output import as_percent, console, size_text, table

if TYPE_CHECKING:
    from paraedge_runtime.bundle import Bundle
    from paraedge_runtime.manifest import EarlyStop

__all__ = ["bundle_document", "print_bundle", "snr_text"]


def bundle_document(bundle: Bundle) -> dict[str, Any]:
    """The manifest with the bundle's path and size."""
    import msgspec

    return {
        "path": str(bundle.path),
        "size_bytes": bundle.size_bytes,
        "manifest": msgspec.to_builtins(bundle.manifest),
    }


def snr_text(snr_db: float | None) -> str:
    """``123 dB``, or ``equal`` for bit-equal outputs."""
    return "equal" if snr_db is None else f"{snr_db:.0f} dB"


def print_bundle(bundle: Bundle) -> None:
    """Name, parts with their sizes and costs, and what each prefix is worth."""
    manifest = bundle.manifest
    console().print(f"[bold]{bundle.path}[/bold]  {size_text(bundle.size_bytes)}", highlight=False)
    console().print(f"{manifest.description} ({manifest.license})", markup=False)
    engines = " or ".join(f"{name} ≥ {version}" for name, version in manifest.engine_min_version.items())
    console().print(
        f"target {manifest.target}, engine {manifest.engine} ({engines}), {manifest.recipe}\n", markup=False
    )

    accuracy = manifest.accuracy
    rows = table("part", ">size", ">parameters", ">MACs", ">against torch", ">answer so far", ">accuracy")
    names = list(manifest.parts())
    for name, entry in manifest.parts().items():
        place = names.index(name) - 1
        prefix = manifest.parity.prefixes[place] if place >= 0 and manifest.parity.prefixes else None
        rows.add_row(
            name,
            size_text(entry.size_bytes),
            f"{entry.parameters:,}",
            f"{entry.macs / 1e6:.2f} M",
            snr_text(manifest.parity.parts[name].snr_db),
            "" if place < 0 else f"{snr_text(prefix.snr_db)}, {100 * prefix.top1_agreement:.0f} %" if prefix else "–",
            "" if place < 0 else as_percent(accuracy.prefix_accuracy[place]) if accuracy else "unknown",
        )
    if manifest.fused is not None:
        entry = manifest.fused
        size, macs = size_text(entry.size_bytes), f"{entry.macs / 1e6:.2f} M"
        rows.add_row("fused", size, f"{entry.parameters:,}", macs, "", "", "")
    console().print(rows)
    compared = f"compared with {manifest.parity.reference} on {manifest.parity.num_samples} real images"
    console().print(f"\n{compared} (SNR, same label)", markup=False)
    if accuracy is not None:
        console().print(f"accuracy on {accuracy.num_samples} images: {accuracy.dataset}", markup=False)
    else:
        how = "" if manifest.recipe == "fp32" else "; export with --data-dir, which measures it"
        console().print(f"accuracy unknown: nobody has measured these parts together{how}", markup=False)
    console().print(_early_stop_text(manifest.early_stop, manifest.recipe), markup=False)


def _early_stop_text(early_stop: EarlyStop | None, recipe: str) -> str:
    if early_stop is None and recipe != "fp32":
        return f"early stop: not calibrated for {recipe}; export with --data-dir, which measures it"
    if early_stop is None:
        return "early stop: not calibrated for this choice of branches"
    if len(early_stop.prefixes) == 1:
        return "early stop: nothing to stop with one branch"
    held, drop = early_stop.held_out, f"{100 * early_stop.max_accuracy_drop:g} points"
    thresholds = [rule.threshold for rule in early_stop.prefixes if rule.threshold is not None]
    if not thresholds:
        return (
            f"early stop: never; on {early_stop.num_samples} images no threshold could be shown to lose at most {drop}"
        )
    low, high = min(thresholds), max(thresholds)
    return (
        f"early stop: confidence {f'{low:g}' if low == high else f'{low:g} to {high:g}'} loses at most {drop} "
        f"({100 * early_stop.risk_confidence:g} % sure, {early_stop.num_samples} images); on {held.num_samples} others "
        f"{as_percent(held.accuracy_stopped)} with {held.mean_branches:.2f} branches on average, "
        f"{as_percent(held.accuracy_full)} with all"
    )
