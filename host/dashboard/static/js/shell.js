// What every page has: building elements, words for values, the colour button, the link to the server.

/** An element: h("p.muted", { title: "…" }, "text", child …). Text is always text, never markup. */
export function h(name, props = {}, ...children) {
  const [tag, ...classes] = name.split(".");
  const element = document.createElement(tag || "div");
  if (classes.length) element.className = classes.join(" ");
  for (const [key, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (key === "vars") for (const [name, text] of Object.entries(value)) element.style.setProperty(name, text);
    else if (key in element && key !== "role") element[key] = value;
    else element.setAttribute(key, value === true ? "" : value);
  }
  for (const child of children.flat(Infinity)) {
    if (child !== null && child !== undefined && child !== false) element.append(child);
  }
  return element;
}

const SVG = "http://www.w3.org/2000/svg";

export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `/static/icons.svg#${name}`);
  svg.append(use);
  return svg;
}

export async function api(path) {
  const answer = await fetch(path, { headers: { accept: "application/json" } });
  if (!answer.ok) {
    const told = await answer.json().catch(() => ({}));
    throw Object.assign(new Error(told.error || `${answer.status} ${answer.statusText}`), { status: answer.status });
  }
  return answer.json();
}

/** Send a command; the server says what came of sending it. */
export async function send(path, body) {
  const answer = await fetch(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });
  const told = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(told.error || `${answer.status} ${answer.statusText}`);
  return told;
}

// ---------------------------------------------------------------- words

export const SITES = {
  AV: "Aortic valve",
  PV: "Pulmonary valve",
  TV: "Tricuspid valve",
  MV: "Mitral valve",
  other: "Other place",
};

export const siteName = (code) => (SITES[code] && code !== "other" ? `${SITES[code]} (${code})` : SITES[code] || code);

export const VERDICTS = {
  normal: { word: "Normal", lead: "The model heard nothing that it knows as abnormal." },
  abnormal: { word: "Abnormal", lead: "The sound resembles recordings that were labelled abnormal. A person should listen to it." },
  unsure: {
    word: "Unsure",
    lead: "There was not enough good sound to say either. Listen yourself, or record again.",
    close: "The probability lies too close to the threshold to say either. Listen yourself, or record again.",
  },
  unknown: { word: "Unknown", lead: "No verdict has come with this exam." },
};

/** The verdict as a sentence; why it is unsure is told apart. */
export function leadOf(exam) {
  const verdict = VERDICTS[verdictKey(exam.label)];
  const [low, high] = exam.undecided || [2, -1];
  const close = known(exam.probability) && exam.probability >= low && exam.probability <= high;
  return (close && verdict.close) || verdict.lead;
}

export const verdictKey = (label) => (label in VERDICTS ? label : "unknown");

export function verdictPill(label) {
  const key = verdictKey(label);
  return h(`span.verdict.is-${key}`, {}, h("span.badge", {}, icon(key)), VERDICTS[key].word);
}

export const known = (value) => value !== null && value !== undefined;
export const percent = (value) => (known(value) ? `${Math.round(value * 100)} %` : "unknown");
export const probability = (value) => (known(value) ? value.toFixed(2) : "unknown");
export const seconds = (value) => (known(value) ? `${value < 10 ? value.toFixed(1) : Math.round(value)} s` : "unknown");

const GOOD = Number(document.documentElement.dataset.goodQuality); // the server's word

export function qualityWord(value) {
  if (!known(value)) return "unknown";
  if (poor(value)) return "poor";
  return ["weak", "fair"][Math.floor((3 * (value - GOOD)) / (1 - GOOD))] ?? "good"; // thirds of what is left
}

/** Whether sound of this quality does not count. */
export const poor = (value) => known(value) && value < GOOD;

/** On which side of a bundle's threshold a probability lies; "" where either is not known. */
export function side(value, { threshold, undecided }) {
  if (!known(value) || !known(threshold)) return "";
  if (undecided && value >= undecided[0] && value <= undecided[1]) return "unsure";
  return value >= threshold ? "abnormal" : "normal";
}

/** Where normal ends and abnormal begins, as custom properties of a scale. */
export function zones({ threshold, undecided }) {
  const [low, high] = undecided || (known(threshold) ? [threshold, threshold] : [null, null]);
  return known(low) ? { "--low": `${low * 100}%`, "--high": `${high * 100}%` } : {};
}

export const clock = (s) => `${Math.floor(s / 60)}:${String(Math.floor(s % 60)).padStart(2, "0")}.${Math.floor((s * 10) % 10)}`;

const DAY = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", year: "numeric" });
const TIME = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const FULL = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "medium" });

export const dayTime = (iso) => (iso ? `${DAY.format(new Date(iso))}, ${TIME.format(new Date(iso))}` : "unknown");
export const fullTime = (iso) => (iso ? FULL.format(new Date(iso)) : "unknown");

export function ago(iso, now = Date.now()) {
  if (!iso) return "unknown";
  const past = Math.max(0, (now - new Date(iso).getTime()) / 1000);
  if (past < 10) return "just now";
  if (past < 60) return `${Math.floor(past)} s ago`;
  if (past < 3600) return `${Math.floor(past / 60)} min ago`;
  if (past < 86400) return `${Math.floor(past / 3600)} h ago`;
  return dayTime(iso);
}

/** A <time> whose words are kept fresh by `freshen`. */
export const timeAgo = (iso) => h("time", { dateTime: iso || "", title: fullTime(iso), "data-ago": "" }, ago(iso));

export function freshen(root = document) {
  for (const element of root.querySelectorAll("time[data-ago]")) element.textContent = ago(element.dateTime);
}

// ---------------------------------------------------------------- link to the server

const listeners = new Set();

/** Call `hear(message)` for everything the server tells; reconnects by itself, backing off to 10 s. */
export function listen(hear) {
  listeners.add(hear);
  if (listeners.size === 1) connect(500);
}

function connect(wait) {
  const socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/live`);
  socket.addEventListener("open", () => {
    wait = 500;
  });
  socket.addEventListener("message", (event) => {
    const message = JSON.parse(event.data);
    if (message.type === "broker" || message.type === "hello") {
      const up = message.type === "hello" ? message.broker : message.connected;
      say(up ? "on" : "off", up ? "connected" : "broker away");
    }
    for (const hear of listeners) hear(message);
  });
  socket.addEventListener("close", () => {
    say("off", "server away, trying again");
    for (const hear of listeners) hear({ type: "lost" });
    setTimeout(() => connect(Math.min(wait * 2, 10000)), wait);
  });
}

function say(state, words) {
  const place = document.getElementById("link-state");
  place.querySelector(".dot").className = `dot ${state}`;
  place.querySelector("span").textContent = words;
}

// ---------------------------------------------------------------- colours

const CHOICES = [
  ["auto", "Colours: as the system"],
  ["light", "Colours: light"],
  ["dark", "Colours: dark"],
];

export const onColours = new Set();

function showTheme() {
  const button = document.getElementById("theme");
  const now = document.documentElement.dataset.theme || "auto";
  const [name, words] = CHOICES.find(([each]) => each === now);
  button.setAttribute("aria-label", words);
  button.title = words;
  button.querySelector("use").setAttribute("href", `/static/icons.svg#${name}`);
  for (const redraw of onColours) redraw();
}

document.getElementById("theme").addEventListener("click", () => {
  const now = document.documentElement.dataset.theme || "auto";
  const [next] = CHOICES[(CHOICES.findIndex(([each]) => each === now) + 1) % CHOICES.length];
  if (next === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = next;
  try {
    localStorage.setItem("theme", next);
  } catch {
    // storage forbidden: the choice lasts as long as the page
  }
  showTheme();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", showTheme);
showTheme();
setInterval(freshen, 5000);
