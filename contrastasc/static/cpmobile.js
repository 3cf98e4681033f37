// CP-Mobile and its log-mel in plain JavaScript: a waveform at 16 kHz to an embedding, logits and a verdict. No library, for a page or for node.

// Weights: a safetensors file (8 bytes of length, a JSON header, numbers of 16 or 32 bits) to {name: {shape, data}}.
function halfToFloat(bits) {
  const sign = bits & 0x8000 ? -1 : 1, exponent = (bits >> 10) & 31, fraction = bits & 1023;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -14 * (fraction / 1024));
}
export const fromHalf = (buffer) => Float32Array.from(new Uint16Array(buffer), halfToFloat);
export function fromBase64(text) { const raw = atob(text), out = new Uint8Array(raw.length); for (let i = 0; i < raw.length; i++) out[i] = raw.charCodeAt(i); return out.buffer; }

export function readWeights(buffer) {
  const length = Number(new DataView(buffer).getBigUint64(0, true)), header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, length))), out = {};
  for (const [name, { dtype, shape, data_offsets: [a, b] }] of Object.entries(header)) {
    const part = buffer.slice(8 + length + a, 8 + length + b);
    if (dtype === "F16") out[name] = { shape, data: fromHalf(part) };
    if (dtype === "F32") out[name] = { shape, data: new Float32Array(part) };
  }
  return out;
}

// Log-mel. Fourier transform in place, of a power of two; two real frames fit into one complex transform.
class Fourier {
  constructor(n) {
    this.n = n; this.cos = Float64Array.from({ length: n / 2 }, (_, i) => Math.cos(2 * Math.PI * i / n)); this.sin = Float64Array.from({ length: n / 2 }, (_, i) => Math.sin(2 * Math.PI * i / n));
    this.order = new Uint32Array(n);
    for (let i = 1; i < n; i++) this.order[i] = (this.order[i >> 1] >> 1) | (i & 1 ? n >> 1 : 0);
  }
  run(re, im) {
    const { n, cos, sin, order } = this;
    for (let i = 0; i < n; i++) { const j = order[i]; if (i < j) { [re[i], re[j]] = [re[j], re[i]]; [im[i], im[j]] = [im[j], im[i]]; } }
    for (let half = 1; half < n; half *= 2) for (let i = 0, step = n / 2 / half; i < n; i += 2 * half) for (let j = 0; j < half; j++) {
      const a = i + j, b = a + half, c = cos[j * step], s = sin[j * step], x = re[b] * c + im[b] * s, y = im[b] * c - re[b] * s;
      re[b] = re[a] - x; im[b] = im[a] - y; re[a] += x; im[a] += y;
    }
  }
}

const mel = (hz) => 1127 * Math.log1p(hz / 700);

// Kaldi's triangles: of each band its first bin and its weights.
function melBank({ n_mels, n_fft, sample_rate, fmin, fmax }) {
  const low = mel(fmin), step = (mel(fmax) - low) / (n_mels + 1), bins = Array.from({ length: n_fft / 2 }, (_, k) => mel(k * sample_rate / n_fft));
  return Array.from({ length: n_mels }, (_, band) => {
    const weights = bins.map((m) => (m - low - band * step) / step).map((up) => Math.fround(Math.max(0, Math.min(up, 2 - up)))), first = Math.max(0, weights.findIndex((w) => w > 0));
    return { first, weights: Float64Array.from(weights.slice(first, weights.findLastIndex((w) => w > 0) + 1)) };
  });
}

export class LogMel {
  constructor(facts) {  // sample_rate, n_mels, fmin, fmax [Hz], win_length, hop_length, n_fft
    Object.assign(this, facts);
    this.bank = melBank(facts); this.fourier = new Fourier(this.n_fft);
    this.window = Float64Array.from({ length: this.win_length }, (_, i) => 0.5 - 0.5 * Math.cos(2 * Math.PI * i / (this.win_length - 1)));
  }
  frame(y, at, into) {  // a windowed frame of the pre-emphasised sound, mirrored at its ends
    const left = (this.n_fft - this.win_length) >> 1, last = y.length - 1, start = at * this.hop_length - this.n_fft / 2 + left;
    into.fill(0);
    for (let i = 0; i < this.win_length; i++) { let t = Math.abs(start + i); if (t > last) t = 2 * last - t; into[left + i] = y[t] * this.window[i]; }
  }
  run(wave) {  // [T] -> data [bands * frames], low bands first
    if (wave.length < this.n_fft / 2 + 2) throw new Error(`the log-mel needs at least ${this.n_fft / 2 + 2} samples, got ${wave.length}`);
    const y = new Float64Array(wave.length - 1), n = this.n_fft, frames = 1 + Math.floor(y.length / this.hop_length), data = new Float32Array(this.n_mels * frames);
    for (let i = 0; i < y.length; i++) y[i] = wave[i + 1] - 0.97 * wave[i];
    const re = new Float64Array(n), im = new Float64Array(n), power = [0, 1].map(() => new Float64Array(n / 2));
    for (let f = 0; f < frames; f += 2) {
      const pair = f + 1 < frames ? 2 : 1;
      this.frame(y, f, re); if (pair > 1) this.frame(y, f + 1, im); else im.fill(0);
      this.fourier.run(re, im);
      for (let k = 0; k < n / 2; k++) {
        const m = (n - k) % n, a = re[k] + re[m], b = im[k] - im[m], c = im[k] + im[m], d = re[m] - re[k];
        power[0][k] = (a * a + b * b) / 4; power[1][k] = (c * c + d * d) / 4;
      }
      for (let b = 0; b < this.n_mels; b++) for (let p = 0; p < pair; p++) {
        const { first, weights } = this.bank[b];
        let sum = 0; for (let k = 0; k < weights.length; k++) sum += weights[k] * power[p][first + k];
        data[b * frames + f + p] = (Math.log(sum + 1e-5) + 4.5) / 5;
      }
    }
    return { data, bands: this.n_mels, frames };
  }
}

// The network, on maps {c, h, w, data}: h is frequency, w time.
const EPS = 1e-5;
function folded(weights, conv, norm) {  // a convolution with the batch normalisation after it
  const { shape, data } = weights[conv], [gain, bias, mean, variance] = ["weight", "bias", "running_mean", "running_var"].map((k) => weights[`${norm}.${k}`].data);
  const scale = gain.map((g, i) => g / Math.sqrt(variance[i] + EPS)), size = data.length / shape[0];
  return { n_out: shape[0], weight: data.map((w, i) => w * scale[Math.floor(i / size)]), bias: bias.map((b, i) => b - mean[i] * scale[i]) };
}
const relu = (x) => { const d = x.data; for (let i = 0; i < d.length; i++) if (d[i] < 0) d[i] = 0; return x; };

function conv1(x, { n_out, weight, bias }) {  // 1 x 1; widths are multiples of eight, so two outputs of four inputs at a time
  const size = x.h * x.w, out = new Float32Array(n_out * size), a = x.data;
  for (let o = 0; o < n_out; o += 2) {
    const y = out.subarray(o * size, (o + 1) * size).fill(bias[o]), z = out.subarray((o + 1) * size, (o + 2) * size).fill(bias[o + 1]);
    for (let i = 0; i < x.c; i += 4) {
      const at = o * x.c + i, to = at + x.c, w0 = weight[at], w1 = weight[at + 1], w2 = weight[at + 2], w3 = weight[at + 3], v0 = weight[to], v1 = weight[to + 1], v2 = weight[to + 2], v3 = weight[to + 3], p = i * size, q = p + size, r = q + size, s = r + size;
      for (let k = 0; k < size; k++) { const A = a[p + k], B = a[q + k], C = a[r + k], D = a[s + k]; y[k] += w0 * A + w1 * B + w2 * C + w3 * D; z[k] += v0 * A + v1 * B + v2 * C + v3 * D; }
    }
  }
  return { c: n_out, h: x.h, w: x.w, data: out };
}

function conv3(x, { n_out, weight, bias }, [sh, sw], depthwise = false) {  // 3 x 3 with a border of zeros
  const h = Math.floor((x.h - 1) / sh) + 1, w = Math.floor((x.w - 1) / sw) + 1, W = x.w + 2, p = new Float32Array((x.h + 2) * W), out = new Float32Array(n_out * h * w);
  for (let o = 0; o < n_out; o++) out.fill(bias[o], o * h * w, (o + 1) * h * w);
  for (let i = 0; i < x.c; i++) {
    for (let f = 0; f < x.h; f++) p.set(x.data.subarray((i * x.h + f) * x.w, (i * x.h + f + 1) * x.w), (f + 1) * W + 1);
    for (let o = depthwise ? i : 0; o < (depthwise ? i + 1 : n_out); o++) {
      const [a, b, c, d, e, f, g, j, k] = weight.subarray(9 * (depthwise ? i : o * x.c + i));
      for (let u = 0, to = o * h * w; u < h; u++) for (let v = 0, t = u * sh * W; v < w; v++, t += sw, to++)
        out[to] += a * p[t] + b * p[t + 1] + c * p[t + 2] + d * p[t + W] + e * p[t + W + 1] + f * p[t + W + 2] + g * p[t + 2 * W] + j * p[t + 2 * W + 1] + k * p[t + 2 * W + 2];
    }
  }
  return { c: n_out, h, w, data: out };
}

function globalResponse(x, gamma, beta) {
  const size = x.h * x.w, energy = Float64Array.from({ length: x.c }, (_, c) => Math.sqrt(x.data.subarray(c * size, (c + 1) * size).reduce((sum, v) => sum + v * v, 0)));
  const mean = energy.reduce((a, b) => a + b) / x.c + 1e-6;
  for (let c = 0; c < x.c; c++) { const gain = 1 + gamma * energy[c] / mean; for (let i = c * size; i < (c + 1) * size; i++) x.data[i] = x.data[i] * gain + beta; }
  return x;
}

const STRIDES = { 2: [2, 2], 4: [2, 1] };
function block(weights, name, number) {
  const [expand, depth, project] = [0, 1, 2].map((i) => folded(weights, `${name}.block.${i}.0.weight`, `${name}.block.${i}.1`)), [gamma, beta] = ["gamma", "beta"].map((k) => weights[`${name}.after_block_norm.${k}`].data[0]);
  const stride = STRIDES[number] || [1, 1], mean = new Float32Array(9 * project.n_out).fill(1 / 9), none = new Float32Array(project.n_out);
  return (x) => {
    const y = conv1(relu(conv3(relu(conv1(x, expand)), depth, stride, true)), project);
    if (x.c === y.c) { const more = Math.max(...stride) > 1 ? conv3(x, { n_out: x.c, weight: mean, bias: none }, stride, true) : x; for (let i = 0; i < y.data.length; i++) y.data[i] += more.data[i]; }
    return relu(globalResponse(y, gamma, beta));
  };
}

const unit = (x) => { const length = Math.max(1e-12, Math.sqrt(x.reduce((sum, v) => sum + v * v, 0))); return x.map((v) => v / length); };
const dot = (a, b) => { let sum = 0; for (let i = 0; i < a.length; i++) sum += a[i] * b[i]; return sum; };
const rows = (flat, n) => Array.from({ length: flat.length / n }, (_, i) => flat.subarray(i * n, (i + 1) * n));

const NORMS = {
  none: () => (x) => x,
  layer: (weights) => { const { weight, bias } = affine(weights); return (x) => { const mean = x.reduce((a, b) => a + b) / x.length, deviation = Math.sqrt(x.reduce((s, v) => s + (v - mean) ** 2, 0) / x.length + EPS); return x.map((v, i) => (v - mean) / deviation * weight[i] + bias[i]); }; },
  batch: (weights) => { const { weight, bias } = affine(weights), mean = weights["norm.running_mean"].data, variance = weights["norm.running_var"].data; return (x) => x.map((v, i) => (v - mean[i]) / Math.sqrt(variance[i] + EPS) * weight[i] + bias[i]); },
};
const affine = (weights) => ({ weight: weights["norm.weight"].data, bias: weights["norm.bias"].data });

function ownHead(weights, { head, norm, scale }) {
  if (head === "conv") { const { n_out, weight, bias } = folded(weights, "feed_forward.0.weight", "feed_forward.1"), w = rows(weight, weight.length / n_out); return (x) => w.map((v, i) => dot(v, x) + bias[i]); }
  const { shape, data } = weights["head.weight"], w = rows(data, shape[1]).map((v) => unit(Float64Array.from(v))), normed = NORMS[norm](weights);
  return (x) => { const z = unit(normed(x)); return w.map((v) => scale * dot(v, z)); };
}

export class Student {
  constructor(facts, buffer) {  // facts: frontend, bands, head, norm, scale; the backbone's state as safetensors
    const weights = readWeights(buffer);
    this.bands = facts.bands; this.ear = new LogMel(facts.frontend); this.head = ownHead(weights, facts);
    this.stem = [0, 1].map((i) => folded(weights, `in_c.${i}.0.weight`, `in_c.${i}.1`));
    this.blocks = [1, 1, 1, 2, 2, 3].map((stage, i) => block(weights, `stages.s${stage}.b${i + 1}`, i + 1));
  }
  body({ data, bands, frames }) {
    let x = { c: 1, h: bands, w: frames, data };
    for (const conv of this.stem) x = relu(conv3(x, conv, [2, 2]));
    for (const step of this.blocks) x = step(x);
    return x;
  }
  run(wave) {  // [T] -> logmel, embedding [D * bands], logits [C]
    const logmel = this.ear.run(wave), { c, h, w, data } = this.body(logmel), lines = new Float64Array(c * h);
    for (let i = 0; i < lines.length; i++) { let sum = 0; for (let t = i * w; t < (i + 1) * w; t++) sum += data[t]; lines[i] = sum / w; }
    const pool = (bands) => Float64Array.from({ length: c * bands }, (_, i) => {
      const b = i % bands, from = Math.floor(b * h / bands), to = Math.ceil((b + 1) * h / bands);
      let sum = 0; for (let f = from; f < to; f++) sum += lines[Math.floor(i / bands) * h + f];
      return sum / (to - from);
    });
    return { logmel, embedding: pool(this.bands), logits: this.head(pool(1)) };
  }
}

// The few-shot classifier: shares and novelty of an embedding. It works on z = (x - centre) / scale; `weight` holds [d, C], `means` [C, d].
export function softmax(logits) { const top = Math.max(...logits), e = Array.from(logits, (v) => Math.exp(v - top)), sum = e.reduce((a, b) => a + b); return e.map((v) => v / sum); }

export function classify(head, embedding) {
  const x = head.normalise ? unit(embedding) : embedding, n = head.classes.length, logits = Array.from(head.bias), z = x.map((v, j) => (v - head.centre[j]) / head.scale[j]);
  for (let j = 0; j < z.length; j++) for (let c = 0; c < n; c++) logits[c] += z[j] * head.weight[j * n + c];
  const nearest = Math.min(...rows(head.means, z.length).map((m) => distance(m, z)));
  return { shares: softmax(logits.map((v) => v / head.temperature)), novelty: nearest / Math.max(head.threshold, 1e-12) };
}
const distance = (a, b) => { let sum = 0; for (let i = 0; i < a.length; i++) sum += (a[i] - b[i]) ** 2; return Math.sqrt(sum); };

// Folds that leave out whole groups; no class ever loses its last shot. Lists of shots.
function leftOut(y, groups, n_classes, folds) {
  const first = new Map(); groups.forEach((g, i) => { if (!first.has(g)) first.set(g, i); });
  const order = [...first.keys()].sort((a, b) => y[first.get(a)] - y[first.get(b)] || first.get(a) - first.get(b)), fold = new Map(order.map((g, i) => [g, i % folds]));
  return Array.from({ length: folds }, (_, f) => {
    const left = new Array(n_classes).fill(0); y.forEach((c, i) => { if (fold.get(groups[i]) !== f) left[c]++; });
    return y.flatMap((c, i) => fold.get(groups[i]) === f && left[c] ? [i] : []);
  }).filter((out) => out.length);
}

function classMeans(z, y, n_classes, without = []) {
  const gone = new Set(without), count = new Array(n_classes).fill(0), means = Array.from({ length: n_classes }, () => new Float64Array(z[0].length));
  z.forEach((row, i) => { if (gone.has(i)) return; count[y[i]]++; row.forEach((v, j) => { means[y[i]][j] += v; }); });
  means.forEach((m, c) => m.forEach((v, j) => { m[j] = v / count[c]; }));
  return means;
}

function lowest(cost, low, high) {  // golden section
  const g = (Math.sqrt(5) - 1) / 2; let a = high - g * (high - low), b = low + g * (high - low), fa = cost(a), fb = cost(b);
  for (let i = 0; i < 50; i++) if (fa < fb) { high = b; b = a; fb = fa; a = high - g * (high - low); fa = cost(a); } else { low = a; a = b; fa = fb; b = low + g * (high - low); fb = cost(b); }
  return (low + high) / 2;
}

function fitTemperature(logits, y, groups) {
  const n = y.length, size = {}; for (const g of groups) size[g] = (size[g] || 0) + 1;
  return Math.exp(lowest((t) => logits.reduce((sum, row, i) => {
    const c = row.length, z = row.map((v) => v / Math.exp(t)), top = Math.max(...z), log = top + Math.log(z.reduce((s, v) => s + Math.exp(v - top), 0)), floor = 1 / (n + 2) / c;
    return sum - (floor * z.reduce((s, v) => s + v - log, 0) + (1 - 1 / (n + 2)) * (z[y[i]] - log)) / size[groups[i]];
  }, 0), -7, 7));
}

// What FewShotClassifier("mean") learns of shots: embeddings, names, and a group each (what was recorded together).
export function fitMeans(shots, names, groups, { normalise = true, standardise = true, unknown = 0.05 } = {}) {
  const classes = [...new Set(names)].sort(), k = classes.length, y = names.map((n) => classes.indexOf(n)), n = y.length, d = shots[0].length;
  if (k < 2) throw new Error("a classifier needs shots of at least two classes");
  const x = shots.map((s) => normalise ? unit(Float64Array.from(s)) : Float64Array.from(s)), mean = (r) => Float64Array.from({ length: d }, (_, j) => r.reduce((sum, v) => sum + v[j], 0) / n);
  const centre = standardise ? mean(x) : new Float64Array(d), scale = new Float64Array(d).fill(1);
  if (standardise) for (let j = 0; j < d; j++) { const s = Math.sqrt(x.reduce((sum, v) => sum + (v[j] - centre[j]) ** 2, 0) / n); if (s > 1e-7 * Math.abs(centre[j])) scale[j] = s; }
  const z = x.map((v) => v.map((a, j) => (a - centre[j]) / scale[j])), middle = mean(z), c = z.map((v) => v.map((a, j) => a - middle[j])), spread = c.reduce((sum, v) => sum + dot(v, v), 0) / n || 1;
  const logits = (means, v) => means.map((m) => (2 * dot(m, v) - dot(m, m)) / spread), means = classMeans(c, y, k), weight = new Float64Array(d * k), bias = new Float64Array(k);
  for (let i = 0; i < k; i++) { bias[i] = -(dot(means[i], means[i]) + 2 * dot(means[i], middle)) / spread; for (let j = 0; j < d; j++) weight[j * k + i] = 2 * means[i][j] / spread; }
  const own = [], asked = [];
  let temperature = 1, margin = 1, folds = leftOut(y, groups, k, 20);
  const far = (out) => { const m = classMeans(c, y, k, out); for (const i of out) own.push(distance(m[y[i]], c[i])); };
  if (folds.length) {
    for (const out of n < 500 ? folds : leftOut(y, groups, k, 5)) { const m = classMeans(c, y, k, out); for (const i of out) asked.push([logits(m, c[i]), y[i], groups[i]]); }
    temperature = fitTemperature(...[0, 1, 2].map((i) => asked.map((a) => a[i])));
  } else { folds = leftOut(y, y.map((_, i) => i), k, 20); margin = 1.25; }
  folds.forEach(far); own.sort((a, b) => a - b);
  const apart = () => Math.min(...means.flatMap((a, i) => means.slice(i + 1).map((b) => distance(a, b)))) / 2;
  const threshold = own.length ? margin * own[Math.min(Math.ceil((own.length + 1) * (1 - unknown)), own.length) - 1] : apart();
  return { classes, weight, bias, temperature, calibrated: asked.length > 0, centre, scale, means: Float64Array.from(means.flatMap((m) => Array.from(m, (v, j) => v + middle[j]))), threshold, normalise };
}

// The verdict on some seconds, their shares and novelty averaged.
export function judge(results, classes, { sure = 0.5, limit = 1 } = {}) {
  const mean = (f) => results.reduce((sum, r) => sum + f(r), 0) / results.length, shares = classes.map((_, c) => mean((r) => r.shares[c])), novelty = mean((r) => r.novelty), top = shares.indexOf(Math.max(...shares));
  return { word: novelty > limit ? "unknown" : shares[top] >= sure ? classes[top] : "not sure", shares, novelty };
}

// Band-limited resampling (windowed sinc, as the library's): [T] at one rate to another, Hz.
const divisor = (a, b) => b ? divisor(b, a % b) : a;
export function resample(wave, from, to = 16000) {
  const g = divisor(from, to), a = from / g, b = to / g, width = 32, cut = 0.99 * Math.min(a, b), reach = Math.ceil(width * a / cut), out = new Float32Array(Math.ceil(b * wave.length / a));
  if (a === b) return wave;
  const kernels = Array.from({ length: b }, (_, j) => Float64Array.from({ length: 2 * reach + a }, (_, k) => {
    const t = Math.max(-width, Math.min(width, cut * ((k - reach) / a - j / b)));
    return Math.cos(t * Math.PI / width / 2) ** 2 * (t ? Math.sin(t * Math.PI) / (t * Math.PI) : 1) * cut / a;
  }));
  for (let i = 0; i < out.length; i++) {
    const start = Math.floor(i / b) * a - reach, kernel = kernels[i % b];
    let sum = 0; for (let k = Math.max(0, -start); k < Math.min(kernel.length, wave.length - start); k++) sum += kernel[k] * wave[start + k];
    out[i] = sum;
  }
  return out;
}
