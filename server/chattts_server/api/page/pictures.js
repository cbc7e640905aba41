// Waveform and spectrogram, drawn while samples come. Knows two canvases and the page's colours.

import { RATE } from "./sound.js";

const FRAME = 512; // samples of a spectrum: 47 Hz a band
const HOP = 256;
const BANDS = FRAME / 2;
const PEAK = 240; // samples of a point of the waveform: 10 ms
const MOST_GAIN = 6; // quiet speech is drawn larger, silence stays a line
const FLOOR_DECIBELS = -78;
const EMPTY_SECONDS = 2; // the shortest time axis, so that the first chunk does not fill the picture

export class Pictures {
  constructor(wave, spectrum) {
    this.wave = wave;
    this.spectrum = spectrum;
    this.columns = document.createElement("canvas"); // one pixel per hop and band, stretched when it is shown
    this.columns.height = BANDS;
    this.window = Float32Array.from({ length: FRAME }, (_, n) => 0.5 - 0.5 * Math.cos((2 * Math.PI * n) / FRAME));
    this.clear();
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.repaint());
    new ResizeObserver(() => this.draw()).observe(wave);
  }

  clear() {
    this.samples = 0;
    this.seconds = 0;
    this.heard = null; // seconds; null: nobody listens
    this.peaks = []; // lowest and highest of each PEAK samples
    this.loudest = 0;
    this.levels = []; // Uint8Array of BANDS per hop
    this.painted = 0;
    this.peakRest = new Float32Array(0);
    this.frameRest = new Float32Array(0);
    this.columns.width = 64;
    this.draw();
  }

  add(samples) {
    this.samples += samples.length;
    this.seconds = this.samples / RATE;
    this.peakRest = cut(joined(this.peakRest, samples), PEAK, PEAK, (piece) => {
      const [low, high] = [Math.min(...piece), Math.max(...piece)];
      this.peaks.push(low, high);
      this.loudest = Math.max(this.loudest, high, -low);
    });
    this.frameRest = cut(joined(this.frameRest, samples), FRAME, HOP, (piece) => this.levels.push(this.levelsOf(piece)));
    this.draw();
  }

  hear(seconds) {
    this.heard = seconds;
    this.draw();
  }

  repaint() {
    this.painted = 0;
    this.draw();
  }

  draw() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      this.colours = coloursOfThePage();
      this.drawWave();
      this.drawSpectrum();
    });
  }

  drawWave() {
    const [pen, width, height] = prepared(this.wave);
    const axis = Math.max(this.seconds, EMPTY_SECONDS);
    const points = this.peaks.length / 2;
    pen.fillStyle = this.colours.line;
    pen.fillRect(0, height / 2, width, 1);
    pen.fillStyle = this.colours.accent;
    const gain = Math.min(MOST_GAIN, 0.95 / Math.max(this.loudest, 1e-6));
    const perPixel = (axis * RATE) / PEAK / width;
    for (let x = 0; x < width && x * perPixel < points; x += 1) {
      let low = 0;
      let high = 0;
      for (let at = Math.floor(x * perPixel); at <= Math.min(points - 1, Math.floor((x + 1) * perPixel)); at += 1) {
        low = Math.min(low, this.peaks[2 * at]);
        high = Math.max(high, this.peaks[2 * at + 1]);
      }
      const top = ((1 - gain * high) / 2) * height;
      pen.fillRect(x, top, 1, Math.max(1, ((gain * (high - low)) / 2) * height));
    }
    this.drawListener(pen, width, height, axis);
  }

  drawSpectrum() {
    const [pen, width, height] = prepared(this.spectrum);
    this.paintColumns();
    const axis = Math.max(this.seconds, EMPTY_SECONDS);
    const shown = (this.levels.length * HOP) / RATE / axis;
    if (this.levels.length > 0) {
      pen.drawImage(this.columns, 0, 0, this.levels.length, BANDS, 0, 0, width * shown, height);
    }
    this.drawListener(pen, width, height, axis);
  }

  drawListener(pen, width, height, axis) {
    if (this.heard === null) return;
    pen.fillStyle = this.colours.ink;
    pen.fillRect((this.heard / axis) * width, 0, Math.max(1, devicePixelRatio), height);
  }

  /** Columns that are not painted yet; the canvas grows by doubling, so that a long text costs no more per second. */
  paintColumns() {
    if (this.levels.length > this.columns.width) {
      this.columns.width = 2 ** Math.ceil(Math.log2(this.levels.length)); // setting it clears it
      this.painted = 0;
    }
    const pen = this.columns.getContext("2d");
    const ramp = rampOf(this.colours);
    for (; this.painted < this.levels.length; this.painted += 1) {
      const column = pen.createImageData(1, BANDS);
      this.levels[this.painted].forEach((level, band) => column.data.set(ramp[level], 4 * (BANDS - 1 - band)));
      pen.putImageData(column, this.painted, 0);
    }
  }

  /** Loudness of each band, 0 (silent) to 255. */
  levelsOf(frame) {
    const real = frame.map((sample, n) => sample * this.window[n]);
    const imaginary = new Float32Array(FRAME);
    transform(real, imaginary);
    return Uint8Array.from({ length: BANDS }, (_, band) => {
      const decibels = 20 * Math.log10(Math.hypot(real[band], imaginary[band]) / (FRAME / 4) + 1e-9);
      return Math.max(0, Math.min(255, (1 - decibels / FLOOR_DECIBELS) * 255));
    });
  }
}

function joined(first, second) {
  const both = new Float32Array(first.length + second.length);
  both.set(first);
  both.set(second, first.length);
  return both;
}

/** Calls `take` with pieces of `size`, `step` apart; returns what is too short for another. */
function cut(samples, size, step, take) {
  let at = 0;
  for (; at + size <= samples.length; at += step) take(samples.subarray(at, at + size));
  return samples.slice(at);
}

/** Fourier transform in place, by halving (Cooley and Tukey). Lengths are powers of two. */
function transform(real, imaginary) {
  const size = real.length;
  for (let i = 1, j = 0; i < size; i += 1) {
    let bit = size >> 1;
    for (; j & bit; bit >>= 1) j ^= bit;
    j ^= bit;
    if (i < j) {
      [real[i], real[j]] = [real[j], real[i]];
      [imaginary[i], imaginary[j]] = [imaginary[j], imaginary[i]];
    }
  }
  for (let length = 2; length <= size; length *= 2) {
    const angle = (-2 * Math.PI) / length;
    for (let k = 0; k < length / 2; k += 1) {
      const cosine = Math.cos(angle * k);
      const sine = Math.sin(angle * k);
      for (let i = k; i < size; i += length) {
        const j = i + length / 2;
        const re = real[j] * cosine - imaginary[j] * sine;
        const im = real[j] * sine + imaginary[j] * cosine;
        real[j] = real[i] - re;
        imaginary[j] = imaginary[i] - im;
        real[i] += re;
        imaginary[i] += im;
      }
    }
  }
}

export function prepared(canvas) {
  const scale = devicePixelRatio || 1;
  const width = Math.round(canvas.clientWidth * scale);
  const height = Math.round(canvas.clientHeight * scale);
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const pen = canvas.getContext("2d");
  pen.clearRect(0, 0, width, height);
  return [pen, width, height];
}

export function coloursOfThePage() {
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(name).trim();
  const names = { paper: "--paper", accent: "--accent", soft: "--accent-soft", ink: "--ink", line: "--line" };
  return Object.fromEntries(Object.entries(names).map(([name, property]) => [name, colour(property)]));
}

/** 256 colours from paper over the accent to ink. */
function rampOf({ paper, accent, ink }) {
  const [from, over, to] = [paper, accent, ink].map((hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16)));
  return Array.from({ length: 256 }, (_, level) => {
    const [a, b, share] = level < 170 ? [from, over, level / 170] : [over, to, (level - 170) / 85];
    return [...a.map((value, n) => value + (b[n] - value) * share), 255];
  });
}
