"""The alert of volumes on Kubernetes, by promtool: of ours, when they are nearly full, and not before."""

import json
import subprocess

import pytest

from tests.prometheus import ALERTS, needs_prometheus

RULES = ALERTS.with_name("kubernetes-alerts.yml")
GIB = 2**30


def volume(namespace, claim, *, free_gib, inodes_free=1_000):
    """What a kubelet says of one of 100 GiB, with values as promtool writes them."""
    labels = f'{{namespace="{namespace}",persistentvolumeclaim="{claim}"}}'
    return {
        f"kubelet_volume_stats_available_bytes{labels}": free_gib,
        f"kubelet_volume_stats_capacity_bytes{labels}": f"{100 * GIB}x240",
        f"kubelet_volume_stats_inodes_free{labels}": f"{inodes_free}x240",
        f"kubelet_volume_stats_inodes{labels}": "1000x240",
    }


@needs_prometheus
@pytest.mark.timeout(60)
def test_a_volume_of_ours_that_is_nearly_full_is_told_of(tmp_path):
    series = {
        # 1 GiB a minute, from 40 on.
        **volume("tenterhook", "data-0-kafka-nodes-1", free_gib=f"{40 * GIB}-{GIB // 4}x160"),
        **volume("tenterhook", "history-admin-0", free_gib=f"{16 * GIB}x240"),
        **volume("tenterhook", "history-admin-1", free_gib=f"{16 * GIB}x240", inodes_free=40),
        **volume("other", "data", free_gib="0x240"),
    }

    def firing(*claims):
        return [
            {
                "exp_labels": {"severity": "ticket", "namespace": "tenterhook", "persistentvolumeclaim": claim},
                "exp_annotations": {
                    "summary": f"The volume {claim} is nearly full.",
                    "runbook_url": "https://docs.example/docs/runbooks/TenterhookVolumeFills.md",
                },
            }
            for claim in claims
        ]

    test = {
        "interval": "15s",
        "external_labels": {"runbooks": "https://docs.example/"},
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "alert_rule_test": [
            {"eval_time": at, "alertname": "TenterhookVolumeFills", "exp_alerts": found}
            for at, found in (
                ("10m", []),
                ("39m", firing("history-admin-1")),
                ("42m", firing("data-0-kafka-nodes-1", "history-admin-1")),
            )
        ],
    }
    file = tmp_path / "volumes_test.yml"
    file.write_text(json.dumps({"rule_files": [str(RULES)], "evaluation_interval": "30s", "tests": [test]}))

    done = subprocess.run(("promtool", "test", "rules", file), capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
