// Whose the next exam of a stethoscope is: a code that stands for a person, never a name.

import { h } from "./shell.js";
import { Command } from "./command.js";

export class Subject {
  constructor(device) {
    this.asked = new Command(device, "subject", (says, kind, message) => {
      this.say(says, kind);
      if (message?.ok) this.code.value = "";
    });
    this.code = h("input", { type: "text", maxlength: "40", autocomplete: "off", autocapitalize: "characters",
      "aria-label": "Subject code of the next exam", placeholder: "code, or line of its list" });
    this.code.spellcheck = false;
    this.says = h("p.ear-says", { role: "status" }, "");
    const form = h("form.ear-row", { onsubmit: (event) => this.tell(event) },
      h("span", {}, "Next exam"), this.code, h("button.button.small", { type: "submit" }, "Set"));
    this.element = h("div.subject", { role: "group", "aria-label": "Subject of the next exam" }, form, this.says);
  }

  tell(event) {
    event.preventDefault();
    this.say("asking …");
    this.asked.ask({ code: this.code.value.trim() });
  }

  answer(message) {
    this.asked.answer(message);
  }

  say(words, kind = "") {
    this.says.textContent = words;
    this.says.classList.toggle("bad", kind === "bad");
  }
}
