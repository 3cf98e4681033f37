// The self-contained page: sound from the microphone or a file, heard by the student in this page, and classes that are learnt here. Nothing is sent anywhere.

const CHUNK = 0.25, KEEP = 30, LONGEST = 600, SHOWN = 10, RESERVED = ["unknown", "not sure", "lost"];  // seconds in a chunk, kept of the microphone, taken of a file; bars and seconds shown; words that name nothing

const CSS = BASE + `
.cx { font-size: 15px; padding: 8px 4px 24px; } .cx h1 { font-size: 22px; margin: 4px 0; } .cx h2 { font-size: 16px; margin: 0 0 6px; } .cx p { margin: 4px 0 10px; max-width: 70ch; }
.cx button, .cx select, .cx input[type=text] { height: 36px; padding: 4px 12px; } .cx input[type=text] { width: 200px; box-sizing: border-box; } .cx input[type=range].cp-at { width: 180px; min-height: 36px; }
.cp-main { background: #0072B2; border-color: #0072B2; } .cx .cp-main { color: #fff; background: #0072B2; }
.cp-state:empty, .cp-warn:empty { display: none; } .cp-warn { border-left: 4px solid #D55E00; padding-left: 8px; margin: 6px 0; overflow-wrap: anywhere; }
.cp-said { min-height: 62px; margin: 10px 0 6px; overflow-wrap: anywhere; } .cp-word { font-size: 30px; font-weight: 600; } .cp-said small { display: block; opacity: .8; }
.cp-bars { display: grid; grid-template-columns: fit-content(38%) 1fr 3.2em; gap: 4px 8px; align-items: center; margin-bottom: 10px; } .cp-bars span { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.cp-bars span:nth-child(3n) { text-align: right; font-variant-numeric: tabular-nums; } .cp-track { background: var(--soft); height: 18px; border-radius: 3px; overflow: hidden; } .cp-fill { height: 100%; transition: width .15s; }
.cp-grey .cp-fill { background: #888 !important; opacity: .55; }
.cx canvas { width: 100%; display: block; border: 1px solid var(--line); border-radius: 4px; box-sizing: border-box; margin-bottom: 6px; } .cp-mel { height: 150px; } .cp-time { height: 52px; }
.cp-part { border-top: 1px solid var(--line); padding-top: 10px; margin-top: 14px; } .cp-list { list-style: none; margin: 8px 0; padding: 0; } .cp-list li { display: flex; gap: 10px; align-items: center; padding: 2px 0; } .cp-list li span { flex: 1; min-width: 0; overflow-wrap: anywhere; }
.cx details { margin-top: 14px; } .cx dl { display: grid; grid-template-columns: fit-content(40%) 1fr; gap: 2px 12px; margin: 6px 0; } .cx dd { margin: 0; overflow-wrap: anywhere; }
.cp-drop { outline: 3px dashed #0072B2; outline-offset: 4px; } meter { width: 110px; }
@media (prefers-reduced-motion: reduce) { .cp-fill { transition: none; } }
`;

const INSECURE = "This page came over plain http, and browsers give such pages no microphone. Open it as a file, or over https. Sound files work as they are.";
const ABSENT = "This program gives pages no microphone. Open the page in a browser, or choose a sound file.";

const floats = (text) => new Float32Array(fromBase64(text)), toBase64 = (x) => { let raw = ""; for (const b of new Uint8Array(x.buffer, x.byteOffset, x.byteLength)) raw += String.fromCharCode(b); return btoa(raw); };
const plural = (n, word) => `${n} ${word}${n === 1 ? "" : "s"}`;
const pause = () => new Promise((go) => setTimeout(go));

// What Python learnt: a classifier and its shots, or the student's own classes, or nothing yet.
function given({ judging, shots, classes }) {
  if (judging) { const head = { ...judging }; for (const k of ["centre", "scale", "weight", "bias", "means"]) head[k] = floats(judging[k]); return [head, shots]; }
  return [classes ? { classes, own: true } : null, null];
}

class Page {
  constructor(facts, el) {
    this.facts = facts; this.student = new Student(facts, fromBase64(facts.weights)); this.rate = facts.frontend.sample_rate; [this.first, this.shots] = given(facts);
    this.heard = []; this.clips = []; this.state = "off"; this.turn = 0; this.number = 0; this.took = [];
    this.build(el); this.check(); this.remember(); this.learn();
    this.theme(); setInterval(() => { if (this.theme() || this.root.clientWidth !== this.width) { this.width = this.root.clientWidth; this.draw(); } }, 500);
  }
  theme() { const old = this.ink; this.ink = getComputedStyle(this.root).color; return this.ink !== old; }
  tell(error) { this.trouble.textContent = error?.message ?? String(error ?? ""); }

  build(el) {
    const button = (text, act, more = {}) => make("button", { type: "button", onclick: act, ...more }, text);
    this.switch = button("Listen", () => this.on ? this.stop() : this.listen().catch((e) => this.failed(e)), { class: "cp-main" });
    this.line = make("span", { class: "cp-state", role: "status" }); this.meter = make("meter", { min: -70, max: 0, low: -60, high: -3, optimum: -20, value: -70, "aria-label": "level in dB below full scale" });
    this.about = make("div", { class: "cx-note" }); this.warning = make("div", { class: "cp-warn", role: "alert" }); this.doubt = make("div", { class: "cp-warn", role: "alert" }); this.trouble = make("div", { class: "cp-warn", role: "alert" });
    this.file = make("input", { type: "file", accept: "audio/*", hidden: true, onchange: () => { this.open(this.file.files[0]); this.file.value = ""; } });
    this.at = make("input", { type: "range", class: "cp-at", min: 0, value: 0, "aria-label": "second of the file", oninput: () => this.show(+this.at.value) });
    this.player = button("▶ Play", () => this.play()); this.whole = make("span", { class: "cx-note" }); this.fileBar = make("div", { class: "cx-bar", hidden: true }, this.player, this.at, this.whole);
    this.word = make("span", { class: "cp-word", "aria-live": "polite" }); this.detail = make("small"); this.bars = make("div", { class: "cp-bars" });
    this.mel = make("canvas", { class: "cp-mel", role: "img" }); this.time = make("canvas", { class: "cp-time", role: "img" });
    this.names = make("datalist", { id: "names" }); this.name = make("input", { type: "text", list: "names", placeholder: "name, e.g. kitchen", "aria-label": "name of the place" });
    this.length = make("select", { "aria-label": "seconds to record" }, ...[3, 5, 10, 20].map((s) => make("option", { value: s, selected: s === 5 }, `${s} s`)));
    this.record = button("● Record", () => this.begin()); this.keep = button("Keep the last seconds", () => this.take(this.heard.slice(-this.length.value))); this.use = button("Learn this file", () => this.take(this.heard, this.called));
    this.progress = make("progress", { max: 1, value: 0, hidden: true, "aria-label": "recording" }); this.list = make("ul", { class: "cp-list", "aria-label": "what was learnt here" }); this.how = make("p", { class: "cx-note" });
    this.back = make("input", { type: "file", accept: ".json,application/json", hidden: true, onchange: () => { this.load(this.back.files[0]); this.back.value = ""; } }); this.proof = make("dd");
    this.speed = make("dd", {}, "not measured yet"); this.save = button("Save as a file", () => this.download());
    this.root = make("div", { class: "cx" },
      make("h1", {}, this.facts.title), make("p", {}, "Everything happens inside this page. It can send nothing: it forbids itself every connection. What is learnt here stays in this browser."),
      make("div", { class: "cx-bar" }, this.switch, button("Choose a sound file…", () => this.file.click()), this.file, make("span", { class: "cx-note" }, "or drop one here"), this.meter, this.line), this.about, this.doubt, this.warning, this.trouble,
      make("div", { class: "cp-said" }, this.word, this.detail), this.bars, this.fileBar, this.mel, this.time,
      make("section", { class: "cp-part" }, make("h2", {}, "Teach it a place"), this.how,
        make("div", { class: "cx-bar" }, this.name, this.names, this.length, this.record, this.keep, this.use, this.progress), this.list,
        make("div", { class: "cx-bar" }, this.save, button("Load a file", () => this.back.click()), this.back)),
      make("details", {}, make("summary", {}, "What is in this page"), make("dl", {}, ...Object.entries(this.facts.about).flatMap(([k, v]) => [make("dt", {}, k), make("dd", {}, v)]), make("dt", {}, "check"), this.proof, make("dt", {}, "speed here"), this.speed)));
    el.append(make("style", {}, CSS), this.root);
    this.root.addEventListener("dragover", (e) => { e.preventDefault(); this.root.classList.add("cp-drop"); });
    this.root.addEventListener("dragleave", () => this.root.classList.remove("cp-drop"));
    this.root.addEventListener("drop", (e) => { e.preventDefault(); this.root.classList.remove("cp-drop"); if (e.dataTransfer.files[0]) this.open(e.dataTransfer.files[0]); });
    this.set_state("off");
  }

  // A second that both sides can make: does this browser compute what torch computed?
  check() {
    const wave = Float32Array.from({ length: this.rate }, (_, i) => 0.3 * Math.sin(2 * Math.PI * (200 + 1500 * i / this.rate) * i / this.rate)), wanted = floats(this.facts.probe);
    const found = this.student.run(wave).embedding;
    this.apart = Math.max(...found.map((v, i) => Math.abs(v - wanted[i])), found.length === wanted.length ? 0 : Infinity);
    this.proof.textContent = `an embedding computed here differs from Python's by ${this.apart.toExponential(1)} at most`;
    if (!(this.apart < 0.001 * Math.max(1, ...wanted.map(Math.abs)))) this.doubt.textContent = `This browser computes something else than the model did (difference ${short(this.apart)}): do not rely on its answers.`;
  }

  // One second or more to what is known of it.
  hear(wave) {
    const begun = performance.now(), { logmel, embedding, logits } = this.student.run(wave);
    this.took.push((performance.now() - begun) / (wave.length / this.rate)); this.took = this.took.slice(-50);
    const middle = [...this.took].sort((a, b) => a - b)[this.took.length >> 1];
    this.speed.textContent = `${middle.toFixed(0)} ms for a second of sound`;
    return this.answer({ logmel, embedding, logits });
  }
  answer(second) {
    const { head } = this;
    second.result = !head ? null : head.own ? { shares: softmax(second.logits), novelty: 0 } : classify(head, second.embedding);
    return second;
  }
  verdict(seconds) {
    const results = seconds.filter((s) => s?.result).map((s) => s.result);
    return results.length ? judge(results, this.head.classes, this.facts) : null;
  }

  // The microphone.
  get on() { return Boolean(this.context); }
  set_state(state, text = "") {
    this.state = state; this.line.textContent = text; this.switch.textContent = this.on ? "■ Stop" : "Listen"; this.switch.disabled = state === "asking"; this.meter.hidden = !this.on;
    this.record.disabled = this.keep.disabled = this.length.disabled = !this.on; this.use.hidden = this.fileBar.hidden = this.on || !this.sound;
  }
  failed(error) { this.stop(); this.set_state(...(SAID[error.name] || ["failed", `The microphone did not start: ${error.message || error.name}`])); }

  async listen() {
    this.tell("");
    if (!navigator.mediaDevices) return this.set_state(window.isSecureContext ? "absent" : "insecure", window.isSecureContext ? ABSENT : INSECURE);
    const turn = ++this.turn;
    this.set_state("asking", "The browser asks whether it may listen.");
    const opened = await openMicrophone(false, () => turn === this.turn);
    if (!opened) return;
    const { media, context } = opened, [track] = media.getAudioTracks(), rate = context.sampleRate, active = processing(track.getSettings());
    this.media = media; this.context = context; this.sound = null; this.source?.stop();
    track.onended = () => { this.stop(); this.set_state("unplugged", "The microphone went away. Plug it in and press Listen."); };
    this.about.textContent = `${track.label || "microphone"}, ${rate / 1000} kHz`;
    this.warning.textContent = active.length ? `The browser keeps ${active.join(" and ")} on although it was asked not to: it removes what scenes are made of.` : "";
    this.ring = new Int16Array(Math.ceil(3 * rate)); this.end = this.whole_from = this.done = this.skipped = 0; this.heard = [];
    this.tap = new AudioWorkletNode(context, "tap", { numberOfOutputs: 0, channelCountMode: "max", processorOptions: { size: Math.round(CHUNK * rate) } });
    this.tap.port.onmessage = ({ data }) => this.chunk(data); context.createMediaStreamSource(media).connect(this.tap);
    this.set_state("listening", "listening");
  }
  stop() {
    this.turn++; this.media?.getTracks().forEach((t) => { t.onended = null; t.stop(); }); this.context?.close(); this.tap?.port.close();
    this.media = this.context = this.tap = this.recording = null; this.progress.hidden = true; this.about.textContent = ""; this.set_state("off");
  }
  chunk({ at, sound }) {
    if (!this.on) return;
    if (at > this.end) this.whole_from = at;  // a hole before it
    for (let i = 0; i < sound.length; i++) this.ring[(at + i) % this.ring.length] = sound[i];
    this.end = at + sound.length;
    let sum = 0; for (const x of sound) sum += x * x;
    const loud = 10 * Math.log10(sum / sound.length / 2 ** 30 + 1e-12);
    this.meter.value = Math.max(-70, loud); this.meter.title = `${Math.round(loud)} dB`;
    this.due ??= setTimeout(() => { this.due = null; if (this.on) this.second(); });
  }
  // The newest whole second; of those that passed meanwhile it is said that they were skipped. The sound before it is filtered along.
  second() {
    const rate = this.context.sampleRate, now = Math.floor(this.end / rate);
    if (now <= this.done) return;
    this.skipped += now - this.done - 1; this.done = now;
    const from = (now - 1) * rate, before = from - this.whole_from >= rate / 20 ? Math.round(rate / 20) : 0;
    if (from >= this.whole_from) {
      const wave = Float32Array.from({ length: before + rate }, (_, i) => this.ring[(from - before + i) % this.ring.length] / 32768);
      this.heard.push(this.hear(resample(wave, rate, this.rate).slice(Math.round(before * this.rate / rate)).subarray(0, this.rate)));
    } else this.heard.push(null);
    this.heard = this.heard.slice(-300);
    this.set_state("listening", this.skipped ? `listening; ${plural(this.skipped, "second")} skipped, since this machine is slower than the sound` : "listening");
    this.show(this.heard.length - 1);
    if (this.recording) this.recorded();
  }

  // Files.
  async open(file) {
    if (this.on) this.stop();
    const turn = ++this.turn;
    this.source?.stop(); this.tell("");
    try {
      const sound = await this.decode(file), n = Math.floor(sound.length / this.rate), heard = [];
      for (let i = 0; i < n; i++) {
        if (i % 2 === 0) { this.set_state("busy", `listening to ${file.name}: ${i} of ${n} s`); await pause(); }
        if (turn !== this.turn) return;
        heard.push(this.hear(sound.subarray(i * this.rate, (i + 1) * this.rate)));
      }
      this.sound = sound; this.heard = heard; this.called = file.name; this.at.max = n - 1; this.at.value = 0; this.set_state("file"); this.tellWhole(); this.show(0);
    } catch (error) { this.set_state("off"); this.tell(error); }
  }
  async decode(file) {
    let buffer;
    try { buffer = await new OfflineAudioContext(1, 1, this.rate).decodeAudioData(await file.arrayBuffer()); }
    catch { throw new Error(`${file.name} cannot be read as sound. Browsers know wav, mp3 and ogg, and most of them flac and m4a.`); }
    const mono = new Float32Array(Math.min(buffer.length, LONGEST * this.rate));
    for (let c = 0; c < buffer.numberOfChannels; c++) buffer.getChannelData(c).subarray(0, mono.length).forEach((v, i) => { mono[i] += v / buffer.numberOfChannels; });
    if (mono.length < this.rate) throw new Error(`${file.name} has ${(mono.length / this.rate).toFixed(1)} s of sound; a second is the least.`);
    if (buffer.length > mono.length) this.tell(`${file.name} has ${Math.round(buffer.duration)} s: its first ${LONGEST} are taken.`);
    return mono;
  }
  tellWhole() { const said = this.sound && this.verdict(this.heard); this.whole.textContent = this.sound ? `${this.called}, ${this.heard.length} s${said ? `: ${words(said.word)} as a whole` : ""}` : ""; }
  play() {
    this.speaker ??= new AudioContext(); this.speaker.resume(); this.source?.stop();
    const buffer = this.speaker.createBuffer(1, this.sound.length, this.rate); buffer.copyToChannel(this.sound, 0);
    this.source = this.speaker.createBufferSource(); this.source.buffer = buffer; this.source.connect(this.speaker.destination); this.source.start(0, +this.at.value);
  }

  // What is shown of a second: the verdict over the last three, bars, pictures.
  show(i) {
    this.shown = i;
    const said = this.verdict(this.heard.slice(Math.max(0, i - 2), i + 1)), word = said ? words(said.word) : this.heard[i] === null ? "lost" : "";
    if (this.word.textContent !== word) this.word.textContent = word;
    const top = said ? said.shares.indexOf(Math.max(...said.shares)) : 0;
    this.detail.textContent = !said ? (this.head ? "" : "Nothing to tell apart yet: teach it two places below.")
      : said.word === "unknown" ? `nothing like what it knows; if it had to be one: ${words(this.head.classes[top])}` : said.word === "not sure" ? `${Math.round(100 * said.shares[top])} % for ${words(this.head.classes[top])} is too little to be sure` : `${Math.round(100 * said.shares[top])} %`;
    this.bars.classList.toggle("cp-grey", said?.word === "unknown"); this.drawBars(said); this.draw();
  }
  drawBars(said) {
    const classes = this.head?.classes ?? [], all = classes.map((name, i) => [name, said ? said.shares[i] : 0]), shown = all.length > SHOWN ? all.sort((a, b) => b[1] - a[1]).slice(0, SHOWN) : all;
    this.bars.replaceChildren(...shown.flatMap(([name, share]) => [make("span", { title: words(name) }, words(name)),
      make("div", { class: "cp-track" }, make("div", { class: "cp-fill", style: `width: ${100 * share}%; background: ${this.colour(name)}` })), make("span", {}, `${Math.round(100 * share)} %`)]));
  }
  colour(name) { const i = this.head?.classes.indexOf(name) ?? -1; return i < 0 ? "#888" : this.facts.colours[i % this.facts.colours.length]; }

  draw() {
    const last = this.sound ? clamp((this.shown ?? 0) + SHOWN / 2, SHOWN, this.heard.length) : this.heard.length, from = Math.max(0, Math.min(last, this.heard.length) - SHOWN);
    const seconds = this.heard.slice(from, from + SHOWN).filter(Boolean).map((s) => s.logmel), ctx = this.mel.getContext("2d");
    this.mel.setAttribute("aria-label", `log-mel spectrogram of ${plural(seconds.length, "second")}, as the student hears them`);
    if (!seconds.length) { ctx.clearRect(0, 0, this.mel.width, this.mel.height); } else spectrogram(this.mel, this.clip(seconds, from), this.ink);
    this.drawTime();
  }
  clip(seconds, start) {  // log-mels side by side, as 8-bit
    const [{ bands, frames }] = seconds, mel = new Uint8Array(bands * frames * seconds.length), all = Float32Array.from(seconds.flatMap((s) => [...s.data])).sort(), low = all[Math.floor(all.length / 100)], span = Math.max(all[all.length - 1] - low, 1e-6);
    seconds.forEach(({ data }, k) => { for (let b = 0; b < bands; b++) for (let f = 0; f < frames; f++) mel[(b * seconds.length + k) * frames + f] = clamp(255 * (data[b * frames + f] - low) / span, 0, 255); });
    return { mel, shape: [bands, frames * seconds.length], start, seconds: seconds.length * frames * this.facts.frontend.hop_length / this.rate, ticks: this.facts.ticks };
  }
  // A stripe a second, the colour of its class and as high as its share.
  drawTime() {
    const dpr = Math.min(window.devicePixelRatio || 1, 2), w = this.time.clientWidth || 300, h = 52, ctx = this.time.getContext("2d"), n = this.sound ? this.heard.length : Math.max(this.heard.length, 30), wide = w / n, base = h - 16, counts = {};
    this.time.width = w * dpr; this.time.height = h * dpr; ctx.scale(dpr, dpr);
    this.heard.forEach((second, i) => {
      const said = this.verdict(this.heard.slice(Math.max(0, i - 2), i + 1)), name = said?.word ?? "nothing", known = this.head?.classes.includes(name), tall = said ? Math.max(3, base * Math.max(...said.shares)) : 2;
      counts[name] = (counts[name] || 0) + 1; ctx.fillStyle = known ? this.colour(name) : "#999"; ctx.globalAlpha = known ? 1 : 0.45; ctx.fillRect(i * wide, base - tall, Math.max(wide - 0.5, 1), tall);
    });
    ctx.globalAlpha = 1; ctx.fillStyle = this.ink; ctx.font = "11px system-ui, sans-serif"; ctx.fillText("0 s", 2, h - 4); ctx.textAlign = "right"; ctx.fillText(`${n} s`, w - 2, h - 4);
    if (this.sound) ctx.fillRect((this.shown + 0.5) * wide - 1, 0, 2, base);
    this.time.setAttribute("aria-label", "verdicts: " + (Object.entries(counts).map(([k, c]) => `${words(k)} ${c} s`).join(", ") || "none yet"));
  }

  // Learning.
  begin() { this.recording = { from: this.heard.length, seconds: +this.length.value }; this.progress.hidden = false; this.progress.value = 0; }
  recorded() {
    const { from, seconds } = this.recording, n = this.heard.length - from;
    this.progress.value = n / seconds;
    if (n >= seconds) { this.recording = null; this.progress.hidden = true; this.take(this.heard.slice(-seconds)); }
  }
  take(seconds, from = "microphone") {
    const typed = this.name.value.trim(), name = [...this.clips.map((c) => c.name), ...(this.head?.classes ?? [])].find((n) => words(n) === words(typed)) ?? typed, whole = seconds.filter(Boolean).slice(0, KEEP);
    if (!name) { this.name.focus(); return this.tell("Give the place a name first, then learn it."); }
    if (RESERVED.includes(name.toLowerCase())) return this.tell(`No place can be called ${name}: that is said where nothing is recognised.`);
    if (!whole.length) return this.tell("Nothing was heard yet: listen for some seconds, or choose a file.");
    this.tell(seconds.length > KEEP ? `Its first ${KEEP} seconds were learnt.` : ""); this.clips.push({ name, from, time: new Date().toISOString(), x: whole.map((s) => Float32Array.from(s.embedding)) }); this.changed();
  }
  changed() {
    try { localStorage.setItem(this.key, JSON.stringify(this.state_of())); } catch { /* a page without a store of its own: the file remains */ }
    this.learn();
  }
  get key() { return `contrastasc ${this.facts.fingerprint} ${this.facts.bands}`; }
  state_of() { return { model: this.facts.fingerprint, bands: this.facts.bands, clips: this.clips.map((c) => ({ ...c, x: c.x.map(toBase64) })) }; }
  take_in(state) {
    if (state?.model !== this.facts.fingerprint || state.bands !== this.facts.bands || !Array.isArray(state.clips)) throw new Error("This file was learnt with another model, or is something else: take one that this page has saved.");
    const width = floats(this.facts.probe).length, whole = (c) => c.name && c.x.length && c.x.every((x) => x.length === width && x.every(Number.isFinite));
    let clips = [];
    try { clips = state.clips.map((c) => ({ name: String(c.name), from: String(c.from), time: String(c.time), x: c.x.map(floats) })); } catch { clips = [{}]; }
    if (!clips.every(whole)) throw new Error("This file is damaged: take another copy.");
    const known = new Set(this.clips.map((c) => c.time + c.name)); this.clips.push(...clips.filter((c) => !known.has(c.time + c.name)));
  }
  remember() { try { const kept = localStorage.getItem(this.key); if (kept) this.take_in(JSON.parse(kept)); } catch { /* nothing kept, or nothing of this model */ } }
  async load(file) {
    try { this.take_in(JSON.parse(await file.text())); this.tell(""); this.changed(); }
    catch (error) { this.tell(error instanceof SyntaxError ? `${file.name} is not a file that this page has saved.` : error); }
  }
  download() {
    const url = URL.createObjectURL(new Blob([JSON.stringify(this.state_of())], { type: "application/json" }));
    make("a", { href: url, download: "learnt.json" }).click(); setTimeout(() => URL.revokeObjectURL(url), 1000);
  }
  // The classifier that came, until something is learnt here; then class means of what came and what is new.
  learn() {
    const { shots } = this, new_x = this.clips.flatMap((c) => c.x), x = [...(shots?.x ?? []), ...new_x];
    const names = [...(shots?.names ?? []), ...this.clips.flatMap((c) => c.x.map(() => c.name))], groups = [...(shots?.groups ?? []), ...this.clips.flatMap((c, i) => c.x.map(() => `here ${i}`))], places = new Set(names).size;
    this.head = !new_x.length ? this.first : places < 2 ? null : fitMeans(x, names, groups, this.facts.judging ?? {});
    this.heard.forEach((s) => s && this.answer(s)); this.how.textContent = this.explain(places, x.length, new_x.length);
    this.names.replaceChildren(...(this.head?.classes ?? []).map((n) => make("option", { value: n }))); this.save.disabled = !this.clips.length;
    this.list.replaceChildren(...this.clips.map((c, i) => make("li", {}, make("span", {}, `${c.name}: ${plural(c.x.length, "second")}, ${c.from}`), make("button", { type: "button", "aria-label": `forget ${c.name}, ${plural(c.x.length, "second")}`, onclick: () => { this.clips.splice(i, 1); this.changed(); } }, "× Forget"))));
    this.tellWhole(); this.show(this.shown ?? -1);
  }
  explain(places, n, fresh) {
    if (!fresh) return this.first?.own ? `It knows the ${this.first.classes.length} scenes it was trained on. Teach it two places, and it tells those apart instead.` : this.first ? `It came with ${plural(this.first.classes.length, "place")}. Teach it more: name a place, then record it.` : "Name a place, then record it or learn a file. Two places make a start.";
    return places < 2 ? "One place is learnt. Teach it a second, since with one there is nothing to tell apart." : `It tells ${places} places apart by the means of ${plural(n, "second")}, ${fresh} of them learnt here.`;
  }
}

const facts = JSON.parse(document.getElementById("facts").textContent);
if (facts.shots) { const x = fromHalf(fromBase64(facts.shots.x)), d = x.length / facts.shots.names.length; facts.shots.x = facts.shots.names.map((_, i) => x.subarray(i * d, (i + 1) * d)); }
const page = new Page(facts, document.getElementById("page"));
page.root.page = page;
