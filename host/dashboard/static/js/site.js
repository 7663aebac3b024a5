// One site of an exam: raw and denoised sound to look at, to compare by ear, to zoom into.

import { api, clock, h, icon, known, onColours, percent, qualityWord, seconds, siteName } from "./shell.js";
import { RATE, drawAxis, drawSpectrogram, drawWave, drawWindows, paintSpectrogram, palette } from "./draw.js";
import { drawEcg, drawPeaks, rangeOf } from "./ecg.js";
import { Player } from "./player.js";

const LEAST_SPAN = RATE / 2;
const KINDS = ["raw", "clean"];
const NAMES = { raw: "Raw", clean: "Denoised" };

async function bytes(path) {
  const answer = await fetch(path);
  if (!answer.ok) throw new Error((await answer.json().catch(() => ({}))).error || answer.statusText);
  return answer.arrayBuffer();
}

export class SiteView {
  constructor(exam, site) {
    this.exam = exam;
    this.site = site;
    this.from = 0;
    this.to = Math.max(LEAST_SPAN, site.samples);
    this.sounds = {};
    this.player = null;
    this.element = h("section.card.site", { "data-site": site.site, "aria-label": siteName(site.site) }, this.head());
    if (site.complete) this.build();
    else this.wait();
  }

  head() {
    const { site } = this;
    const facts = [seconds(site.seconds), `${site.good_windows} good ${site.good_windows === 1 ? "window" : "windows"} of ${site.windows.length}`];
    if (known(site.heart_rate_bpm)) facts.push(`${Math.round(site.heart_rate_bpm)} beats/min`);
    facts.push(`ended: ${site.ended}`);
    return h("div.site-head", {},
      h("div.site-title", {}, h("h2", {}, siteName(site.site)), h("p.muted", {}, facts.join(" · "))),
      h("div.chips", {}, this.chips()));
  }

  chips() {
    const { site } = this;
    const made = site.troubles.slice(0, 4).map((trouble) => h("span.chip.warn", {}, trouble));
    if (site.troubles.length > 4) made.push(h("span.chip.warn", { title: site.troubles.slice(4).join(", ") }, `${site.troubles.length - 4} more`));
    if (site.clipped.length) made.push(h("span.chip.warn", {}, `clipped ${site.clipped.length}×`));
    if (site.gaps.length) made.push(h("span.chip.warn", {}, `${site.gaps.length} ${site.gaps.length === 1 ? "gap" : "gaps"}`));
    const judged = site.windows.map((each) => each.quality).filter(known);
    if (judged.length) {
      const mean = judged.reduce((a, b) => a + b, 0) / judged.length;
      made.unshift(h("span.chip", {}, `sound ${qualityWord(mean)}, ${percent(mean)}`));
    }
    return made;
  }

  wait() {
    const { site } = this;
    this.element.append(h("div.waiting", {},
      h("p", {}, h("strong", {}, "The sound is not whole yet. "), `${site.have} of ${site.chunks} pieces have arrived. The missing ones are asked for by themselves; nothing is lost on the device.`),
      h("div.meter", { role: "img", "aria-label": `${site.have} of ${site.chunks} pieces` }, h("i", { vars: { width: `${(100 * site.have) / site.chunks}%` } }))));
  }

  // ---- building

  path(kind) {
    return `/api/exams/${this.exam.id}/sites/${encodeURIComponent(this.site.site)}/${kind}`;
  }

  sound(kind, suffix) {
    return `/sounds/${this.exam.id}/${encodeURIComponent(this.site.site)}${kind ? `/${kind}` : ""}.${suffix}`;
  }

  build() {
    this.canvas = {};
    const lane = (kind, what, label) => {
      this.canvas[`${kind}-${what}`] = h(`canvas.${what}`, { role: "img", "aria-label": label });
      return h(`div.lane.${kind}`, { "data-kind": kind, "data-what": what },
        h(`span.lane-name${what === "wave" ? `.${kind}` : ".plain"}`, {}, what === "wave" ? NAMES[kind] : `${NAMES[kind]}, spectrum`),
        this.canvas[`${kind}-${what}`]);
    };
    this.canvas.windows = h("canvas.strip", { role: "img", "aria-label": this.windowsInWords() });
    this.canvas.axis = h("canvas.axis", { "aria-hidden": "true" });
    this.cursor = h("div.cursor");
    this.view = h("div.lanes.view", { tabIndex: 0, role: "group", "aria-label": "Waveform and spectrum. Arrow keys move, space plays, plus and minus zoom, R and D choose raw or denoised." },
      lane("raw", "wave", "Waveform of the raw sound"),
      lane("clean", "wave", "Waveform of the denoised sound"),
      this.ecgLane(),
      lane("raw", "spec", "Spectrogram of the raw sound, 0 to 800 hertz"),
      lane("clean", "spec", "Spectrogram of the denoised sound, 0 to 800 hertz"),
      h("div.lane", {}, h("span.lane-name.plain", {}, "Windows of 5 s, probability of abnormal"), this.canvas.windows),
      this.canvas.axis,
      this.cursor);
    this.note = h("span", { role: "status" }, "Reading the sound …");
    this.element.append(this.transport(), this.view,
      h("div.site-foot", {}, this.note,
        h("div.downloads", {},
          h("a.button.small", { href: this.sound("", "flac"), download: "" }, icon("download"), "FLAC, as recorded"),
          this.site.ecg && h("a.button.small", { href: `/sounds/${this.exam.id}/${encodeURIComponent(this.site.site)}.ecg.flac`, download: "" }, icon("download"), "FLAC, ECG"),
          h("a.button.small", { href: this.sound("raw", "wav"), download: `${this.exam.id}-${this.site.site}-raw.wav` }, "WAV raw"),
          h("a.button.small", { href: this.sound("clean", "wav"), download: `${this.exam.id}-${this.site.site}-denoised.wav` }, "WAV denoised"))));
    this.gestures();
    onColours.add(() => this.recolour());
    new ResizeObserver(() => this.draw()).observe(this.view);
    this.load();
  }

  /** The ECG, where a lead was to be heard; what is wrong with it is said in words. */
  ecgLane() {
    const { ecg } = this.site;
    if (!ecg) return this.exam.ecg_source ? h("div.lane.none", {}, h("p.muted.lane-none", {}, `No ECG came from ${this.exam.ecg_source}.`)) : null;
    this.canvas.ecg = h("canvas.ecg", { role: "img", "aria-label": "ECG with R peaks" });
    this.ecgName = h("small", {}, "");
    return h("div.lane", { "data-kind": "ecg", "data-what": "ecg" },
      h("span.lane-name.ecg", {}, "ECG", this.ecgName),
      ecg.gap_seconds > 0 && h("span.lane-word", {}, `${(ecg.reasons || []).join(", ") || "gaps"}: ${ecg.gap_seconds.toFixed(1)} s are no ECG`),
      this.canvas.ecg);
  }

  async loadEcg() {
    const path = this.path("ecg");
    try {
      const about = await api(path);
      const millivolts = async (kind) => Float32Array.from(new Int16Array(await bytes(`${path}/${kind}`)), (value) => (value * about.full_mv) / 32767);
      const raw = await millivolts("raw");
      const clean = about.clean ? await millivolts("clean") : null;
      this.ecg = { about, raw, clean, range: rangeOf(clean || raw), rawRange: rangeOf(raw) };
      const words = [clean ? `denoised with bundle ${about.bundle}, raw behind it` : "raw", `${about.r_peaks.length} R peaks`];
      if (known(about.heart_rate_bpm)) words.push(`${Math.round(about.heart_rate_bpm)} beats/min`);
      this.ecgName.textContent = words.join(" · ");
      this.ecgName.title = `clock ${about.drift_ppm.toFixed(0)} ppm from the sound's${known(about.spread_ms) ? `, aligned within ${about.spread_ms.toFixed(1)} ms` : ""}`;
    } catch (error) {
      this.ecgName.textContent = `cannot be shown: ${error.message}`;
    }
    this.draw();
  }

  transport() {
    this.playButton = h("button.button.play", { type: "button", onclick: () => this.toggle(), disabled: true }, icon("play"), "Play");
    this.choice = {};
    const seg = h("div.seg", { role: "group", "aria-label": "Which sound to hear" }, KINDS.map((kind) =>
      (this.choice[kind] = h("button", { type: "button", "aria-pressed": "false", "data-hear": kind, onclick: () => this.hear(kind) }, NAMES[kind]))));
    this.place = h("input", { type: "range", min: "0", max: String(this.site.seconds), step: "0.01", value: "0", "aria-label": "Position", oninput: () => this.player?.seek(Number(this.place.value)) });
    this.time = h("span.time", {}, `0:00.0 / ${clock(this.site.seconds)}`);
    this.strength = h("input", { type: "range", min: "0", max: "1", step: "0.1", value: "1", disabled: true, "aria-label": "Strength of denoising", vars: { "--at": "100%" }, oninput: () => this.showStrength(), onchange: () => this.soften() });
    this.amount = h("span.num", {}, "100 %");
    const soft = h("label.soft", {}, h("span", {}, "Strength"), this.strength, this.amount);
    const tool = (name, label, act) => h("button.quiet", { type: "button", "aria-label": label, title: label, onclick: act }, icon(name));
    return h("div.transport", {}, this.playButton, seg, soft, this.time, h("div.grow", {}, this.place),
      h("div.tools", {},
        tool("minus", "Zoom out", () => this.zoom(2)),
        tool("plus", "Zoom in", () => this.zoom(0.5)),
        tool("fit", "Show all", () => this.show(0, this.site.samples))));
  }

  windowsInWords() {
    const { windows } = this.site;
    const good = windows.filter((each) => each.good && known(each.probability));
    if (!windows.length) return "No windows";
    const values = good.map((each) => each.probability);
    return `${windows.length} windows, ${good.length} good${values.length ? `, probability of abnormal from ${Math.min(...values).toFixed(2)} to ${Math.max(...values).toFixed(2)}` : ""}`;
  }

  async load() {
    if (this.canvas.ecg) this.loadEcg();
    try {
      await this.fetchSound("raw");
      this.note.textContent = "Cleaning the sound …";
    } catch (error) {
      this.note.textContent = `The sound cannot be shown: ${error.message}`;
      return;
    }
    const sources = { raw: this.sound("raw", "wav") };
    try {
      await this.fetchSound("clean");
      sources.clean = this.sound("clean", "wav");
      const clean = this.sounds.clean.about;
      const gain = clean.gain_db;
      const louder = `both ${Math.abs(gain) < 0.5 ? "as recorded" : `${gain > 0 ? "+" : "−"}${Math.abs(gain).toFixed(0)} dB`}`;
      this.note.replaceChildren(
        clean.exact ? `Denoised with bundle ${clean.bundle}, as on the device` : h("strong", {}, `Denoised with bundle ${clean.bundle}; the exam names ${clean.bundle_wanted}, which is not here`),
        ` · ${louder} · use headphones: heart sounds are low`);
    } catch (error) {
      this.note.textContent = `No denoised sound: ${error.message}`;
      this.choice.clean.disabled = true;
      for (const what of ["wave", "spec"]) this.canvas[`clean-${what}`].parentElement.hidden = true;
    }
    this.player = new Player(sources, sources.clean ? "clean" : "raw");
    this.player.addEventListener("change", () => this.showPlayer());
    this.player.addEventListener("failed", () => (this.note.textContent = "The browser cannot play this sound."));
    this.playButton.disabled = false;
    this.strength.disabled = !sources.clean;
    // found by name in tests and by assistive tools that look for media
    for (const audio of Object.values(this.player.audio)) this.element.append(audio);
    this.showPlayer();
    this.draw();
  }

  async fetchSound(kind) {
    const about = await api(this.path(kind));
    const [wave, levels] = await Promise.all([bytes(`${this.path(kind)}/wave`), bytes(`${this.path(kind)}/spectrogram`)]);
    const spec = { ...about.spectrogram, levels: new Uint8Array(levels) };
    this.sounds[kind] = { about, samples: new Int16Array(wave), spec, picture: paintSpectrogram(spec) };
    this.draw();
  }

  recolour() {
    for (const sound of Object.values(this.sounds)) sound.picture = paintSpectrogram(sound.spec);
    this.draw();
  }

  // ---- drawing

  draw() {
    cancelAnimationFrame(this.drawing);
    this.drawing = requestAnimationFrame(() => {
      const shades = palette();
      const { from, to, site } = this;
      const marks = [
        ...site.gaps.map(([start, end]) => ({ start, end, kind: "gap" })),
        ...site.clipped.map(([start, end]) => ({ start, end, kind: "clipped" })),
      ];
      for (const kind of KINDS) {
        const sound = this.sounds[kind];
        if (!sound) continue;
        drawWave(this.canvas[`${kind}-wave`], sound.samples, from, to, 32767, shades[kind], kind === "raw" ? marks : marks.filter((mark) => mark.kind === "gap"));
        drawSpectrogram(this.canvas[`${kind}-spec`], sound.picture, sound.spec, from, to);
      }
      if (this.ecg) {
        drawEcg(this.canvas.ecg, this.ecg, from / RATE, to / RATE);
        for (const kind of KINDS) if (this.sounds[kind]) drawPeaks(this.canvas[`${kind}-wave`], this.ecg.about.r_peaks, from / RATE, to / RATE);
      }
      drawWindows(this.canvas.windows, site.windows, from, to, this.exam.window, this.exam);
      drawAxis(this.canvas.axis, from, to);
      this.moveCursor();
    });
  }

  moveCursor() {
    const x = ((this.player?.time ?? 0) * RATE - this.from) / (this.to - this.from);
    this.cursor.hidden = x < 0 || x > 1;
    this.cursor.style.transform = `translateX(${x * this.view.clientWidth}px)`;
  }

  /** Zoom or pan to samples [from, to), kept inside the recording. */
  show(from, to) {
    const span = Math.min(Math.max(to - from, LEAST_SPAN), Math.max(LEAST_SPAN, this.site.samples));
    this.from = Math.max(0, Math.min(from, this.site.samples - span));
    this.to = this.from + span;
    this.draw();
  }

  zoom(factor, about = null) {
    const centre = about ?? (this.player && this.inView(this.player.time * RATE) ? this.player.time * RATE : (this.from + this.to) / 2);
    const span = (this.to - this.from) * factor;
    const share = (centre - this.from) / (this.to - this.from);
    this.show(centre - share * span, centre + (1 - share) * span);
  }

  inView(sample) {
    return sample >= this.from && sample <= this.to;
  }

  // ---- playing

  async toggle() {
    if (!this.player) return;
    if (this.player.playing) this.player.pause();
    else {
      document.dispatchEvent(new CustomEvent("stethopi-play", { detail: this }));
      await this.player.play().catch((error) => (this.note.textContent = `The browser does not play: ${error.message}`));
    }
  }

  hear(kind) {
    this.player?.hear(kind);
  }

  showStrength() {
    const share = Number(this.strength.value);
    this.strength.style.setProperty("--at", `${100 * share}%`);
    this.amount.textContent = percent(share);
  }

  /** Hear the denoised sound at another strength; the picture stays that of full strength. */
  async soften() {
    const share = Number(this.strength.value);
    this.hear("clean");
    try {
      await this.player.replace("clean", `${this.sound("clean", "wav")}${share === 1 ? "" : `?strength=${share}`}`);
    } catch (error) {
      this.note.textContent = `No sound of this strength: ${error.message}`;
    }
  }

  showPlayer() {
    const { player } = this;
    const was = this.playing;
    this.playing = player.playing;
    this.playButton.replaceChildren(icon(player.playing ? "pause" : "play"), player.playing ? "Pause" : "Play");
    for (const kind of KINDS) {
      this.choice[kind].setAttribute("aria-pressed", String(player.heard === kind));
      for (const what of ["wave", "spec"]) this.canvas[`${kind}-${what}`].parentElement.classList.toggle("active", player.heard === kind);
    }
    this.showTime();
    if (player.playing && !was) this.follow();
  }

  follow() {
    if (!this.playing) return;
    this.showTime();
    const at = this.player.time * RATE;
    const span = this.to - this.from;
    if (span < this.site.samples && (at > this.to - 0.08 * span || at < this.from)) this.show(at - 0.08 * span, at + 0.92 * span);
    requestAnimationFrame(() => this.follow());
  }

  showTime() {
    const { time } = this.player;
    const all = this.player.duration ?? this.site.seconds;
    this.place.max = String(all);
    this.place.value = String(time);
    this.place.setAttribute("aria-valuetext", `${time.toFixed(1)} of ${all.toFixed(1)} seconds`);
    this.place.style.setProperty("--at", `${(100 * time) / all}%`);
    this.time.textContent = `${clock(time)} / ${clock(all)}`;
    this.moveCursor();
  }

  // ---- hands

  gestures() {
    const sampleAt = (event) => {
      const box = this.view.getBoundingClientRect();
      return this.from + ((event.clientX - box.left) / box.width) * (this.to - this.from);
    };
    const fingers = new Map();
    let start = null;
    this.view.addEventListener("pointerdown", (event) => {
      if (event.button > 0) return;
      fingers.set(event.pointerId, event);
      this.view.setPointerCapture(event.pointerId);
      start = { x: event.clientX, from: this.from, to: this.to, moved: false, apart: null };
      if (fingers.size === 2) {
        const [a, b] = [...fingers.values()];
        start.apart = Math.abs(a.clientX - b.clientX) || 1;
        start.middle = (sampleAt(a) + sampleAt(b)) / 2;
      }
    });
    this.view.addEventListener("pointermove", (event) => {
      if (!start || !fingers.has(event.pointerId)) return;
      fingers.set(event.pointerId, event);
      if (fingers.size === 2 && start.apart) {
        const [a, b] = [...fingers.values()];
        const factor = start.apart / (Math.abs(a.clientX - b.clientX) || 1);
        const span = (start.to - start.from) * factor;
        const share = (start.middle - start.from) / (start.to - start.from);
        start.moved = true;
        this.show(start.middle - share * span, start.middle + (1 - share) * span);
        return;
      }
      const moved = event.clientX - start.x;
      if (Math.abs(moved) > 4) start.moved = true;
      if (!start.moved) return;
      if (this.to - this.from >= this.site.samples) this.player?.seek(sampleAt(event) / RATE);
      else {
        this.view.classList.add("dragging");
        const by = (moved / this.view.clientWidth) * (start.to - start.from);
        this.show(start.from - by, start.to - by);
      }
    });
    const up = (event) => {
      if (start && !start.moved && event.type === "pointerup") this.player?.seek(sampleAt(event) / RATE);
      fingers.delete(event.pointerId);
      this.view.classList.remove("dragging");
      if (!fingers.size) start = null;
    };
    this.view.addEventListener("pointerup", up);
    this.view.addEventListener("pointercancel", up);
    this.view.addEventListener("wheel", (event) => {
      if (!(event.ctrlKey || event.metaKey || event.shiftKey)) return; // plain scrolling stays scrolling
      event.preventDefault();
      if (event.shiftKey) {
        const by = ((event.deltaX || event.deltaY) / this.view.clientWidth) * (this.to - this.from);
        this.show(this.from + by, this.to + by);
      } else this.zoom(Math.exp(event.deltaY * 0.004), sampleAt(event));
    }, { passive: false });
    this.view.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const keys = {
        " ": () => this.toggle(),
        ArrowLeft: () => this.player?.seek(this.player.time - (event.shiftKey ? 5 : 1)),
        ArrowRight: () => this.player?.seek(this.player.time + (event.shiftKey ? 5 : 1)),
        Home: () => this.player?.seek(0),
        "+": () => this.zoom(0.5),
        "=": () => this.zoom(0.5),
        "-": () => this.zoom(2),
        0: () => this.show(0, this.site.samples),
        r: () => this.hear("raw"),
        d: () => this.hear("clean"),
      };
      const act = keys[event.key] || keys[event.key.toLowerCase()];
      if (!act) return;
      event.preventDefault();
      act();
    });
  }
}

// one sound at a time
const views = new Set();
export function remember(view) {
  views.add(view);
}
document.addEventListener("stethopi-play", (event) => {
  for (const view of views) if (view !== event.detail && view.player?.playing) view.player.pause();
});
