// The first page: what is running now, the exams, the stethoscopes.

import { api, h, icon, known, listen, percent, probability, qualityWord, seconds, siteName, timeAgo, verdictKey, verdictPill, zones } from "./shell.js";
import { Ear } from "./ear.js";
import { LiveCard } from "./live.js";
import { Subject } from "./subject.js";

const PAGE = 30;
const KEEP_ENDED_MS = 9000;
const FORGET_MS = 12000;
const OVER = new Set(["finished", "cancelled", "partial"]);

const liveList = document.getElementById("live");
const examList = document.getElementById("exams");
const deviceList = document.getElementById("devices");
const more = document.getElementById("more");

// ---------------------------------------------------------------- exams

const rows = new Map();

function scale(exam) {
  const key = verdictKey(exam.label);
  return h("div.mini", {},
    h(`div.mini-track${known(exam.threshold) ? "" : ".plain"}`, { vars: { ...zones(exam), "--mark": `var(--${key})` }, "aria-hidden": "true" },
      known(exam.probability) && h("i", { vars: { left: `${exam.probability * 100}%` } })),
    h("span.num", {}, known(exam.probability) ? `probability of abnormal ${probability(exam.probability)}` : "probability unknown"));
}

function arrival(exam) {
  if (exam.status === "complete") return null;
  const [have, all] = exam.sites.reduce(([a, b], site) => [a + site.have, b + site.chunks], [0, 0]);
  return h("span.arriving", {}, `Partial: ${have} of ${all} pieces of sound are here`);
}

function row(exam, fresh) {
  const places = exam.sites.map((site) => site.site).join(", ");
  const long = exam.sites.reduce((sum, site) => sum + (site.seconds || 0), 0);
  return h(`a.card.exam-row${fresh ? ".arrive" : ""}`, { href: `/exams/${exam.id}`, "data-exam": exam.id, "data-status": exam.status },
    verdictPill(exam.label),
    h("div.exam-main", {},
      h("strong", {}, exam.device),
      h("span", {}, exam.sites.length === 1 ? siteName(exam.sites[0].site) : places || "no sound yet",
        long ? ` · ${seconds(long)}` : "", known(exam.quality) ? ` · sound ${qualityWord(exam.quality)}` : "", " · ", timeAgo(exam.received)),
      arrival(exam)),
    scale(exam),
    h("span.chev", { "aria-hidden": "true" }, icon("chevron")));
}

/** How much of an exam an answer knows; answers may overtake each other. */
function knownPieces(exam) {
  return exam.status === "complete" ? Infinity : exam.sites.reduce((sum, site) => sum + site.have, 0);
}

function put(exam, { fresh = false, last = false } = {}) {
  const shown = rows.get(exam.id);
  if (shown && knownPieces(shown.exam) > knownPieces(exam)) return;
  const made = h("li", {}, row(exam, fresh));
  made.exam = exam;
  if (shown) shown.replaceWith(made);
  else if (last) examList.append(made);
  else examList.prepend(made);
  rows.set(exam.id, made);
}

function countExams(told) {
  const total = Math.max(told, rows.size); // an older answer may come last
  const place = document.getElementById("exams-count");
  place.textContent = total === 0 ? "" : `${total} ${total === 1 ? "exam" : "exams"}`;
  const none = document.getElementById("no-exams");
  if (total === 0 && !none) {
    examList.before(h("div.empty", { id: "no-exams" },
      h("h3", {}, "No exams yet"),
      h("p", {}, "They appear here by themselves as soon as a stethoscope has delivered one."),
      h("p", {}, "To see it work without one: ", h("code", {}, "stethopi demo"))));
  } else if (total > 0 && none) none.remove();
}

async function loadExams() {
  const answer = await api(`/api/exams?limit=${PAGE}`);
  const first = !rows.size;
  for (const exam of answer.exams.reverse()) put(exam);
  if (first) more.hidden = !answer.more;
  countExams(answer.total);
}

more.addEventListener("click", async () => {
  more.disabled = true;
  try {
    const oldest = examList.lastElementChild?.exam;
    const answer = await api(`/api/exams?limit=${PAGE}&before=${encodeURIComponent(oldest.cursor)}`);
    for (const exam of answer.exams) put(exam, { last: true });
    more.hidden = !answer.more;
  } finally {
    more.disabled = false;
  }
});

async function stored(id) {
  const fresh = !rows.has(id);
  const exam = await api(`/api/exams/${id}?brief=1`);
  put(exam, { fresh });
  countExams(exam.total);
}

// ---------------------------------------------------------------- stethoscopes

const STATES = { true: ["on", "online"], false: ["off", "offline"], null: ["", "state unknown"] };

const stethoscopes = new Map();

/** The card is made once and filled again and again: a hand may be on its controls. */
function deviceCard(device) {
  let kept = stethoscopes.get(device.id);
  if (!kept) {
    kept = { facts: h("div", {}), ear: new Ear(device.id), subject: new Subject(device.id) };
    kept.element = h("li.card.device", { "data-device": device.id }, kept.facts, kept.ear.element, kept.subject.element);
    stethoscopes.set(device.id, kept);
  }
  kept.element.setAttribute("data-online", String(device.online));
  kept.ear.element.hidden = !(device.online && device.listening);
  kept.subject.element.hidden = !device.online;
  if (device.listening) kept.ear.show(device.listening);
  kept.facts.replaceChildren(...deviceFacts(device));
  return kept.element;
}

function deviceFacts(device) {
  const [dot, word] = STATES[String(device.online)];
  const facts = [
    ["Last seen", timeAgo(device.last_seen)],
    ["Version", device.version || "unknown"],
    ["Models", device.bundle || "unknown"],
  ];
  if (known(device.backlog)) facts.push(["Waiting to be sent", String(device.backlog)]);
  if (device.refused) facts.push(["Refused by this host", String(device.refused)]);
  if (device.partials) facts.push(["Cut off by a crash, kept there", String(device.partials)]);
  if (device.sound === "gone") facts.push(["Microphone", "gone"]);
  if (known(device.temperature_c)) facts.push(["Temperature", `${Math.round(device.temperature_c)} °C`]);
  if (device.trouble) facts.push(["No exam can be kept", device.trouble]);
  if (known(device.disk_free_mb)) facts.push(["Disk free", device.disk_free_mb > 2000 ? `${Math.round(device.disk_free_mb / 1000)} GB` : `${Math.round(device.disk_free_mb)} MB`]);
  if (known(device.battery)) facts.push(["Battery", percent(device.battery)]);
  return [
    h("div.device-top", {}, icon("device"), h("strong", { title: `${device.device}, fleet ${device.fleet}` }, device.device),
      h(`i.dot.${dot || "unknown"}`, { "aria-hidden": "true" }), h("span", {}, word)),
    h("dl", {}, facts.map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)])),
  ];
}

async function loadDevices() {
  const answer = await api("/api/devices");
  const { devices } = answer;
  limits.clear();
  limits.set(null, answer);
  for (const device of devices) limits.set(device.id, device);
  for (const [id, each] of cards) each.judgeBy(limitsOf(id));
  if (!devices.length) {
    deviceList.replaceChildren(h("li.empty", {}, h("h3", {}, "None has reported"),
      h("p", {}, "A stethoscope appears when it first reaches the broker. Its settings name it: ", h("code", {}, "[mqtt] host"))));
    return;
  }
  const made = devices.map(deviceCard);
  const same = made.length === deviceList.children.length && made.every((card, n) => card === deviceList.children[n]);
  if (!same) deviceList.replaceChildren(...made);
}

// ---------------------------------------------------------------- live

const cards = new Map();
const limits = new Map(); // device → its bundle's threshold and undecided zone; null → the newest bundle's
const limitsOf = (device) => limits.get(device) ?? limits.get(null) ?? {};

function card(message) {
  let found = cards.get(message.device);
  if (!found) {
    found = new LiveCard(message.device, message.name);
    found.judgeBy(limitsOf(message.device));
    cards.set(message.device, found);
    liveList.append(found.element);
    idle();
  }
  // a stethoscope that falls silent without a word leaves by itself
  leave(message.device, FORGET_MS);
  return found;
}

function leave(device, after) {
  const found = cards.get(device);
  if (!found) return;
  clearTimeout(found.leaving);
  found.leaving = setTimeout(() => {
    cards.delete(device);
    found.element.remove();
    idle();
  }, after);
}

function idle() {
  const shown = document.getElementById("idle");
  if (cards.size && shown) shown.remove();
  if (!cards.size && !shown) {
    const trace = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    trace.setAttribute("class", "trace");
    trace.setAttribute("viewBox", "0 0 132 44");
    trace.setAttribute("aria-hidden", "true");
    const line = document.createElementNS("http://www.w3.org/2000/svg", "path");
    line.setAttribute("d", "M2 24h22l4-6 4 6h6l5-20 8 36 5-22 4 6h18l3-5 3 5h6l4-14 6 24 4-15 3 5h23");
    trace.append(line);
    liveList.append(h("div.card.idle", { id: "idle" }, trace,
      h("div", {}, h("h3", {}, "No exam is running"), h("p", {}, "When somebody presses the button on a stethoscope, its sound moves here."))));
  }
}

function hear(message) {
  if (message.type === "hello") {
    for (const device of [...cards.keys()]) if (!message.live.some((each) => each.device === device)) leave(device, 0);
    for (const each of message.live) for (const past of each.messages) hear(past);
    refresh();
  } else if (message.type === "wave") card(message).wave(message);
  else if (message.type === "ecg") card(message).ecg(message);
  else if (message.type === "quality") card(message).quality(message);
  else if (message.type === "window") card(message).window(message);
  else if (message.type === "exam") {
    card(message).exam(message);
    if (OVER.has(message.state)) leave(message.device, KEEP_ENDED_MS);
  } else if (message.type === "answer") {
    const { ear, subject } = stethoscopes.get(message.device) ?? {};
    ear?.answer(message);
    subject?.answer(message);
  } else if (message.type === "stored") stored(message.exam).catch(complain);
  else if (message.type === "lost") for (const device of [...cards.keys()]) leave(device, 0);
  else if (message.type === "device") {
    if (message.online === false) leave(message.device, 0);
    loadDevices().catch(complain);
  }
}

function complain(error) {
  console.warn("stethopi:", error.message);
}

function refresh() {
  loadExams().catch(complain);
  loadDevices().catch(complain);
}

idle();
listen(hear);
