// What the server does now: asks once a second, more often while something is spoken, and not while nobody looks.

import { ask } from "./api.js";
import { coloursOfThePage, prepared } from "./pictures.js";

const SLOW_MILLISECONDS = 1000;
const FAST_MILLISECONDS = 250;
const MOST_CELLS = 64;
const PAST_MILLISECONDS = 60_000;

/** `onAnswer(status)` with each answer, `onProblem(problem)` with each failure. */
export class Status {
  constructor(elements, onAnswer, onProblem) {
    this.elements = elements;
    this.onAnswer = onAnswer;
    this.onProblem = onProblem;
    this.fast = false;
    this.past = []; // [time, rows] of the last minute
    new ResizeObserver(() => this.drawPast()).observe(elements.past);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.drawPast());
    document.addEventListener("visibilitychange", () => this.look());
  }

  /** Asks now, and goes on asking. */
  async look() {
    clearTimeout(this.timer);
    if (document.hidden) return;
    try {
      const status = await (await ask("v1/status")).json();
      this.show(status);
      this.onAnswer(status);
    } catch (problem) {
      this.elements.hint.textContent = problem.message;
      this.onProblem(problem);
    }
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.look(), this.fast ? FAST_MILLISECONDS : SLOW_MILLISECONDS);
  }

  show({ state, rows, queued_audio_seconds, predicted_wait_seconds }) {
    const { cells, busy, waiting, queued, wait, hint } = this.elements;
    this.showCells(cells, rows);
    const now = performance.now();
    this.past = [...this.past.filter(([at]) => at > now - PAST_MILLISECONDS), [now, rows]];
    this.drawPast();
    busy.textContent = rows.of === null ? "–" : `${rows.busy} of ${rows.of}`;
    waiting.textContent = String(rows.waiting);
    queued.textContent = `${queued_audio_seconds.toFixed(1)} s`;
    wait.textContent = `${predicted_wait_seconds.toFixed(1)} s`;
    hint.textContent = {
      ready: "One cell is one row of the batch: a sentence that is spoken together with all others.",
      starting: "The engine is starting: weights are read and tried out.",
      draining: "This server is shutting down and takes nothing new.",
    }[state];
  }

  showCells(cells, { busy, of }) {
    const count = Math.min(of ?? 0, MOST_CELLS);
    while (cells.children.length > count) cells.lastChild.remove();
    while (cells.children.length < count) cells.append(document.createElement("span"));
    const lit = of ? Math.ceil((busy / of) * count) : 0;
    [...cells.children].forEach((cell, index) => cell.classList.toggle("busy", index < lit));
    cells.setAttribute("aria-label", of === null ? "Batch rows: no engine" : `Batch rows: ${busy} of ${of} busy`);
  }

  /** Busy rows as an area, waiting ones as a lighter one on top of it. */
  drawPast() {
    const [pen, width, height] = prepared(this.elements.past);
    const { accent, soft } = coloursOfThePage();
    const most = Math.max(1, ...this.past.map(([, { busy, of, waiting }]) => Math.max(of ?? 0, busy + waiting)));
    const now = performance.now();
    this.past.forEach(([at, { busy, waiting }], index) => {
      const from = width * (1 - (now - at) / PAST_MILLISECONDS);
      const to = index + 1 < this.past.length ? width * (1 - (now - this.past[index + 1][0]) / PAST_MILLISECONDS) : width;
      const [low, high] = [busy, busy + waiting].map((rows) => (rows / most) * height);
      pen.fillStyle = soft;
      pen.fillRect(from, height - high, to - from + 0.5, high - low);
      pen.fillStyle = accent;
      pen.fillRect(from, height - low, to - from + 0.5, low);
    });
    const peak = Math.max(0, ...this.past.map(([, { busy }]) => busy));
    this.elements.past.setAttribute("aria-label", `Rows over the last minute: at most ${peak} busy`);
  }
}
