"""A minute of load on loopback: what batching gains, and that nothing goes wrong or grows meanwhile."""

import json

import pytest

import serve_load
from cait.deploy.classify import Reader, classify
from cait.deploy.inference_engine import Engine
from cait.deploy.predictor import Predictor
from serve_load import form, post
from serving import command, resident_mb

CLIENTS, SECONDS, SLICE_SECONDS = 8, 60.0, 5.0


@pytest.mark.slow
@pytest.mark.any_paddle
def test_eight_clients_for_a_minute(demo_bundle, all_digits):
    """In turn on a service that takes images one by one and on one that takes up to 8, as timings drift."""
    paths = sorted((all_digits / "val").rglob("*.png"))
    requests = [(str(path), post(*form([(path.name, path.read_bytes())]))) for path in paths]
    predictor = Predictor(demo_bundle, Engine())
    found = classify(predictor, Reader(predictor.description, True), [str(path) for path in paths], 1, 5)
    expected = {result.path: result.classes for result in found}
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
