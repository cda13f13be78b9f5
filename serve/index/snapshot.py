"""A view of a live index as a version on disk."""

import secrets
from pathlib import Path
from typing import Any

import numpy as np

from serve.index import store
from serve.index.base import Metric
from serve.index.plan import Plan
from serve.index.view import View


def write_snapshot(
    target: Path,
    *,
    view: View,
    about: dict[str, Any],
    plan: Plan,
    metric: Metric,
    model: str,
    lineage: str | None,
) -> Path:
    """What the view sees, whatever is updated meanwhile. `lineage`: of the folder's own index, whose lock is held."""

    def fill(work: Path) -> dict[str, Any]:
        base, rows = view.base, view.delta_rows()
        store.save_rows(work, engine=base.engine, ids=base.ids, attributes=base.attributes)
        np.save(work / store.DEAD, base.died <= view.version)
        np.save(work / store.NEW_VECTORS, view.delta.vectors[rows])
        np.save(work / store.NEW_IDS, view.plain_ids(rows))
        store.save_attributes(work / store.NEW_ATTRIBUTES, view.delta.attributes.take(rows))
        if plan.queries is not None:
            np.save(work / store.QUERIES, plan.queries)
        return {
            "kind": "live",
            **about,
            "rows": len(view),
            "dim": base.engine.vectors.shape[1],
            "metric": metric,
            "plan": {"engine": plan.engine, "recall": plan.recall, "threads": plan.threads},
            "version": view.version,
            "lineage": lineage or secrets.token_hex(6),
        }

    path = store.publish(target, fill=fill, model=model, held=lineage is not None)
    store.saved(view.base.engine, version=path)
    return path
