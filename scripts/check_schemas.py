"""The part of check-schemas that runs where its packages are installed."""
import collections
import pathlib
import sys

import kubernetes_validate
import yaml
from cloudcoil.models.keda import v1alpha1 as keda
from cloudcoil.models.prometheus_operator import v1 as prometheus
from pydantic import ValidationError

import consumer_manifests

KUBERNETES = "1.30" # the oldest that has all fields without an alpha
MODELS = {
    ("keda.sh/v1alpha1", "ScaledObject"): keda.ScaledObject,
    ("monitoring.coreos.com/v1", "PodMonitor"): prometheus.PodMonitor,
    ("monitoring.coreos.com/v1", "PrometheusRule"): prometheus.PrometheusRule,
}
ROOT = pathlib.Path(__file__).resolve().parent.parent


def unknown_fields(given, known, path=""):
    """Paths of what a model has dropped."""
    if isinstance(given, dict) and isinstance(known, dict):
        for key, value in given.items():
            if key not in known:
                yield f"{path}.{key}"
            else:
                yield from unknown_fields(value, known[key], f"{path}.{key}")
    elif isinstance(given, list) and isinstance(known, list):
        for i, (value, other) in enumerate(zip(given, known)):
            yield from unknown_fields(value, other, f"{path}[{i}]")


def problems_of(o):
    model = MODELS.get((o["apiVersion"], o["kind"]))
    if model is None:
        try:
            kubernetes_validate.validate(o, KUBERNETES, strict=True)
        except kubernetes_validate.ValidationError as e:
            yield f"{'.'.join(map(str, e.path))}: {e.message}"
        except kubernetes_validate.SchemaNotFoundError as e:
            yield e.message
        return
    try:
        known = model.model_validate(o).model_dump(mode="json", by_alias=True, exclude_unset=True)
    except ValidationError as e:
        yield from (f"{'.'.join(map(str, error['loc']))}: {error['msg']}" for error in e.errors())
        return
    yield from (f"no field {path}" for path in unknown_fields(o, known))


files = [(str(p.relative_to(ROOT)), [o for o in yaml.safe_load_all(p.read_text()) if o]) for p in sorted((ROOT / "k8s").glob("*.yaml"))]
folders, built = consumer_manifests.build_all()
checked, problems = collections.Counter(), []
for where, objects in [*files, *built]:
    for o in objects:
        checked[o["kind"]] += 1
        problems += [f"{where}: {o['kind']} {o['metadata']['name']}: {problem}" for problem in problems_of(o)]
if problems:
    sys.exit("\n".join(f"check-schemas: {problem}" for problem in problems))
counts = ", ".join(f"{n} {kind}" for kind, n in sorted(checked.items()))
print(f"check-schemas: {len(files)} files and {len(built)} of {len(folders)} overlays are valid: {counts}")
