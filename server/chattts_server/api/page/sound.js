// From a streamed answer to samples and the loudspeaker. Knows no element.

export const RATE = 24000;
const WAV_HEADER_BYTES = 44;
/** Formats whose bytes are samples: they are heard while they come. The others are heard when they are whole. */
export const STREAMED = new Set(["pcm", "wav"]);

let context; // made by the first click: browsers allow no sound before one

export async function openLoudspeaker() {
  if (!context) {
    context = new AudioContext({ sampleRate: RATE });
    await context.audioWorklet.addModule("page/worklet.js");
  }
  await context.resume();
  return context;
}

/** Plays what it is given with push(); `onProgress(seconds, done)` says how far the listener is. */
export class Playback {
  constructor(onProgress) {
    this.node = new AudioWorkletNode(context, "player", { numberOfInputs: 0, outputChannelCount: [1] });
    this.node.connect(context.destination);
    this.node.port.onmessage = ({ data }) => {
      if (data.done) this.node.disconnect();
      onProgress(data.played / RATE, data.done);
    };
  }

  push(samples) {
    this.node.port.postMessage(samples.slice()); // a copy: the caller keeps its own
  }

  end() {
    this.node.port.postMessage("end");
  }

  stop() {
    this.node.port.postMessage("stop");
  }
}

/** Bytes of 16 bit samples, cut anywhere, to Float32Arrays. */
export class SampleReader {
  constructor(format) {
    this.skip = format === "wav" ? WAV_HEADER_BYTES : 0;
    this.odd = new Uint8Array(0);
  }

  read(bytes) {
    const skipped = Math.min(this.skip, bytes.length);
    this.skip -= skipped;
    const all = new Uint8Array(this.odd.length + bytes.length - skipped);
    all.set(this.odd);
    all.set(bytes.subarray(skipped), this.odd.length);
    const count = all.length >> 1;
    this.odd = all.slice(count * 2);
    const view = new DataView(all.buffer);
    return Float32Array.from({ length: count }, (_, index) => view.getInt16(index * 2, true) / 32768);
  }
}

export async function decodeWhole(bytes) {
  const audio = await context.decodeAudioData(bytes);
  return audio.getChannelData(0);
}

/** A wav that says its exact length: a streamed one cannot. */
export function wavOf(pieces) {
  const count = pieces.reduce((sum, piece) => sum + piece.length, 0);
  const view = new DataView(new ArrayBuffer(WAV_HEADER_BYTES + count * 2));
  const ascii = (at, text) => [...text].forEach((letter, index) => view.setUint8(at + index, letter.charCodeAt(0)));
  ascii(0, "RIFF");
  view.setUint32(4, 36 + count * 2, true);
  ascii(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true);
  view.setUint16(22, 1, true);
  view.setUint32(24, RATE, true);
  view.setUint32(28, RATE * 2, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  ascii(36, "data");
  view.setUint32(40, count * 2, true);
  let at = WAV_HEADER_BYTES;
  for (const piece of pieces) {
    for (const sample of piece) {
      view.setInt16(at, Math.max(-1, Math.min(1, sample)) * 32767, true);
      at += 2;
    }
  }
  return new Blob([view], { type: "audio/wav" });
}
