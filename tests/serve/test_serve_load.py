"""A minute of load on loopback: what batching gains, and that nothing goes wrong or grows meanwhile."""

import json
import subprocess
import sys
import urllib.parse

import pytest

import attackers
import serve_load
from cait.deploy.classify import Reader, classify
from cait.deploy.engine import Engine
from cait.deploy.predictor import Predictor
from hostile_images import SLOW
from serve_load import form, post
from serving import command, counted, resident_mb

CLIENTS, SECONDS, SLICE_SECONDS = 8, 60.0, 5.0


@pytest.fixture
def requests(all_digits):
    """Name and bytes of requests, one image each."""
    paths = sorted((all_digits / "val").rglob("*.png"))
    return [(str(path), post(*form([(path.name, path.read_bytes())]))) for path in paths]


@pytest.fixture
def expected(demo_bundle, requests):
    """The classes that `infer.py` finds, by name."""
    predictor = Predictor(demo_bundle, Engine())
    found = classify(predictor, Reader(predictor.description, True), [name for name, _ in requests], 1, 5)
    return {result.path: result.classes for result in found}


@pytest.mark.slow
@pytest.mark.any_paddle
def test_eight_clients_for_a_minute(demo_bundle, requests, expected):
    """In turn on a service that takes images one by one and on one that takes up to 8, as timings drift."""
    with command(demo_bundle, "--max-batch=1") as (one, _), command(demo_bundle, "--max-batch=8") as (eight, _):
        serve_load.run([one, eight], requests, CLIENTS, SLICE_SECONDS, SLICE_SECONDS)  # to warm up
        before = [resident_mb(address) for address in (one, eight)]
        single, batched = serve_load.run([one, eight], requests, CLIENTS, SECONDS, SLICE_SECONDS, expected)
        growth = [resident_mb(address) - mb for address, mb in zip((one, eight), before)]
    print(json.dumps({"max_batch_1": single, "max_batch_8": batched, "growth_mb": growth}))
    for summary in (single, batched):
        assert summary["statuses"] == {200: summary["requests"]} and summary["requests"] > 1000
        assert summary["unanswered"] == summary["wrong"] == 0
    assert batched["per_second"] >= 1.5 * single["per_second"]
    assert max(growth) <= 20


@pytest.mark.slow
@pytest.mark.any_paddle
def test_eight_clients_beside_attackers_lose_no_request(demo_bundle, requests, expected, tmp_path):
    """One sends heads and frames without end, one uploads images that take minutes to decode, two at a time."""
    for name, make in SLOW.items():
        (tmp_path / name).write_bytes(make())
    heads = "|".join(kind for kind, (_, again) in attackers.KINDS.items() if again)
    with command(demo_bundle, "--decode-timeout=2") as (address, _):
        serve_load.run([address], requests, CLIENTS, SLICE_SECONDS, SLICE_SECONDS)  # to warm up
        before, where = resident_mb(address), urllib.parse.urlsplit(address)
        words = [sys.executable, "-S", attackers.__file__]
        aim = [where.hostname, str(where.port), str(SECONDS)]
        uploads = [*words, "uploads", *aim, *(str(tmp_path / name) for name in SLOW)]
        attacks = [subprocess.Popen(each, stdout=subprocess.PIPE) for each in ([*words, heads, *aim], uploads, uploads)]
        [found] = serve_load.run([address], requests, CLIENTS, SECONDS, SECONDS, expected)
        sent = [json.loads(attack.communicate(timeout=90)[0]) for attack in attacks]
        growth, replaced = resident_mb(address) - before, counted(address, "cait_decoders_replaced")
    print(json.dumps({"clients": found, "attackers": sent, "growth_mb": growth, "replaced": replaced}))
    assert all(attack.returncode == 0 for attack in attacks) and replaced > 5 and sent[0][1] > 100
    assert found["statuses"] == {200: found["requests"]} and found["requests"] > 100
    assert found["unanswered"] == found["wrong"] == 0
    assert growth <= 200
