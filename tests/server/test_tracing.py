"""Where a request's time went, as spans; ids and log lines that hold no text."""

import json
import logging
import subprocess
import sys

import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from websockets.asyncio.client import connect

from chattts_server.logs import JsonLines
from chattts_server.tracing import OpenTelemetry, Spans, open_traces
from tests.server.harness import code_of, speech

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture
def exporter():
    return InMemorySpanExporter()


@pytest.fixture
def traces(exporter):
    return OpenTelemetry(SimpleSpanProcessor(exporter), "test")


def named(exporter):
    spans = {}
    for span in exporter.get_finished_spans():
        spans.setdefault(span.name, []).append(span)
    return spans


def seconds(span):
    return (span.end_time - span.start_time) / 1e9


async def test_a_request_is_a_span_and_its_parts_lie_within_it_in_order(serve, traces, exporter):
    """47 steps of 5 ms."""
    async with serve("--step-seconds", "0.005", traces=traces) as running:
        headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "x-request-id": "order-7"}
        answer = await running.client.post("/tts", json={"text": "好", "max_seconds": 1}, headers=headers)
        assert answer.status_code == 200
    spans = named(exporter)
    (root,) = spans.pop("POST /tts")
    assert (f"{root.context.trace_id:032x}", f"{root.parent.span_id:016x}") == (TRACE, PARENT)
    assert root.attributes["http.response.status_code"] == 200
    assert root.attributes["chattts.request_id"] == "order-7"
    assert root.resource.attributes["service.name"] == "test"
    parts = [spans[name][0] for name in ("queue", "prefill", "decode", "vocode", "encode")]
    assert len(spans) == 5
    assert all(part.parent.span_id == root.context.span_id for part in parts)
    assert all(part.context.trace_id == root.context.trace_id for part in parts)
    assert [part.start_time for part in parts] == sorted(part.start_time for part in parts)
    assert root.start_time <= parts[0].start_time
    assert parts[-1].end_time <= root.end_time
    assert 47 * 0.005 <= seconds(spans["decode"][0]) <= seconds(root)
    assert seconds(spans["queue"][0]) < seconds(spans["decode"][0])


async def test_a_stream_of_pieces_shows_each_and_one_span_of_encoding(serve, traces, exporter):
    async with serve(traces=traces) as running:
        answer = await speech(running, "今天天气很好。" * 20, response_format="mp3", stream_format="audio")
        assert answer.status_code == 200
        assert (await speech(running, "")).status_code == 422
    spans = named(exporter)
    roots = spans["POST /v1/audio/speech"]
    assert [root.attributes["http.response.status_code"] for root in roots] == [200, 422]
    assert len({root.context.trace_id for root in roots}) == 2
    assert [span.attributes["piece"] for span in spans["decode"]] == list(range(len(spans["decode"])))
    assert len(spans["decode"]) > 2
    assert len(spans["encode"]) == 1
    assert 0 < spans["encode"][0].attributes["busy_seconds"] <= seconds(spans["encode"][0]) + 1e-6


async def test_a_text_stage_is_shown_between_the_turn_and_the_speech(serve, traces, exporter):
    async with serve("--step-seconds", "0.005", traces=traces) as running:
        assert (await speech(running, response_format="wav", refine=True, max_seconds=0.5)).status_code == 200
    spans = named(exporter)
    (refined,) = spans["refine"]
    turn, again = spans["queue"]
    assert turn.end_time <= refined.start_time
    assert refined.end_time <= again.start_time <= spans["prefill"][0].start_time
    assert seconds(refined) > 0.005


async def test_each_utterance_of_a_websocket_is_a_trace_and_the_conversation_a_line(serve, traces, exporter, caplog):
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
    caplog.set_level(logging.INFO)
    async with serve(traces=traces) as running:
        url = f"ws://127.0.0.1:{running.port}/v1/audio/speech/stream"
        async with connect(url, additional_headers=headers) as socket:
            text = {"type": "text", "text": "今天天气很好。"}
            for said in ({"type": "start"}, text):
                await socket.send(json.dumps(said))
            heard = []
            async for message in socket:
                if isinstance(message, bytes):
                    continue
                heard.append(json.loads(message))
                if (heard[-1]["type"], heard[-1].get("utterance")) == ("utterance.started", 1):
                    await socket.send(json.dumps(text))
                    await socket.send(json.dumps({"type": "end"}))
    assert heard[-1] == {"type": "done", "utterances": 2}
    spans = named(exporter)
    roots = spans["utterance /v1/audio/speech/stream"]
    assert [root.attributes["chattts.utterance"] for root in roots] == [1, 2]
    assert {f"{root.context.trace_id:032x}" for root in roots} == {TRACE}
    assert {root.attributes["chattts.request_id"] for root in roots} == {heard[0]["request_id"]}
    for name in ("queue", "decode", "encode"):
        assert [part.parent.span_id for part in spans[name]] == [root.context.span_id for root in roots]
    (line,) = [record for record in caplog.records if record.message == "conversation"]
    assert (line.close_code, line.utterances, line.request_id) == (1000, 2, heard[0]["request_id"])


async def test_what_was_not_finished_is_shown_as_such(serve, traces, exporter):
    async with serve("--step-seconds", "0.01", traces=traces) as running:
        assert (await speech(running, max_seconds=20, deadline_ms=200)).status_code == 504
    spans = named(exporter)
    assert spans["POST /v1/audio/speech"][0].attributes["http.response.status_code"] == 504
    assert seconds(spans["unfinished"][0]) == pytest.approx(0.2, abs=0.3)


def test_bits_of_the_same_kind_are_one_span():
    spans = Spans()
    for _ in range(3):
        with spans.timed("encode"):
            pass
    (span,) = spans.done
    assert 0 <= span.attributes["busy_seconds"] <= span.end - span.start


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_SDK_DISABLED": "true"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_TRACES_EXPORTER": "none"},
    ],
)
def test_they_are_off_unless_there_is_somewhere_to_send_them(environment):
    assert open_traces(environment) is None


def test_the_endpoint_turns_them_on():
    traces = open_traces({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"})
    assert isinstance(traces, OpenTelemetry)
    traces.close()


def test_opentelemetry_is_not_loaded_when_it_is_off():
    program = (
        "import sys, chattts_server.serve, chattts_server.tracing as tracing\n"
        "assert tracing.open_traces({}) is None\n"
        "heavy = ('opentelemetry.sdk', 'opentelemetry.exporter')\n"  # FastAPI imports their API where it is installed
        "sys.exit(any(name.startswith(heavy) for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


# Log lines


SECRET = "机密文字"


def lines(caplog, message="request"):
    return [json.loads(JsonLines().format(record)) for record in caplog.records if record.getMessage() == message]


async def test_each_request_is_one_line_with_its_id_and_without_its_text(serve, caplog):
    caplog.set_level(logging.INFO)
    async with serve() as running:
        answers = [
            await speech(running, SECRET, max_seconds=0.5),
            await speech(running, SECRET, temperature=99),
            await speech(running, SECRET + "毒", max_seconds=0.5),
            await running.client.get(f"/{SECRET}?text={SECRET}"),
            await running.client.post(
                "/tts", content=f'{{"text": "{SECRET}', headers={"content-type": "application/json"}
            ),
            await running.client.post("/tts", json={"text": SECRET}, headers={"x-request-id": f"{'x' * 80}"}),
        ]
        assert (await running.client.get("/readyz")).status_code == 200
    told = lines(caplog)
    assert [(line["route"], line["status"]) for line in told] == [
        ("/v1/audio/speech", 200), ("/v1/audio/speech", 422), ("/v1/audio/speech", 500), ("unmatched", 404),
        ("/tts", 400), ("/tts", 200),
    ]  # fmt: skip
    assert [line["request_id"] for line in told] == [answer.headers["x-request-id"] for answer in answers]
    assert len({line["request_id"] for line in told}) == 6
    assert all(line["milliseconds"] >= 0 for line in told)
    ours = [record for record in caplog.records if record.name.startswith(("chattts_server", "uvicorn"))]
    everything = "\n".join(JsonLines().format(record) for record in ours)
    assert "request_id" in everything
    assert SECRET not in everything
    assert SECRET not in "".join(str(answer.content, errors="replace") for answer in answers)


async def test_a_bug_has_its_id_in_the_answer_and_in_the_log(serve, caplog):
    async with serve() as running:
        running.server.synthesis._jitter = lambda: 1 / 0
        answer = await speech(running)
        assert (answer.status_code, code_of(answer)) == (500, "internal_error")
        body = answer.json()["error"]
        assert body["request_id"] == answer.headers["x-request-id"]
        assert "division" not in answer.text
    assert [line["request_id"] for line in lines(caplog, "bug")] == [body["request_id"]]
    assert [line["status"] for line in lines(caplog)] == [500]
