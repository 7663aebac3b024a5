// One exam: the verdict on its scale, the facts, and every site.

import { VERDICTS, api, dayTime, fullTime, h, icon, known, leadOf, listen, onColours, percent, poor, probability, qualityWord, seconds, verdictKey, zones } from "./shell.js";
import { forgetColours } from "./draw.js";
import { SiteView, remember } from "./site.js";

const root = document.getElementById("exam");
const id = root.dataset.exam;
let shown = null;

onColours.add(forgetColours);

function scale(exam) {
  const key = verdictKey(exam.label);
  const share = (value) => `${value * 100}%`;
  const track = h(`div.scale-track${known(exam.threshold) ? "" : ".plain"}`, { vars: zones(exam) },
    known(exam.threshold) && h("i.scale-cut", { vars: { left: share(exam.threshold) } }),
    known(exam.probability) && h(`i.scale-mark${key === "unsure" ? ".hollow" : ""}`, { vars: { left: share(exam.probability), "--mark": `var(--${key})` } }));
  const words = known(exam.probability)
    ? `Probability of abnormal ${probability(exam.probability)} of 1${known(exam.threshold) ? `, threshold ${probability(exam.threshold)}` : ""}`
    : "Probability of abnormal unknown";
  return h("div.scale", { role: "img", "aria-label": words },
    h("div.scale-head", {}, h("span", {}, "Probability of abnormal"), h("strong", {}, probability(exam.probability))),
    track,
    h("div.scale-ends", {}, h("span", {}, "0 normal"),
      known(exam.threshold) && h("span.cut", { vars: { left: share(exam.threshold) } }, `threshold ${probability(exam.threshold)}`),
      h("span", {}, "abnormal 1")));
}

function result(exam) {
  const key = verdictKey(exam.label);
  const { word } = VERDICTS[key];
  return h("article.card.result", { "data-label": exam.label },
    h("div.result-top", {},
      h(`span.big-badge.is-${key}`, {}, icon(key)),
      h("div", {}, h("h1", {}, word), h("p.lead", {}, leadOf(exam)))),
    scale(exam),
    h("div.quality", {},
      h("div.label-row", {}, h("span", {}, "Sound quality ", h("strong", {}, known(exam.quality) ? `${qualityWord(exam.quality)}, ${percent(exam.quality)}` : "unknown"))),
      h(`div.meter${poor(exam.quality) ? ".low" : ""}`, {}, h("i", { vars: { width: known(exam.quality) ? `${exam.quality * 100}%` : "0" } }))),
    exam.reasons.length > 0 && h("div.chips", { "aria-label": "Reasons" }, exam.reasons.map((reason) => h("span.chip.warn", {}, reason))),
    h("p.disclaimer", {}, h("strong", {}, "It screens; it does not diagnose."), " Not a medical device. A doctor listens and decides."));
}

const ms = (value) => (known(value) ? (value < 10 ? value.toFixed(1) : value.toFixed(0)) : "–");

function facts(exam) {
  const row = (name, ...value) => [h("dt", {}, name), h("dd", {}, value)];
  return h("aside.card.facts", { "aria-label": "Facts" },
    h("h2", {}, "Examination"),
    h("dl", {},
      row("Started", exam.started ? dayTime(exam.started) : "unknown", h("br"), h("small", {}, exam.clock_words)),
      row("Received", h("span", { title: fullTime(exam.received) }, dayTime(exam.received))),
      row("Stethoscope", exam.device, h("br"), h("small", {}, `fleet ${exam.fleet}`)),
      exam.subject ? row("Subject code", exam.subject) : [],
      row("Heart rate", known(exam.heart_rate_bpm) ? `${Math.round(exam.heart_rate_bpm)} beats/min` : "unknown"),
      row("Murmur heard", probability(exam.murmur), known(exam.murmur) && [h("br"), h("small", {}, "probability; part of the verdict")]),
      row("Sound", `${seconds(exam.sites.reduce((sum, site) => sum + site.seconds, 0))} at ${exam.sites.length} ${exam.sites.length === 1 ? "site" : "sites"}`),
      exam.ecg_source ? row("ECG", exam.sites.some((site) => site.ecg) ? exam.ecg_source : `none came from ${exam.ecg_source}`, h("br"), h("small", {}, "no diagnostic ECG")) : [],
      row("Delivery", exam.status === "complete" ? "complete, every sha256 fits" : "partial: sound still missing"),
      row("Ended", exam.ended),
      row("Models", exam.bundle, h("br"), h("small", {}, `stethopi ${exam.software}`))));
}

/** How fast and how late the device was, at the foot of the page: for those who build it. */
function figures(exam) {
  const lost = Object.entries(exam.dropped).filter(([, count]) => count > 0);
  const { delay } = exam;
  return h("section.card.figures", { "aria-labelledby": "figures-title" },
    h("h2", { id: "figures-title" }, "How the device kept up"),
    h("div.scroll", {}, h("table", {},
      h("thead", {}, h("tr", {}, ["Stage", "Steps", "p50", "p99", "Budget", "Missed"].map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", {}, exam.latency.map((stage) => h("tr", {}, h("td", {}, stage.stage), h("td", {}, String(stage.count)),
        h("td", {}, ms(stage.p50_ms)), h("td", {}, ms(stage.p99_ms)), h("td", {}, ms(stage.budget_ms)),
        h(`td${stage.missed ? ".bad" : ""}`, {}, stage.count ? String(stage.missed) : "–")))))),
    h("p.muted.under", {}, `Times in ms a step. From microphone to ear ${ms(delay.total_ms)} ms: filter ${ms(delay.decimator_ms)}, hop ${ms(delay.hop_ms)}, look-ahead ${ms(delay.look_ahead_ms)}, besides capture and output buffers.${lost.length ? ` Left out: ${lost.map(([name, count]) => `${name} ${count}`).join(", ")}.` : " Nothing was left out."}`));
}

async function show() {
  let exam;
  try {
    exam = await api(`/api/exams/${id}`);
  } catch (error) {
    if (!shown) root.replaceChildren(h("p.notice.warn", {}, `The exam cannot be read: ${error.message}`));
    return;
  }
  if (shown && shown.status === "complete") return; // it never changes again
  const before = shown;
  shown = exam;
  const when = exam.started ? dayTime(exam.started) : dayTime(exam.received);
  document.title = `${VERDICTS[verdictKey(exam.label)].word} · ${exam.device} · stethopi`;
  document.getElementById("crumb").textContent = `${exam.device}, ${when}`;
  const top = h("div.hero", {}, result(exam), facts(exam));
  if (!before) root.replaceChildren(top, figures(exam));
  else root.querySelector(".hero").replaceWith(top);
  for (const site of exam.sites) {
    const old = root.querySelector(`[data-site="${CSS.escape(site.site)}"]`);
    const known = before?.sites.find((each) => each.site === site.site);
    if (old && known?.complete) continue;
    const view = new SiteView(exam, site);
    remember(view);
    if (old) old.replaceWith(view.element);
    else root.lastElementChild.before(view.element);
  }
}

listen((message) => {
  if ((message.type === "stored" && message.exam === id) || message.type === "hello") show();
});
show();
