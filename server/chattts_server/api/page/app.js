// The page: what is typed is spoken, heard while it comes, and shown. The other files each know one thing.

import { Problem, ask, hasKey, sendJson, setKey } from "./api.js";
import { setUpCloning } from "./clone.js";
import { Pictures } from "./pictures.js";
import { Playback, STREAMED, SampleReader, decodeWhole, openLoudspeaker, wavOf } from "./sound.js";
import { Status } from "./status.js";

const find = (id) => document.getElementById(id);
const EXAMPLES = {
  chinese: "春天到了，湖边的柳树都绿了，孩子们在放风筝。",
  numbers: "订单号 20260102，共 3 件，合计 ¥1,299.50，预计 5 月 8 日下午 3:30 送达。",
  long:
    "从前有一座山，山里有一座庙，庙里有一个老和尚在给小和尚讲故事。故事说，山下的河每年春天都会换一条路走。" +
    "The villagers never built a bridge. They said the river would only be offended, and so they learned to wait.",
};
const OTHER = "other:";
const pictures = new Pictures(find("wave"), find("spectrum"));
const status = new Status(
  {
    cells: find("rows"),
    past: find("past"),
    busy: find("busy"),
    waiting: find("waiting"),
    queued: find("queued"),
    wait: find("wait"),
    hint: find("server-hint"),
  },
  takeStatus,
  takeProblem,
);
let running = null; // {abort, playback} of what is spoken now
let spoken = null; // {pieces, blob, format} of what was spoken last
let wasReady = false;
const ownVoices = []; // [label, voice string] of this tab

// Speaking

async function speak() {
  stop();
  say("");
  showError("");
  const text = find("text").value.trim();
  if (!text) {
    showError("There is no text to speak.");
    find("text").focus();
    return;
  }
  const mine = { abort: new AbortController(), playback: null };
  running = mine;
  setBusy(true);
  clearResult();
  try {
    await openLoudspeaker();
    await receive(mine, text);
  } catch (error) {
    if (running === mine) {
      mine.playback?.stop();
      finish(mine, error.name === "AbortError" ? "" : error.message);
    }
  }
}

async function receive(mine, text) {
  const format = find("format").value;
  const seed = find("seed").value.trim() || String(Math.floor(Math.random() * 2 ** 31));
  const began = performance.now();
  const response = await sendJson("v1/audio/speech", bodyOf(text, format, seed), mine.abort.signal);
  find("used-seed").textContent = seed;
  const result = { format, began, first: null, pieces: [], bytes: [] };
  if (STREAMED.has(format)) mine.playback = listen(mine);
  const samples = new SampleReader(format);
  for await (const bytes of chunksOf(response)) {
    if (running !== mine) return;
    result.first ??= performance.now();
    find("first").textContent = `${Math.round(result.first - began)} ms`;
    if (STREAMED.has(format)) hear(mine, result, samples.read(bytes));
    else result.bytes.push(bytes);
  }
  const made = performance.now();
  if (!STREAMED.has(format)) {
    const whole = new Blob(result.bytes, { type: response.headers.get("content-type") });
    result.blob = whole;
    mine.playback = listen(mine);
    hear(mine, result, await decodeWhole(await whole.arrayBuffer()));
  }
  mine.playback.end();
  showResult(result, (made - began) / 1000, response.headers.get("x-chattts-dropped-characters"));
}

function bodyOf(text, format, seed) {
  const body = { model: "chattts", input: text, voice: chosenVoice(), response_format: format, stream_format: "audio" };
  body.seed = Number(seed);
  const speed = Number(find("speed").value);
  if (speed !== 1) body.speed = speed;
  return body;
}

async function* chunksOf(response) {
  const reader = response.body.getReader();
  for (;;) {
    let part;
    try {
      part = await reader.read();
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Problem("The sound broke off: the server ended it before it was whole.");
    }
    if (part.done) return;
    yield part.value;
  }
}

function hear(mine, result, samples) {
  if (samples.length === 0) return;
  result.pieces.push(samples);
  pictures.add(samples);
  mine.playback.push(samples);
  find("length").textContent = `${pictures.seconds.toFixed(2)} s`;
}

function listen(mine) {
  return new Playback((seconds, done) => {
    if (running !== mine) return;
    pictures.hear(done ? null : seconds);
    if (done) finish(mine, "");
  });
}

function showResult(result, seconds, dropped) {
  const factor = seconds / pictures.seconds;
  find("factor").textContent = Number.isFinite(factor) ? factor.toFixed(2) : "–";
  spoken = { pieces: result.pieces, format: STREAMED.has(result.format) ? "wav" : result.format };
  spoken.blob = result.blob ?? wavOf(result.pieces);
  const save = find("save");
  URL.revokeObjectURL(save.href);
  Object.assign(save, { href: URL.createObjectURL(spoken.blob), download: `speech.${spoken.format}` });
  save.removeAttribute("aria-disabled");
  find("again").disabled = false;
  const length = `${pictures.seconds.toFixed(1)} seconds`;
  find("wave").setAttribute("aria-label", `Waveform of ${length}`);
  find("spectrum").setAttribute("aria-label", `Spectrogram of ${length}, 0 to 12 kHz`);
  const lost = Number(dropped) > 0 ? `, ${dropped} characters could not be read` : "";
  say(`${length} spoken, first audio after ${find("first").textContent}, real-time factor ${find("factor").textContent}${lost}.`);
  if (lost) showError(`${dropped} characters could not be read and were left out.`);
}

function stop() {
  if (!running) return;
  const { abort, playback } = running;
  running = null;
  abort.abort(); // the connection closes, and the server frees the row
  playback?.stop();
  pictures.hear(null);
  setBusy(false);
  say("Stopped.");
  status.look();
}

function finish(mine, message) {
  if (running !== mine) return;
  running = null;
  pictures.hear(null);
  setBusy(false);
  showError(message);
}

function playAgain() {
  stop();
  const mine = { abort: new AbortController(), playback: null };
  running = mine;
  setBusy(true);
  mine.playback = listen(mine);
  for (const piece of spoken.pieces) mine.playback.push(piece);
  mine.playback.end();
}

function setBusy(busy) {
  find("speak").textContent = busy ? "Speak again" : "Speak";
  find("stop").disabled = !busy;
  status.fast = busy;
  if (busy) status.look();
}

function clearResult() {
  pictures.clear();
  for (const id of ["first", "factor", "length", "used-seed"]) find(id).textContent = "–";
}

// Voices and formats

async function loadVoices() {
  const { data } = await (await ask("v1/audio/voices")).json();
  const chosen = find("voice").value;
  const stored = data.filter((voice) => voice.stored && !voice.problem).map(({ id }) => [id, id]);
  const built = data.filter((voice) => !voice.stored).map(({ id }) => [id, id]);
  find("voice").replaceChildren(
    ...group("Your clones, in this tab", ownVoices),
    ...group("Of this service", stored),
    ...group("Built in", built),
    ...group("Other", [["a seed or a voice string …", OTHER]]),
  );
  choose([...find("voice").options].some((option) => option.value === chosen) ? chosen : "default");
}

function group(label, entries) {
  if (entries.length === 0) return [];
  const element = document.createElement("optgroup");
  element.label = label;
  element.append(...entries.map(([text, value]) => new Option(text, value)));
  return [element];
}

function choose(voice) {
  find("voice").value = voice;
  find("other-field").hidden = find("voice").value !== OTHER;
}

function chosenVoice() {
  const voice = find("voice").value;
  return voice === OTHER ? find("other").value.trim() || "default" : voice;
}

function showFormats(formats) {
  if (find("format").options.length === formats.length) return;
  const usual = ["pcm", "wav", "mp3", "opus", "aac", "flac"].filter((format) => formats.includes(format));
  find("format").replaceChildren(...usual.map((format) => new Option(format, format)));
  explainFormat();
}

function explainFormat() {
  const format = find("format").value;
  find("format-hint").textContent = STREAMED.has(format)
    ? `${format} is heard while it comes.`
    : `${format} is heard when it is whole; the first byte counts as first audio.`;
}

function takeVoice(voice) {
  const kept = voice.stored;
  const label = voice.name ?? `clone ${ownVoices.length + 1}`;
  if (!kept) ownVoices.unshift([label, voice.voice]);
  loadVoices().then(() => choose(kept ? voice.id : voice.voice), takeProblem);
  find("clone-done").textContent = kept
    ? `“${label}” is a voice of this service now, and chosen above.`
    : `“${label}” is chosen above. This service keeps no voices: copy its string to use it elsewhere.`;
  find("copy").hidden = false;
  find("copy").onclick = async () => {
    await navigator.clipboard.writeText(voice.voice);
    find("clone-done").textContent = "Copied.";
  };
}

// Server

function takeStatus(answer) {
  find("summary").textContent =
    answer.state === "ready" ? `${answer.rows.of} rows, ${answer.dtype}, on ${answer.device}` : answer.state;
  find("noise").hidden = !answer.random_weights;
  find("name-field").hidden = answer.voices_kept_in !== "claim";
  find("docs").hidden = !answer.docs;
  showFormats(answer.formats);
  if (!wasReady && answer.state === "ready") loadVoices().catch(takeProblem);
  wasReady = answer.state === "ready";
  find("key-form").hidden = !hasKey();
}

function takeProblem(problem) {
  wasReady = false;
  find("summary").textContent = problem.status === 401 ? "locked" : "out of reach";
  if (problem.status === 401) find("key-form").hidden = false;
}

// Words

function say(message) {
  find("live").textContent = message;
}

function showError(message) {
  find("error").textContent = message;
  find("error").hidden = message === "";
}

// Wiring

find("speak-form").addEventListener("submit", (event) => {
  event.preventDefault();
  speak();
});
find("stop").addEventListener("click", stop);
find("again").addEventListener("click", playAgain);
find("voice").addEventListener("change", () => {
  choose(find("voice").value);
  if (!find("other-field").hidden) find("other").focus();
});
find("format").addEventListener("change", explainFormat);
find("speed").addEventListener("input", () => (find("speed-value").textContent = Number(find("speed").value).toFixed(2)));
find("text").addEventListener("input", countText);
for (const button of document.querySelectorAll("[data-example]")) {
  button.addEventListener("click", () => {
    find("text").value = EXAMPLES[button.dataset.example];
    countText();
    find("text").focus();
  });
}
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") stop();
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && event.target === find("text")) speak();
});
find("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  setKey(find("key").value);
  showError("");
  status.look();
});
addEventListener("pagehide", stop);
setUpCloning(find, takeVoice);
countText();
explainFormat();
status.look();

function countText() {
  find("text-count").textContent = `${find("text").value.length.toLocaleString("en")} of 10,000 characters`;
}
