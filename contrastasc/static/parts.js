// What the widgets share: colours, controls, elements, and the picture of a clip. Python puts it in front of each widget's script.

const BASE = `
.cx { --line: color-mix(in srgb, currentColor 22%, transparent); --soft: color-mix(in srgb, currentColor 7%, transparent);
  container-type: inline-size; font: 13px/1.35 system-ui, sans-serif; color: var(--jp-ui-font-color1, CanvasText);
  background: var(--jp-layout-color0, Canvas); padding: 6px; }
.cx button, .cx select, .cx input { font: inherit; color: inherit; background: var(--soft); border: 1px solid var(--line); border-radius: 4px; padding: 2px 7px; }
.cx button { cursor: pointer; } .cx button[aria-pressed=true], .cx button[aria-selected=true] { background: #0072B2; color: #fff; border-color: #0072B2; }
.cx button:disabled { opacity: .45; cursor: default; }
.cx :focus-visible { outline: 2px solid #E69F00; outline-offset: 1px; }
.cx label { white-space: nowrap; } .cx select { max-width: 210px; } .cx input[type=range] { width: 76px; vertical-align: middle; padding: 0; } .cx input[type=search] { width: 190px; }
.cx-bar { display: flex; flex-wrap: wrap; gap: 6px 12px; align-items: center; margin-bottom: 6px; }
.cx-tools { display: inline-flex; gap: 3px; flex-wrap: wrap; }
.cx table { border-collapse: collapse; } .cx th, .cx td { padding: 1px 8px; text-align: right; font-variant-numeric: tabular-nums; font-weight: normal; }
.cx th:first-child { text-align: left; } .cx thead th { border-bottom: 1px solid var(--line); font-weight: 600; }
.cx [hidden] { display: none; } .cx-hidden { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
.cx-note { opacity: .8; } .cx-note:empty { display: none; }
`;

const CIVIDIS = [[0, 34, 78], [33, 57, 109], [75, 84, 108], [108, 110, 114], [139, 137, 121], [174, 166, 113], [212, 196, 91], [254, 232, 56]];

const make = (tag, attributes = {}, ...children) => {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key in node && key !== "list" && typeof value !== "string") node[key] = value;
    else node.setAttribute(key, value);
  }
  node.append(...children);
  return node;
};
const bytes = (view) => view ? view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength) : new ArrayBuffer(0);
const clamp = (x, low, high) => Math.max(low, Math.min(high, x));
const words = (name) => String(name).replaceAll("_", " ");
const short = (x) => Number.isFinite(x) ? String(+x.toPrecision(3)) : "none";

function ramp(share) {
  const at = clamp(share, 0, 1) * (CIVIDIS.length - 1), i = Math.min(Math.floor(at), CIVIDIS.length - 2);
  return CIVIDIS[i].map((c, j) => Math.round(c + (at - i) * (CIVIDIS[i + 1][j] - c)));
}

// What Python tells of a clip: facts, 16-bit sound, 8-bit log-mel.
const clipOf = ([facts, buffers]) => ({ ...facts, sound: new Int16Array(bytes(buffers[0])), mel: new Uint8Array(bytes(buffers[1])) });

// A clip's sound, begun, into a node of an AudioContext.
function begin(clip, into) {
  const audio = into.context, buffer = audio.createBuffer(1, clip.sound.length, clip.rate), data = buffer.getChannelData(0), source = audio.createBufferSource();
  for (let t = 0; t < data.length; t++) data[t] = clip.sound[t] / 32768 * clip.gain;
  source.buffer = buffer; source.connect(into); source.start();
  return source;
}

// A log-mel of 8 bit, low bands first, as a canvas of its own size.
function melPicture(mel, bands, frames) {
  const image = new ImageData(frames, bands), canvas = make("canvas", { width: frames, height: bands });
  for (let b = 0; b < bands; b++) for (let f = 0; f < frames; f++) image.data.set([...ramp(mel[b * frames + f] / 255), 255], 4 * ((bands - 1 - b) * frames + f));
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

// A clip's log-mel with its axes; ink: the colour of the writing.
function spectrogram(canvas, clip, ink) {
  const dpr = Math.min(window.devicePixelRatio || 1, 2), w = (canvas.clientWidth || 240), h = 150, left = 44, bottom = 30;
  canvas.width = w * dpr; canvas.height = h * dpr;
  const ctx = canvas.getContext("2d"), [bands, frames] = clip.shape;
  ctx.scale(dpr, dpr); ctx.imageSmoothingEnabled = false; ctx.drawImage(melPicture(clip.mel, bands, frames), left, 2, w - left - 4, h - bottom - 2);
  ctx.fillStyle = ink; ctx.font = "11px system-ui, sans-serif"; ctx.textAlign = "right"; ctx.textBaseline = "middle";
  for (const [hz, band] of clip.ticks) ctx.fillText(hz >= 1000 ? `${hz / 1000} kHz` : `${hz} Hz`, left - 4, clamp(h - bottom - (band / bands) * (h - bottom - 2), 7, h - bottom - 5));
  ctx.textAlign = "center"; ctx.textBaseline = "top";
  for (let s = 0; s <= 2; s++) ctx.fillText(short((clip.start ?? 0) + s * clip.seconds / 2), clamp(left + s / 2 * (w - left - 4), left + 4, w - 12), h - bottom + 3);
  ctx.fillText("time [s]", left + (w - left) / 2, h - 13);
}

// The microphone. Runs beside the page: frames to 16-bit mono chunks, each with the number of its first frame. The first call is not used: a hole follows it.
const WORKLET = `
class Tap extends AudioWorkletProcessor {
  constructor({ processorOptions: { size } }) { super(); this.size = size; this.calls = 0; this.start(0); }
  start(at) { this.at = at; this.n = 0; this.clipped = 0; this.part = new Int16Array(this.size); }
  flush() { if (this.n) this.port.postMessage({ at: this.at - this.zero, clipped: this.clipped, sound: this.part.slice(0, this.n) }); }
  process([input]) {
    if (!input.length || !this.calls++) return true;
    this.zero ??= (this.at = currentFrame);
    if (currentFrame !== this.at + this.n) { this.flush(); this.start(currentFrame); }
    for (let i = 0; i < input[0].length; i++) {
      let x = 0;
      for (const channel of input) x += channel[i] / input.length;
      if (Math.abs(x) >= 0.999) this.clipped++;
      this.part[this.n++] = Math.max(-32768, Math.min(32767, Math.round(32768 * x)));
      if (this.n === this.size) { this.flush(); this.start(currentFrame + i + 1); }
    }
    return true;
  }
}
registerProcessor("tap", Tap);`;

const SAID = {
  NotAllowedError: ["denied", "The browser may not use the microphone. Allow it in the address bar (the icon before the address), then press the button again. Files work without it."],
  NotFoundError: ["no microphone", "There is no microphone. Plug one in, or choose a file."],
  NotReadableError: ["busy", "The microphone cannot be opened: another program may hold it. Close that program, then press the button again."],
};

const FLAGS = { echoCancellation: "echo cancellation", noiseSuppression: "noise suppression", autoGainControl: "automatic gain" };
const processing = (used) => Object.keys(FLAGS).filter((f) => used[f]).map((f) => FLAGS[f]);

async function loadTap(context) {
  const url = URL.createObjectURL(new Blob([WORKLET], { type: "text/javascript" }));
  try { await context.audioWorklet.addModule(url); }
  catch { await context.audioWorklet.addModule(`data:text/javascript,${encodeURIComponent(WORKLET)}`); }  // a page opened as a file may not load what it made itself
  finally { URL.revokeObjectURL(url); }
}

// The microphone as raw as the browser gives it, with the tap loaded; closed again, and null, where it is not wanted any more when it comes.
async function openMicrophone(processed, wanted) {
  const asked = { ...Object.fromEntries(Object.keys(FLAGS).map((f) => [f, processed])), channelCount: { ideal: 2 } };
  let media, context, open = false;
  try {
    media = await navigator.mediaDevices.getUserMedia({ audio: asked });
    if (wanted()) { context = new AudioContext(); await context.resume(); }
    if (context) await loadTap(context);
    open = Boolean(context) && wanted();
  } finally { if (!open) { media?.getTracks().forEach((t) => t.stop()); context?.close(); } }
  return open ? { media, context } : null;
}
