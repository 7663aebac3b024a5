// The ECG beside the sound: its words, and how it is drawn. Times are seconds of the sound's clock.

import { palette, prepare } from "./draw.js";

const HEAD = 22;

/** How the lead is, in words for a person; nothing when it is well. */
export const LEAD_WORDS = {
  on: "",
  unknown: "",
  "lead off": "Lead off: an electrode has come off",
  "flat line": "Flat line: nothing is connected",
  "no numbers": "The converter gives no readings",
  "samples lost": "Samples were lost",
  gone: "The ECG converter cannot be reached; the sound goes on",
};

/** Middle and reach of a trace in mV, so that single spikes decide neither. */
export function rangeOf(values) {
  const sorted = Float32Array.from(values.filter((value) => !Number.isNaN(value))).sort();
  if (!sorted.length) return { middle: 0, reach: 1 };
  const at = (share) => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))];
  const [low, high] = [at(0.002), at(0.998)];
  return { middle: (low + high) / 2, reach: Math.max(0.25, (high - low) / 2) };
}

/** One curve of samples that begin at second `start`; what is in `gaps` is not drawn. */
export function drawCurve(context, { samples, rate, start, gaps = [] }, view, colour, width) {
  const { from, to, middle, reach } = view;
  const x = (second) => ((second - from) / (to - from)) * view.width;
  // the lane's name stands on top
  const y = (mv) => view.height / 2 + HEAD / 2 - Math.max(-1.1, Math.min(1.15, (mv - middle) / reach)) * ((view.height - HEAD) / 2 - 8);
  const first = Math.max(0, Math.floor((from - start) * rate) - 1);
  const last = Math.min(samples.length, Math.ceil((to - start) * rate) + 2);
  const per = ((to - from) * rate) / view.width; // samples of a pixel
  context.strokeStyle = colour;
  context.lineWidth = width;
  context.lineJoin = "round";
  context.beginPath();
  let down = false;
  let gap = 0;
  const step = Math.max(1, Math.floor(per / 2));
  for (let n = first - (first % step); n < last; n += step) {
    const second = start + n / rate;
    while (gap < gaps.length && gaps[gap][1] <= second) gap++;
    if (n < 0 || Number.isNaN(samples[n]) || (gap < gaps.length && gaps[gap][0] <= second)) {
      down = false;
      continue;
    }
    if (step === 1) {
      if (down) context.lineTo(x(second), y(samples[n]));
      else context.moveTo(x(second), y(samples[n]));
    } else { // both ends of what falls on a pixel, so that no R peak is lost
      let [low, high] = [samples[n], samples[n]];
      for (let k = n + 1; k < Math.min(n + step, samples.length); k++) {
        low = Math.min(low, samples[k]);
        high = Math.max(high, samples[k]);
      }
      if (down) context.lineTo(x(second), y(low));
      else context.moveTo(x(second), y(low));
      context.lineTo(x(second), y(high));
    }
    down = true;
  }
  context.stroke();
}

/** Millivolts to the left, gaps shaded. */
function background(context, view, gaps) {
  const shades = palette();
  context.strokeStyle = shades.line;
  context.lineWidth = 1;
  context.beginPath();
  context.moveTo(0, Math.round((view.height + HEAD) / 2) + 0.5);
  context.lineTo(view.width, Math.round((view.height + HEAD) / 2) + 0.5);
  context.stroke();
  context.fillStyle = shades.fault;
  context.globalAlpha = 0.18;
  for (const [start, end] of gaps) {
    const left = ((start - view.from) / (view.to - view.from)) * view.width;
    const right = ((end - view.from) / (view.to - view.from)) * view.width;
    if (right > 0 && left < view.width) context.fillRect(left, 0, Math.max(1, right - left), view.height);
  }
  context.globalAlpha = 1;
}

/** The ECG of a site: raw behind denoised, R peaks as ticks on top. ecg: {about, raw, clean}. */
export function drawEcg(canvas, ecg, from, to) {
  const [context, width, height] = prepare(canvas);
  const shades = palette();
  const { about } = ecg;
  const view = { from, to, width, height, ...ecg.range };
  background(context, view, about.gaps);
  const trace = (samples) => ({ samples, rate: about.rate_hz, start: about.start_s, gaps: samples === ecg.clean ? about.clean_gaps : about.gaps });
  if (ecg.clean) {
    context.globalAlpha = 0.5;
    drawCurve(context, trace(ecg.raw), { ...view, middle: ecg.rawRange.middle }, shades.raw, 1);
    context.globalAlpha = 1;
  }
  drawCurve(context, trace(ecg.clean || ecg.raw), view, ecg.clean ? shades.ecg : shades.raw, 1.4);
  drawPeaks(canvas, about.r_peaks, from, to, true);
}

/** R peaks as fine lines through a lane; `heads`: with a mark on top. */
export function drawPeaks(canvas, peaks, from, to, heads = false) {
  const context = canvas.getContext("2d");
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  const shades = palette();
  const shown = peaks.filter((at) => at >= from && at <= to);
  if (shown.length > width / 8) return; // they would be a wall
  context.strokeStyle = context.fillStyle = shades.ecg;
  context.lineWidth = 1;
  context.globalAlpha = heads ? 0.35 : 0.28;
  context.setLineDash(heads ? [] : [2, 3]);
  context.beginPath();
  for (const at of shown) {
    const x = Math.round(((at - from) / (to - from)) * width) + 0.5;
    context.moveTo(x, heads ? 10 : 0);
    context.lineTo(x, height);
  }
  context.stroke();
  context.setLineDash([]);
  context.globalAlpha = 1;
  if (!heads) return;
  for (const at of shown) {
    const x = ((at - from) / (to - from)) * width;
    context.beginPath();
    context.moveTo(x - 4, 3);
    context.lineTo(x + 4, 3);
    context.lineTo(x, 10);
    context.fill();
  }
}
