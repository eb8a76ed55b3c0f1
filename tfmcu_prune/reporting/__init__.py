"""What a pruning did, as one HTML page and one Markdown file that stand alone."""

from __future__ import annotations

from tfmcu_prune.reporting.pages import PruningReport, report

__all__ = ["PruningReport", "report"]
