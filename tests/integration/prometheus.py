"""A real Prometheus for tests, over pages on loopback."""

import json
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from shared.ports import FreePorts
from tests.integration.node import LOOPBACK, wait_until
from tests.limits import ANSWER_LIMIT_S


@contextmanager
def running_prometheus(folder: Path, targets: Mapping[str, list[int]]) -> Iterator[str]:
    """Scrapes the ports of each job every two seconds; gives its own address."""
    config = folder / "prometheus.yml"
    jobs = [
        {"job_name": job, "static_configs": [{"targets": [f"{LOOPBACK}:{one}" for one in ports]}]}
        for job, ports in targets.items()
    ]
    every = {"scrape_interval": "2s", "scrape_timeout": "2s"}
    config.write_text(json.dumps({"global": every, "scrape_configs": jobs}))  # YAML as well
    with FreePorts() as ports:
        address = f"{LOOPBACK}:{ports.pick(LOOPBACK)}"
    words = [f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}"]
    with (folder / "prometheus.log").open("w") as log:
        process = subprocess.Popen(
            ["prometheus", *words, f"--web.listen-address={address}"],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_until(
            lambda: "ready to receive" in (folder / "prometheus.log").read_text(), ANSWER_LIMIT_S
        )
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait(ANSWER_LIMIT_S)
