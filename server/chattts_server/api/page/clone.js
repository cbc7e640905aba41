// A voice from a recording: microphone or file, what it says, and consent. Knows its form only.

import { ask } from "./api.js";

const MOST_SECONDS = 15;

/** `onVoice(voice)` with what the server answered. */
export function setUpCloning(find, onVoice) {
  const form = find("clone-form");
  const recordButton = find("record");
  let recording = null; // File or Blob
  let recorder = null;

  function take(file, words) {
    recording = file;
    find("recording").textContent = words;
    const preview = find("preview");
    URL.revokeObjectURL(preview.src);
    preview.src = URL.createObjectURL(file);
    preview.hidden = false;
  }

  function fail(message) {
    find("clone-error").textContent = message;
    find("clone-error").hidden = message === "";
  }

  find("file").addEventListener("change", ({ target }) => {
    if (target.files.length > 0) take(target.files[0], target.files[0].name);
  });

  recordButton.addEventListener("click", async () => {
    if (recorder) {
      recorder.stop();
      return;
    }
    fail("");
    try {
      recorder = await record(
        (seconds) => (find("recording").textContent = `recording … ${seconds.toFixed(0)} of ${MOST_SECONDS} s`),
        (sound, seconds) => {
          recorder = null;
          recordButton.textContent = "Record again";
          recordButton.setAttribute("aria-pressed", "false");
          take(sound, `${seconds.toFixed(1)} s recorded`);
        },
      );
      recordButton.textContent = "Stop recording";
      recordButton.setAttribute("aria-pressed", "true");
    } catch (error) {
      fail(microphoneProblem(error));
    }
  });

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    fail("");
    find("clone-done").textContent = "";
    if (!recording) {
      fail("There is no recording yet: record yourself, or choose a file.");
      recordButton.focus();
      return;
    }
    const body = new FormData();
    body.append("audio", recording, recording.name ?? "recording");
    body.append("transcript", find("transcript").value);
    const name = find("clone-name").value.trim();
    if (name && !find("name-field").hidden) body.append("name", name);
    find("clone").disabled = true;
    try {
      onVoice(await (await ask("v1/audio/voices", { method: "POST", body })).json());
    } catch (problem) {
      fail(problem.message);
    } finally {
      find("clone").disabled = false;
    }
  });
}

async function record(onSecond, onEnd) {
  if (!navigator.mediaDevices) throw new DOMException("no microphone over plain http", "SecurityError");
  const stream = await navigator.mediaDevices.getUserMedia({ audio: { channelCount: 1, echoCancellation: false } });
  const recorder = new MediaRecorder(stream);
  const pieces = [];
  const began = performance.now();
  const seconds = () => (performance.now() - began) / 1000;
  const clock = setInterval(() => (seconds() >= MOST_SECONDS - 0.3 ? recorder.stop() : onSecond(seconds())), 250);
  recorder.ondataavailable = ({ data }) => pieces.push(data);
  recorder.onstop = () => {
    clearInterval(clock);
    for (const track of stream.getTracks()) track.stop();
    onEnd(new Blob(pieces, { type: recorder.mimeType }), seconds());
  };
  recorder.start();
  return recorder;
}

function microphoneProblem(error) {
  switch (error.name) {
    case "NotAllowedError":
      return "The browser may not use the microphone. Allow it, or choose a file.";
    case "NotFoundError":
      return "There is no microphone. Choose a file instead.";
    case "SecurityError":
      return "Browsers record only over https or on this very machine. Choose a file instead.";
    default:
      return `The microphone cannot be used (${error.message}). Choose a file instead.`;
  }
}
