// The exam that is running: two moving waveforms, the ECG beside them, contact quality, the windows heard so far.

import { clock, h, known, onColours, percent, poor, probability, qualityWord, side, siteName, verdictPill } from "./shell.js";
import { forgetColours, palette, prepare } from "./draw.js";
import { LEAD_WORDS, drawCurve, rangeOf } from "./ecg.js";

const SHOWN_S = 8;
const KEPT_S = 12;
const MOST_MAGNIFIED = 4;
const FRAME_MS = 30; // smooth enough, and light on a small computer
const LEAST_PEAK = 60; // of 32767: below, the picture is not blown up any further
const ABNORMAL_NOW = "Abnormal, last 5 s";
const SIDES = { abnormal: ".over", unsure: ".unsure" };
const still = matchMedia("(prefers-reduced-motion: reduce)");

/** The last seconds of one lane, by absolute time; what never came is NaN, not silence. */
class Trace {
  constructor(rate) {
    this.rate = rate;
    this.size = Math.ceil(KEPT_S * rate);
    this.values = new Float32Array(this.size).fill(NaN);
    this.end = null; // absolute index after the newest sample
  }

  add(start, values) {
    if (this.end === null || start < this.end - this.size || start > this.end + this.size) {
      this.values.fill(NaN);
      this.end = start;
    }
    for (let i = this.end; i < start; i++) this.values[i % this.size] = NaN;
    for (let i = 0; i < values.length; i++) this.values[(start + i) % this.size] = values[i];
    this.end = Math.max(this.end, start + values.length);
  }

  at(index) {
    return index < 0 || index >= this.end || index < this.end - this.size ? NaN : this.values[index % this.size];
  }
}

export class LiveCard {
  constructor(device, name) {
    this.device = device;
    this.traces = null;
    this.head = null; // seconds shown at the right edge
    this.newest = 0;
    this.peak = { raw: LEAST_PEAK, clean: LEAST_PEAK };
    this.over = false;
    this.windows = [];
    this.limits = {}; // threshold and undecided zone of the device's bundle
    this.build(name);
    this.frame = this.frame.bind(this);
    requestAnimationFrame(this.frame);
  }

  build(name) {
    this.place = h("p", {}, "");
    this.elapsed = h("dd", {}, "0:00");
    this.rate = h("dd", {}, "unknown");
    this.running = h("dd", {}, "listening");
    this.what = h("dt", {}, ABNORMAL_NOW);
    this.raw = h("canvas.wave", { role: "img", "aria-label": "Raw sound, moving" });
    this.clean = h("canvas.wave", { role: "img", "aria-label": "Denoised sound, moving" });
    this.lead = h("canvas.ecg", { role: "img", "aria-label": "ECG, moving" });
    this.leadName = h("span.lane-name.ecg", {}, "ECG");
    this.leadWord = h("span.lane-word", { role: "status", hidden: true });
    this.leadLane = h("div.lane", { "data-kind": "ecg", hidden: true }, this.leadName, this.leadWord, this.lead);
    this.times = h("small", {}, "");
    this.shed = h("small", { hidden: true }, "left out, the device is busy; the recording goes on");
    this.magnified = 1;
    this.contact = h("strong", {}, "unknown");
    this.why = h("span", {}, "");
    this.meter = h("i");
    this.bars = h("div.windows", { role: "img" });
    this.counted = h("strong", {}, "0");
    this.wanted = h("span", {}, "");
    this.element = h("article.card.live", { "data-device": this.device, "aria-label": `Exam running on ${name}` },
      h("div.live-head", {},
        h("div.live-who", {}, h("span.pulse"), h("div", {}, h("h3", {}, name), this.place)),
        h("dl.live-facts", {},
          h("div.fact", {}, h("dt", {}, "Time"), this.elapsed),
          h("div.fact", {}, h("dt", {}, "Heart rate"), this.rate),
          h("div.fact", {}, this.what, this.running))),
      h("div.lanes", {},
        h("div.lane", {}, h("span.lane-name", {}, "Raw", this.shed), this.raw),
        h("div.lane", {}, h("span.lane-name.clean", {}, "Denoised", this.times), this.clean),
        this.leadLane),
      h("div.live-foot", {},
        h("div", {},
          h("div.label-row", {}, h("span", {}, "Contact ", this.contact), this.why),
          h("div.meter", {}, this.meter)),
        h("div", {},
          h("div.label-row", {}, h("span", {}, "Good windows ", this.counted, this.wanted), h("span.wide", {}, "one each second; height: probability of abnormal")),
          this.bars)));
    this.showWindows();
  }

  /** Where the exam stands: recording, site done, finished, cancelled, partial. */
  exam(message) {
    if (message.exam !== this.id) {
      this.id = message.exam;
      this.windows = [];
      this.over = false;
      this.running.replaceChildren("listening");
      this.what.textContent = ABNORMAL_NOW;
    }
    this.needed = message.needed_windows;
    this.base = { seconds: message.seconds, at: this.heard === message.exam ? this.newest : 0 };
    this.showWindows();
    this.showElapsed();
    const words = {
      recording: message.site ? siteName(message.site) : "",
      "site done": "Site done, move to the next",
      finished: "Exam finished, its sound is on the way",
      cancelled: "Exam cancelled",
      partial: "A partial recording was found on the device after a crash; it is kept there",
    };
    const place = message.state === "recording" && message.sites > 1 ? ` · site ${message.position + 1} of ${message.sites}` : "";
    this.place.textContent = words[message.state] + place;
    this.over = !["recording", "site done"].includes(message.state);
    this.element.classList.toggle("ended", this.over);
    if (this.over) {
      this.shed.hidden = true;
      this.what.textContent = "Verdict";
      this.running.replaceChildren(message.label ? verdictPill(message.label) : "none");
    }
  }

  judgeBy(limits) {
    this.limits = limits;
    this.showWindows();
  }

  showElapsed() {
    if (!this.base) return;
    const running = this.over || !this.base.at ? 0 : Math.max(0, this.newest - this.base.at);
    this.elapsed.textContent = clock(this.base.seconds + running).slice(0, -2);
  }

  wave(message) {
    // another exam may count its time from zero again
    if (!this.traces || this.traces.raw.rate !== message.rate || this.heard !== message.exam) {
      this.traces = { raw: new Trace(message.rate), clean: new Trace(message.rate) };
      this.heard = message.exam;
      this.head = null;
      if (this.base) this.base.at = 0;
    }
    const start = Math.round(message.t * message.rate);
    this.traces.raw.add(start, message.raw);
    this.traces.clean.add(start, message.clean);
    this.newest = this.traces.raw.end / message.rate;
    this.heardAt = performance.now();
    if (this.head === null || Math.abs(this.newest - this.head) > 2) this.head = this.newest - 0.15;
    for (const lane of ["raw", "clean"]) {
      let peak = 0;
      for (const value of message[lane]) peak = Math.max(peak, Math.abs(value));
      this.peak[lane] = Math.max(peak, this.peak[lane] * 0.99, LEAST_PEAK);
    }
    // the denoised lane may be drawn larger, up to a point, and says so
    this.magnified = Math.min(MOST_MAGNIFIED, Math.max(1, this.peak.raw / this.peak.clean));
    this.times.textContent = this.magnified > 1.15 ? `drawn ${this.magnified.toFixed(1)} times larger` : "";
    if (this.base && this.base.at === 0) this.base.at = this.newest;
    this.showElapsed();
  }

  /** The lead's last 100 ms, or only how it is. It lies on the sound's time. */
  ecg(message) {
    this.leadLane.hidden = false;
    const word = LEAD_WORDS[message.lead] ?? message.lead;
    this.leadWord.hidden = !word;
    if (this.leadWord.textContent !== word) this.leadWord.textContent = word;
    if (!known(message.t) || !message.raw.length) return;
    if (!this.leads || this.leads.rate !== message.rate || this.leads.exam !== message.exam) {
      this.leads = { rate: message.rate, exam: message.exam, raw: new Trace(message.rate), clean: new Trace(message.rate), cleaned: false };
    }
    const { leads } = this;
    // two clocks: where a message begins is measured, and may lie a sample off the last one's end
    let start = Math.round(message.t * message.rate);
    if (leads.raw.end !== null && Math.abs(start - leads.raw.end) <= 3) start = leads.raw.end;
    const measured = (values, gaps) => {
      const mv = Float32Array.from(values, (value) => (value * 5) / 32767);
      for (const [from, to] of gaps) mv.fill(NaN, from, to);
      return mv;
    };
    leads.raw.add(start, measured(message.raw, message.gaps));
    leads.clean.add(start, message.clean.length ? measured(message.clean, message.clean_gaps) : new Float32Array(message.raw.length).fill(NaN));
    leads.cleaned = message.clean.length > 0;
    this.leadName.replaceChildren("ECG", h("small", {}, leads.cleaned ? "denoised, raw behind it" : "raw"));
  }

  quality(message) {
    this.contact.textContent = known(message.score) ? `${qualityWord(message.score)}, ${percent(message.score)}` : "unknown";
    this.why.textContent = (message.reasons || []).join(", ");
    this.meter.style.width = known(message.score) ? `${message.score * 100}%` : "0";
    this.meter.parentElement.classList.toggle("low", poor(message.score));
    if (known(message.heart_rate)) this.rate.replaceChildren(String(Math.round(message.heart_rate)), h("small", {}, " /min"));
  }

  window(message) {
    if (this.windows.some((each) => each.site === message.site && each.start === message.start)) return;
    this.windows.push(message);
    this.running.replaceChildren(probability(message.probability));
    this.showWindows();
  }

  showWindows() {
    const good = this.windows.filter((each) => each.good).length;
    this.counted.textContent = String(good);
    this.wanted.textContent = this.needed ? `, ${this.needed} wanted` : "";
    this.bars.setAttribute("aria-label", `${this.windows.length} windows heard, ${good} of them good`);
    if (!this.windows.length) {
      this.bars.replaceChildren(h("span.none", {}, "The first comes after five seconds of sound."));
      return;
    }
    this.bars.replaceChildren(...this.windows.slice(-60).map((each) =>
      h(`i${each.good ? "" : ".poor"}${SIDES[side(each.probability, this.limits)] ?? ""}`, {
        title: `${probability(each.probability)}${each.good ? "" : `, not counted: ${(each.reasons || []).join(", ") || "poor quality"}`}`,
        vars: { height: `${8 + (each.probability ?? 0) * 92}%` },
      })));
  }

  frame(now) {
    if (!this.element.isConnected && this.last) return; // removed: let it go
    requestAnimationFrame(this.frame);
    if (this.last && now - this.last < (still.matches ? 1000 : FRAME_MS)) return;
    const passed = this.last ? Math.min(0.2, (now - this.last) / 1000) : 0;
    this.last = now;
    if (this.head === null) return this.blank();
    // run at the pace of time; lean towards the newest sample, so that jitter is not seen
    if (!this.over) {
      // a device that is late leaves the waveform out first: time goes on, with nothing to show for it
      const silent = (now - this.heardAt) / 1000;
      if (silent > 0.7) this.newest += passed;
      this.shed.hidden = silent < 1.5;
      const aim = this.newest - 0.15;
      this.head = Math.min(this.newest, this.head + passed + (aim - this.head) * Math.min(1, passed * 1.5));
      if (still.matches) this.head = this.newest;
    }
    const shades = palette();
    this.draw(this.raw, this.traces.raw, shades.raw, this.peak.raw);
    this.draw(this.clean, this.traces.clean, shades.clean, this.peak.raw / this.magnified);
    if (this.leads) this.drawLead(shades);
  }

  /** The same seconds as the lanes above. */
  drawLead(shades) {
    const [context, width, height] = prepare(this.lead);
    const [from, to] = [this.head - SHOWN_S, this.head];
    context.strokeStyle = shades.line;
    context.lineWidth = 1;
    context.beginPath();
    for (let second = Math.ceil(from); second <= to; second++) {
      const at = Math.round(((second - from) / SHOWN_S) * width) + 0.5;
      context.moveTo(at, 0);
      context.lineTo(at, height);
    }
    context.stroke();
    const taken = (trace) => {
      const start = Math.floor(from * trace.rate);
      const samples = new Float32Array(Math.ceil(SHOWN_S * trace.rate) + 1);
      for (let n = 0; n < samples.length; n++) samples[n] = trace.at(start + n);
      return { samples, rate: trace.rate, start: start / trace.rate };
    };
    const raw = taken(this.leads.raw);
    const main = this.leads.cleaned ? taken(this.leads.clean) : raw;
    if (!this.ranges || this.last - this.ranges.at > 400) {
      this.ranges = { at: this.last, main: rangeOf(main.samples), raw: rangeOf(raw.samples) };
    }
    const range = this.ranges.main;
    // leaned towards, so that the picture does not jump with every beat
    this.reach = this.reach ? this.reach + (range.reach - this.reach) * 0.1 : range.reach;
    this.middle = known(this.middle) ? this.middle + (range.middle - this.middle) * 0.1 : range.middle;
    const view = { from, to, width, height, middle: this.middle, reach: this.reach };
    if (this.leads.cleaned) {
      context.globalAlpha = 0.45;
      drawCurve(context, raw, { ...view, middle: this.ranges.raw.middle }, shades.raw, 1);
      context.globalAlpha = 1;
    }
    drawCurve(context, main, view, this.leads.cleaned ? shades.ecg : shades.raw, 1.5);
  }

  blank() {
    for (const canvas of [this.raw, this.clean]) {
      const [context, width, height] = prepare(canvas);
      context.strokeStyle = palette().line;
      context.strokeRect(-1, Math.round(height / 2) + 0.5, width + 2, 0);
    }
  }

  draw(canvas, trace, colour, peak) {
    const [context, width, height] = prepare(canvas);
    const shades = palette();
    const from = this.head - SHOWN_S;
    const x = (second) => ((second - from) / SHOWN_S) * width;
    context.strokeStyle = shades.line;
    context.lineWidth = 1;
    context.beginPath();
    for (let second = Math.ceil(from); second <= this.head; second++) {
      const at = Math.round(x(second)) + 0.5;
      context.moveTo(at, 0);
      context.lineTo(at, height);
    }
    context.moveTo(0, Math.round(height / 2) + 0.5);
    context.lineTo(width, Math.round(height / 2) + 0.5);
    context.stroke();
    const reach = height / 2 - 8;
    context.strokeStyle = colour;
    context.lineWidth = 1.5;
    context.lineJoin = "round";
    context.beginPath();
    let down = false;
    let [px, py] = [0, 0];
    const first = Math.floor(from * trace.rate);
    const last = Math.ceil(this.head * trace.rate);
    for (let index = first; index <= last; index++) {
      const value = trace.at(index);
      if (Number.isNaN(value)) {
        down = false;
        continue;
      }
      px = x(index / trace.rate);
      py = height / 2 - Math.max(-1.05, Math.min(1.05, value / peak)) * reach;
      if (down) context.lineTo(px, py);
      else context.moveTo(px, py);
      down = true;
    }
    context.stroke();
    if (down && !this.over) {
      context.fillStyle = colour;
      context.beginPath();
      context.arc(Math.min(px, width - 3), py, 3, 0, 2 * Math.PI);
      context.fill();
    }
  }
}

onColours.add(forgetColours);
