// The npm client, unchanged, against a server of ours. FAST answers at once; BUSY has one slow row and a short queue.
import assert from "node:assert/strict";
import test from "node:test";
import OpenAI from "openai";

const client = of(process.env.FAST);
const SENTENCE = "今天天气很好。";
const ask = (fields) => ({ model: "gpt-4o-mini-tts", voice: "alloy", input: SENTENCE, ...fields });

function of(url, maxRetries = 0) {
  return new OpenAI({ baseURL: `${url}/v1`, apiKey: "any", maxRetries, timeout: 20_000 });
}

async function bytes(response) {
  return Buffer.from(await response.arrayBuffer());
}

for (const [format, type, magic] of [
  ["mp3", "audio/mpeg", null],
  ["opus", "audio/ogg; codecs=opus", "OggS"],
  ["aac", "audio/aac", null],
  ["flac", "audio/flac", "fLaC"],
  ["wav", "audio/wav", "RIFF"],
  ["pcm", "audio/pcm", null],
]) {
  test(`a stock call for ${format}`, async () => {
    const response = await client.audio.speech.create(ask({ response_format: format, max_seconds: 1 }));
    assert.equal(response.headers.get("content-type"), type);
    const data = await bytes(response);
    assert.ok(data.length > 3000, `${data.length} bytes`);
    if (magic) assert.equal(data.subarray(0, 4).toString("latin1"), magic);
    if (format === "pcm") assert.equal(data.length, 2 * 23808);
    if (format === "wav") assert.equal(Number(response.headers.get("content-length")), data.length);
  });
}

test("a body that is read while it is made is the whole", async () => {
  const fields = { input: SENTENCE.repeat(10), response_format: "pcm", seed: 3 };
  const whole = await bytes(await client.audio.speech.create(ask(fields)));
  const response = await client.audio.speech.create(ask({ ...fields, stream_format: "audio" }));
  const parts = [];
  for await (const part of response.body) parts.push(part);
  assert.ok(parts.length > 3, `${parts.length} parts`);
  assert.ok(Buffer.concat(parts).equals(whole));
});

test("events", async () => {
  const fields = { input: SENTENCE.repeat(4), response_format: "pcm", seed: 3 };
  const whole = await bytes(await client.audio.speech.create(ask(fields)));
  const response = await client.audio.speech.create(ask({ ...fields, stream_format: "sse" }));
  const events = (await response.text())
    .split("\n")
    .filter((line) => line.startsWith("data: "))
    .map((line) => JSON.parse(line.slice(6)));
  const last = events.pop();
  assert.equal(last.type, "speech.audio.done");
  assert.equal(last.usage.total_tokens, last.usage.input_tokens + last.usage.output_tokens);
  assert.ok(events.every((event) => event.type === "speech.audio.delta"));
  assert.ok(Buffer.concat(events.map((event) => Buffer.from(event.audio, "base64"))).equals(whole));
});

for (const [fields, kind, code] of [
  [{ input: "" }, OpenAI.UnprocessableEntityError, "invalid_value"],
  [{ voice: "nobody" }, OpenAI.UnprocessableEntityError, "unknown_voice"],
  [{ speed: 9 }, OpenAI.UnprocessableEntityError, "invalid_value"],
  [{ response_format: "midi" }, OpenAI.UnprocessableEntityError, "unsupported_format"],
  [{ input: "毒" }, OpenAI.InternalServerError, "engine_failed"],
]) {
  test(`${JSON.stringify(fields)} is ${code}`, async () => {
    await assert.rejects(client.audio.speech.create(ask(fields)), (error) => {
      assert.ok(error instanceof kind, error.constructor.name);
      assert.equal(error.code, code);
      assert.match(error.requestID, /^[0-9a-f]{32}$/);
      return true;
    });
  });
}

test("what is not there", async () => {
  await assert.rejects(client.models.retrieve("nothing"), OpenAI.NotFoundError);
  assert.equal((await client.models.list()).data[0].id, "chattts");
});

test("leaving is possible at any time", async () => {
  const leave = new AbortController();
  const fields = { input: SENTENCE.repeat(60), response_format: "pcm" };
  const response = await client.audio.speech.create(ask(fields), { signal: leave.signal });
  await response.body.getReader().read();
  leave.abort();
  await assert.rejects(response.text());
});

test("overload is a RateLimitError, and audio for a client that tries again when it is told to", async () => {
  const once = () => of(process.env.BUSY).audio.speech.create(ask({ response_format: "wav", max_seconds: 1 }));
  const refused = (await Promise.allSettled(Array.from({ length: 6 }, once))).filter((one) => one.status === "rejected");
  assert.ok(refused.length > 0);
  for (const { reason } of refused) {
    assert.ok(reason instanceof OpenAI.RateLimitError, reason.constructor.name);
    assert.equal(reason.code, "queue_full");
    assert.ok(Number(reason.headers.get("retry-after")) >= 1);
  }
  const patient = of(process.env.BUSY, 4);
  const again = () => patient.audio.speech.create(ask({ response_format: "wav", max_seconds: 1 })).then(bytes);
  const spoken = await Promise.all(Array.from({ length: 6 }, again));
  assert.deepEqual(new Set(spoken.map((data) => data.length)), new Set([44 + 2 * 23808]));
});

// Last: the engine has to be started again.
test("a broken stream is an error and not a short file", async () => {
  const fields = { input: `${SENTENCE.repeat(20)}亡。`, response_format: "pcm" };
  const response = await client.audio.speech.create(ask(fields));
  await assert.rejects(response.arrayBuffer());
});
