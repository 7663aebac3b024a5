// Raw and denoised as one player: both run together, one is heard, so a switch keeps the position.

const DRIFT_S = 0.02;

export class Player extends EventTarget {
  /** sources: { raw: url, clean: url } */
  constructor(sources, heard = "clean") {
    super();
    this.audio = {};
    this.heard = heard;
    this.wanted = { ...sources };
    for (const [kind, url] of Object.entries(sources)) this.adopt(kind, this.make(kind, url));
  }

  make(kind, url) {
    const audio = new Audio();
    audio.preload = "auto";
    audio.src = url;
    audio.dataset.kind = kind;
    audio.muted = true;
    return audio;
  }

  adopt(kind, audio) {
    audio.muted = kind !== this.heard;
    audio.addEventListener("error", () => this.say("failed", { kind }));
    for (const name of ["play", "pause", "ended", "loadedmetadata", "seeked"]) audio.addEventListener(name, () => this.say("change"));
    audio.addEventListener("ended", () => audio === this.lead && this.pause());
    this.audio[kind] = audio;
  }

  /** Another version of one sound, at the same place; the old one goes on until the new one can be heard. */
  async replace(kind, url) {
    this.wanted[kind] = url;
    const fresh = this.make(kind, url);
    await new Promise((ready, failed) => {
      fresh.addEventListener("canplaythrough", ready, { once: true });
      fresh.addEventListener("error", () => failed(new Error("the sound could not be made")), { once: true });
    });
    if (this.wanted[kind] !== url) return; // another was asked for meanwhile
    const old = this.audio[kind];
    fresh.currentTime = this.time;
    if (this.playing) await fresh.play().catch(() => {});
    this.adopt(kind, fresh);
    old.replaceWith(fresh);
    old.muted = true;
    old.pause();
    this.align();
    this.say("change");
  }

  say(name, detail = {}) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }

  get lead() {
    return this.audio[this.heard];
  }

  get others() {
    return Object.values(this.audio).filter((audio) => audio !== this.lead);
  }

  get playing() {
    return !this.lead.paused && !this.lead.ended;
  }

  get time() {
    return this.lead.currentTime;
  }

  get duration() {
    return Number.isFinite(this.lead.duration) ? this.lead.duration : null;
  }

  async play() {
    if (this.lead.ended || (this.duration !== null && this.time >= this.duration - 0.05)) this.seek(0);
    this.align();
    for (const audio of this.others) audio.play().catch(() => {});
    await this.lead.play();
    this.say("change");
  }

  pause() {
    for (const audio of Object.values(this.audio)) audio.pause();
    this.say("change");
  }

  seek(second) {
    const at = Math.max(0, Math.min(second, this.duration ?? second));
    for (const audio of Object.values(this.audio)) audio.currentTime = at;
    this.say("change");
  }

  align() {
    for (const audio of this.others) {
      if (Math.abs(audio.currentTime - this.lead.currentTime) > DRIFT_S) audio.currentTime = this.lead.currentTime;
    }
  }

  /** Hear the other one, at the same place. */
  hear(kind) {
    if (kind === this.heard || !this.audio[kind]) return;
    const was = this.playing;
    this.align();
    this.heard = kind;
    for (const [name, audio] of Object.entries(this.audio)) audio.muted = name !== kind;
    if (was && this.lead.paused) this.lead.play().catch(() => {});
    this.say("change");
  }
}
