// One command at a time to a stethoscope, and what it answered; its answer may come before the server's word.

import { send } from "./shell.js";

const PATIENCE_MS = 6000;

export class Command {
  /** name: of the command; given(says, kind, message): what came of it, the answer with it where there is one. */
  constructor(device, name, given) {
    const [fleet, stethoscope] = device.split("/").map(encodeURIComponent);
    this.path = `/api/devices/${fleet}/${stethoscope}/${name}`;
    this.given = given;
    this.awaited = null;
  }

  async ask(body) {
    const mine = (this.awaited = {});
    clearTimeout(this.patience);
    try {
      const { command } = await send(this.path, body);
      if (this.awaited !== mine) return;
      mine.command = command;
      if (this.early?.command === command) this.answer(this.early);
      else this.patience = setTimeout(() => this.give("no answer; it may be offline", "bad"), PATIENCE_MS);
    } catch (error) {
      if (this.awaited === mine) this.give(error.message, "bad");
    }
  }

  /** A device has answered a command; whether it was this one. */
  answer(message) {
    this.early = message;
    const mine = this.awaited?.command !== undefined && this.awaited.command === message.command;
    if (mine) this.give(message.says, message.ok ? "" : "bad", message);
    return mine;
  }

  give(says, kind, message) {
    clearTimeout(this.patience);
    this.awaited = null;
    this.given(says, kind, message);
  }
}
