// What a stethoscope that is online sends to the ear: raw or denoised, strength, preset. Each change is a
// command; what is shown is what the device answered.

import { h, percent } from "./shell.js";
import { Command } from "./command.js";

const NAMES = { raw: "Raw", clean: "Denoised" };
const PRESETS = { none: "All", bell: "Bell, 20 to 200 Hz", diaphragm: "Diaphragm, 100 to 500 Hz", extended: "Extended, 20 to 800 Hz" };
const SETTLE_MS = 150; // a slider that moves sends where it came to rest

export class Ear {
  constructor(device) {
    this.asked = new Command(device, "listen", (says, kind, message) => this.give(says, kind, message?.listening));
    this.choice = {};
    const seg = h("div.seg", { role: "group", "aria-label": "What is heard at the stethoscope" }, Object.entries(NAMES).map(([monitor, name]) =>
      (this.choice[monitor] = h("button", { type: "button", "aria-pressed": "false", onclick: () => this.ask({ monitor }) }, name))));
    this.strength = h("input", { type: "range", min: "0", max: "1", step: "0.05", "aria-label": "Strength of denoising", oninput: () => this.slide() });
    this.amount = h("span.num", {}, "");
    this.preset = h("select", { "aria-label": "Preset", onchange: () => this.ask({ preset: this.preset.value }) },
      Object.entries(PRESETS).map(([value, name]) => h("option", { value }, name)));
    this.says = h("p.ear-says", { role: "status" }, "");
    this.element = h("div.ear", { role: "group", "aria-label": "Listening" },
      h("div.ear-row", {}, seg, this.preset),
      h("label.ear-row", {}, h("span", {}, "Strength"), this.strength, this.amount),
      this.says);
  }

  get busy() {
    return this.asked.awaited !== null || this.sliding !== undefined;
  }

  /** What the device said that it sends to the ear. */
  show(listening) {
    if (this.busy) return;
    this.listening = listening;
    for (const [monitor, button] of Object.entries(this.choice)) button.setAttribute("aria-pressed", String(listening.monitor === monitor));
    this.strength.value = String(listening.strength);
    this.preset.value = listening.preset;
    this.showAmount();
    if (listening.output === "none" && !this.says.textContent) this.say("No loudspeaker is set there; strength changes the picture.");
  }

  showAmount() {
    const share = Number(this.strength.value);
    this.strength.style.setProperty("--at", `${100 * share}%`);
    this.strength.setAttribute("aria-valuetext", percent(share));
    this.amount.textContent = percent(share);
  }

  slide() {
    this.showAmount();
    clearTimeout(this.sliding);
    this.sliding = setTimeout(() => {
      this.sliding = undefined;
      this.ask({ strength: Number(this.strength.value) });
    }, SETTLE_MS);
  }

  ask(change) {
    this.say("asking …");
    this.asked.ask(change);
  }

  /** A device has answered a command, this page's or another one's. */
  answer(message) {
    if (!this.asked.answer(message) && message.listening) this.show(message.listening);
  }

  give(says, kind, listening = this.listening) {
    if (listening) this.show(listening);
    this.say(says, kind);
  }

  say(words, kind = "") {
    this.says.textContent = words;
    this.says.classList.toggle("bad", kind === "bad");
  }
}
