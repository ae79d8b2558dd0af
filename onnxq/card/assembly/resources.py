"""Section 4, "resource complexity": data, passes, time and memory."""

from __future__ import annotations

from collections.abc import Sequence

from onnxq.card.assembly.paths import without_folders, without_paths
from onnxq.card.assembly.run import Effort, Provenance
from onnxq.card.parts import DataUse, PassRecord, Resources
from onnxq.pipeline import PassReport


def resources(reports: Sequence[PassReport], provenance: Provenance, effort: Effort) -> Resources:
    """The section. reports: of the passes that ran."""
    return Resources(
        data_uses(provenance),
        pass_records(reports),
        round(effort.seconds, 3),
        effort.peak_rss_bytes,
        effort.threads,
        provenance.training_samples,
    )


def pass_records(reports: Sequence[PassReport]) -> tuple[PassRecord, ...]:
    """One record per pass, without folders in its options."""
    return tuple(PassRecord(without_folders(r.text), r.changed, round(r.seconds, 4)) for r in reports)


def data_uses(provenance: Provenance) -> tuple[DataUse, ...]:
    """The data from which the statistics were collected: one source, or several if shards were merged."""
    recorded = provenance.statistics.get("data") or []
    merged = recorded if isinstance(recorded, list) else [recorded]
    sources = [provenance.data] if provenance.data else merged
    uses = []
    for source in sources:
        seen = provenance.statistics.get("samples") if len(sources) == 1 else None
        count = seen if isinstance(seen, int) and seen > 0 else source.get("samples")
        uses.append(
            DataUse(
                str(source.get("kind", "unknown")),
                without_paths(str(source.get("name") or "")),
                count if isinstance(count, int) else None,
                bool(source.get("labelled", False)),
                str(source.get("sha256") or ""),
                without_paths(source.get("preprocess")),
                source.get("kind") == "random",
                provenance.synthetic or source.get("kind") == "random",
            )
        )
    return tuple(uses)
