// Drawing on canvas: waveforms, spectrograms, axes. All in CSS pixels; colours come from the stylesheet.

import { known, side } from "./shell.js";

export const RATE = 2000;

let colours = null;

/** The stylesheet's colours by name; forgotten by `forgetColours` when the theme changes. */
export function palette() {
  if (!colours) {
    const style = getComputedStyle(document.documentElement);
    const get = (name) => style.getPropertyValue(`--${name}`).trim();
    colours = {};
    for (const name of ["raw", "clean", "ecg", "line", "line-strong", "ink", "ink-2", "ink-3", "accent", "normal", "abnormal", "unsure", "fault", "surface", "sunken"]) {
      colours[name] = get(name);
    }
    colours.map = colourMap(get("spec").split(",").map((stop) => stop.trim().split(/\s+/).map(Number)));
  }
  return colours;
}

export function forgetColours() {
  colours = null;
}

/** 256 RGB triples between evenly spaced stops. */
function colourMap(stops) {
  const map = new Uint8Array(256 * 3);
  for (let level = 0; level < 256; level++) {
    const place = (level / 255) * (stops.length - 1);
    const below = Math.min(Math.floor(place), stops.length - 2);
    for (let c = 0; c < 3; c++) {
      map[level * 3 + c] = stops[below][c] + (stops[below + 1][c] - stops[below][c]) * (place - below);
    }
  }
  return map;
}

/** Fit the bitmap to the element and the screen; returns [context, width, height] in CSS pixels. */
export function prepare(canvas) {
  const ratio = Math.min(window.devicePixelRatio || 1, 2);
  const width = canvas.clientWidth;
  const height = canvas.clientHeight;
  const w = Math.max(1, Math.round(width * ratio));
  const hgt = Math.max(1, Math.round(height * ratio));
  if (canvas.width !== w || canvas.height !== hgt) {
    canvas.width = w;
    canvas.height = hgt;
  }
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return [context, width, height];
}

/** Waveform of samples[from, to) over the whole width: a line when zoomed in, the span of each pixel when not.
 *  `scale`: sample value that reaches the edge. */
export function drawWave(canvas, samples, from, to, scale, colour, marks = []) {
  const [context, width, height] = prepare(canvas);
  const shades = palette();
  const middle = height / 2;
  const reach = (height / 2 - 5) / (scale || 1);
  const per = (to - from) / width;
  const x = (index) => (index - from) / per;
  for (const mark of marks) {
    const left = x(mark.start);
    const right = Math.max(left + 1, x(mark.end));
    if (right < 0 || left > width) continue;
    context.fillStyle = shades.fault;
    context.globalAlpha = mark.kind === "gap" ? 0.2 : 0.85;
    if (mark.kind === "gap") context.fillRect(left, 0, right - left, height);
    else context.fillRect(left, 0, Math.max(1.5, right - left), 4);
    context.globalAlpha = 1;
  }
  context.strokeStyle = shades.line;
  context.lineWidth = 1;
  context.beginPath();
  context.moveTo(0, Math.round(middle) + 0.5);
  context.lineTo(width, Math.round(middle) + 0.5);
  context.stroke();
  context.strokeStyle = colour;
  context.lineJoin = "round";
  context.lineWidth = per > 4 ? 1 : 1.4;
  context.beginPath();
  if (per <= 2) {
    const first = Math.max(0, Math.floor(from) - 1);
    const last = Math.min(samples.length, Math.ceil(to) + 2);
    for (let i = first; i < last; i++) {
      const y = middle - samples[i] * reach;
      if (i === first) context.moveTo(x(i), y);
      else context.lineTo(x(i), y);
    }
  } else {
    const ratio = Math.min(window.devicePixelRatio || 1, 2);
    const step = 1 / ratio;
    for (let px = 0; px < width; px += step) {
      const start = Math.max(0, Math.floor(from + px * per));
      const end = Math.min(samples.length, Math.max(start + 1, Math.floor(from + (px + step) * per)));
      if (start >= samples.length) break;
      let low = samples[start];
      let high = low;
      for (let i = start + 1; i < end; i++) {
        const value = samples[i];
        if (value < low) low = value;
        else if (value > high) high = value;
      }
      const top = middle - high * reach;
      const bottom = middle - low * reach;
      context.moveTo(px, top - 0.4);
      context.lineTo(px, Math.max(bottom, top) + 0.4);
    }
    context.lineWidth = step;
  }
  context.stroke();
}

/** A spectrogram as a picture of its own size: one pixel a frame and bin. spec: {frames, bins, levels}. */
export function paintSpectrogram(spec) {
  const picture = document.createElement("canvas");
  picture.width = Math.max(1, spec.frames);
  picture.height = spec.bins;
  const context = picture.getContext("2d");
  const image = context.createImageData(picture.width, picture.height);
  const map = palette().map;
  for (let frame = 0; frame < spec.frames; frame++) {
    for (let bin = 0; bin < spec.bins; bin++) {
      const level = spec.levels[frame * spec.bins + bin];
      const at = ((spec.bins - 1 - bin) * picture.width + frame) * 4;
      image.data[at] = map[level * 3];
      image.data[at + 1] = map[level * 3 + 1];
      image.data[at + 2] = map[level * 3 + 2];
      image.data[at + 3] = 255;
    }
  }
  context.putImageData(image, 0, 0);
  return picture;
}

/** Stretch the part of the picture that lies in samples [from, to) over the canvas, with a frequency axis. */
export function drawSpectrogram(canvas, picture, spec, from, to) {
  const [context, width, height] = prepare(canvas);
  const shades = palette();
  const frame = (sample) => (sample - spec.start) / spec.hop;
  const left = frame(from);
  const right = frame(to);
  context.imageSmoothingEnabled = true;
  context.imageSmoothingQuality = "high";
  const [low, high] = [Math.max(0, left), Math.min(picture.width, right)];
  if (high > low) {
    const at = ((low - left) / (right - left)) * width;
    const wide = ((high - low) / (right - left)) * width;
    context.drawImage(picture, low, 0, high - low, picture.height, at, 0, wide, height);
  }
  context.font = "500 10.5px Inter, sans-serif";
  context.textAlign = "right";
  context.textBaseline = "middle";
  for (const hz of [200, 400, 600]) {
    const y = height * (1 - hz / spec.top_hz);
    context.strokeStyle = shades["ink-3"];
    context.lineWidth = 1;
    context.globalAlpha = 0.25;
    context.beginPath();
    context.moveTo(0, Math.round(y) + 0.5);
    context.lineTo(width, Math.round(y) + 0.5);
    context.stroke();
    context.globalAlpha = 1;
    label(context, `${hz} Hz`, width - 6, y, shades);
  }
}

function label(context, text, x, y, shades) {
  context.lineWidth = 3;
  context.lineJoin = "round";
  context.strokeStyle = shades.surface;
  context.globalAlpha = 0.85;
  context.strokeText(text, x, y);
  context.globalAlpha = 1;
  context.fillStyle = shades["ink-2"];
  context.fillText(text, x, y);
}

/** Seconds under everything. */
export function drawAxis(canvas, from, to) {
  const [context, width] = prepare(canvas);
  const shades = palette();
  const span = (to - from) / RATE;
  const fitting = Math.max(2, width / 70);
  const step = [0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20].find((each) => span / each <= fitting) || 30;
  context.font = "500 11px Inter, sans-serif";
  context.fillStyle = shades["ink-3"];
  context.strokeStyle = shades["line-strong"];
  context.textBaseline = "middle";
  for (let k = Math.ceil(from / RATE / step - 1e-9); k * step <= to / RATE + 1e-9; k++) {
    const x = ((k * step * RATE - from) / (to - from)) * width;
    context.beginPath();
    context.moveTo(Math.round(x) + 0.5, 0);
    context.lineTo(Math.round(x) + 0.5, 5);
    context.stroke();
    context.textAlign = x < 14 ? "left" : x > width - 24 ? "right" : "center";
    context.fillText(`${step < 1 ? (k * step).toFixed(step < 0.1 ? 2 : 1) : k * step} s`, x, 15);
  }
}

/** Verdict of each window: a dot at its middle, at the height of its probability; hollow when not counted. */
export function drawWindows(canvas, windows, from, to, windowSamples, limits) {
  const [context, width, height] = prepare(canvas);
  const shades = palette();
  const y = (p) => height - 9 - p * (height - 38);
  const x = (sample) => ((sample - from) / (to - from)) * width;
  const { threshold } = limits;
  if (known(threshold)) {
    context.strokeStyle = shades["line-strong"];
    context.setLineDash([3, 4]);
    context.beginPath();
    context.moveTo(0, y(threshold));
    context.lineTo(width, y(threshold));
    context.stroke();
    context.setLineDash([]);
  }
  for (const each of windows) {
    if (each.probability === null) continue;
    const colour = shades[side(each.probability, limits) || "ink-3"];
    const left = x(each.start);
    const right = x(each.start + windowSamples);
    const at = y(each.probability);
    context.globalAlpha = each.good ? 0.22 : 0.1;
    context.strokeStyle = colour;
    context.lineWidth = 2;
    context.beginPath();
    context.moveTo(left, at);
    context.lineTo(right, at);
    context.stroke();
    context.globalAlpha = 1;
    context.beginPath();
    context.arc((left + right) / 2, at, 3.6, 0, 2 * Math.PI);
    context.lineWidth = 1.6;
    context.fillStyle = each.good ? colour : shades.surface;
    context.strokeStyle = each.good ? shades.surface : colour;
    context.fill();
    context.stroke();
  }
}
