// Plays samples as they come, on the audio thread. Knows nothing of where they come from.

const REPORT_FRAMES = 1024;

class Player extends AudioWorkletProcessor {
  constructor() {
    super();
    this.chunks = [];
    this.offset = 0; // in the first chunk
    this.played = 0;
    this.reported = 0;
    this.ended = false; // nothing more will come
    this.over = false;
    this.port.onmessage = ({ data }) => {
      if (data === "end") this.ended = true;
      else if (data === "stop") this.over = true;
      else this.chunks.push(data);
    };
  }

  process(_, [[out]]) {
    let at = 0;
    while (at < out.length && this.chunks.length > 0 && !this.over) {
      const chunk = this.chunks[0];
      const part = chunk.subarray(this.offset, this.offset + out.length - at);
      out.set(part, at);
      at += part.length;
      this.offset += part.length;
      if (this.offset === chunk.length) {
        this.chunks.shift();
        this.offset = 0;
      }
    }
    this.played += at;
    const done = this.over || (this.ended && this.chunks.length === 0);
    if (done || this.played - this.reported >= REPORT_FRAMES) {
      this.reported = this.played;
      this.port.postMessage({ played: this.played, done });
    }
    return !done;
  }
}

registerProcessor("player", Player);
